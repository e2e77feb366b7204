"""The HTTP side: who may call, limits, failures inside, what is logged."""

from __future__ import annotations

import http.client
import logging
import socket
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from borealis.api import server
from borealis.api.dispatch import ATTEMPTS_MAX
from borealis.api.errors import BindError
from borealis.api.server import ApiServer
from borealis.control.store import Conflict, StoreError
from borealis.region import Credentials as RegionCredentials
from tests.unit.api.conftest import Maker
from tests.unit.api.fake_region import ENGINE, KEY, PASSWORD, REGION, FakeRegion
from tests.unit.api.test_clusters import refused

FORM = "application/x-www-form-urlencoded"


def post(
    region: FakeRegion, body: bytes, content_type: str = FORM, service: str = "rds", **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """Send a signed body; status, answer and headers."""
    request = AWSRequest("POST", region.server.url + "/", data=body, headers={"Content-Type": content_type})
    SigV4Auth(Credentials(KEY.access_key_id, KEY.secret_access_key), service, REGION).add_auth(request)
    connection = http.client.HTTPConnection("127.0.0.1", region.server.port, timeout=20)
    sent = {**{k: str(v) for k, v in request.headers.items()}, **headers}
    try:
        connection.request("POST", "/", body, sent)
        response = connection.getresponse()
        return response.status, response.read(), {k.lower(): v for k, v in response.getheaders()}
    finally:
        connection.close()


def call(region: FakeRegion, **fields: str) -> tuple[int, bytes, dict[str, str]]:
    return post(region, urlencode(fields).encode())


def test_a_browser_gets_a_friendly_word(region: FakeRegion) -> None:
    with urllib.request.urlopen(region.server.url) as answer:
        text = answer.read().decode()
        assert answer.headers["Content-Type"].startswith("text/plain")
    assert "Borealis" in text
    assert KEY.access_key_id not in text


def test_unsigned_and_wrongly_signed(region: FakeRegion) -> None:
    unsigned = http.client.HTTPConnection("127.0.0.1", region.server.port)
    unsigned.request("POST", "/", b"Action=DescribeDBClusters", {"Content-Type": FORM})
    answer = unsigned.getresponse()
    assert answer.status == 403
    assert b"MissingAuthenticationToken" in answer.read()
    unsigned.close()
    refused(region.client(aws_secret_access_key="wrong").describe_db_clusters, "SignatureDoesNotMatch")
    refused(region.client(aws_access_key_id="AKIANOBODY").describe_db_clusters, "InvalidClientTokenId")
    refused(region.client(aws_session_token="t").describe_db_clusters, "InvalidClientTokenId")
    refused(region.client(region_name="eu-west-1").describe_db_clusters, "SignatureDoesNotMatch", "us-east-1")


def test_presigned(region: FakeRegion) -> None:
    url = region.client("sts").generate_presigned_url("get_caller_identity", HttpMethod="GET")
    with urllib.request.urlopen(url) as answer:
        assert b"<Account>123456789012</Account>" in answer.read()


@pytest.mark.parametrize(
    ("service", "operation"),
    [
        ("kms", "list_keys"),
        ("cloudwatch", "list_metrics"),
        ("rds-data", "execute_statement"),
        ("ec2", "describe_vpcs"),
        ("iam", "list_users"),
        ("secretsmanager", "list_secrets"),
    ],
)
def test_unknown_services_are_named_in_their_own_protocol(
    region: FakeRegion, service: str, operation: str
) -> None:
    parameters = {"resourceArn": "arn:aws:rds:x", "secretArn": "arn:aws:secret:x", "sql": "select 1"}
    given = parameters if service == "rds-data" else {}
    with pytest.raises(ClientError) as caught:
        getattr(region.client(service), operation)(**given)
    error = caught.value.response["Error"]
    assert error["Code"] == "UnknownService", error
    signing_name = "monitoring" if service == "cloudwatch" else service
    assert f"'{signing_name}'" in error["Message"]
    assert "rds, sts" in error["Message"]


def test_request_ids(region: FakeRegion) -> None:
    answers = [region.client().describe_db_clusters()["ResponseMetadata"] for _ in range(2)]
    ids = [answer["RequestId"] for answer in answers]
    assert len(set(ids)) == 2
    assert answers[0]["HTTPHeaders"]["x-amzn-requestid"] == ids[0]


def test_malformed_calls(region: FakeRegion) -> None:
    def code(status_and_body: tuple[int, bytes, dict[str, str]]) -> tuple[int, str]:
        status, body, _ = status_and_body
        return status, body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode()

    version = "2014-10-31"
    assert code(call(region, Version=version)) == (400, "MissingAction")
    assert code(call(region, Action="Nonsense", Version=version)) == (400, "InvalidAction")
    assert code(call(region, Action="DescribeDBClusters", Version="1999-01-01")) == (400, "InvalidAction")
    assert code(call(region, Action="DescribeDBClusters"))[0] == 200
    assert code(call(region, Action="DescribeDBClusters", Colour="red")) == (400, "UnknownParameter")
    assert code(call(region, Action="DeleteDBCluster")) == (400, "MissingParameter")
    assert code(call(region, Action="DeleteDBCluster", DBClusterIdentifier="")) == (400, "MissingParameter")
    assert code(post(region, b"{}", "application/json")) == (400, "MalformedQueryString")
    assert code(post(region, b"Action=%ff")) == (400, "MalformedQueryString")
    assert code(post(region, b"\xff\x00")) == (400, "MalformedQueryString")
    assert code(post(region, b"")) == (400, "MissingAction")


def test_large_and_slow_bodies(region: FakeRegion, monkeypatch: pytest.MonkeyPatch) -> None:
    status, body, _ = post(region, b"Action=" + b"x" * (server.BODY_MAX + 1))
    assert (status, b"RequestEntityTooLarge" in body) == (413, True)
    monkeypatch.setattr(server, "BODY_TIMEOUT", 0.05)
    with socket.create_connection(("127.0.0.1", region.server.port)) as slow:
        slow.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nAction=")
        slow.settimeout(20)
        assert b"RequestTimeout" in slow.recv(65536)


def test_a_failure_inside_is_logged_with_its_request(
    region: FakeRegion, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("the detail")

    monkeypatch.setattr(region.store, "clusters", broken)
    with pytest.raises(ClientError) as caught:
        region.client().describe_db_clusters()
    answer = caught.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert answer["Error"]["Code"] == "InternalFailure"
    assert "the detail" not in answer["Error"]["Message"]
    request_id = answer["ResponseMetadata"]["RequestId"]
    [record] = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert request_id in record.getMessage()
    assert record.exc_info is not None


def test_a_store_that_cannot_write(region: FakeRegion, make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(ops: object) -> None:
        raise StoreError("The state store cannot be used: disk full.")

    monkeypatch.setattr(region.store, "commit", full)
    refused(make.cluster, "InternalFailure", "disk full")


def test_an_operation_that_takes_too_long(
    region: FakeRegion, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def for_ever(ops: object) -> None:
        import asyncio

        await asyncio.Event().wait()

    monkeypatch.setattr(server, "OPERATION_TIMEOUT", 0.05)
    monkeypatch.setattr(region.store, "commit", for_ever)
    refused(make.cluster, "ServiceUnavailable", "too long")


def test_changes_at_the_same_time(region: FakeRegion, make: Maker) -> None:
    make.cluster("c1")
    client = make.rds

    def tag(number: int) -> None:
        client.add_tags_to_resource(
            ResourceName=region.store.clusters()[0].arn, Tags=[{"Key": f"k{number}", "Value": ""}]
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(tag, range(16)))
    assert len(make.describe()["TagList"]) == 16
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: _create(client), range(8)))
    assert sorted(outcomes) == ["DBClusterAlreadyExistsFault"] * 7 + ["created"]


def _create(client: Any) -> str:
    try:
        client.create_db_cluster(
            DBClusterIdentifier="same", Engine=ENGINE, MasterUsername="me", MasterUserPassword=PASSWORD
        )
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return "created"


def test_a_record_that_changes_all_the_time(
    region: FakeRegion, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[object] = []

    async def conflict(ops: object) -> None:
        tries.append(ops)
        raise Conflict("it was changed meanwhile")

    monkeypatch.setattr(region.store, "commit", conflict)
    refused(make.cluster, "ServiceUnavailable", "try again")
    assert len(tries) == ATTEMPTS_MAX


def test_the_access_log_tells_no_secrets(
    region: FakeRegion, make: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="borealis"):
        make.cluster("c1")
        refused(make.cluster, "InvalidParameterValue", name="c2", MasterUserPassword="bad/secret")
    lines = [r.getMessage() for r in caplog.records if r.name == "borealis.api.access"]
    assert any("rds:CreateDBCluster 200" in line for line in lines)
    assert any("rds:CreateDBCluster 400 InvalidParameterValue" in line for line in lines)
    everything = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("borealis"))
    for secret in (PASSWORD, "bad/secret", KEY.secret_access_key):
        assert secret not in everything


def test_a_port_in_use_is_named(region: FakeRegion) -> None:
    port = region.server.port

    async def second() -> None:
        other = ApiServer("127.0.0.1", port, region.context, RegionCredentials(keys=(KEY,)))
        await other.start()

    with pytest.raises(BindError, match=f"port {port} is in use"):
        region.call(second)


def test_state_survives_a_restart(tmp_path: Path) -> None:
    with FakeRegion(tmp_path) as first:
        Maker(first.client()).cluster("c1")
        before = first.client().describe_db_clusters()["DBClusters"]
    with FakeRegion(tmp_path) as second:
        assert second.client().describe_db_clusters()["DBClusters"] == before
        assert len(second.client().describe_db_subnet_groups()["DBSubnetGroups"]) == 1
