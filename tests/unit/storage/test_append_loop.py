"""The native append loop does what its reference in Python does, also when the disk fails under it."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import random
import shutil
import socket
import subprocess
import threading
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borealis.log.wire import (
    Ack,
    Append,
    Commit,
    Create,
    Data,
    Error,
    FrameReader,
    Hello,
    Message,
    Purpose,
    Status,
    StatusReply,
    Subscribe,
    decode,
)
from borealis.nativelib import load
from borealis.storage.errors import NodeRefused, NodeUnreachable
from borealis.storage.logfile import LogConfig
from borealis.storage.node import NodeSettings, StorageNode
from tests.unit.storage.support import SEED, VOLUME, NodeProcess, Writer, log_bytes, until

KIB = 1 << 10
MIB = 1 << 20
SHIM = Path(__file__).with_name("failing_disk.c")

Script = list[list[Append | Commit | Status]]


@given(st.binary(max_size=100), st.integers(0, 2**32 - 1))
def test_crc32_is_that_of_zlib(data: bytes, start: int) -> None:
    arguments = [ctypes.c_uint32, ctypes.c_char_p, ctypes.c_size_t]
    native = load({"borealis_crc32": (ctypes.c_uint32, arguments)}, {})
    assert native.borealis_crc32(start, data, len(data)) == zlib.crc32(data, start)


class Client:
    """A client that reads only when it is told to. Blocks."""

    def __init__(self, address: str, purpose: Purpose) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(address)
        self._frames = FrameReader()
        self._messages: list[Message] = []
        self.ask(Hello(VOLUME, purpose))

    def send(self, *messages: Message) -> None:
        self._socket.sendall(b"".join(message.encode() for message in messages))

    def send_bytes(self, data: bytes) -> None:
        self._socket.sendall(data)

    def next(self) -> Message:
        """Raises EOFError when the node has closed the connection."""
        while not self._messages:
            data = self._socket.recv(1 << 18)
            if not data:
                raise EOFError
            self._messages += [decode(kind, payload) for kind, payload in self._frames.feed(data)]
        return self._messages.pop(0)

    def ask(self, message: Message) -> Message:
        self.send(message)
        return self.next()

    def close(self) -> None:
        self._socket.close()


@dataclass
class Outcome:
    """What one run came to."""

    answers: list[object] = field(default_factory=list)
    stream: bytes = b""
    """The log as a subscriber saw it."""
    stream_vdl: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    native_appends: int = 0


@asynccontextmanager
async def _node(directory: Path, summary_bytes: int = 512 * KIB) -> AsyncIterator[StorageNode]:
    directory.mkdir()
    config = LogConfig(1 * MIB, 2 * MIB, summary_bytes=summary_bytes)
    settings = NodeSettings(
        "n1", "a", directory / "n1", str(directory / "s"), directory / "peers.json", config
    )
    node = StorageNode(settings)
    await node.start()
    try:
        yield node
    finally:
        await node.stop()


def _script(seed: int) -> list[list[Append | Commit | Status]]:
    """Bursts of messages as a writer may send them, with some that it should not."""
    chance = random.Random(seed)
    end, vdl, bursts = 0, 0, []
    for _ in range(60):
        burst: list[Append | Commit | Status] = []
        for _ in range(chance.choice((1, 1, 1, 2, 5, 40, 600 if chance.random() < 0.1 else 3))):
            what, ns = chance.random(), chance.randrange(1 << 60)
            if what < 0.75:
                size = chance.choice((1, 7, 400, 400, 400, 9000, 60_000 if len(burst) < 30 else 10))
                burst.append(Append(1, end, vdl, ns, log_bytes(end, end + size)))
                end += size
            elif what < 0.80 and len(burst) < 3:
                size = chance.choice((300_000, 900_000, 3 * MIB))
                burst.append(Append(1, end, vdl, ns, log_bytes(end, end + size)))
                end += size
            elif what < 0.86:
                burst.append(Append(1, chance.choice((0, end)), vdl, ns))
            elif what < 0.90:
                start = chance.randrange(max(0, end - 5000), end + 1)
                burst.append(Append(1, start, vdl, ns, log_bytes(start, end)))
            elif what < 0.93:
                burst.append(
                    chance.choice((Append(1, end + 9, vdl, ns, b"gap"), Append(9, end, vdl, ns, b"term")))
                )
            elif what < 0.98:
                vdl = chance.randrange(vdl, end + 1)
                burst.append(Commit(chance.choice((1, 1, 1, 2)), vdl))
            else:
                burst.append(Status())
        bursts.append(burst)
    return bursts


def _play(address: str, script: Script, end: int, vdl: int) -> Outcome:
    outcome = Outcome()
    writer, reader = Client(address, Purpose.WRITER), Client(address, Purpose.READER)
    writer.ask(Create(VOLUME, SEED))
    reader.send(Subscribe(0))
    reader.next()
    following = threading.Thread(target=_follow, args=(reader, outcome, end, vdl))
    following.start()
    for burst in script:
        sending = threading.Thread(target=writer.send, args=burst)
        sending.start()
        for message in burst:
            if not isinstance(message, Commit):
                answer = writer.next()
                if isinstance(answer, StatusReply):
                    outcome.answers.append((answer.end, answer.vdl, answer.promised, answer.subscribers))
                else:
                    outcome.answers.append(answer)
        sending.join()
    following.join()
    writer.close()
    reader.close()
    return outcome


def _follow(reader: Client, outcome: Outcome, end: int, vdl: int) -> None:
    log = bytearray()
    while len(log) < end or outcome.stream_vdl < vdl:
        message = reader.next()
        if isinstance(message, Data):
            assert message.start == len(log), "the stream has a gap"
            log += message.data
        elif isinstance(message, Commit):
            assert message.vdl >= outcome.stream_vdl
            outcome.stream_vdl = message.vdl
    outcome.stream = bytes(log)


async def _run(directory: Path, script: Script, summary_bytes: int) -> Outcome:
    taken = [
        message
        for burst in script
        for message in burst
        if not isinstance(message, Status) and message.term == 1 and getattr(message, "data", b"") != b"gap"
    ]
    end = max(message.start + len(message.data) for message in taken if isinstance(message, Append))
    vdl = max(message.vdl for message in taken)
    async with _node(directory, summary_bytes) as node:
        async with asyncio.timeout(60):
            outcome = await asyncio.to_thread(_play, node.settings.address, script, end, vdl)
        for actor in node._actors.values():
            if actor._append_loop is not None:
                outcome.native_appends += actor._append_loop.appends
    assert outcome.stream == log_bytes(0, end)
    logs = directory / "n1" / "segments" / VOLUME / "log"
    files = {path.name: path.read_bytes() for path in logs.glob("*.log")}
    outcome.files = {name: data for name, data in files.items() if any(data)}
    return outcome


async def _both(
    directory: Path, monkeypatch: pytest.MonkeyPatch, script: Script, summary_bytes: int = 512 * KIB
) -> tuple[Outcome, Outcome]:
    monkeypatch.setenv("BOREALIS_NATIVE_LOOPS", "1")
    native = await _run(directory / "native", script, summary_bytes)
    monkeypatch.setenv("BOREALIS_NATIVE_LOOPS", "0")
    python = await _run(directory / "python", script, summary_bytes)
    assert native.answers == python.answers
    assert native.stream_vdl == python.stream_vdl
    assert python.native_appends == 0
    return native, python


@pytest.mark.parametrize("seed", range(8))
async def test_bursts_get_the_same_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    native, _ = await _both(tmp_path, monkeypatch, _script(seed))
    assert native.native_appends > 50


@pytest.mark.parametrize("seed", range(100, 104))
async def test_one_message_at_a_time_leaves_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    one_each: Script = [[message] for burst in _script(seed) for message in burst]
    # No summaries: when one is saved depends on the thread that saves them, and it notes the commit point.
    native, python = await _both(tmp_path, monkeypatch, one_each, summary_bytes=1 << 30)
    assert native.native_appends > 50
    assert native.files == python.files


@pytest.mark.usefixtures("loops")
async def test_a_damaged_frame_ends_the_connection_and_nothing_else(tmp_path: Path) -> None:
    async with _node(tmp_path / "node") as node:
        await asyncio.to_thread(_send_damage, node.settings.address)


def _send_damage(address: str) -> None:
    for number in range(5):
        writer = Client(address, Purpose.WRITER)
        writer.ask(Create(VOLUME, SEED))
        end = number * 200
        assert isinstance(writer.ask(Append(1, end, 0, 0, bytes(100))), Ack)
        bad = bytearray(Append(1, end + 200, 0, 0, bytes(100)).encode())
        bad[50 + number] ^= 0x40
        writer.send_bytes(Append(1, end + 100, 0, 0, bytes(100)).encode() + bad[:60])
        answer = writer.next()
        assert isinstance(answer, Ack)
        assert answer.end == end + 200
        writer.send_bytes(bytes(bad[60:]))
        with pytest.raises(EOFError):
            writer.next()
        control = Client(address, Purpose.CONTROL)
        status = control.ask(Status())
        assert isinstance(status, StatusReply)
        assert status.end == end + 200
        writer.close()
        control.close()


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not here")
    path = tmp_path_factory.mktemp("shim") / "failing_disk.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(path), str(SHIM), "-ldl"], check=True)
    return path


@asynccontextmanager
async def _failing_node(directory: Path, shim: Path) -> AsyncIterator[tuple[NodeProcess, Path]]:
    orders = directory / "orders"
    (directory / "peers.json").write_text("{}")
    node = NodeProcess(directory, "n1", LD_PRELOAD=str(shim), FAILING_DISK=str(orders))
    await node.start()
    try:
        yield node, orders
    finally:
        await node.stop()


FAILURES = [
    ("fdatasync", errno.EIO, "StorageBroken"),
    ("pwritev", errno.EIO, "StorageBroken"),
    ("pwritev", errno.ENOSPC, "StorageFull"),
    ("pwritev", errno.EROFS, "ReadOnly"),
]


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("cached", [True, False], ids=["cached", "direct"])
@pytest.mark.parametrize(("call", "number", "code"), FAILURES)
async def test_a_failed_call_is_never_acknowledged(
    tmp_path: Path, shim: Path, call: str, number: int, code: str, cached: bool
) -> None:
    async with _failing_node(tmp_path, shim) as (node, orders):
        # As on a file system without direct writes, or with them, when the write is the sync as well.
        orders.write_text(f"direct {errno.EINVAL}\n" if cached else "")
        writer = await Writer.create(node)
        await writer.write_log(5000, piece=100)
        orders.write_text(f"{call} {number}\ndirect {errno.EINVAL if cached else number}\n")
        answer = await writer.write(log_bytes(5000, 5400))
        assert isinstance(answer, Error), answer
        assert answer.code == code
        await until(writer.connection.closed.is_set)
        orders.unlink()
        # The disk works again: the segment comes back by itself, with all that was acknowledged.
        end = (await until(lambda: _usable(node))).end
        assert end in (5000, 5400)
        again = await Writer.take_over(node, SEED)
        assert again.sent == end
        await again.write_log(9000, piece=100)
        assert await node.read(0, 9000) == log_bytes(0, 9000)


async def _usable(node: NodeProcess) -> StatusReply | None:
    try:
        return await node.status()
    except (NodeRefused, NodeUnreachable):
        return None


@pytest.mark.usefixtures("loops")
async def test_short_writes_are_gone_on_with(tmp_path: Path, shim: Path) -> None:
    async with _failing_node(tmp_path, shim) as (node, orders):
        writer = await Writer.create(node)
        await writer.write_log(1000, piece=100)
        orders.write_text("short 0")
        await writer.write_log(20_000, piece=700)
        await node.kill()
        orders.unlink()
        await node.start()
        assert await node.read(0, 20_000) == log_bytes(0, 20_000)
