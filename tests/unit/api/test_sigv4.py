"""The signature check, against botocore's own signers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from borealis.api import sigv4
from borealis.api.errors import ApiError
from borealis.api.sigv4 import HttpRequest

ID, SECRET, REGION = "AKIAEXAMPLE", "secret/with+signs", "us-east-1"
BODY = b"Action=DescribeDBClusters&Version=2014-10-31"


def prepared(request: AWSRequest, body: bytes) -> HttpRequest:
    """The request as a server would read it."""
    ready = request.prepare()
    url = str(ready.url).partition("://")[2]
    host, _, rest = url.partition("/")
    path, _, query = ("/" + rest).partition("?")
    headers = {"Host": host, **{str(k): _text(v) for k, v in ready.headers.items()}}
    return HttpRequest(str(ready.method), path, query, tuple(headers.items()), body)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def signed(
    body: bytes = BODY,
    path: str = "/",
    query: str = "",
    region: str = REGION,
    service: str = "rds",
    secret: str = SECRET,
) -> HttpRequest:
    url = f"http://localhost:4577{path}" + (f"?{query}" if query else "")
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    request = AWSRequest("POST", url, data=body, headers=headers)
    SigV4Auth(Credentials(ID, secret), service, region).add_auth(request)
    return prepared(request, body)


def presigned(expires: int = 60) -> HttpRequest:
    request = AWSRequest("GET", "http://localhost:4577/?Action=GetCallerIdentity&Version=2011-06-15")
    SigV4QueryAuth(Credentials(ID, SECRET), "sts", REGION, expires=expires).add_auth(request)
    return prepared(request, b"")


def check(
    request: HttpRequest, now: datetime | None = None, secret: str | None = SECRET, region: str = REGION
) -> None:
    sigv4.verify(request, sigv4.claimed(request), secret, now or datetime.now(UTC), region)


def code_of(request: HttpRequest, now: datetime | None = None, secret: str | None = SECRET) -> str:
    with pytest.raises(ApiError) as caught:
        check(request, now, secret)
    assert SECRET not in caught.value.message
    return caught.value.code


def but(request: HttpRequest, **headers: str | None) -> HttpRequest:
    """The request with some headers replaced, or removed."""
    changed = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    kept = [(k, v) for k, v in request.headers if k.lower() not in changed]
    added = [(k, v) for k, v in changed.items() if v is not None]
    return HttpRequest(request.method, request.path, request.query, (*kept, *added), request.body)


def test_header_and_presigned() -> None:
    check(signed())
    check(presigned())
    check(signed(service="sts", region="us-east-1"), region="eu-west-1")


@given(
    path=st.text(
        st.characters(codec="ascii", categories=["L", "N"], include_characters="/-._~ %:+"), max_size=20
    ),
    pairs=st.dictionaries(st.text(max_size=8).filter(bool), st.text(max_size=8), max_size=4),
    body=st.binary(max_size=60),
)
def test_whatever_botocore_signs_is_accepted(path: str, pairs: dict[str, str], body: bytes) -> None:
    from urllib.parse import quote, urlencode

    query = urlencode({k: v for k, v in pairs.items() if _encodable(k + v)}, quote_via=quote)
    check(signed(body, "/" + quote(path), query))


def _encodable(text: str) -> bool:
    return text.isprintable() and not any("\ud800" <= c <= "\udfff" for c in text)


def test_missing_and_malformed() -> None:
    good = signed()
    authorization = good.header("authorization")
    assert authorization is not None
    assert code_of(but(good, Authorization=None)) == "MissingAuthenticationToken"
    for bad in (
        "Basic abc",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=,SignedHeaders=,Signature=",
        authorization.replace("aws4_request", "aws3_request"),
        authorization.replace("SignedHeaders", "Headers"),
        authorization.replace("Credential=", "Credential=/"),
    ):
        assert code_of(but(good, Authorization=bad)) == "IncompleteSignature"
    assert code_of(but(good, X_Amz_Date=None)) == "IncompleteSignature"
    assert code_of(but(good, X_Amz_Date="yesterday")) == "IncompleteSignature"
    assert code_of(but(good, X_Amz_Date="20261345T000000Z")) == "IncompleteSignature"


def test_wrong_keys() -> None:
    assert code_of(signed(), secret=None) == "InvalidClientTokenId"
    assert code_of(signed(), secret="another") == "SignatureDoesNotMatch"
    token = AWSRequest("POST", "http://localhost/", data=BODY)
    SigV4Auth(Credentials(ID, SECRET, "a-token"), "rds", REGION).add_auth(token)
    assert code_of(prepared(token, BODY)) == "InvalidClientTokenId"


def test_scope() -> None:
    assert code_of(signed(region="eu-west-1")) == "SignatureDoesNotMatch"
    request = signed()
    authorization = request.header("authorization")
    assert authorization is not None
    today = datetime.now(UTC).strftime("%Y%m%d")
    assert (
        code_of(but(request, Authorization=authorization.replace(today, "20200101")))
        == "SignatureDoesNotMatch"
    )


def test_every_signed_part_is_protected() -> None:
    good = signed()
    changed = [
        HttpRequest("PUT", good.path, good.query, good.headers, good.body),
        HttpRequest(good.method, "/x", good.query, good.headers, good.body),
        HttpRequest(good.method, good.path, "a=b", good.headers, good.body),
        HttpRequest(good.method, good.path, good.query, good.headers, good.body + b"&x=y"),
        but(good, Host="elsewhere"),
        but(good, Host=None),
        but(good, X_Amz_Target="Unsigned.Header"),
    ]
    for request in changed:
        assert code_of(request) == "SignatureDoesNotMatch"
    unsigned_host = (good.header("authorization") or "").replace("host;", "")
    assert code_of(but(good, Authorization=unsigned_host)) == "SignatureDoesNotMatch"


def test_clocks() -> None:
    now = datetime.now(UTC)
    for apart in (timedelta(minutes=14), timedelta(minutes=-14)):
        check(signed(), now + apart)
    for apart in (timedelta(minutes=16), timedelta(minutes=-16)):
        assert code_of(signed(), now + apart) == "SignatureDoesNotMatch"
    check(presigned(3600), now + timedelta(minutes=50))
    assert code_of(presigned(60), now + timedelta(minutes=2)) == "RequestExpired"
    assert code_of(presigned(60), now - timedelta(minutes=16)) == "SignatureDoesNotMatch"
    assert code_of(presigned(700_000)) == "IncompleteSignature"


def test_presigned_is_protected() -> None:
    good = presigned()
    tampered = HttpRequest(good.method, "/", good.query.replace("GetCaller", "GotCaller"), good.headers, b"")
    assert code_of(tampered) == "SignatureDoesNotMatch"
    unsigned = HttpRequest(good.method, "/", good.query.partition("&X-Amz-Signature")[0], good.headers, b"")
    assert code_of(unsigned) == "IncompleteSignature"
