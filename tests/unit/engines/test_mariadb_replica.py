"""Stock MariaDB replicas behind the reader server: everything that a primary logs arrives, however the log
was cut, and nothing above the durable point does."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from borealis.engines.base import EngineError, InstanceSettings, ReaderProgress
from borealis.engines.mariadb.dumpserver import MariadbReaderServer
from borealis.engines.mariadb.gtid import Gtid, parse_state
from borealis.engines.mariadb.history import ATTACHED_NAME, LogPoint
from borealis.engines.mariadb.positions import positions_for

from .mariadb_servers import Copier, Server, Servers, feed_of, history_of, server_version
from .memory_feed import MemoryFeed
from .real import short_directory
from .served import until

MIB = 1 << 20
Serve = Callable[[MemoryFeed], Awaitable["Upstream"]]


class Upstream:
    """A reader server and what it has told."""

    def __init__(self, feed: MemoryFeed, directory: Path) -> None:
        version = server_version()
        assert version is not None
        self.progress: list[ReaderProgress] = []
        self.directory = directory
        settings = InstanceSettings(
            "one", "c", "127.0.0.1", 3306, directory, directory, directory / "shm", None, 1 << 30, 2
        )
        self.server = MariadbReaderServer(version, settings, feed, None, self.progress.append)
        self.positions = positions_for(directory)

    @property
    def address(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.directory / "upstream.json").read_text())
        return told

    def attached(self, lsn: int, gtid: Gtid | None) -> None:
        (self.directory / ATTACHED_NAME).write_text(LogPoint(lsn, gtid).to_text())


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    if server_version() is None:
        pytest.skip("no MariaDB is installed on this machine")
    root = short_directory()
    try:
        Servers(root).make_template()
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def servers(template: Path) -> Iterator[Servers]:
    made = Servers(template)
    made.number = sum(1 for _ in template.iterdir()) + 10
    try:
        yield made
    finally:
        made.stop_all()


@pytest.fixture
async def serve(servers: Servers) -> AsyncIterator[Serve]:
    running: list[Upstream] = []

    async def start(feed: MemoryFeed) -> Upstream:
        upstream = Upstream(feed, servers.upstream_dir())
        await upstream.server.start()
        running.append(upstream)
        return upstream

    try:
        yield start
    finally:
        for upstream in running:
            await upstream.server.close()
            shutil.rmtree(upstream.directory)


async def caught_up(replica: Server, gtid: Gtid | None) -> None:
    await asyncio.to_thread(replica.has_applied, gtid)


def checksums(server: Server) -> dict[str, Any]:
    """What all tables of the customers hold."""
    tables = server.run(
        "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type IN "
        "('BASE TABLE', 'SEQUENCE') AND table_schema NOT IN "
        "('mysql', 'sys', 'information_schema', 'performance_schema') ORDER BY 1, 2"
    )
    return {f"{s}.{t}": server.run(f"CHECKSUM TABLE `{s}`.`{t}`")[0][1] for s, t in tables}


WORK = {
    "ddl": (
        "CREATE TABLE t1 (a INT PRIMARY KEY AUTO_INCREMENT, b VARCHAR(50)) ",
        "INSERT INTO t1 (b) VALUES ('one'), ('two')",
        "ALTER TABLE t1 ADD COLUMN c INT DEFAULT 7, ADD INDEX (b)",
        "RENAME TABLE t1 TO t2",
        "CREATE OR REPLACE VIEW v AS SELECT b FROM t2",
        "CREATE TABLE copied AS SELECT * FROM t2",
        "CREATE TABLE gone (a INT)",
        "DROP TABLE gone",
        "TRUNCATE TABLE copied",
    ),
    "savepoints": (
        "CREATE TABLE s (a INT PRIMARY KEY)",
        "BEGIN",
        "INSERT INTO s VALUES (1)",
        "SAVEPOINT one",
        "INSERT INTO s VALUES (2)",
        "ROLLBACK TO one",
        "INSERT INTO s VALUES (3)",
        "COMMIT",
        "BEGIN",
        "INSERT INTO s VALUES (4)",
        "ROLLBACK",
    ),
    "sequences": (
        "CREATE SEQUENCE q START WITH 10 CACHE 5",
        "SELECT NEXT VALUE FOR q",
        "CREATE TABLE qt (a BIGINT DEFAULT (NEXT VALUE FOR q), b INT)",
        "INSERT INTO qt (b) VALUES (1), (2), (3), (4), (5), (6), (7)",
    ),
    "temporary": (
        "CREATE TABLE kept (a INT PRIMARY KEY)",
        "CREATE TEMPORARY TABLE tmp (a INT)",
        "INSERT INTO tmp VALUES (1), (2), (3)",
        "INSERT INTO kept SELECT a FROM tmp",
        "DROP TEMPORARY TABLE tmp",
    ),
    "xa": (
        "CREATE TABLE x (a INT PRIMARY KEY)",
        "XA START 'one'",
        "INSERT INTO x VALUES (1)",
        "XA END 'one'",
        "XA PREPARE 'one'",
        "XA COMMIT 'one'",
        "XA START 'two'",
        "INSERT INTO x VALUES (2)",
        "XA END 'two'",
        "XA PREPARE 'two'",
        "XA ROLLBACK 'two'",
        "XA START 'three'",
        "INSERT INTO x VALUES (3)",
        "XA END 'three'",
        "XA COMMIT 'three' ONE PHASE",
    ),
    "programs": (
        "CREATE TABLE log (n INT PRIMARY KEY AUTO_INCREMENT, what TEXT)",
        "CREATE TABLE watched (a INT PRIMARY KEY)",
        "CREATE TRIGGER w AFTER INSERT ON watched FOR EACH ROW INSERT INTO log (what) VALUES (NEW.a)",
        "INSERT INTO watched VALUES (1), (2)",
        "CREATE PROCEDURE p(n INT) BEGIN WHILE n > 0 DO INSERT INTO watched VALUES (100 + n); "
        "SET n = n - 1; END WHILE; END",
        "CALL p(5)",
        "CREATE FUNCTION f(n INT) RETURNS INT DETERMINISTIC RETURN n * 2",
        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO DELETE FROM log",
    ),
    "users": (
        "CREATE USER anna@'%' IDENTIFIED BY 'a secret'",
        "GRANT SELECT, INSERT ON app.* TO anna@'%'",
        "CREATE ROLE readers",
        "GRANT SELECT ON app.* TO readers",
        "GRANT readers TO anna@'%'",
        "SET PASSWORD FOR anna@'%' = PASSWORD('another')",
    ),
}


async def test_everything_arrives_however_the_log_is_cut(servers: Servers, serve: Serve) -> None:
    primary = servers.make().start()
    replica = servers.make("--read-only=1").start()
    feed, copier = feed_of(primary, seed=11)
    upstream = await serve(feed)
    await asyncio.to_thread(replica.follow, upstream.address)
    primary.run("CREATE DATABASE app CHARACTER SET utf8mb4")
    for number, statements in enumerate(WORK.values()):
        primary.run(*statements, database="app")
        if number % 2:
            primary.run("FLUSH BINARY LOGS")
        if number == 3:
            primary.stop(signal.SIGTERM)  # Its file ends with a stop event.
            primary.start()
        await copier.serve()
    last = await copier.serve()
    await caught_up(replica, last)
    assert checksums(replica) == checksums(primary)
    for sql in (
        "SHOW GRANTS FOR anna@'%'",
        "SHOW CREATE USER anna@'%'",
        "SELECT routine_name, routine_definition FROM information_schema.routines "
        "WHERE routine_schema = 'app' ORDER BY 1",
        "SELECT trigger_name, action_statement FROM information_schema.triggers WHERE trigger_schema = 'app'",
        "SELECT event_name, event_definition FROM information_schema.events",
    ):
        assert replica.run(sql) == primary.run(sql)
    assert replica.run("SELECT status FROM information_schema.events") == [("SLAVESIDE_DISABLED",)]
    assert upstream.positions.lsn_of(str(replica.value("SELECT @@gtid_slave_pos"))) == feed.vdl
    assert upstream.positions.gtid_at(feed.vdl) == last


async def test_large_rows_and_large_transactions(servers: Servers, serve: Serve) -> None:
    primary = servers.make("--max-binlog-size=16M").start()
    replica = servers.make("--read-only=1").start()
    feed, copier = feed_of(primary)
    upstream = await serve(feed)
    await asyncio.to_thread(replica.follow, upstream.address)
    primary.run("CREATE DATABASE app", "CREATE TABLE app.big (a INT PRIMARY KEY, b LONGBLOB)")
    block = random.Random(2).randbytes(1 << 16)
    with primary.connect("app") as connection, connection.cursor() as cursor:
        cursor.execute("SET @block = %s", (block,))
        cursor.execute("INSERT INTO big VALUES (1, REPEAT(@block, 320))")
        # The message of an event of this size ends exactly at the end of a packet.
        for extra in range(16 * MIB - 90, 16 * MIB - 30, 29):
            cursor.execute("REPLACE INTO big VALUES (2, LEFT(REPEAT(@block, 257), %s))", (extra,))
        cursor.execute("BEGIN")
        for number in range(60):
            cursor.execute("INSERT INTO big VALUES (%s, REPEAT(@block, 16))", (100 + number,))
        cursor.execute("COMMIT")
    await caught_up(replica, await copier.serve(200))
    assert checksums(replica) == checksums(primary)


async def test_old_log_comes_from_storage(servers: Servers, serve: Serve) -> None:
    primary = servers.make().start()
    feed, copier = feed_of(primary)
    primary.run("CREATE DATABASE app", "CREATE TABLE app.t (a INT PRIMARY KEY AUTO_INCREMENT, b LONGBLOB)")
    for size in (10, 5_000_000, 10, 300_000, 10):
        primary.run(*[f"INSERT INTO app.t (b) VALUES (REPEAT('x', {size}))"] * 5, "FLUSH BINARY LOGS")
    last = await copier.serve()
    feed.forgotten = feed.end - 1000
    feed.unavailable = True
    upstream = await serve(feed)
    replica = servers.make("--read-only=1").start()
    await asyncio.to_thread(replica.follow, upstream.address)
    await until(lambda: len(feed.reads) > 2)
    feed.unavailable = False
    await caught_up(replica, last)
    assert checksums(replica) == checksums(primary)


async def test_a_connection_that_breaks_in_the_middle_of_a_group(servers: Servers, serve: Serve) -> None:
    """The replica's I/O thread comes again by itself, and is sent the group from its start."""
    primary = servers.make().start()
    replica = servers.make("--read-only=1").start()
    feed, copier = feed_of(primary)
    upstream = await serve(feed)
    await asyncio.to_thread(replica.follow, upstream.address)
    primary.run("CREATE DATABASE app", "CREATE TABLE app.t (a INT PRIMARY KEY, b LONGBLOB)")
    await caught_up(replica, await copier.serve())
    rows = ", ".join(f"({n}, REPEAT('x', 1000000))" for n in range(12))
    primary.run(f"INSERT INTO app.t VALUES {rows}", "INSERT INTO app.t VALUES (100, 'y')")
    last = parse_state(str(primary.value("SELECT @@gtid_binlog_pos")))
    start = feed.end
    copier.copy()
    marks = [start + 3 * MIB, start + 8 * MIB]
    read = feed.read

    async def break_twice(first: int, end: int) -> bytes:
        if marks and marks[0] <= first < upstream.positions.settled:  # What is settled is read to be sent.
            marks.pop(0)
            raise EngineError("no node has it")
        return await read(first, end)

    feed.read = break_twice  # type: ignore[method-assign]
    feed.forgotten = feed.end
    feed.advance(feed.end)
    await caught_up(replica, last)
    assert not marks
    assert checksums(replica) == checksums(primary)


