"""The sockets around the replication protocol: synchronous pushes, bounded output, reads of old log, ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from borealis.engines.base import EngineError
from borealis.engines.postgres import messages as m
from borealis.engines.postgres.reader_server import PostgresReaderServer

from .memory_feed import MemoryFeed
from .real import short_directory
from .served import until
from .test_settings import SETTINGS, VERSION

START = 0x2000000
MIB = 1 << 20


class Client:
    """A walreceiver's side of one connection."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.socket.setblocking(False)
        self.reader = m.MessageReader(startup=False)
        self.log = bytearray()
        self.ended = False

    def send(self, data: bytes) -> None:
        self.socket.send(data)

    def query(self, sql: str) -> None:
        self.send(m.message(b"Q", sql.encode() + b"\0"))

    def take(self) -> list[bytes]:
        """Kinds of all messages that are in the socket now; log data is kept in `log`."""
        kinds = []
        while True:
            try:
                data = self.socket.recv(MIB)
            except BlockingIOError:
                break
            except ConnectionResetError:
                data = b""
            if not data:
                self.ended = True
                break
            self.reader.feed(data)
        while (message := self.reader.next()) is not None:
            kind, body = message
            if kind == b"d" and body[:1] == b"w":
                assert m.WAL_DATA.unpack_from(body)[1] == START + len(self.log)
                self.log += body[m.WAL_DATA.size :]
            kinds.append(body[:1] if kind == b"d" else kind)
        return kinds

    async def start(self) -> None:
        self.send(m.startup({"replication": "true", "application_name": "one"}))
        self.query("START_REPLICATION 0/2000000 TIMELINE 1")
        seen: list[bytes] = []
        async with asyncio.timeout(10):
            while b"W" not in seen:
                await asyncio.sleep(0.001)
                seen += self.take()

    async def until_log(self, size: int) -> None:
        async with asyncio.timeout(10):
            while len(self.log) < size:
                await asyncio.sleep(0.001)
                self.take()


@pytest.fixture
def feed() -> MemoryFeed:
    return MemoryFeed(start=START)


@pytest.fixture
async def server(feed: MemoryFeed) -> AsyncIterator[PostgresReaderServer]:
    root = short_directory()
    made = PostgresReaderServer(VERSION, replace(SETTINGS, upstream_dir=root), feed)
    await made.start()
    try:
        yield made
    finally:
        await made.close()
        shutil.rmtree(root)


def path_of(server: PostgresReaderServer) -> Path:
    return server._path


async def test_new_log_is_in_the_socket_when_the_feed_has_advanced(
    server: PostgresReaderServer, feed: MemoryFeed
) -> None:
    client = Client(path_of(server))
    await client.start()
    assert server.connected
    for number in range(3):
        feed.append(bytes([number]) * 1000)
        assert client.take() == [b"w"], "without any other task having run"
    assert client.log == feed.log


async def test_a_slow_client_costs_no_memory_and_misses_nothing(
    server: PostgresReaderServer, feed: MemoryFeed
) -> None:
    slow, quick = Client(path_of(server)), Client(path_of(server))
    await slow.start()
    await quick.start()
    for _ in range(64):
        feed.append(os.urandom(MIB // 2))
        await quick.until_log(len(feed.log))
    (connection,) = (one for one in server._connections if one.sender.sent < feed.vdl)
    assert len(connection._pending) <= 128 * 1024 + 100
    assert connection.sender.sent - START < 4 * MIB
    await slow.until_log(len(feed.log))
    assert slow.log == feed.log


async def test_old_log_is_read_with_patience(server: PostgresReaderServer, feed: MemoryFeed) -> None:
    feed.append(os.urandom(3 * MIB))
    feed.forgotten = START + 2 * MIB
    feed.unavailable = True
    client = Client(path_of(server))
    await client.start()
    await until(lambda: len(feed.reads) > 1)
    feed.unavailable = False
    await client.until_log(3 * MIB)
    assert client.log == feed.log
    assert max(end - start for start, end in feed.reads) <= MIB


async def test_a_log_that_cannot_be_read_ends_the_connection(
    server: PostgresReaderServer, feed: MemoryFeed
) -> None:
    feed.append(bytes(MIB))
    feed.forgotten = feed.end
    feed.failure = EngineError("no node has it")
    client = Client(path_of(server))
    await client.start()
    await until(lambda: bool(client.take()) or client.ended)
    assert not server.connected


async def test_what_is_no_postgresql_is_shown_out(server: PostgresReaderServer) -> None:
    client = Client(path_of(server))
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    await until(lambda: bool(client.take()) or client.ended)
    client = Client(path_of(server))
    client.send(m.startup({"user": "x"}))
    seen: list[bytes] = []
    async with asyncio.timeout(10):
        while not client.ended:
            await asyncio.sleep(0.001)
            seen += client.take()
    assert seen == [b"E"]


async def test_progress_and_feedback(server: PostgresReaderServer) -> None:
    client = Client(path_of(server))
    await client.start()
    server.request_progress()
    assert client.take() == [b"k"]
    client.send(m.message(b"d", m.STANDBY_STATUS.pack(b"r", 3, 2, 1, 0, 0)) + m.standby_feedback(77, 0, 0))
    await until(lambda: server.feedback.xmin == 77)
    assert server.progress == (3, 2, 1)
    client.socket.close()
    await until(lambda: not server.connected)
    assert server.feedback.xmin == 0


async def test_only_the_owner_can_connect(server: PostgresReaderServer) -> None:
    assert path_of(server).stat().st_mode & 0o777 == 0o600
    server._allowed_uids = frozenset({12345})
    client = Client(path_of(server))
    await until(lambda: bool(client.take()) or client.ended)


async def test_closing_ends_everything(server: PostgresReaderServer, feed: MemoryFeed) -> None:
    feed.append(bytes(MIB))
    feed.forgotten = feed.end
    feed.unavailable = True
    client = Client(path_of(server))
    await client.start()
    await until(lambda: bool(feed.reads))
    await server.close()
    await server.close()
    assert not path_of(server).exists()
    await until(lambda: bool(client.take()) or client.ended)
    feed.append(b"more")
    await server.start()
    assert path_of(server).exists()
