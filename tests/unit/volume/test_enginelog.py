"""Following the engine's log files: pieces end where the log may be cut, and damage is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from borealis.engines.registry import get_engine
from borealis.volume import enginelog
from borealis.volume.enginelog import EngineLog, LogFileError, log_kind
from tests.unit.native.wal import PAGE, SEGMENT, Wal

ENGINE = get_engine("aurora-postgresql")


def write_files(data_dir: Path, wal: Wal) -> int:
    """Writes the log into the engine's files; returns how far it is written, in whole pages."""
    offset = wal.start % SEGMENT
    content = bytes(offset) + wal.pages
    for at in range(0, len(content), SEGMENT):
        path = ENGINE.log_path(data_dir, wal.timeline, wal.start - offset + at)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[at : at + SEGMENT].ljust(SEGMENT, b"\0"))
    return wal.start + len(wal.pages)


def take_all(log: EngineLog, written: int) -> bytes:
    taken, more = b"", True
    while more:
        data, more = log.take(written)
        taken += data
    return taken


def test_takes_whole_records_only(tmp_path: Path) -> None:
    wal = Wal(2 * SEGMENT)
    begin = wal.add(b"first")
    for size in (10, 3000, 20_000, 7):
        wal.add(bytes(size))
    end = wal.end
    wal.begin(50_000)
    written = write_files(tmp_path, wal)
    log = EngineLog(ENGINE, tmp_path, begin, 1)
    assert take_all(log, written) == bytes(wal.data[begin - wal.start : end - wal.start])
    assert log.position == end
    assert not log.missed(written)
    assert log.take(written) == (b"", False)


def test_records_on_the_border_of_two_files(tmp_path: Path) -> None:
    wal = Wal(3 * SEGMENT - 4 * PAGE)
    begin = wal.add(b"first")
    while wal.end < 3 * SEGMENT + 2 * PAGE:
        wal.add(bytes(1900))
    written = write_files(tmp_path, wal)
    log = EngineLog(ENGINE, tmp_path, begin, 1)
    # First only what the first file holds was written, then the rest.
    taken = take_all(log, 3 * SEGMENT)
    assert 3 * SEGMENT - PAGE <= log.position <= 3 * SEGMENT
    taken += take_all(log, written)
    assert taken == bytes(wal.data[begin - wal.start :])
    assert not log.missed(written)


def test_large_logs_come_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enginelog, "READ_BYTES", 3 * PAGE + 11)
    wal = Wal(2 * SEGMENT)
    begin = wal.add(b"first")
    for size in (40, 100_000, 200, 9000, 9000):
        wal.add(bytes(size))
    written = write_files(tmp_path, wal)
    log = EngineLog(ENGINE, tmp_path, begin, 1)
    piece, more = log.take(written)
    assert 0 < len(piece) <= 3 * PAGE + 11
    assert more
    assert piece + take_all(log, written) == bytes(wal.data[begin - wal.start :])


def test_damage_is_noticed(tmp_path: Path) -> None:
    wal = Wal(2 * SEGMENT)
    begin = wal.add(b"first")
    for _ in range(20):
        wal.add(bytes(4000))
    wal.data[wal.starts[3] - wal.start + 30] ^= 1
    written = write_files(tmp_path, wal)
    log = EngineLog(ENGINE, tmp_path, begin, 1)
    take_all(log, written)
    assert log.position < wal.ends[3]
    assert log.missed(written)


def test_a_missing_file_is_noticed(tmp_path: Path) -> None:
    wal = Wal(2 * SEGMENT)
    begin = wal.add(b"first")
    log = EngineLog(ENGINE, tmp_path, begin, 1)
    assert log.take(wal.start + PAGE) == (b"", False)
    assert log.missed(wal.start + 3 * PAGE)


def test_resumes_at_any_cut(tmp_path: Path) -> None:
    wal = Wal(2 * SEGMENT)
    wal.add(b"first")
    wal.add(bytes(30_000))
    middle = wal.add(b"x")
    wal.add(bytes(12_000))
    written = write_files(tmp_path, wal)
    for position in (middle, 2 * SEGMENT + PAGE, 2 * SEGMENT + 2 * PAGE):
        log = EngineLog(ENGINE, tmp_path, position, 1, resume=True)
        assert log.position == position
        assert take_all(log, written) == bytes(wal.data[position - wal.start :])


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(LogFileError, match="pgwal"):
        log_kind("scroll")