async def test_only_whole_groups_below_the_durable_point(servers: Servers, serve: Serve) -> None:
    primary = servers.make().start()
    replica = servers.make("--read-only=1").start()
    feed, copier = feed_of(primary)
    upstream = await serve(feed)
    await asyncio.to_thread(replica.follow, upstream.address)
    primary.run("CREATE DATABASE app", "CREATE TABLE app.t (a INT PRIMARY KEY)")
    await caught_up(replica, await copier.serve())
    before = feed.vdl
    primary.run("INSERT INTO app.t VALUES " + ", ".join(f"({n})" for n in range(20000)))
    copier.copy()
    (connection,) = upstream.server._connections
    feed.advance(feed.end - 1)
    assert connection.conversation.sent == before, "nothing of a group that is not whole"
    feed.advance(feed.end)
    assert connection.conversation.sent > before, "in the call in which it became whole"
    await caught_up(replica, parse_state(str(primary.value("SELECT @@gtid_binlog_pos"))))


async def test_a_server_that_comes_back(servers: Servers, serve: Serve) -> None:
    """The driver is started again: another address, another password; the replica goes on from its place, and
    so it does after its own restart."""
    primary = servers.make().start()
    replica = servers.make("--read-only=1").start()
    feed, copier = feed_of(primary)
    first = await serve(feed)
    await asyncio.to_thread(replica.follow, first.address)
    primary.run("CREATE DATABASE app", "CREATE TABLE app.t (a INT PRIMARY KEY)")
    primary.run(*(f"INSERT INTO app.t VALUES ({number})" for number in range(100)))
    await caught_up(replica, await copier.serve())
    await first.server.close()
    primary.run("INSERT INTO app.t VALUES (1000)")
    await copier.serve()
    second = await serve(feed)
    await asyncio.to_thread(replica.follow, second.address)
    await caught_up(replica, parse_state(str(primary.value("SELECT @@gtid_binlog_pos"))))
    await asyncio.to_thread(replica.stop)
    primary.run("INSERT INTO app.t VALUES (1001)")
    last = await copier.serve()
    await asyncio.to_thread(replica.start)
    await caught_up(replica, last)
    assert checksums(replica) == checksums(primary)
    assert second.positions.start == feed.start


