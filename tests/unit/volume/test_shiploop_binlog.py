"""The way of a commit whose log is a binlog: files of any size, groups of any size, with and without native
code."""

from __future__ import annotations

import asyncio
import random
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from borealis.engines.mariadb.binlog import EventType
from borealis.engines.mariadb.binlogfiles import OFFSET_BITS, BinlogFiles, file_name
from borealis.volume.device import LogDevice
from borealis.volume.enginelog import EngineLog, LogFileError
from borealis.volume.shiploop import ShipLoop
from tests.unit.engines.binlogs import FakeBinlog, event

from .test_shiploop import Bench, bench, loops, until

__all__ = ["loops"]

START = 123_457
FIRST_FILE = 3


class BinlogEngine:
    """Writes made-up binlog files, and says so in the device page as the library would."""

    kind: Any = SimpleNamespace(log_device_kind="binlog:binlog", log_file_bytes=0)

    def __init__(self, root: Path, device: LogDevice, start: int) -> None:
        self.data_dir = root / "data"
        self.data_dir.mkdir()
        self.device = device
        self.binlog = FakeBinlog(start)
        self.sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.begin = start
        self.number, self.seq = FIRST_FILE, 0
        self.at = 0
        """So much of the log was written."""
        self.file_at = 0
        self.binlog.begin_file()
        self.write(notice=False)

    def add(self, *sizes: int) -> None:
        self.binlog.transaction(*sizes)

    def rotate(self) -> None:
        """The current file's end, and the next one with its headers."""
        self.binlog.other(EventType.ROTATE, bytes(8) + b"binlog.000009")
        self.write(notice=False)
        self.number, self.file_at = self.number + 1, self.at
        self.binlog.begin_file()

    def write(self, upto: int | None = None, *, notice: bool = True) -> int:
        """Writes what is new, up to a place in the log; the number of the write."""
        end = len(self.binlog.data) if upto is None else upto
        with (self.data_dir / file_name(self.number)).open("ab") as file:
            file.write(self.binlog.data[self.at : end])
        self.at = end
        page = self.device._page
        self.seq += 1
        page.written_lsn = (self.number << OFFSET_BITS) + self.at - self.file_at
        page.write_seq = self.seq
        if notice:
            self.sender.sendto(bytes(8), str(self.device.notice_path))
        return self.seq

    @property
    def end(self) -> int:
        return self.binlog.end

    def log(self, start: int, end: int) -> bytes:
        return self.binlog.data[start - self.binlog.start : end - self.binlog.start]


def binlog_bench(root: Path) -> Any:
    return bench(root, START, BinlogEngine)


async def shipped(b: Bench) -> None:
    await until(lambda: all(node.end == b.engine.end for node in b.nodes))
    b.check_nodes()
    assert b.ends == []


async def test_many_commits(tmp_path: Path, loops: str) -> None:
    async with binlog_bench(tmp_path) as b:
        for number in range(300):
            b.engine.add(number * 37 % 3000, 10)
            await b.released(b.engine.write())
            assert b.writer.vdl == b.engine.end
        await shipped(b)
        if loops == "native":
            assert b.writer._native is not None
            assert b.writer._native._state.batches > 100


async def test_files_follow_each_other(tmp_path: Path) -> None:
    async with binlog_bench(tmp_path) as b:
        for number in range(60):
            for size in (10, 5000, number * 100):
                b.engine.add(size)
                await b.released(b.engine.write())
            b.engine.rotate()
            if number % 3 == 0:  # Two at once.
                b.engine.rotate()
            await b.released(b.engine.write())
        await shipped(b)
        files = BinlogFiles.load(b.engine.data_dir)
        assert files.files[0] == (FIRST_FILE, START)
        assert files.newest.number == b.engine.number
        assert files.read(START, b.engine.end + 10) == b.engine.binlog.data


async def test_groups_longer_than_a_piece_and_than_the_ring(tmp_path: Path) -> None:
    async with binlog_bench(tmp_path) as b:
        b.engine.add(3_000_000, 50, *([900_000] * 25))
        b.engine.add(10)
        await b.released(b.engine.write())
        for _ in range(15):
            b.engine.add(1_100_000, 17)
            await b.released(b.engine.write())
        await shipped(b)


async def test_part_of_a_group_releases_nothing(tmp_path: Path) -> None:
    """As an engine spills what does not fit into its buffer."""
    async with binlog_bench(tmp_path) as b:
        rng = random.Random(5)
        for _ in range(60):
            before = b.engine.at
            b.engine.add(rng.randrange(60_000), 5)
            size = len(b.engine.binlog.data) - before
            for cut in sorted(rng.randrange(size) for _ in range(3)):
                part = b.engine.write(before + cut)
                if cut > 0:
                    assert b.device.released_seq < part
            await b.released(b.engine.write())
            assert b.writer.vdl == b.engine.end
        await shipped(b)


