"""One storage node as a real process: appends, kills, restarts, damage, subscribers, blobs, limits."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from borealis.log.history import TermHistory
from borealis.log.types import TermEntry
from borealis.log.wire import (
    Ack,
    Append,
    BlobData,
    BlobDelete,
    BlobGet,
    BlobPut,
    Commit,
    Data,
    Drop,
    Error,
    FrameReader,
    Hello,
    History,
    Message,
    NewTerm,
    Purpose,
    Refused,
    Status,
    StatusReply,
    Subscribe,
    Trim,
    Trimmed,
    Vote,
    VoteReply,
    decode,
)
from borealis.storage.client import NodeConnection
from borealis.storage.errors import NodeRefused, NodeUnreachable
from tests.unit.storage.support import SEED, VOLUME, NodeProcess, Writer, log_bytes, running_nodes, until

MIB = 1 << 20

pytestmark = pytest.mark.usefixtures("loops")


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[NodeProcess]:
    async with running_nodes(tmp_path, "n1") as nodes:
        yield nodes[0]


async def test_append_read_and_stop_cleanly(node: NodeProcess) -> None:
    writer = await Writer.create(node)
    await writer.write_log(3 * MIB)
    assert await node.read(0, 3 * MIB) == log_bytes(0, 3 * MIB)
    assert await node.read(12_345, 2_000_001) == log_bytes(12_345, 2_000_001)
    assert await node.read(3 * MIB - 10, 4 * MIB) == log_bytes(3 * MIB - 10, 3 * MIB)
    assert await node.stop() == 0
    await node.start()
    status = await node.status()
    assert (status.end, status.promised, status.history) == (3 * MIB, 1, SEED)
    assert await node.read(0, 3 * MIB) == log_bytes(0, 3 * MIB)


async def test_kill_under_load_loses_nothing_acknowledged(node: NodeProcess) -> None:
    writer = await Writer.create(node)
    for round_number in range(3):
        target = writer.acked + 700_000

        async def load(writer: Writer = writer) -> None:
            await writer.write_log(1 << 40, piece=3000)

        loading = asyncio.create_task(load())
        await until(functools.partial(_acked_beyond, writer, target))
        await node.kill()
        with pytest.raises((ConnectionError, NodeUnreachable)):
            await loading
        await node.start()
        status = await node.status()
        assert status.end >= writer.acked, round_number
        assert await node.read(0, status.end) == log_bytes(0, status.end)
        writer = await Writer.take_over(node, SEED)


def _acked_beyond(writer: Writer, target: int) -> bool:
    return writer.acked > target


async def test_promises_survive_a_kill(node: NodeProcess) -> None:
    writer = await Writer.create(node)
    await writer.write_log(1000)
    connection = await node.connect()
    reply = cast(VoteReply, await connection.request(Vote(7, "candidate")))
    assert reply.granted
    await node.kill()
    await node.start()
    assert (await node.status()).promised == 7
    late = await node.connect("writer")
    late.send(Append(1, 1000, 0, 0, b"late"))
    async for message in late.messages():
        assert isinstance(message, Refused)
        assert message.promised == 7
        break


async def test_new_term_cuts_and_is_told_to_subscribers(node: NodeProcess) -> None:
    writer = await Writer.create(node)
    await writer.write_log(5000)
    reader = Subscription(await node.connect("reader"), 0)
    await reader.until_end(5000)
    history = SEED.extend(TermEntry(2, 2, 4000, "cut", "b"))
    leader = await Writer.take_over(node, history)
    assert leader.sent == 4000
    await leader.write_log(9000, seed=2)
    await until(lambda: reader.history == history)
    await reader.until_end(9000)
    assert bytes(reader.log) == log_bytes(0, 4000) + log_bytes(4000, 9000, 2)
    assert await node.read(0, 9000) == bytes(reader.log)


class Subscription:
    """Follows a node's stream in the background and keeps what it says."""

    def __init__(self, connection: NodeConnection, start: int) -> None:
        self.connection = connection
        self.start = start
        self.log = bytearray()
        self.vdl = 0
        self.history = TermHistory()
        self.error: Message | None = None
        connection.send(Subscribe(start))
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async for message in self.connection.messages():
            match message:
                case History():
                    if len(self.history):
                        del self.log[max(0, self.history.agree_until(message.history) - self.start) :]
                    self.history = message.history
                case Data():
                    assert message.start == self.start + len(self.log), "the stream has a gap"
                    self.log += message.data
                case Commit():
                    self.vdl = message.vdl
                case _:
                    self.error = message

    async def until_end(self, end: int) -> None:
        await until(lambda: self.start + len(self.log) >= end)

    async def until_vdl(self, vdl: int) -> None:
        await until(lambda: self.vdl == vdl)