async def test_a_replica_that_was_made_from_an_image(servers: Servers, serve: Serve) -> None:
    """It begins where its image stands, though the log is much longer, and looks at nothing before."""
    primary = servers.make().start()
    replica = servers.make("--read-only=1").start()
    feed, copier = feed_of(primary)
    upstream = await serve(feed)
    await asyncio.to_thread(replica.follow, upstream.address)
    primary.run("CREATE DATABASE app", "CREATE TABLE app.t (a INT PRIMARY KEY)")
    primary.run(*(f"INSERT INTO app.t VALUES ({number})" for number in range(200)))
    image_gtid = await copier.serve()
    await caught_up(replica, image_gtid)
    assert image_gtid is not None
    image_lsn = upstream.positions.lsn_of(image_gtid)
    assert image_lsn == feed.vdl
    await asyncio.to_thread(replica.stop, signal.SIGTERM)
    for name in ("master.info", "relay-log.info"):
        (replica.data_dir / name).unlink()
    primary.run("INSERT INTO app.t VALUES (1000)")
    last = await copier.serve()
    made = servers.make("--read-only=1", source=replica.data_dir).start()
    fresh = await serve(feed)
    fresh.attached(image_lsn, image_gtid)
    feed.forgotten = image_lsn
    await asyncio.to_thread(made.follow, fresh.address)
    await caught_up(made, last)
    assert not feed.reads
    assert checksums(made) == checksums(primary)
    assert fresh.positions.start == image_lsn


