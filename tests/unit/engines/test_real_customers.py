"""What a customer may and may not do on a real server, and what Aurora's own clients ask of it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from borealis.engines.postgres.scram import scram_verifier

from .real import MASTER, PASSWORD, Workshop
from .served import Served, seeded_feed, visible


@pytest.fixture
async def writer(workshop: Workshop) -> AsyncIterator[Served]:
    async with Served(workshop, "one", seeded_feed(workshop)) as served:
        await served.promote()
        yield served


async def test_the_master_user_rules_its_own_house(writer: Served) -> None:
    with writer.instance.connect() as connection:
        for sql in (
            "CREATE ROLE app_user LOGIN PASSWORD 'another secret'",
            "GRANT rds_superuser TO app_user",
            "GRANT rds_iam TO app_user",
            "REVOKE rds_superuser FROM app_user",
            "GRANT app_user TO master",
            "CREATE DATABASE other OWNER app_user",
            "CREATE SCHEMA s",
            "CREATE EXTENSION pg_trgm",
            "CREATE EXTENSION btree_gin",
            "SELECT count(*) FROM pg_stat_activity",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app_user'",
            "SHOW data_directory",
            "SET session_replication_role = replica",
            "SET log_statement = 'all'",
            "SET synchronous_commit = off",
            "CHECKPOINT",
            "ALTER DATABASE app SET work_mem = '8MB'",
            "CREATE TABLE public.t AS SELECT 1 AS n",
            "CREATE PUBLICATION p FOR TABLE public.t",
        ):
            connection.execute(sql)
    with writer.instance.connect("app_user", "another secret", "other") as connection:
        assert connection.execute("SELECT aurora_db_instance_identifier()").fetchone() == ("one",)
    with writer.instance.connect(dbname="postgres") as connection:
        connection.execute("CREATE TABLE public.mine()")


REFUSALS = (InsufficientPrivilege, psycopg.errors.ReservedName, psycopg.errors.FeatureNotSupported)


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER ROLE master SUPERUSER",
        "CREATE ROLE boss SUPERUSER",
        "CREATE ROLE copier REPLICATION",
        "GRANT rdsadmin TO master",
        "SET ROLE rdsadmin",
        "SET SESSION AUTHORIZATION rdsadmin",
        "ALTER ROLE rdsadmin PASSWORD 'x'",
        "DROP ROLE rdsadmin",
        "GRANT pg_execute_server_program TO master",
        "GRANT pg_read_server_files TO master",
        "GRANT pg_write_server_files TO master WITH ADMIN OPTION",
        "CREATE ROLE thief IN ROLE pg_read_server_files",
        "ALTER SYSTEM SET fsync = off",
        "COPY (SELECT 1) TO PROGRAM 'id'",
        "COPY pg_class TO '/tmp/x'",
        "SELECT pg_read_file('postgresql.conf')",
        "SELECT pg_ls_dir('.')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT * FROM pg_authid",
        "SELECT pg_reload_conf()",
        "SELECT pg_create_physical_replication_slot('x')",
        "SELECT pg_switch_wal()",
        "CREATE EXTENSION file_fdw",
        "CREATE TABLESPACE t LOCATION '/tmp'",
        "CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'libc.so.6', 'getpid'",
        "CREATE OR REPLACE FUNCTION pg_catalog.aurora_version() RETURNS text LANGUAGE sql AS 'SELECT 1'",
        "SET zero_damaged_pages = on",
        "DROP DATABASE rdsadmin",
        "CREATE DATABASE copy TEMPLATE rdsadmin",
    ],
)
def test_what_the_master_user_cannot_do(sql: str, shared_writer: Served) -> None:
    with shared_writer.instance.connect() as connection:
        with pytest.raises(psycopg.Error) as raised:
            connection.execute(sql)
        assert isinstance(raised.value, REFUSALS), raised.value


@pytest.fixture(scope="module")
def shared_writer(images: Workshop) -> object:
    """One writer for the statements that change nothing."""
    workshop = Workshop(images.root, images.version, images.image, images.seed)
    workshop.number = 100
    runner = asyncio.Runner()
    served = Served(workshop, "shared", seeded_feed(workshop))
    runner.run(served.__aenter__())
    runner.run(served.promote())
    runner.run(served.session.close())
    runner.run(served.server.close())
    runner.close()
    yield served
    served.instance.stop(signal.SIGQUIT)
    workshop.stop_all()


def test_who_gets_in(shared_writer: Served) -> None:
    instance = shared_writer.instance
    for user, password, dbname in (
        ("rdsadmin", "", "app"),
        ("rdsadmin", PASSWORD, "rdsadmin"),
        (MASTER, PASSWORD, "rdsadmin"),
        (MASTER, "wrong", "app"),
    ):
        with pytest.raises(psycopg.OperationalError):
            instance.connect(user, password, dbname)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(
            host=instance.settings.listen_address,
            port=instance.settings.port,
            user=MASTER,
            password=PASSWORD,
            replication="true",
        )
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(host=str(instance.settings.socket_dir), port=instance.settings.port, user=MASTER)
    with instance.admin() as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("rdsadmin",)


async def test_a_new_password(writer: Served) -> None:
    await writer.session.set_master_password(MASTER, scram_verifier("quite new"))
    with writer.instance.connect(password="quite new"), pytest.raises(psycopg.OperationalError):
        writer.instance.connect()


async def test_a_commit_that_does_not_wait_is_as_in_stock_postgresql(writer: Served) -> None:
    """Asynchronous commits are written later by the WAL writer, and lost or kept as a whole."""
    with writer.instance.connect() as connection:
        connection.execute("CREATE TABLE t(n int)")
        connection.execute("SET synchronous_commit = off")
        connection.execute("INSERT INTO t SELECT 1")
        (flushed,) = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone() or (0,)
    async with asyncio.timeout(20):
        while await _flushed(writer) < flushed:
            await asyncio.sleep(0.01)


async def _flushed(writer: Served) -> int:
    ((position,),) = await writer.session.run_sql("SELECT pg_current_wal_flush_lsn() - '0/0'")
    return int(position)


# ------------------------------------------------------------------ Aurora's own functions
def topology() -> dict[str, object]:
    """Two members, just heard of: members that were silent for long are not shown to drivers."""
    return {
        "members": [
            {"instance_id": "one", "role": "writer", "replay_lsn": 10, "updated_at": time.time()},
            {"instance_id": "two", "role": "reader", "lag_ms": 12.5, "replay_lsn": 7, "cpu": 3.5,
             "feedback_xmin": (1 << 32) + 5, "updated_at": time.time(), "unknown": [1]},
        ]
    }  # fmt: skip


async def test_functions_on_writer_reader_and_in_new_databases(workshop: Workshop) -> None:
    feed = seeded_feed(workshop)
    async with Served(workshop, "one", feed) as writer, Served(workshop, "two", feed) as reader:
        await writer.promote()
        for served in (writer, reader):
            served.session.write_topology(topology())
        with writer.instance.connect() as connection:
            connection.execute("CREATE DATABASE plain TEMPLATE template0 STRATEGY file_copy")
            connection.execute("CREATE DATABASE usual STRATEGY file_copy")
            connection.execute("CREATE TABLE t AS SELECT 1 AS n")
        writer.ship(2)
        await visible(reader, "SELECT n FROM t", 1)
        for dbname in ("app", "postgres", "plain", "usual"):
            for served, name in ((writer, "one"), (reader, "two")):
                with served.instance.connect(dbname=dbname) as connection:
                    _check_functions(connection, name, workshop.version.version)
        # The reader is promoted before anyone tells the others: at once there is one writer in its view.
        await reader.promote()
        with reader.instance.connect() as connection:
            told = connection.execute("SELECT server_id, session_id FROM aurora_replica_status()").fetchall()
        assert [row[0] for row in told if row[1] == "MASTER_SESSION_ID"] == ["two"]


def _check_functions(connection: psycopg.Connection, name: str, version: str) -> None:
    assert connection.execute("SELECT aurora_version()").fetchone() == (version,)
    assert connection.execute("SELECT aurora_db_instance_identifier()").fetchone() == (name,)
    rows = connection.execute("SELECT * FROM aurora_replica_status()")
    assert rows.description is not None
    assert len(rows.description) == 22
    status = {row[0]: row for row in rows.fetchall()}
    names = [column.name for column in rows.description]
    assert status["one"][1] == "MASTER_SESSION_ID"
    assert len(status["two"][1]) == 36
    two = dict(zip(names, status["two"], strict=True))
    assert (two["replica_lag_in_msec"], two["cpu"]) == (12.5, 3.5)
    assert (two["feedback_xmin"], two["feedback_epoch"]) == (5, 1)
    listed = connection.execute("SELECT setting FROM pg_settings WHERE name = 'rds.extensions'").fetchall()
    assert len(listed) == 1
    assert "aurora_stat_utils" in listed[0][0]
    assert "pg_trgm" in listed[0][0]
    if name == "two":
        return  # As in stock PostgreSQL, not on a reader.
    # The view still changes settings.
    connection.execute("UPDATE pg_settings SET setting = '4321' WHERE name = 'statement_timeout'")
    assert connection.execute("SHOW statement_timeout").fetchone() == ("4321ms",)


async def test_without_a_topology_an_instance_knows_itself(writer: Served) -> None:
    with writer.instance.connect() as connection:
        rows = connection.execute("SELECT server_id, session_id FROM aurora_replica_status()").fetchall()
    assert rows == [("one", "MASTER_SESSION_ID")]


async def test_the_aws_driver_sees_an_aurora_cluster(workshop: Workshop) -> None:
    dialects = pytest.importorskip("aws_advanced_python_wrapper.database_dialect")
    feed = seeded_feed(workshop)
    async with Served(workshop, "one", feed) as writer, Served(workshop, "two", feed) as reader:
        await writer.promote()
        for served in (writer, reader):
            served.session.write_topology(topology())
        dialect = dialects.AuroraPgDialect
        for served, in_recovery in ((writer, False), (reader, True)):
            with served.instance.connect() as connection, connection.cursor() as cursor:
                assert cursor.execute(dialect._AURORA_UTILS_EXIST_QUERY).fetchone() == (True,)
                assert cursor.execute(dialect._HAS_TOPOLOGY_QUERY).fetchone() == (1,)
                assert cursor.execute(dialect._IS_READER_QUERY).fetchone() == (in_recovery,)
                name = served.settings.instance_id
                assert cursor.execute(dialect._HOST_ID_QUERY).fetchone() == (name, name)
                rows = cursor.execute(dialect._TOPOLOGY_QUERY).fetchall()
                assert [(row[0], row[1]) for row in rows] == [("one", True), ("two", False)]
                assert rows[1][3] == 12.5


async def test_the_aws_driver_connects_and_detects_the_dialect(workshop: Workshop) -> None:
    wrapper = pytest.importorskip("aws_advanced_python_wrapper")
    async with Served(workshop, "one", seeded_feed(workshop)) as writer:
        await writer.promote()
        writer.session.write_topology(topology())
        with wrapper.AwsWrapperConnection.connect(
            psycopg.Connection.connect,
            host=writer.settings.listen_address,
            port=writer.settings.port,
            user=MASTER,
            password=PASSWORD,
            dbname="app",
            plugins="",
            cluster_instance_host_pattern="?.example.test",
        ) as connection:
            dialect = connection._plugin_service.database_dialect
            assert type(dialect).__name__ == "AuroraPgDialect"
