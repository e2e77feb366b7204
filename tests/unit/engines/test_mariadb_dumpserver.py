"""The sockets around the conversation with a replica: pushes within the call, bounded output, reads of old
log, ends."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from borealis.engines.base import EngineError, EngineVersion, InstanceSettings, ReaderProgress
from borealis.engines.mariadb import dumpserver
from borealis.engines.mariadb import protocol as p
from borealis.engines.mariadb.binlog import EventType
from borealis.engines.mariadb.dumpserver import MariadbReaderServer
from borealis.engines.mariadb.gtid import Gtid
from borealis.engines.mariadb.history import KEPT_MAX, LogPoint, keep_points, kept_points

from .binlogs import FakeBinlog
from .mariadb_replica_client import SETTINGS, ReplicaClient, command, dump_request, login, query
from .memory_feed import MemoryFeed
from .real import short_directory
from .served import until
from .test_mariadb_dump import feed_of, groups

MIB = 1 << 20
VERSION = EngineVersion("aurora-mysql", "10.11.19-MariaDB", "10.11", Path("/nowhere"), "aurora-mysql8.0")


class Client(ReplicaClient):
    """With a socket."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.address: dict[str, Any] = json.loads((directory / "upstream.json").read_text())
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self.socket.connect((self.address["host"], self.address["port"]))
        self.socket.setblocking(False)
        self.ended = False

    def take(self) -> int:
        """Everything that is in the socket now; how many bytes."""
        size = 0
        while True:
            try:
                data = self.socket.recv(MIB)
            except BlockingIOError:
                return size
            except ConnectionResetError:
                data = b""
            if not data:
                self.ended = True
                return size
            size += len(data)
            self.feed(data)

    async def until(self, ready: Any) -> None:
        async with asyncio.timeout(20):
            while not ready():
                await asyncio.sleep(0.001)
                self.take()

    async def say(self, data: bytes, expected: int = 1) -> None:
        self.expected = expected
        count = len(self.messages)
        self.socket.send(data)
        await self.until(lambda: len(self.messages) > count or self.ended)

    async def dump(self, gtid: str = "", server_id: int = 9) -> None:
        await self.until(lambda: bool(self.messages))
        await self.say(login(self.messages[0], self.address["user"], self.address["password"]), 2)
        for setting in SETTINGS:
            await self.say(query(setting.format(gtid=gtid)))
        self.dumping, self.expected = True, 1
        self.socket.send(dump_request(server_id))
        await self.until(lambda: len(self.events) >= 3)


class Place:
    def __init__(self, feed: MemoryFeed, directory: Path | None = None) -> None:
        self.feed = feed
        self.directory = directory or short_directory()
        self.progress: list[ReaderProgress] = []
        settings = InstanceSettings(
            "one", "c", "127.5.4.3", 3306, self.directory, self.directory, self.directory / "x", None, 1, 1
        )
        self.server = MariadbReaderServer(VERSION, settings, feed, None, self.progress.append)

    def client(self) -> Client:
        return Client(self.directory)


@pytest.fixture
def log() -> FakeBinlog:
    made = FakeBinlog()
    made.begin_file()
    return made


@pytest.fixture
async def place(log: FakeBinlog) -> AsyncIterator[Place]:
    made = Place(feed_of(log))
    made.feed.append(log.data)
    await made.server.start()
    try:
        yield made
    finally:
        await made.server.close()
        shutil.rmtree(made.directory)


def grow(place: Place, log: FakeBinlog) -> None:
    place.feed.append(log.data[len(place.feed.log) :])


async def test_new_groups_are_in_the_socket_when_the_feed_has_advanced(place: Place, log: FakeBinlog) -> None:
    client = place.client()
    assert client.address["host"] == "127.5.4.3"
    await client.dump()
    assert place.server.connected
    for size in (10, 1000, 100_000, 5):
        log.transaction(size)
        grow(place, log)
        client.take()
        assert client.log == groups(log), "without any other task having run"


async def test_a_slow_replica_costs_no_memory_and_misses_nothing(place: Place, log: FakeBinlog) -> None:
    slow, quick = place.client(), place.client()
    await slow.dump(server_id=1)
    await quick.dump(server_id=2)
    for _ in range(10):
        log.transaction(*([7000] * 100))
    log.transaction(12 * MIB, 2 * MIB)
    size = len(groups(log))
    grow(place, log)
    await quick.until(lambda: quick.size == size)
    connection = next(one for one in place.server._connections if one.conversation.server_id == 1)
    assert connection.conversation.sent < place.feed.vdl
    assert len(connection._pending) <= MIB
    stream = connection.conversation._stream
    assert stream is not None
    assert len(stream._held) <= MIB
    await slow.until(lambda: slow.size == size)
    assert slow.log == quick.log == groups(log)


