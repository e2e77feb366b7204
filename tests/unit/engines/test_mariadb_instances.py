"""Real MariaDB fed by our reader server: a reader answers, is promoted, others follow its new timeline."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from typing import Any

import pymysql
import pytest

from borealis.engines.base import Command, EngineError, EngineTimeout, EngineUnavailable, UnsafeSettings
from borealis.engines.mariadb.passwords import native_verifier
from borealis.engines.mariadb.plugin import plugin_settings
from borealis.engines.mariadb.settings import PID_FILE

from .mariadb_real import MASTER, PASSWORD, Served, Workshop, seeded_feed, visible
from .served import until


async def test_a_reader_follows_the_writer_over_timeline_switches(mariadb: Workshop) -> None:
    feed = seeded_feed(mariadb)
    async with Served(mariadb, "one", feed) as writer, Served(mariadb, "two", feed) as reader:
        state = await reader.session.probe()
        assert state.up
        assert state.in_recovery
        assert (await reader.session.wait_replayed(feed.vdl)) == feed.vdl
        await writer.promote()
        await writer.session.check_settings()
        position = await writer.session.canary()
        with writer.instance.connect() as customer:
            customer.ask("CREATE TABLE t AS SELECT seq AS n FROM seq_1_to_20000")
        writer.ship()
        assert feed.vdl > position
        assert (await writer.session.positions()).replay_lsn == feed.vdl
        await visible(reader, "SELECT COUNT(*) FROM t", 20000)
        assert reader.server.connected
        assert (await reader.session.wait_replayed(feed.vdl)) == feed.vdl
        state = await reader.session.probe()
        assert (state.receive_lsn, state.replay_lsn, state.replay_paused) == (feed.vdl, feed.vdl, False)
        with (
            reader.instance.connect() as customer,
            pytest.raises(pymysql.OperationalError, match="read-only"),
        ):
            customer.ask("CREATE TABLE u (n INT)")
        # The reader takes over in turn; a third instance begins from the image and follows both switches.
        await reader.promote()
        with reader.instance.connect() as customer:
            customer.ask("INSERT INTO t VALUES (0)")
            reader.ship()
            async with Served(mariadb, "three", feed) as third:
                await visible(third, "SELECT COUNT(*) FROM t", 20001)
                assert (await third.session.probe()).connections == 0
            assert (await reader.session.probe()).connections == 1
        assert "[ERROR]" not in reader.instance.log_text


async def test_log_files_that_end_are_followed(mariadb: Workshop) -> None:
    feed = seeded_feed(mariadb)
    async with Served(mariadb, "one", feed) as writer, Served(mariadb, "two", feed) as reader:
        await writer.promote()
        with writer.instance.connect() as customer:
            customer.ask("CREATE TABLE t (n INT)", "FLUSH BINARY LOGS", "INSERT INTO t VALUES (1), (2)")
        writer.ship()
        await visible(reader, "SELECT COUNT(*) FROM t", 2)
        end = await writer.session.canary()
        writer.ship()
        assert feed.end == end
        data_dir = writer.instance.data_dir
        assert mariadb.engine.log_read(data_dir, 2, feed.end - 9, feed.end) == feed.buffered(end - 9, end)
        assert mariadb.engine.log_path(data_dir, 2, end - 1).name == "binlog.000002"
        with pytest.raises(EngineError, match="begins later"):
            mariadb.engine.log_path(data_dir, 2, feed.start)


async def test_what_a_reader_logs_by_itself_is_no_part_of_the_volume(mariadb: Workshop) -> None:
    """FLUSH writes to a reader's own log, with transaction ids that others have too."""
    feed = seeded_feed(mariadb)
    async with Served(mariadb, "one", feed) as writer, Served(mariadb, "two", feed) as reader:
        await writer.promote()
        with writer.instance.connect() as customer:
            customer.ask("CREATE TABLE t (n INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
            writer.ship()
            await visible(reader, "SELECT COUNT(*) FROM t", 1)
            with reader.instance.connect() as other:
                other.ask("FLUSH TABLES", "FLUSH LOGS", "FLUSH TABLES")
                assert other.ask("SELECT @@gtid_binlog_pos") != [("",)]
            customer.ask("INSERT INTO t VALUES (2)")
            writer.ship()
        await reader.promote()
        with reader.instance.connect() as customer:
            customer.ask("INSERT INTO t VALUES (3)")
        reader.ship()
        async with Served(mariadb, "three", feed) as third:
            await visible(third, "SELECT SUM(n) FROM t", 6)
            assert await third.session.wait_replayed(feed.vdl) == feed.vdl
            ((applied,),) = await third.session.run_sql("SELECT @@gtid_slave_pos")
            assert applied.startswith(f"0-{reader.settings.server_number}-")


async def test_a_reader_keeps_its_place_when_its_own_log_is_reset(mariadb: Workshop) -> None:
    feed = seeded_feed(mariadb)
    async with Served(mariadb, "one", feed) as writer, Served(mariadb, "two", feed) as reader:
        await writer.promote()
        with writer.instance.connect() as customer:
            customer.ask("CREATE TABLE t (n INT)", "INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)")
        writer.ship()
        await visible(reader, "SELECT COUNT(*) FROM t", 2)
        with reader.instance.connect() as customer:
            customer.ask("RESET MASTER")
            with pytest.raises(pymysql.OperationalError, match="running slave"):
                customer.ask("RESET SLAVE")
        await reader.promote()
        with reader.instance.connect() as customer:
            customer.ask("INSERT INTO t VALUES (3)")
        before = feed.end
        reader.ship()
        assert feed.end > before
        async with Served(mariadb, "three", feed) as third:
            await visible(third, "SELECT SUM(n) FROM t", 6)


async def test_a_reader_finds_its_server_again(mariadb: Workshop) -> None:
    feed = seeded_feed(mariadb)
    async with Served(mariadb, "one", feed) as writer, Served(mariadb, "two", feed) as reader:
        await writer.promote()
        await reader.server.close()
        with pytest.raises(EngineUnavailable, match="reader server"):
            await reader.session.follow()
        await reader.server.start()
        await reader.session.follow()
        await until(lambda: reader.server.connected)
        await reader.session.follow()
        with writer.instance.connect() as customer:
            customer.ask("CREATE TABLE t (n INT)", "INSERT INTO t VALUES (7)")
        writer.ship()
        await visible(reader, "SELECT n FROM t", 7)


async def test_customers_in_the_way_of_replay_are_ended(mariadb: Workshop) -> None:
    """A writer-to-be must not wait for a reader's long transaction, nor for a lock of a customer."""
    feed = seeded_feed(mariadb)
    async with Served(mariadb, "one", feed) as writer, Served(mariadb, "two", feed) as reader:
        await writer.promote()
        with writer.instance.connect() as customer, reader.instance.connect() as query:
            customer.ask("CREATE TABLE t AS SELECT 1 AS n", "CREATE TABLE u AS SELECT 1 AS n")
            writer.ship()
            await visible(reader, "SELECT n FROM u", 1)
            query.ask("BEGIN", "SELECT * FROM t")
            customer.ask("DROP TABLE t")
            writer.ship()
            assert await reader.session.wait_replayed(feed.vdl) == feed.vdl
            with pytest.raises(pymysql.OperationalError):
                query.ask("SELECT 1")
            with reader.instance.connect() as locker:
                locker.ask("FLUSH TABLES WITH READ LOCK")
                customer.ask("INSERT INTO u VALUES (2)")
                writer.ship()
                assert await reader.session.wait_replayed(feed.vdl) == feed.vdl
        with pytest.raises(EngineTimeout, match="did not replay"):
            await reader.session.wait_replayed(feed.vdl + 1, 0.2)


async def test_a_backups_lock_does_not_hold_up_a_promotion(mariadb: Workshop) -> None:
    async with Served(mariadb, "one", seeded_feed(mariadb)) as served:
        with served.instance.connect() as backup:
            backup.ask("FLUSH TABLES WITH READ LOCK")
            await served.promote()
            await served.session.canary()
            with pytest.raises(pymysql.OperationalError):
                backup.ask("SELECT 1")
        async with Served(mariadb, "two", seeded_feed(mariadb)) as other:
            with other.instance.connect() as idle:
                await other.promote()
                assert idle.ask("SELECT 1") == [(1,)]


async def test_settings_that_durability_hangs_on_are_checked(mariadb: Workshop) -> None:
    settings = mariadb.settings("loose")
    original = mariadb.engine.start_command

    def loose(*args: Any) -> Command:
        command = original(*args)
        return replace(command, argv=(*command.argv, "--sync-binlog=0"))

    mariadb.engine.start_command = loose  # type: ignore[method-assign, assignment]
    try:
        async with Served(mariadb, "loose", seeded_feed(mariadb), settings) as reader:
            with pytest.raises(UnsafeSettings, match="sync_binlog is '0', must be '1'"):
                await reader.session.check_settings()
    finally:
        mariadb.engine.start_command = original  # type: ignore[method-assign]


async def test_a_users_parameters_arrive(mariadb: Workshop) -> None:
    parameters = {"long_query_time": "7", "sql-mode": "ANSI", "aurora_parallel_query": "ON"}
    settings = mariadb.settings("one", parameters=parameters)
    async with Served(mariadb, "one", seeded_feed(mariadb), settings) as served:
        with served.instance.connect() as customer:
            assert customer.ask("SELECT @@long_query_time, @@sql_mode LIKE '%ANSI%'") == [(7, 1)]
            assert customer.ask("SELECT @@max_connections, @@character_set_server") == [(50, "utf8mb4")]
            if plugin_settings("one", "10.11"):
                assert customer.ask("SELECT @@aurora_server_id, @@innodb_read_only") == [("one", 1)]
        assert "aurora_parallel_query" in served.instance.log_text


async def test_a_stopped_reader_becomes_an_image(mariadb: Workshop) -> None:
    feed = seeded_feed(mariadb)
    async with Served(mariadb, "one", feed) as writer, Served(mariadb, "two", feed) as reader:
        await writer.promote()
        with writer.instance.connect() as customer:
            customer.ask("CREATE TABLE t AS SELECT seq AS n FROM seq_1_to_1000")
            writer.ship()
            await reader.session.wait_replayed(feed.vdl)
            position = await reader.session.checkpoint()
            assert position == feed.vdl
            # What is applied behind the noted place is no harm: the engine itself knows how far it is.
            customer.ask("INSERT INTO t VALUES (0)")
            writer.ship()
            await reader.session.wait_replayed(feed.vdl)
            data_dir = reader.instance.data_dir
            with pytest.raises(EngineError, match="in use"):
                mariadb.engine.clean_image(data_dir)
            reader.instance.stop()
            mariadb.engine.clean_image(data_dir)
            assert mariadb.engine.image_position(mariadb.version, data_dir) == position
            left = {entry.name for entry in data_dir.iterdir()}
            assert not {name for name in left if name.startswith(("binlog", "relay", "master", "admin"))}
            customer.ask("INSERT INTO t VALUES (0)")
        writer.ship()
        feed.forgotten = position
        async with Served(mariadb, "three", feed, image=data_dir) as third:
            await visible(third, "SELECT COUNT(*) FROM t", 1002)
            assert all(start >= position for start, _ in feed.reads)
            await third.promote()
            await third.session.canary()


async def test_a_killed_engine_is_no_image(mariadb: Workshop) -> None:
    async with Served(mariadb, "one", seeded_feed(mariadb)) as served:
        assert served.session.process_id() == served.instance.process.pid
        served.instance.stop(signal.SIGKILL)
        assert served.session.process_id() is None
        assert not (await served.session.probe()).up
        with pytest.raises(EngineError, match="in use by a server"):
            mariadb.engine.clean_image(served.instance.data_dir)


async def test_the_master_users_password_is_changed_everywhere(mariadb: Workshop) -> None:
    feed = seeded_feed(mariadb)
    async with Served(mariadb, "one", feed) as writer, Served(mariadb, "two", feed) as reader:
        await writer.promote()
        with pytest.raises(EngineError, match="hash"):
            await writer.session.set_master_password(MASTER, "plain")
        with pytest.raises(EngineError, match="no account"):
            await writer.session.set_master_password("nobody_here", native_verifier("x"))
        await writer.session.set_master_password(MASTER, native_verifier("another one"))
        writer.ship()
        await reader.session.wait_replayed(feed.vdl)
        for served in (writer, reader):
            with served.instance.connect(password="another one") as customer:
                assert customer.ask("SELECT 1") == [(1,)]
            with pytest.raises(pymysql.OperationalError), served.instance.connect(password=PASSWORD):
                pass


async def test_events_run_on_the_writer_and_survive_it(mariadb: Workshop) -> None:
    feed = seeded_feed(mariadb)
    kept = "SELECT EVENT_NAME, SQL_MODE, TIME_ZONE, DEFINER, CHARACTER_SET_CLIENT, STARTS, INTERVAL_VALUE"
    kept += " FROM information_schema.EVENTS ORDER BY 1"
    often = "ON SCHEDULE EVERY 1 SECOND STARTS '2020-01-01 00:00:00'"
    async with Served(mariadb, "one", feed) as writer, Served(mariadb, "two", feed) as reader:
        await writer.promote()
        with writer.instance.connect() as customer:
            customer.ask(
                "SET sql_mode = 'ANSI', time_zone = '+05:30'",
                "CREATE TABLE runs (name VARCHAR(9), server INT)",
                f"CREATE EVENT on_one {often} DO INSERT INTO runs VALUES ('on', @@server_id)",
                f"CREATE EVENT off_one {often} DISABLE DO INSERT INTO runs VALUES ('off', @@server_id)",
                f"CREATE EVENT other_off {often} DO INSERT INTO runs VALUES ('other', @@server_id)",
                "ALTER EVENT other_off DISABLE",
            )
            statuses = "SELECT EVENT_NAME, STATUS FROM information_schema.EVENTS ORDER BY 1"
            before = [("off_one", "DISABLED"), ("on_one", "ENABLED"), ("other_off", "DISABLED")]
            assert customer.ask(statuses) == before
            made = customer.ask(kept)
            listed = "SELECT COUNT(*) FROM mysql.borealis_disabled_events"
            await until(lambda: customer.ask("SELECT COUNT(*) > 0 FROM runs WHERE name = 'on'") == [(1,)])
            async with asyncio.timeout(20):
                while await writer.session.run_sql(listed) != [(2,)]:
                    assert (await writer.session.probe()).up
            writer.ship()
            await reader.session.wait_replayed(feed.vdl)
        writer.instance.stop(signal.SIGKILL)
        with reader.instance.connect() as customer:
            assert {status for _, status in customer.ask(statuses)} == {"SLAVESIDE_DISABLED"}
            await reader.promote()
            assert customer.ask(statuses) == before
            ran = f"SELECT COUNT(*) > 0 FROM runs WHERE server = {reader.settings.server_number}"
            await until(lambda: customer.ask(ran) == [(1,)])
            names = customer.ask("SELECT DISTINCT name FROM runs WHERE name <> 'other'")
            assert names == [("on",)]
            assert customer.ask("SET time_zone = '+05:30'", kept) == made


async def test_an_engine_that_ends_while_starting_is_told(mariadb: Workshop) -> None:
    settings = mariadb.settings("one")
    data_dir = settings.socket_dir / "data"
    data_dir.mkdir()
    session = mariadb.engine.session(mariadb.version, data_dir, settings)
    (data_dir / PID_FILE).write_text(f"{os.getpid()}\n")
    waiting = asyncio.create_task(session.wait_ready(30))
    await asyncio.sleep(0)
    (data_dir / PID_FILE).unlink()
    with pytest.raises(EngineUnavailable, match="ended while it was starting"):
        await waiting
    with pytest.raises(EngineTimeout, match="not ready"):
        await session.wait_ready(0.01)
    assert not (await session.probe()).up
    with pytest.raises(EngineUnavailable, match="no administrator"):
        await session.request_promote()
    await session.close()
