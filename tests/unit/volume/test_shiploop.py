"""The writer on real sockets, log files and a real device page; natively, and in Python alone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from borealis.engines.registry import get_engine
from borealis.errors import BorealisError
from borealis.log.history import TermHistory
from borealis.log.quorum import QuorumSet
from borealis.log.types import Superseded, TermEntry
from borealis.log.wire import (
    Ack,
    Append,
    Commit,
    FrameReader,
    Hello,
    HelloReply,
    Message,
    NewTerm,
    NewTermReply,
    Reason,
    Refused,
    decode,
)
from borealis.volume.config import NodeAddress
from borealis.volume.device import DeviceMode, LogDevice
from borealis.volume.enginelog import EngineLog, LogFileError
from borealis.volume.lease import Lease
from borealis.volume.link import Links
from borealis.volume.writer import Writer
from tests.unit.native.wal import SEGMENT, Wal

ENGINE = get_engine("aurora-postgresql")
NODES = [f"n{number}" for number in range(1, 7)]
TERM = 7


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


class FakeNode:
    """A storage node that keeps the log in memory, and can be told to be slow, silent or of another term."""

    def __init__(self, path: Path, start: int, history: TermHistory) -> None:
        self.path = path
        self.start = start
        self.log = bytearray()
        self.history = history
        self.vdl = 0
        self.subscribers = False
        self.reading = asyncio.Event()
        self.reading.set()
        self.answers = True
        self.refusal: Refused | None = None
        self.server: asyncio.Server | None = None
        self.writers: set[asyncio.StreamWriter] = set()

    @property
    def end(self) -> int:
        return self.start + len(self.log)

    async def open(self) -> None:
        self.server = await asyncio.start_unix_server(self._serve, self.path)

    async def close(self) -> None:
        if self.server is not None:
            self.server.close()
        for writer in self.writers:
            writer.close()
        self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = FrameReader()
        self.writers.add(writer)
        try:
            while True:
                await self.reading.wait()
                data = await reader.read(1 << 16)
                if not data:
                    return
                for kind, payload in frames.feed(data):
                    answer = self._answer(decode(kind, payload))
                    if answer is not None and self.answers:
                        writer.write(answer.encode())
        except OSError:
            pass
        finally:
            self.writers.discard(writer)
            writer.close()

    def _answer(self, message: Message) -> Message | None:
        if isinstance(message, Hello):
            return HelloReply(self.path.stem, "az", True)
        if isinstance(message, NewTerm):
            return NewTermReply(True, TERM, self.history, self.end)
        if isinstance(message, Commit):
            self.vdl = max(self.vdl, message.vdl)
            return None
        assert isinstance(message, Append)
        if self.refusal is not None:
            return self.refusal
        assert message.start <= self.end or not message.data
        self.log += message.data[self.end - message.start :] if message.data else b""
        self.vdl = max(self.vdl, message.vdl)
        return Ack(TERM, self.end, message.sent_ns, self.subscribers)


class FakeEngine:
    """Writes a made-up log into real files, and says so in the device page as the library would."""

    def __init__(self, root: Path, device: LogDevice, start: int) -> None:
        self.data_dir = root / "data"
        (self.data_dir / "pg_wal").mkdir(parents=True)
        self.device = device
        self.wal = Wal(start, timeline=2)
        self.sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.begin = self.wal.add(b"first")
        self.written = start
        self.seq = 0

    def add(self, *sizes: int) -> None:
        for size in sizes:
            self.wal.add(bytes([size % 251]) * size)

    def write(self, *, notice: bool = True) -> int:
        """Writes all pages that are new or have changed; the number of the write."""
        pages = self.wal.pages
        first = max(self.written - 8192, self.wal.start)
        for at in range(first, self.wal.start + len(pages), 8192):
            path = ENGINE.log_path(self.data_dir, 2, at)
            with path.open("r+b" if path.exists() else "w+b") as file:
                file.seek(at % SEGMENT)
                file.write(pages[at - self.wal.start : at - self.wal.start + 8192])
        self.written = self.wal.start + len(pages)
        page = self.device._page
        self.seq += 1
        page.written_lsn, page.timeline, page.write_seq = self.written, 2, self.seq
        if notice:
            self.notice()
        return self.seq

    def notice(self) -> None:
        self.sender.sendto(bytes(8), str(self.device.notice_path))

    kind = ENGINE

    @property
    def end(self) -> int:
        """Where the last whole record ends."""
        return self.wal.end

    def log(self, start: int, end: int) -> bytes:
        return bytes(self.wal.data[start - self.wal.start : end - self.wal.start])


class Bench:
    def __init__(self, root: Path, start: int, make_engine: Any = FakeEngine) -> None:
        self.device = LogDevice.create(root / "log.shm")
        self.device.bind_notices()
        self.device.set_mode(DeviceMode.ON)
        self.engine = make_engine(root, self.device, start)
        self.history = TermHistory(
            (TermEntry(1, 1, 0, "", "seed"), TermEntry(TERM, 2, self.engine.begin, "history", "i1/7"))
        )
        self.nodes = [FakeNode(root / f"{node}.sock", self.engine.begin, self.history) for node in NODES]
        addresses = [NodeAddress(node.path.stem, "az", str(node.path)) for node in self.nodes]
        self.links = Links("vol-0123456789ab", addresses, self)  # type: ignore[arg-type]
        self.ends: list[BorealisError] = []
        self.tasks: list[asyncio.Task[None]] = []

    # the links' user before the writer
    def link_connected(self, node: str) -> None: ...
    def link_lost(self, node: str) -> None: ...
    def links_closing(self) -> None: ...

    async def start(self, lease_seconds: float = 0.2) -> None:
        for node in self.nodes:
            await node.open()
        self.tasks.append(asyncio.create_task(self.links.run()))
        await until(lambda: len(self.links.connected) == 6)
        self.writer = Writer(
            QuorumSet(frozenset(NODES)),
            self.history,
            EngineLog(self.engine.kind, self.engine.data_dir, self.engine.begin, 2),
            self.device,
            self.links,
            Lease(lease_seconds),
            self.ends.append,
        )
        self.tasks.append(asyncio.create_task(self.writer.run(dict.fromkeys(NODES, self.engine.begin))))

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for node in self.nodes:
            await node.close()
        self.engine.sender.close()
        self.device.close()

    async def released(self, seq: int) -> None:
        await until(lambda: self.device.released_seq >= seq)

    def check_nodes(self, *numbers: int) -> None:
        """These nodes (by default all) have the log as the engine wrote it, as far as they have it."""
        for node in self.nodes:
            assert bytes(node.log) == self.engine.log(node.start, node.end)
        for number in numbers or range(6):
            assert self.nodes[number].end == self.engine.end


@asynccontextmanager
async def bench(root: Path, start: int = 2 * SEGMENT, make_engine: Any = FakeEngine) -> AsyncIterator[Bench]:
    made = Bench(root, start, make_engine)
    try:
        await made.start()
        yield made
    finally:
        await made.close()


@pytest.fixture(params=["native", "python"], autouse=True)
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("BOREALIS_NATIVE_LOOPS", "1" if request.param == "native" else "0")
    return str(request.param)


async def test_many_commits(tmp_path: Path, loops: str) -> None:
    async with bench(tmp_path) as b:
        for number in range(300):
            b.engine.add(number * 37 % 3000, 10)
            await b.released(b.engine.write())
            assert b.writer.vdl == b.engine.wal.end
        await until(lambda: all(node.end == b.engine.wal.end for node in b.nodes))
        b.check_nodes()
        assert b.ends == []
        if loops == "native":
            assert b.writer._native is not None
            assert b.writer._native._state.batches > 100
        await until(lambda: b.writer.lease.deadline_ns > 0)


async def test_files_and_the_ring_go_round(tmp_path: Path) -> None:
    async with bench(tmp_path, 2 * SEGMENT - 3 * 8192) as b:
        while b.engine.wal.end < 5 * SEGMENT:  # more than the ring holds, and three borders of files
            b.engine.add(900_000, 100, 8100)
            await b.released(b.engine.write())
        await until(lambda: all(node.end == b.engine.wal.end for node in b.nodes))
        b.check_nodes()


async def test_three_silent_nodes_hold_commits_up_and_two_do_not(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        for node in b.nodes[:2]:
            node.answers = False
        b.engine.add(100)
        await b.released(b.engine.write())
        b.nodes[2].answers = False
        b.engine.add(100)
        seq = b.engine.write()
        await until(lambda: b.nodes[5].end == b.engine.wal.end)
        await asyncio.sleep(0.05)
        assert b.device.released_seq < seq
        assert b.writer.vdl < b.engine.wal.end
        b.nodes[2].answers = True  # the next heartbeat is answered with its end
        await b.released(seq)


async def test_lost_nodes_come_back(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.engine.add(100)
        await b.released(b.engine.write())
        await b.nodes[0].close()
        await until(lambda: len(b.links.connected) == 5)
        for _ in range(20):
            b.engine.add(5000)
            await b.released(b.engine.write())
        await b.nodes[0].open()
        await until(lambda: b.nodes[0].end == b.engine.wal.end)
        b.check_nodes()


async def test_a_node_that_does_not_read_holds_up_nobody(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.nodes[3].reading.clear()
        while b.engine.wal.end < b.engine.begin + (12 << 20):
            b.engine.add(1_000_000)
            await b.released(b.engine.write())
        b.nodes[3].reading.set()
        await until(lambda: b.nodes[3].end == b.engine.wal.end)
        b.check_nodes()


async def test_a_higher_promise_ends_it(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.engine.add(100)
        await b.released(b.engine.write())
        refusal = Refused(Reason.SUPERSEDED, TERM + 1, b.engine.begin, b.history)
        for node in b.nodes:
            node.refusal = refusal
        b.engine.add(100)
        seq = b.engine.write()
        await until(lambda: bool(b.ends))
        assert isinstance(b.ends[0], Superseded)
        assert b.device.released_seq < seq


async def test_commits_go_to_nodes_with_subscribers(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.nodes[1].subscribers = True
        for _ in range(3):
            b.engine.add(100)
            await b.released(b.engine.write())
        await until(lambda: b.nodes[1].vdl == b.engine.wal.end)


async def test_a_lost_notice_costs_a_heartbeat(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.engine.add(100)
        await b.released(b.engine.write(notice=False))


async def test_a_write_without_a_whole_record_is_released_with_what_is_durable(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.engine.add(100)
        await b.released(b.engine.write())
        seq = b.engine.write()  # the same page again
        await b.released(seq)


async def test_damage_releases_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("borealis.volume.writer.BEHIND_SECONDS_MAX", 0.01)
    async with bench(tmp_path) as b:
        b.engine.add(100)
        await b.released(b.engine.write())
        b.engine.add(5000, 5000, 5000, 5000)
        b.engine.wal.data[b.engine.wal.starts[-3] - b.engine.wal.start + 24] ^= 1
        seq = b.engine.write()
        await until(lambda: bool(b.ends))
        assert isinstance(b.ends[0], LogFileError)
        assert b.device.released_seq < seq


async def test_closing_leaves_no_thread(tmp_path: Path) -> None:
    import threading

    async with bench(tmp_path) as b:
        b.engine.add(100)
        await b.released(b.engine.write())
    assert not [thread for thread in threading.enumerate() if thread.name == "ship-loop"]
