"""AWS's own advanced Python driver finds the topology and follows a failover by itself."""

from __future__ import annotations

import signal
import time
from typing import Any

import psycopg
import pytest

from tests.support import processes
from tests.support.editions import Edition, Target
from tests.support.region import Cluster, Region

HARMLESS = ("fenced", "engine", "lease", "superseded")

wrapper = pytest.importorskip("aws_advanced_python_wrapper")


def over_psycopg(target: Target, **options: Any) -> Any:
    """A connection of the wrapper over psycopg."""
    conninfo = psycopg.conninfo.make_conninfo(
        host=target.host,
        port=target.port,
        user=target.user,
        password=target.password,
        dbname=target.database,
    )
    return wrapper.AwsWrapperConnection.connect(
        psycopg.Connection.connect, conninfo, wrapper_dialect="aurora-pg", **options
    )


def over_connector(target: Target, **options: Any) -> Any:
    """A connection of the wrapper over MySQL Connector/Python."""
    from mysql.connector import Connect

    return wrapper.AwsWrapperConnection.connect(
        Connect,
        host=target.host,
        port=target.port,
        user=target.user,
        password=target.password,
        database=target.database,
        use_pure=True,
        wrapper_dialect="aurora-mysql",
        **options,
    )


DRIVERS = {"postgresql": over_psycopg, "mysql": over_connector}


def host_pattern(region: Region, cluster: Cluster) -> str:
    """`?.<domain>` as the driver wants it, from an instance's endpoint."""
    found = region.rds.describe_db_instances(DBInstanceIdentifier=cluster.writer)["DBInstances"][0]
    name = found["Endpoint"]["Address"]
    if not name.startswith(cluster.writer):
        pytest.skip("instance names do not resolve on this machine (the hosts file may not be written)")
    return "?" + name.removeprefix(cluster.writer)


def ask(connection: Any, statement: str) -> Any:
    """The first value of a statement, in a cursor of its own (a failover makes older ones useless)."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


def test_driver_fails_over_by_itself(region: Region, cluster: Cluster, edition: Edition) -> None:
    from aws_advanced_python_wrapper.errors import FailoverSuccessError

    connection = DRIVERS[edition.name](
        cluster.endpoint,
        plugins="failover",
        connect_timeout=5,
        cluster_instance_host_pattern=host_pattern(region, cluster),
        autocommit=True,
    )
    try:
        writer = ask(connection, edition.who)
        assert writer == cluster.writer
        ask(connection, "CREATE TABLE IF NOT EXISTS driven (n int)")
        processes.send(cluster.engine_processes(writer), signal.SIGKILL)
        deadline = time.monotonic() + 60
        with pytest.raises(FailoverSuccessError):
            while time.monotonic() < deadline:
                ask(connection, "INSERT INTO driven VALUES (1)")
        assert ask(connection, edition.who) != writer
        assert not ask(connection, edition.reader)
        ask(connection, "INSERT INTO driven VALUES (2)")
    finally:
        connection.close()
        # Its monitors would keep the test's process from ending.
        wrapper.release_resources()
    cluster.wait_healthy()