async def test_a_timeline_that_cuts_a_torn_group_off(servers: Servers, serve: Serve) -> None:
    """The writer dies with a transaction that is not durable as a whole; a reader becomes the writer, and the
    other one follows it through the same connection."""
    first = servers.make().start()
    feed, copier = feed_of(first)
    candidate, reader = servers.make("--read-only=1").start(), servers.make("--read-only=1").start()
    upstream = await serve(feed)
    for replica in (candidate, reader):
        await asyncio.to_thread(replica.follow, upstream.address)
    first.run("CREATE DATABASE app", "CREATE TABLE app.t (a INT PRIMARY KEY, b INT)")
    first.run("INSERT INTO app.t VALUES (1, 1)")
    first.run("XA START 'open'", "INSERT INTO app.t VALUES (9999, 9)", "XA END 'open'", "XA PREPARE 'open'")
    last = await copier.serve()
    switch = feed.vdl
    first.run("INSERT INTO app.t VALUES " + ", ".join(f"({n}, 0)" for n in range(2, 3000)))
    copier.copy()
    torn = (switch + feed.end) // 2
    del feed.log[torn - feed.start :]
    feed.advance(torn)
    first.stop()
    await caught_up(candidate, last)
    await caught_up(reader, last)

    candidate.run("STOP SLAVE", "RESET SLAVE ALL")
    (file,) = candidate.binlog_files()
    feed.cut(switch)
    feed.begin_timeline(2, switch, history_of(file, last, candidate.server_id))
    candidate.run("SET GLOBAL read_only = 0", "INSERT INTO app.t VALUES (2, 2)", "FLUSH BINARY LOGS")
    candidate.run("INSERT INTO app.t VALUES (3, 3)", "XA COMMIT 'open'")
    second = Copier(candidate, feed, 5)
    last = await second.serve()
    await caught_up(reader, last)
    assert checksums(reader) == checksums(candidate)
    assert reader.run("SELECT b FROM app.t WHERE a = 9999") == [(9,)]
    assert last is not None
    assert last.server_id == candidate.server_id
    assert upstream.positions.gtid_at(feed.vdl) == last
    # Another connection begins in the middle of the newer timeline.
    await asyncio.to_thread(reader.run, "STOP SLAVE")
    candidate.run("INSERT INTO app.t VALUES (4, 4)")
    last = await second.serve()
    await asyncio.to_thread(reader.run, "START SLAVE")
    await caught_up(reader, last)
    assert checksums(reader) == checksums(candidate)


