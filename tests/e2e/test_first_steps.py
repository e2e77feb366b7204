"""What a newcomer does: create, connect, read through the reader endpoint, look around, delete."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.editions import Edition
from tests.support.processes import wait_until
from tests.support.region import PASSWORD, Cluster, Region


def test_three_instances_in_three_zones(region: Region, cluster: Cluster) -> None:
    found = region.rds.describe_db_instances(
        Filters=[{"Name": "db-cluster-id", "Values": [cluster.identifier]}]
    )
    instances = found["DBInstances"]
    assert {i["AvailabilityZone"] for i in instances} == {"us-east-1a", "us-east-1b", "us-east-1c"}
    assert len({i["Endpoint"]["Address"] for i in instances}) == 3
    assert len(cluster.readers) == 2


def test_orders_through_both_endpoints(cluster: Cluster, edition: Edition) -> None:
    for statement in edition.orders:
        cluster.sql(statement)
    reader = cluster.reader_endpoint
    wait_until(lambda: "orders" in {row[0] for row in reader.sql(edition.tables)}, 5, "the table on a reader")
    with reader.connect() as session:
        wait_until(lambda: session.execute(edition.orders_by_city), 5, "the rows on a reader")
        assert session.execute(edition.orders_by_city) == [(1, edition.city)]
        [(order, amount, _)] = session.execute(edition.orders_by_user)
        assert (order, str(amount)) == (1, "199.99")
        assert edition.is_reader(session)
        with pytest.raises(edition.Error) as refused:
            session.execute("INSERT INTO orders (user_id, status, total_amount) VALUES (1, 'x', 1)")
    assert edition.refused_as_read_only(refused.value)
    assert not cluster.is_reader(cluster.endpoint)


def test_reader_endpoint_balances(cluster: Cluster) -> None:
    assert {cluster.who(cluster.reader_endpoint) for _ in range(12)} == set(cluster.readers)


def test_custom_endpoint_reaches_only_its_members(region: Region, cluster: Cluster) -> None:
    chosen = cluster.readers[0]
    region.rds.create_db_cluster_endpoint(
        DBClusterIdentifier=cluster.identifier,
        DBClusterEndpointIdentifier="reports",
        EndpointType="READER",
        StaticMembers=[chosen],
    )

    def ready() -> str | None:
        found = region.rds.describe_db_cluster_endpoints(DBClusterEndpointIdentifier="reports")
        endpoint = found["DBClusterEndpoints"][0]
        return str(endpoint["Endpoint"]) if endpoint["Status"] == "available" else None

    host = wait_until(ready, 15, "the custom endpoint")
    assert {cluster.who(cluster.at(str(host))) for _ in range(4)} == {chosen}
    region.rds.delete_db_cluster_endpoint(DBClusterEndpointIdentifier="reports")


def test_the_engines_own_client(cluster: Cluster, edition: Edition) -> None:
    argv, env = edition.client(cluster.endpoint, "SELECT 41 + 1")
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "42", done.stderr


def test_the_aws_command_line(region: Region, cluster: Cluster) -> None:
    env = region.environment()
    # Version 1 of the AWS CLI has fixed endpoint names for rds in us-east-1, which beat AWS_ENDPOINT_URL.
    aws = [str(Path(sys.executable).parent / "aws"), "--endpoint-url", env["AWS_ENDPOINT_URL"]]
    listed = subprocess.run(
        [*aws, "rds", "describe-db-clusters", "--output", "json"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert listed.returncode == 0, listed.stderr
    assert cluster.identifier in [c["DBClusterIdentifier"] for c in json.loads(listed.stdout)["DBClusters"]]


def test_status_shows_every_part(region: Region, cluster: Cluster) -> None:
    about = cluster.status()
    assert len(about["volume"]["segments"]) == 6
    assert {s["az"] for s in about["volume"]["segments"]} == {"us-east-1a", "us-east-1b", "us-east-1c"}
    shown = region.borealis("status").stdout
    for name in (cluster.identifier, *cluster.members(), "n1", "n6", "us-east-1c"):
        assert name in shown


def test_wrong_password_is_refused(cluster: Cluster, edition: Edition) -> None:
    with pytest.raises(edition.Error) as refused:
        cluster.endpoint.but(password="not-the-password").sql("SELECT 1")
    assert edition.wrong_password(refused.value)


def test_the_master_user_cannot_get_around_the_promises(cluster: Cluster, edition: Edition) -> None:
    for statement in edition.forbidden:
        with pytest.raises(edition.Error):
            cluster.sql(statement)
    query, answer = edition.durable
    assert cluster.sql(query) == [answer]


def test_events_tell_the_story(region: Region, cluster: Cluster) -> None:
    found = region.rds.describe_events(
        SourceType="db-cluster", SourceIdentifier=cluster.identifier, Duration=60
    )
    assert any("created" in e["Message"].lower() for e in found["Events"])


def test_master_password_can_be_changed(region: Region, cluster: Cluster, edition: Edition) -> None:
    def works(password: str) -> bool:
        try:
            return cluster.endpoint.but(password=password).sql("SELECT 1") == [(1,)]
        except edition.Error:
            return False

    for password in ("Another-Pass-1", PASSWORD):
        region.rds.modify_db_cluster(
            DBClusterIdentifier=cluster.identifier, MasterUserPassword=password, ApplyImmediately=True
        )
        wait_until(lambda password=password: works(password), 20, "the new password to work")