async def test_subscribers_live_and_late(node: NodeProcess) -> None:
    writer = await Writer.create(node)
    early = Subscription(await node.connect("reader"), 0)
    await writer.write_log(4 * MIB)
    late = Subscription(await node.connect("reader"), 777)
    future = Subscription(await node.connect("reader"), 4 * MIB + 500)
    await writer.write_log(4 * MIB + 50_000, piece=300)
    writer.commit(4 * MIB + 40_000)
    for reader in (early, late, future):
        await reader.until_end(4 * MIB + 50_000)
        await reader.until_vdl(4 * MIB + 40_000)
        assert bytes(reader.log) == log_bytes(reader.start, 4 * MIB + 50_000)
    assert (await node.status()).subscribers == 3
    assert isinstance(ack := await writer.write(b"x"), Ack)
    assert ack.has_subscribers


async def test_a_slow_subscriber_is_bounded_and_hurts_nobody(node: NodeProcess) -> None:
    writer = await Writer.create(node)
    slow = socket.socket(socket.AF_UNIX)
    slow.connect(node.address)
    slow.sendall(Hello(VOLUME, Purpose.READER).encode() + Subscribe(0).encode())
    await until(lambda: _has_subscribers(node, 1))
    before = _memory_bytes(node)
    await writer.write_log(40 * MIB, piece=200_000)
    assert _memory_bytes(node) - before < 30 * MIB
    # Once it reads, it gets everything.
    log = await asyncio.to_thread(_read_stream, slow, 40 * MIB)
    assert log == log_bytes(0, 40 * MIB)
    slow.close()
    await until(lambda: _has_subscribers(node, 0))


async def _has_subscribers(node: NodeProcess, count: int) -> bool:
    return (await node.status()).subscribers == count