async def test_pieces_across_the_end_of_the_ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a ring so small that most groups meet its end, whole or in parts."""
    monkeypatch.setattr("borealis.volume.writer.RING_BYTES", 1 << 16)
    monkeypatch.setattr("borealis.volume.writer.UNACKNOWLEDGED_BYTES_MAX", 1 << 14)
    monkeypatch.setattr("borealis.volume.enginelog.READ_BYTES", 1 << 13)
    async with binlog_bench(tmp_path) as b:
        rng = random.Random(9)
        for number in range(150):
            before = b.engine.at
            b.engine.add(*(rng.choice([3, 200, 7000, 30_000]) for _ in range(rng.randrange(1, 4))))
            if number % 3 == 0:
                b.engine.write(before + rng.randrange(len(b.engine.binlog.data) - before))
                await asyncio.sleep(0)
            await b.released(b.engine.write())
        await shipped(b)


async def test_waiting_for_the_rest_of_a_group_at_the_end_of_the_ring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither way can go on then, and they do not hand the work to and fro."""
    ring = 1 << 16
    monkeypatch.setattr("borealis.volume.writer.RING_BYTES", ring)
    starts = 0
    start = ShipLoop.start

    def counted(loop: ShipLoop, work: Any) -> None:
        nonlocal starts
        starts += 1
        start(loop, work)

    monkeypatch.setattr(ShipLoop, "start", counted)
    async with binlog_bench(tmp_path) as b:
        overhead = 42 + 23 + 31  # GTID, rows and XID events, without the rows
        b.engine.add((ring - 10 - b.engine.end - overhead) % ring)
        assert b.engine.end % ring == ring - 10
        await b.released(b.engine.write())
        begin, before = b.engine.at, starts
        b.engine.add(5000)
        part = b.engine.write(begin + 3000)
        for _ in range(4):
            beat = b.device.heartbeat_ns
            await until(lambda beat=beat: b.device.heartbeat_ns > beat)  # type: ignore[misc]
        assert b.device.released_seq < part
        assert starts - before < 30
        await b.released(b.engine.write())
        await shipped(b)


async def test_damage_releases_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("borealis.volume.writer.BEHIND_SECONDS_MAX", 0.01)
    async with binlog_bench(tmp_path) as b:
        b.engine.add(100)
        await b.released(b.engine.write())
        b.engine.binlog.data += event(EventType.XID, bytes(8), 17)
        seq = b.engine.write()
        await until(lambda: bool(b.ends))
        assert isinstance(b.ends[0], LogFileError)
        assert b.device.released_seq < seq


async def test_a_log_that_begins_anew_is_the_end(tmp_path: Path) -> None:
    async with binlog_bench(tmp_path) as b:
        b.engine.add(100)
        await b.released(b.engine.write())
        b.engine.number, b.engine.file_at = 1, b.engine.at
        b.engine.binlog.begin_file()
        seq = b.engine.write()
        await until(lambda: bool(b.ends))
        assert isinstance(b.ends[0], LogFileError)
        assert b.device.released_seq < seq


# ---- the log alone -----------------------------------------------------------------------------------------


class Quiet:
    """A device page that nobody looks at."""

    def __init__(self, root: Path) -> None:
        self._page = SimpleNamespace(written_lsn=0, write_seq=0)
        self.notice_path = root / "none"


def engine_at(root: Path) -> BinlogEngine:
    return BinlogEngine(root, Quiet(root), START)  # type: ignore[arg-type]


def take_all(log: EngineLog, engine: BinlogEngine) -> bytes:
    written = log.written(0, engine.device._page.written_lsn)
    assert written is not None
    taken, more = b"", True
    while more:
        data, more = log.take(written)
        taken += data
    assert not log.missed(written)
    return taken


def test_resuming_anywhere(tmp_path: Path) -> None:
    engine = engine_at(tmp_path)
    EngineLog(engine.kind, engine.data_dir, START, 2).close()
    for size in (10, 400, 20_000):
        engine.add(size, 3)
        engine.write(notice=False)
        engine.rotate()
        engine.write(notice=False)
    engine.add(2_000_000)
    engine.write(notice=False)
    whole = engine.binlog.data
    log = EngineLog(engine.kind, engine.data_dir, START, 2, resume=True)
    assert take_all(log, engine) == whole
    ends = [end - START for _, _, end in engine.binlog.units]
    rng = random.Random(3)
    for at in [*ends, *(end + 1 for end in ends[:-1]), *(rng.randrange(len(whole)) for _ in range(50))]:
        log = EngineLog(engine.kind, engine.data_dir, START + at, 2, resume=True)
        assert log.position == START + at
        assert bool(log.scanner_address) == (log._scanner.position >= START + at)
        assert take_all(log, engine) == whole[at:]
        assert log.position == engine.end
        assert log.scanner_address or at == len(whole)
        log.close()


def test_a_writer_begins_with_an_empty_binlog(tmp_path: Path) -> None:
    engine = engine_at(tmp_path)
    engine.add(10)
    engine.write(notice=False)
    with pytest.raises(LogFileError, match="while it was a reader"):
        EngineLog(engine.kind, engine.data_dir, START, 2)
    with pytest.raises(LogFileError, match="expected 7"):
        EngineLog(engine.kind, engine.data_dir, START, 7, resume=True)
    (tmp_path / "none").mkdir()
    with pytest.raises(LogFileError, match="no binlog"):
        EngineLog(engine.kind, tmp_path / "none", START, 2)
