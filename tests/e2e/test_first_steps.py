"""What a newcomer does: create, connect, read through the reader endpoint, look around, delete."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.support.processes import wait_until
from tests.support.region import PASSWORD, Cluster, Region

ORDERS = """
CREATE TABLE IF NOT EXISTS orders (
  order_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id bigint NOT NULL,
  status varchar(32) NOT NULL,
  total_amount numeric(12,2) NOT NULL,
  created_at timestamptz DEFAULT now(),
  shipping_address jsonb)
"""


def test_three_instances_in_three_zones(region: Region, cluster: Cluster) -> None:
    found = region.rds.describe_db_instances(
        Filters=[{"Name": "db-cluster-id", "Values": [cluster.identifier]}]
    )
    instances = found["DBInstances"]
    assert {i["AvailabilityZone"] for i in instances} == {"us-east-1a", "us-east-1b", "us-east-1c"}
    assert len({i["Endpoint"]["Address"] for i in instances}) == 3
    assert len(cluster.readers) == 2


def test_orders_through_both_endpoints(cluster: Cluster) -> None:
    cluster.sql(ORDERS)
    cluster.sql(
        "INSERT INTO orders (user_id, status, total_amount, shipping_address) VALUES "
        """(1001, 'PLACED', 199.99, '{"city": "Bengaluru"}'), (1002, 'SHIPPED', 49.50, '{"city":
        "Mumbai"}')
        """
    )
    query = "SELECT total_amount FROM orders WHERE shipping_address->>'city' = 'Bengaluru'"
    wait_until(lambda: cluster.sql(query, cluster.reader_conninfo()), 5, "the row on a reader")
    assert cluster.sql("SELECT pg_is_in_recovery()", cluster.reader_conninfo()) == [(True,)]
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        cluster.sql(
            "INSERT INTO orders (user_id, status, total_amount) VALUES (1, 'x', 1)", cluster.reader_conninfo()
        )


def test_reader_endpoint_balances(cluster: Cluster) -> None:
    question = "SELECT pg_catalog.aurora_db_instance_identifier()"
    answers = {str(cluster.sql(question, cluster.reader_conninfo())[0][0]) for _ in range(12)}
    assert answers == set(cluster.readers)


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
    question = "SELECT pg_catalog.aurora_db_instance_identifier()"
    assert {cluster.sql(question, cluster.conninfo(str(host)))[0][0] for _ in range(4)} == {chosen}
    region.rds.delete_db_cluster_endpoint(DBClusterEndpointIdentifier="reports")


def test_psql_and_the_aws_command_line(region: Region, cluster: Cluster) -> None:
    about = cluster.describe()
    psql = subprocess.run(
        [
            "psql",
            "-h",
            about["Endpoint"],
            "-p",
            str(about["Port"]),
            "-U",
            "postgres",
            "-Atc",
            "SELECT 41 + 1",
        ],
        env={**os.environ, "PGPASSWORD": PASSWORD, "PGDATABASE": "postgres"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert psql.stdout.strip() == "42", psql.stderr
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


def test_wrong_password_and_superuser_are_refused(cluster: Cluster) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        cluster.sql("SELECT 1", cluster.conninfo().replace(PASSWORD, "not-the-password"))
    with pytest.raises(psycopg.Error):
        cluster.sql("ALTER ROLE postgres SUPERUSER")
    with pytest.raises(psycopg.Error):
        cluster.sql("ALTER SYSTEM SET fsync = off")
    assert cluster.sql("SHOW fsync") == [("on",)]


def test_events_tell_the_story(region: Region, cluster: Cluster) -> None:
    found = region.rds.describe_events(
        SourceType="db-cluster", SourceIdentifier=cluster.identifier, Duration=60
    )
    assert any("created" in e["Message"].lower() for e in found["Events"])


def test_master_password_can_be_changed(region: Region, cluster: Cluster) -> None:
    region.rds.modify_db_cluster(
        DBClusterIdentifier=cluster.identifier, MasterUserPassword="Another-Pass-1", ApplyImmediately=True
    )
    changed = cluster.conninfo().replace(PASSWORD, "Another-Pass-1")

    def works() -> bool:
        try:
            return cluster.sql("SELECT 1", changed) == [(1,)]
        except psycopg.OperationalError:
            return False

    wait_until(works, 20, "the new password to work")
    region.rds.modify_db_cluster(
        DBClusterIdentifier=cluster.identifier, MasterUserPassword=PASSWORD, ApplyImmediately=True
    )

    def back() -> bool:
        try:
            return cluster.sql("SELECT 1") == [(1,)]
        except psycopg.OperationalError:
            return False

    wait_until(back, 20, "the old password to work again")