def _memory_bytes(node: NodeProcess) -> int:
    assert node.process is not None
    pages = Path(f"/proc/{node.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _read_stream(sock: socket.socket, end: int) -> bytes:
    sock.settimeout(30)
    reader, log = FrameReader(), bytearray()
    while len(log) < end:
        for kind, payload in reader.feed(sock.recv(1 << 18)):
            message = decode(kind, payload)
            if isinstance(message, Data):
                assert message.start == len(log)
                log += message.data
    return bytes(log)


async def test_a_client_that_never_reads_answers_is_not_read_from(node: NodeProcess) -> None:
    await Writer.create(node)
    rude = socket.socket(socket.AF_UNIX)
    rude.connect(node.address)
    rude.sendall(Hello(VOLUME, Purpose.READER).encode())
    rude.settimeout(0.5)
    question = Status().encode() * 1000
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 200 * MIB:
            sent += rude.send(question)
    rude.close()
    assert (await node.status()).volume == VOLUME


async def test_trim_recycles_and_old_subscriptions_are_refused(node: NodeProcess) -> None:
    writer = await Writer.create(node)
    await writer.write_log(6 * MIB)
    writer.commit(6 * MIB)
    connection = await node.connect()
    # What is not durable cannot be trimmed.
    assert cast(Trimmed, await connection.request(Trim(5 * MIB))).base == 5 * MIB
    log_directory = node.directory / "segments" / VOLUME / "log"
    await until(lambda: not (log_directory / "00000001.log").exists())
    assert any(log_directory.glob("spare-*"))
    with pytest.raises(NodeRefused) as caught:
        await _first_error(await node.connect("reader"), 1000)
    assert caught.value.code == "LogTrimmed"
    assert await node.read(0, MIB) == b""
    await node.kill()
    await node.start()
    assert (await node.status()).base == 5 * MIB
    writer = await Writer.take_over(node, SEED)
    await writer.write_log(12 * MIB)
    assert await node.read(5 * MIB, 12 * MIB) == log_bytes(5 * MIB, 12 * MIB)


async def _first_error(connection: NodeConnection, start: int) -> None:
    connection.send(Subscribe(start))
    async for message in connection.messages():
        if isinstance(message, Error):
            raise NodeRefused(message.code, message.message)
        assert not isinstance(message, Data)


async def test_blobs(node: NodeProcess) -> None:
    await Writer.create(node)
    connection = await node.connect()
    content = log_bytes(0, 5 * MIB)
    sha256 = hashlib.sha256(content).hexdigest()

    async def put(data: bytes, name: str = "image-0.tar.zst") -> None:
        for at in range(0, len(data), MIB):
            last = at + MIB >= len(data)
            await connection.request(BlobPut(name, at, len(data), sha256, last, data[at : at + MIB]))

    await put(content)
    await put(content)  # Repeating is harmless.
    info = cast(StatusReply, await connection.request(Status())).blobs[0]
    assert (info.name, info.size, info.sha256) == ("image-0.tar.zst", 5 * MIB, sha256)
    piece = cast(BlobData, await connection.request(BlobGet("image-0.tar.zst", 1000, 2000)))
    assert (piece.data, piece.size) == (content[1000:3000], 5 * MIB)
    with pytest.raises(NodeRefused, match="SHA-256"):
        await put(content[:-1] + b"!", "other")
    for bad in ("../escape", "", ".hidden", "a@b"):
        with pytest.raises(NodeRefused, match="no name"):
            await put(b"x", bad)
    with pytest.raises(NodeRefused, match="out of order"):
        await connection.request(BlobPut("gap", 10, 20, sha256, False, b"x"))
    await node.kill()
    await node.start()
    connection = await node.connect()
    assert [blob.name for blob in (await node.status()).blobs] == ["image-0.tar.zst"]
    await connection.request(BlobDelete("image-0.tar.zst"))
    await connection.request(BlobDelete("image-0.tar.zst"))
    with pytest.raises(NodeRefused, match="no blob"):
        await connection.request(BlobGet("image-0.tar.zst", 0, 1))


async def test_many_volumes_drop_and_create_again(node: NodeProcess) -> None:
    volumes = [f"vol-{number:012x}" for number in range(12)]
    writers = await asyncio.gather(*(Writer.create(node, volume) for volume in volumes))
    await asyncio.gather(*(writer.write_log(200_000, seed=n) for n, writer in enumerate(writers)))
    for volume in volumes[:6]:
        connection = await node.connect(volume=volume)
        await connection.request(Drop())
        await connection.close()
    segments = node.directory / "segments"
    await until(lambda: sorted(entry.name for entry in segments.iterdir()) == volumes[6:])
    again = await Writer.create(node, volumes[0])
    assert again.acked == 0
    gone = await node.connect(volume=volumes[1])
    assert not gone.exists
    with pytest.raises(NodeRefused) as caught:
        await gone.request(Vote(3, "x"))
    assert caught.value.code == "SegmentNotFound"
    await gone.request(Drop())
    await node.kill()
    await node.start()
    assert [(await node.status(volume)).end for volume in volumes] == [0] * 6 + [200_000] * 6


async def test_damage_without_peers_is_reported_and_never_served(node: NodeProcess) -> None:
    writer = await Writer.create(node)
    await writer.write_log(400_000, piece=1000)
    await node.kill()
    path = node.directory / "segments" / VOLUME / "log" / "00000001.log"
    data = bytearray(path.read_bytes())
    at = data.index(log_bytes(150_000, 150_100))
    data[at] ^= 1
    path.write_bytes(data)
    await node.start()
    status = await until(lambda: _corrupt(node))
    assert status.corrupt == ((150_000, 151_000),)
    assert status.end == 400_000
    assert await node.read(100_000, 400_000) == log_bytes(100_000, 150_000)
    assert await node.read(151_000, 400_000) == log_bytes(151_000, 400_000)
    assert "damaged" in node.log.read_text()


async def _corrupt(node: NodeProcess) -> StatusReply | None:
    await node.read(0, 1 << 40)
    status = await node.status()
    return status if status.corrupt else None


async def test_strangers_and_nonsense(node: NodeProcess) -> None:
    await Writer.create(node)
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", Status().encode(), b"\0\0\0\2\x63\0"):
        stranger = socket.socket(socket.AF_UNIX)
        stranger.connect(node.address)
        stranger.settimeout(10)
        stranger.sendall(nonsense)
        while await asyncio.to_thread(stranger.recv, 65536):
            pass
        stranger.close()
    connection = await node.connect()
    connection.send_bytes(b"\xff" * 100)
    await asyncio.wait_for(connection.closed.wait(), 10)
    with pytest.raises(NodeRefused):
        bad = await node.connect(volume="../../etc")
        await bad.request(NewTerm(1, SEED))
    assert (await node.status()).end == 0


async def test_two_processes_never_share_a_directory(node: NodeProcess, tmp_path: Path) -> None:
    second = NodeProcess(tmp_path, "n1")
    second.address = str(tmp_path / "other.sock")
    with pytest.raises(AssertionError, match="another storage node"):
        await second.start()
    assert second.process is not None
    assert await second.process.wait() == 1
    assert Path(node.address).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
async def test_a_full_disk_stops_acknowledgements_and_nothing_else(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        async with running_nodes(small, "n1") as (node,):
            writer = await Writer.create(node)
            with pytest.raises((ConnectionError, NodeUnreachable, AssertionError)) as caught:
                await writer.write_log(20 * MIB)
            acked = writer.acked
            assert acked > 2 * MIB
            if caught.type is AssertionError:
                assert "StorageFull" in str(caught.value)
            # Elections, reads and heartbeats go on.
            connection = await node.connect()
            history = SEED.extend(TermEntry(2, 1, acked, "", "b"))
            assert cast(VoteReply, await connection.request(Vote(2, "b"))).granted
            assert await node.read(0, acked) == log_bytes(0, acked)
            writer = await Writer.take_over(node, history)
            assert isinstance(await writer.write(b""), Ack)
            # Room again: it goes on by itself.
            await _remount(small, "20m")
            await until(lambda: _takes_appends(node, history, acked + 1000))
            assert await node.read(0, acked + 1000) == log_bytes(0, acked + 1000)
            assert node.process is not None
            assert node.process.returncode is None
    finally:
        subprocess.run(["umount", str(small)], check=True)


async def _remount(path: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(path)], check=True)


async def _takes_appends(node: NodeProcess, history: TermHistory, end: int) -> bool:
    writer = await Writer.take_over(node, history)
    try:
        return isinstance(await writer.write(log_bytes(writer.sent, end)), Ack)
    except (ConnectionError, NodeUnreachable):
        return False
    finally:
        await writer.connection.close()
