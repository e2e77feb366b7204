"""Real PostgreSQL fed by our reader server: a reader answers, is promoted, others follow its new timeline."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from borealis.engines.base import Command, EngineTimeout, EngineUnavailable, Feedback, UnsafeSettings

from .memory_feed import MemoryFeed
from .real import Workshop
from .served import Served, seeded_feed, until, visible


async def test_a_reader_follows_the_writer_over_a_timeline_switch(workshop: Workshop) -> None:
    feed = seeded_feed(workshop)
    async with Served(workshop, "one", feed) as writer, Served(workshop, "two", feed) as reader:
        state = await reader.session.probe()
        assert state.up
        assert state.in_recovery
        assert state.timeline == 1
        assert (await reader.session.wait_replayed(feed.vdl)) == feed.vdl
        await writer.promote()
        await writer.session.check_settings()
        position = await writer.session.canary()
        with writer.instance.connect() as connection:
            connection.execute("CREATE TABLE t AS SELECT generate_series(1, 20000) AS n")
        writer.ship(2)
        assert feed.vdl > position
        await visible(reader, "SELECT count(*) FROM t", 20000)
        assert reader.server.connected
        assert (await reader.session.wait_replayed(feed.vdl)) == feed.vdl
        with reader.instance.connect() as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("CREATE TABLE u()")
        # The same walreceiver went on: no error, no new connection.
        text = reader.instance.log_text
        assert text.count("started streaming WAL from primary") == 1
        assert "could not" not in text
        # The reader takes over in turn; a third instance begins from the image and follows both switches.
        await reader.promote()
        with reader.instance.connect() as connection:
            connection.execute("INSERT INTO t SELECT 0")
        reader.ship(3)
        async with Served(workshop, "three", feed) as third:
            await visible(third, "SELECT count(*) FROM t", 20001)
            assert (await third.session.probe()).connections == 0


async def test_old_log_is_read_when_it_is_no_longer_in_memory(workshop: Workshop) -> None:
    feed = seeded_feed(workshop)
    feed.forgotten = feed.end
    async with Served(workshop, "one", feed) as reader:
        assert (await reader.session.wait_replayed(feed.vdl)) == feed.vdl
        assert feed.reads
        reader.progress.clear()
        reader.server.request_progress()
        await until(lambda: bool(reader.progress))
        assert reader.server.progress is not None
        assert reader.server.progress.written == feed.vdl


async def test_replay_ends_before_a_torn_record(workshop: Workshop) -> None:
    """The log may end on a page boundary in the middle of a record: the promoted engine cuts it."""
    feed = seeded_feed(workshop)
    async with Served(workshop, "one", feed) as writer, Served(workshop, "two", feed) as reader:
        await writer.promote()
        with writer.instance.connect() as connection:
            connection.execute("SELECT pg_logical_emit_message(true, 'x', repeat('y', 100000))")
        whole = MemoryFeed(feed.system_id, feed.start)
        whole.log = bytearray(feed.log)
        before = feed.end
        shadow = Served.__new__(Served)
        shadow.workshop, shadow.instance, shadow.feed = workshop, writer.instance, whole
        shadow.ship(2)
        torn = (before // 8192 + 3) * 8192
        feed.append(bytes(whole.log[before - feed.start : torn - feed.start]))
        replayed = await reader.session.wait_replayed(torn)
        assert before <= replayed < torn
        await reader.promote()
        assert feed.timelines[3][0] == replayed
        with reader.instance.connect() as connection:
            connection.execute("CREATE TABLE after_all()")


async def test_feedback_of_a_reader_keeps_rows_on_the_writer(workshop: Workshop) -> None:
    feed = seeded_feed(workshop)
    async with Served(workshop, "one", feed) as writer, Served(workshop, "two", feed) as reader:
        await writer.promote()
        with writer.instance.connect() as connection:
            connection.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
            writer.ship(2)
            await visible(reader, "SELECT count(*) FROM t", 1000)
            with reader.instance.connect() as query:
                query.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                query.execute("SELECT count(*) FROM t")
                await until(lambda: bool(reader.server.feedback.xmin))
                await writer.session.apply_feedback(reader.server.feedback)
                connection.execute("DELETE FROM t")
                assert _remaining(connection, "t") == 1000
                query.execute("COMMIT")
            await writer.session.apply_feedback(Feedback())
            assert _remaining(connection, "t") == 0
        (slot,) = await writer.session.run_sql("SELECT xmin, restart_lsn, active FROM pg_replication_slots")
        assert slot == (None, None, False)


def _remaining(connection: psycopg.Connection, table: str) -> int:
    """Dead row versions that VACUUM may not remove."""
    notices: list[str] = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    connection.execute(f"VACUUM VERBOSE {table}")
    text = " ".join(notices)
    found = [
        int(word)
        for word in text.replace(",", " ").split("are dead but not yet removable")[0].split()
        if word.isdigit()
    ]
    return found[-1]


async def test_settings_that_durability_hangs_on_are_locked_and_checked(workshop: Workshop) -> None:
    feed = seeded_feed(workshop)
    async with Served(workshop, "one", feed) as writer:
        await writer.promote()
        await writer.session.check_settings()
        (writer.instance.data_dir / "postgresql.auto.conf").write_text("full_page_writes = on\nfsync = off\n")
        await writer.session.run_sql("SELECT pg_reload_conf()")
        await writer.session.check_settings()
        await writer.session.run_sql("SELECT 1")
    settings = workshop.settings("loose")
    original = workshop.engine.start_command

    def loose(*args: Any) -> Command:
        command = original(*args)
        return replace(command, argv=(*command.argv, "-c", "fsync=off"))

    workshop.engine.start_command = loose  # type: ignore[method-assign, assignment]
    try:
        async with Served(workshop, "loose", seeded_feed(workshop), settings) as reader:
            with pytest.raises(UnsafeSettings, match="fsync"):
                await reader.session.check_settings()
    finally:
        workshop.engine.start_command = original  # type: ignore[method-assign]


async def test_a_stopped_reader_becomes_an_image(workshop: Workshop) -> None:
    feed = seeded_feed(workshop)
    async with Served(workshop, "one", feed) as writer, Served(workshop, "two", feed) as reader:
        await writer.promote()
        with writer.instance.connect() as connection:
            connection.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        assert await writer.session.checkpoint() <= feed.vdl + (1 << 20)
        writer.ship(2)
        await reader.session.wait_replayed(feed.vdl)
        position = await reader.session.checkpoint()
        reader.instance.stop()
        workshop.engine.clean_image(reader.instance.data_dir)
        assert workshop.engine.image_position(workshop.version, reader.instance.data_dir) == position
        settings = workshop.settings("three")
        third = Served(workshop, "three", feed, settings)
        await third.server.start()
        third.instance = workshop.start(settings, reader.instance.data_dir)
        await third.session.wait_ready(20)
        await visible(third, "SELECT count(*) FROM t", 1000)
        await third.__aexit__()


async def test_a_killed_server_leaves_nothing_on_the_machine(workshop: Workshop) -> None:
    async with Served(workshop, "one", seeded_feed(workshop)) as served:
        pid = served.instance.process.pid
        assert served.session.process_id() == pid
        assert _segments_of(pid)
        workshop.engine.release(served.instance.data_dir)
        assert _segments_of(pid), "that of a running server stays"
        served.instance.process.kill()
        served.instance.process.wait()
        assert served.session.process_id() is None
        await until(lambda: _attached(pid) == 0)
        workshop.engine.release(served.instance.data_dir)
        assert not _segments_of(pid)
        workshop.engine.release(served.instance.data_dir)


def _segments_of(pid: int) -> list[list[str]]:
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return [fields for fields in (line.split() for line in lines) if int(fields[4]) == pid]


def _attached(pid: int) -> int:
    return sum(int(fields[6]) for fields in _segments_of(pid))


async def test_a_query_in_the_way_of_replay_is_ended(workshop: Workshop) -> None:
    """A writer-to-be must not wait for a reader's long transaction."""
    feed = seeded_feed(workshop)
    async with Served(workshop, "one", feed) as writer, Served(workshop, "two", feed) as reader:
        await writer.promote()
        with writer.instance.connect() as connection:
            connection.execute("CREATE TABLE t AS SELECT 1 AS n")
            writer.ship(2)
            await visible(reader, "SELECT n FROM t", 1)
            idle = reader.instance.connect()
            query = reader.instance.connect()
            query.execute("BEGIN")
            query.execute("SELECT * FROM t")
            connection.execute("DROP TABLE t")
            writer.ship(2)
        assert await reader.session.wait_replayed(feed.vdl) == feed.vdl
        with pytest.raises(psycopg.OperationalError):
            query.execute("SELECT 1")
        assert idle.execute("SELECT 1").fetchone() == (1,)
        idle.close()


async def test_an_engine_that_ends_while_starting_is_told(workshop: Workshop) -> None:
    settings = workshop.settings("one")
    data_dir = settings.socket_dir / "data"
    data_dir.mkdir()
    session = workshop.engine.session(workshop.version, data_dir, settings)
    (data_dir / "postmaster.pid").write_text(f"{os.getpid()}\n{data_dir}\n1\n1\n\n\n1 1\nstarting\n")
    waiting = asyncio.create_task(session.wait_ready(30))
    await asyncio.sleep(0)
    (data_dir / "postmaster.pid").unlink()
    with pytest.raises(EngineUnavailable, match="ended while it was starting"):
        await waiting
    with pytest.raises(EngineTimeout, match="not ready"):
        await session.wait_ready(0.01)
    assert not (await session.probe()).up
    with pytest.raises(EngineUnavailable, match="cannot be promoted"):
        await session.request_promote()
    with pytest.raises(EngineUnavailable, match="does not answer"):
        await session.positions()