async def test_an_engine_that_has_what_the_log_does_not_have(servers: Servers, serve: Serve) -> None:
    primary = servers.make().start()
    feed, copier = feed_of(primary)
    primary.run(
        "CREATE DATABASE app", "CREATE TABLE app.t (a INT PRIMARY KEY)", "INSERT INTO app.t VALUES (1)"
    )
    await copier.serve()
    upstream = await serve(feed)
    stranger = servers.make("--read-only=1").start()
    stranger.run("SET GLOBAL gtid_slave_pos = '0-4242-2'")
    await asyncio.to_thread(stranger.follow, upstream.address)
    status: dict[str, Any] = {}
    async with asyncio.timeout(20):
        while status.get("Slave_IO_Running") != "No":
            # In a thread: the server answers only once the replica's own threads have got their answers.
            status = await asyncio.to_thread(stranger.replica_status)
    assert status["Last_IO_Errno"] == 1236
    assert "0-4242-2" in status["Last_IO_Error"]
    assert "made again from an image" in status["Last_IO_Error"]


async def test_a_password_is_asked_for(servers: Servers, serve: Serve) -> None:
    primary = servers.make().start()
    feed, _ = feed_of(primary)
    upstream = await serve(feed)
    address = upstream.address
    assert (upstream.directory / "upstream.json").stat().st_mode & 0o777 == 0o600
    with pytest.raises(pymysql.err.OperationalError, match="only the local engine"):
        await asyncio.to_thread(
            pymysql.connect, host=address["host"], port=address["port"], user=address["user"], password="no"
        )


async def test_progress_comes_from_the_session(servers: Servers, serve: Serve) -> None:
    primary = servers.make().start()
    replica = servers.make("--read-only=1").start()
    feed, copier = feed_of(primary)
    upstream = await serve(feed)
    asked: list[None] = []
    upstream.positions.ask = lambda: asked.append(None)
    await asyncio.to_thread(replica.follow, upstream.address)
    primary.run("CREATE DATABASE app")
    await caught_up(replica, await copier.serve())
    assert upstream.server.progress is None
    upstream.server.request_progress()
    assert asked
    upstream.positions.report_applied(str(replica.value("SELECT @@gtid_slave_pos")))
    assert upstream.progress == [ReaderProgress(feed.vdl, feed.vdl, feed.vdl)]
    assert upstream.server.connected
