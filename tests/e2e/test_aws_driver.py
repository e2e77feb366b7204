"""AWS's own advanced Python driver finds the topology and follows a failover by itself."""

from __future__ import annotations

import signal
import time

import psycopg
import pytest

from tests.support import processes
from tests.support.region import Cluster, Region

HARMLESS = ("fenced", "engine", "lease", "superseded")

wrapper = pytest.importorskip("aws_advanced_python_wrapper")


def host_pattern(region: Region, cluster: Cluster) -> str:
    """`?.<domain>` as the driver wants it, from an instance's endpoint."""
    found = region.rds.describe_db_instances(DBInstanceIdentifier=cluster.writer)["DBInstances"][0]
    name = found["Endpoint"]["Address"]
    if not name.startswith(cluster.writer):
        pytest.skip("instance names do not resolve on this machine (the hosts file may not be written)")
    return "?" + name.removeprefix(cluster.writer)


def test_driver_fails_over_by_itself(region: Region, cluster: Cluster) -> None:
    from aws_advanced_python_wrapper import AwsWrapperConnection
    from aws_advanced_python_wrapper.errors import FailoverSuccessError

    connection = AwsWrapperConnection.connect(
        psycopg.Connection.connect,
        cluster.conninfo(),
        plugins="failover",
        wrapper_dialect="aurora-pg",
        cluster_instance_host_pattern=host_pattern(region, cluster),
        autocommit=True,
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS driven (n int)")
        cursor.execute("SELECT pg_catalog.aurora_db_instance_identifier()")
        writer = cursor.fetchone()[0]
        assert writer == cluster.writer
        processes.send(cluster.engine_processes(writer), signal.SIGKILL)
        deadline = time.monotonic() + 60
        while True:
            assert time.monotonic() < deadline, "the driver did not fail over"
            try:
                cursor.execute("INSERT INTO driven VALUES (1)")
            except FailoverSuccessError:
                break
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.aurora_db_instance_identifier(), pg_is_in_recovery()")
        name, in_recovery = cursor.fetchone()
        assert name != writer
        assert in_recovery is False
    connection.close()
    cluster.wait_healthy()