async def test_old_log_is_read_with_patience(place: Place, log: FakeBinlog) -> None:
    for _ in range(30):
        log.transaction(100_000, 10)
    grow(place, log)
    place.feed.forgotten = place.feed.end - 500_000
    place.feed.unavailable = True
    client = place.client()
    await client.dump()
    await until(lambda: len(place.feed.reads) > 1)
    place.feed.failure = EngineError("no node has it")
    reads = len(place.feed.reads)
    await until(lambda: len(place.feed.reads) > reads)
    place.feed.failure, place.feed.unavailable = None, False
    await client.until(lambda: len(client.log) == len(groups(log)))
    assert client.log == groups(log)
    assert max(end - start for start, end in place.feed.reads) <= MIB


async def test_a_replica_that_connects_again_takes_the_old_ones_place(place: Place, log: FakeBinlog) -> None:
    first, other, second = place.client(), place.client(), place.client()
    await first.dump(server_id=5)
    await other.dump(server_id=6)
    await second.dump(server_id=5)
    await first.until(lambda: first.ended)
    log.transaction(10)
    grow(place, log)
    for client in (other, second):
        client.take()
        assert client.log == groups(log)


async def test_a_damaged_log_ends_the_connection(place: Place, log: FakeBinlog) -> None:
    client = place.client()
    await client.dump()
    place.feed.append(bytes(100))
    await client.until(lambda: client.ended)
    assert not client.error, "it may ask again"
    assert not place.server.connected


async def test_strangers_are_shown_out(place: Place) -> None:
    for data in (b"GET / HTTP/1.1\r\n\r\n", command(p.COM_PING), p.packets(1, bytes(40))):
        client = place.client()
        await client.until(lambda client=client: bool(client.messages))
        client.expected = 2
        client.socket.send(data)
        await client.until(lambda client=client: client.ended)
    assert not place.server._connections


async def test_progress(place: Place, log: FakeBinlog) -> None:
    positions = place.server._index.positions
    place.server.request_progress()
    assert place.server.progress is None
    client = place.client()
    await client.dump()
    log.transaction(10)
    log.transaction(10)
    log.rotate()
    grow(place, log)
    positions.report_applied("0-7-1")
    positions.report_applied("0-7-2")
    ends = [end for kind, _, end in log.units if kind == "GROUP"]
    assert place.progress == [(log.end, ends[0], ends[0]), (log.end, log.end, log.end)]
    log.rotate()
    grow(place, log)
    assert place.progress[-1].applied == log.end, "there was nothing to apply"


async def test_a_server_that_is_started_again_need_not_read_from_the_image_on(
    place: Place, log: FakeBinlog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dumpserver, "KEEP_BYTES", 50_000)
    client = place.client()
    await client.dump()
    for _ in range(100):
        log.transaction(10_000)
        grow(place, log)
    await place.server.close()
    assert len(kept_points(place.directory)) == KEPT_MAX
    oldest = kept_points(place.directory)[0].sequence
    again = Place(place.feed, place.directory)
    await again.server.start()
    try:
        for sequence in (99, oldest + 1, oldest - 1):
            late = again.client()
            await late.dump(f"0-7-{sequence}")
            rest = len(groups(log, sequence))
            await late.until(lambda late=late, rest=rest: late.size == rest)
            assert late.log == groups(log, sequence)
            expected = max(kept_points(place.directory)[0].lsn, place.feed.end - 110_000)
            assert (again.server._index.start >= expected) == (sequence == 99)
    finally:
        await again.server.close()
    (place.directory / "attached.json").write_text(LogPoint(5000, None).to_text())
    assert kept_points(place.directory) == [], "another image"


async def test_places_that_lead_astray_are_forgotten(place: Place, log: FakeBinlog) -> None:
    log.group([(23, bytes(10_000)), (EventType.XID, bytes(8))], standalone=False)
    log.transaction(10_000)
    grow(place, log)
    keep_points(place.directory, [LogPoint(place.feed.start + 4711, Gtid(0, 7, 1))])
    again = Place(place.feed, place.directory)
    await again.server.start()
    try:
        client = again.client()
        await client.dump("0-7-1")
        await client.until(lambda: client.ended)
        assert not client.log
        client = again.client()
        await client.dump("0-7-1")
        await client.until(lambda: client.size == len(groups(log, 1)))
    finally:
        await again.server.close()


async def test_closing_ends_everything(place: Place, log: FakeBinlog) -> None:
    log.transaction(10)
    grow(place, log)
    place.feed.forgotten = place.feed.end
    place.feed.unavailable = True
    client = place.client()
    await client.dump()
    await until(lambda: bool(place.feed.reads))
    await place.server.close()
    await place.server.close()
    await client.until(lambda: client.ended)
    assert not (place.directory / "upstream.json").exists()
    grow(place, log)
    await place.server.start()
    assert (place.directory / "upstream.json").exists()
