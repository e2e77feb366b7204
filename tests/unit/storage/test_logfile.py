"""Log files against a model in memory: appends, cuts, trims, repairs, restarts, damage, full disks."""

from __future__ import annotations

import errno
import os
import random
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from borealis.storage.errors import SegmentDamaged, StorageBroken, StorageError, StorageFull
from borealis.storage.format import (
    HEADER_BYTES,
    Found,
    Gap,
    HeaderCodec,
    Kind,
    Summary,
    scan,
    volume_seed,
)
from borealis.storage.index import LsnIndex
from borealis.storage.logfile import LogConfig, LogFiles, LogPlace
from borealis.storage.prepare import log_files, log_path, prepare_file, summary_path
from borealis.storage.reading import ReadResult, read_range
from borealis.storage.recovery import recover

SMALL = LogConfig(
    first_file_bytes=32 * 1024, file_bytes=64 * 1024, summary_bytes=16 * 1024, reserve_bytes=12 * 1024
)
SEED = volume_seed("vol-test")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[LogPlace]:
    with ThreadPoolExecutor(1) as executor:
        yield LogPlace(tmp_path, SEED, SMALL, executor)


def read(files: LogFiles, start: int, end: int) -> ReadResult:
    files.write()
    return read_range(files.directory, SEED, list(files.index.find(start, end)), start, end)


def put(files: LogFiles, data: bytes, term: int = 1) -> None:
    files.append(term, files.index.end, data, zlib.crc32(data))


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def crash(files: LogFiles) -> LogFiles:
    """The process is killed (what was written stays), and started again."""
    files.close(clean=False)
    return recover(files.place)


def offset_of(files: LogFiles, lsn: int) -> tuple[Path, int]:
    """Where the payload of the record that holds `lsn` is, near enough to damage it."""
    extent = next(files.index.find(lsn, lsn + 1))
    path = log_path(files.directory, extent.file_seq)
    for item in scan(path.read_bytes(), HeaderCodec(extent.file_seq, SEED)):
        if isinstance(item, Found) and item.header.kind == Kind.DATA:
            inside = lsn - item.header.lsn
            if 0 <= inside < item.header.length:
                return path, item.offset + HEADER_BYTES + inside
    raise AssertionError(lsn)


def test_read_any_range_across_records_and_files(place: LogPlace) -> None:
    files = LogFiles.create(place, 1000, b"{}")
    rng = random.Random(1)
    log = b""
    while len(log) < 300_000:
        piece = rng.randbytes(rng.choice((1, 7, 100, 3000, 9000)))
        put(files, piece)
        log += piece
        if rng.random() < 0.3:
            files.sync()
    assert files.file_seq > 3
    for _ in range(200):
        start = rng.randrange(len(log))
        end = min(len(log), start + rng.choice((1, 50, 5000, 100_000)))
        assert read(files, 1000 + start, 1000 + end).data == log[start:end]
    files.close(clean=True)


@pytest.mark.parametrize("clean", [True, False])
def test_restart_finds_all_that_was_synced(place: LogPlace, clean: bool) -> None:
    files = LogFiles.create(place, 0, b'{"promised": 1}')
    log = random.Random(2).randbytes(200_000)
    for at in range(0, len(log), 1500):
        put(files, log[at : at + 1500])
        files.sync()
        if files.wants_summary:
            files.save_summary()
    files.set_state(b'{"promised": 7}', 7, 0, len(log))
    files.sync()
    files.close(clean=clean)
    again = recover(place)
    assert (again.index.base, again.index.end, again.meta) == (0, len(log), b'{"promised": 7}')
    assert again.index.holes() == []
    assert read(again, 0, len(log)).data == log
    put(again, b"more")
    again.sync()
    again = crash(again)
    assert read(again, 0, len(log) + 4).data == log + b"more"
    again.close(clean=True)


def test_restart_needs_no_summaries(place: LogPlace) -> None:
    files = LogFiles.create(place, 0, b"{}")
    log = random.Random(3).randbytes(200_000)
    for at in range(0, len(log), 1000):
        put(files, log[at : at + 1000])
    files.sync()
    files.close(clean=True)
    for file_seq in log_files(place.directory):
        summary_path(place.directory, file_seq).unlink(missing_ok=True)
    again = recover(place)
    assert read(again, 0, len(log)).data == log
    again.close(clean=True)


def test_torn_tail_is_cut_and_never_comes_back(place: LogPlace) -> None:
    files = LogFiles.create(place, 0, b"{}")
    put(files, b"a" * 500)
    files.sync()
    # One batch of two records that was never synced; of the first, a byte did not reach the disk.
    put(files, b"b" * 500)
    put(files, b"c" * 500)
    files.write()
    path, offset = offset_of(files, 600)
    files.close(clean=False)
    flip(path, offset)
    again = recover(place)
    assert again.index.end == 500
    # A new record as long as the torn one: the old third record must not follow it.
    put(again, b"d" * 500)
    again.sync()
    again = crash(again)
    assert again.index.end == 1000
    assert read(again, 0, 1000).data == b"a" * 500 + b"d" * 500
    again.close(clean=True)


@pytest.mark.parametrize(
    "where", [-HEADER_BYTES + 3, -10, 0, 250], ids=["magic", "header", "first", "middle"]
)
def test_damage_in_the_middle_is_a_hole(place: LogPlace, where: int) -> None:
    files = LogFiles.create(place, 0, b"{}")
    log = random.Random(4).randbytes(5000)
    for at in range(0, 5000, 500):
        put(files, log[at : at + 500])
        files.sync()
    path, offset = offset_of(files, 2000)
    files.close(clean=False)
    flip(path, offset + where)
    again = recover(place)
    assert again.index.end == 5000
    assert again.index.holes() == [(2000, 2500)]
    assert read(again, 0, 5000).data == log[:2000]
    assert read(again, 2500, 5000).data == log[2500:]
    again.repair(2000, log[2000:2500])
    again.sync()
    assert again.index.holes() == []
    assert read(again, 0, 5000).data == log
    put(again, b"next")
    again.sync()
    again = crash(again)
    assert read(again, 1500, 5004).data == log[1500:] + b"next"
    again.close(clean=True)
    again = recover(place)
    assert read(again, 0, 5004).data == log + b"next"
    again.close(clean=True)


def test_damage_below_the_summary_is_met_on_reading(place: LogPlace) -> None:
    files = LogFiles.create(place, 0, b"{}")
    log = random.Random(5).randbytes(5000)
    for at in range(0, 5000, 500):
        put(files, log[at : at + 500])
    files.sync()
    path, offset = offset_of(files, 2100)
    files.close(clean=True)
    flip(path, offset)
    again = recover(place)
    result = read(again, 1900, 5000)
    assert result.data == log[1900:2000]
    assert result.damaged == (2000, 2500)
    again.index.punch(2000, 2500)
    assert again.index.holes() == [(2000, 2500)]
    again.close(clean=True)


def test_one_damaged_state_record_loses_no_promise(place: LogPlace) -> None:
    files = LogFiles.create(place, 0, b"{}")
    put(files, b"x" * 100)
    files.set_state(b'{"promised": 9}', 9, 0, 100)
    files.sync()
    put(files, b"y" * 100)
    files.sync()
    files.close(clean=False)
    path = log_path(place.directory, 1)
    data = path.read_bytes()
    first = data.index(b'{"promised": 9}')
    second = data.index(b'{"promised": 9}', first + 1)
    assert second - first > 4096
    flip(path, first)
    again = recover(place)
    assert again.meta == b'{"promised": 9}'
    again.close(clean=False)
    flip(path, second)
    with pytest.raises(SegmentDamaged):
        recover(place)


def test_cut_and_trim_and_recycling(place: LogPlace) -> None:
    files = LogFiles.create(place, 0, b"{}")
    put(files, b"a" * 1000)
    files.set_state(b"{}", 2, 0, 400)
    put(files, b"b" * 1000, term=2)
    files.sync()
    files = crash(files)
    assert read(files, 0, 1400).data == b"a" * 400 + b"b" * 1000
    while files.file_seq < 6:
        put(files, b"c" * 5000)
    files.sync()
    trimmed = files.index.end - 2000
    files.set_state(b"{}", 2, trimmed, files.index.end)
    files.sync()
    files.retire()
    place.executor.submit(int).result()
    assert log_files(place.directory)[0] == 6
    assert any(name.startswith("spare-") for name in os.listdir(place.directory))
    end = files.index.end
    files = crash(files)
    assert (files.index.base, files.index.end, files.index.holes()) == (trimmed, end, [])
    while files.file_seq < 9:  # Recycled files hold old records: none of them may be taken for new.
        put(files, b"d" * 5000)
    files.sync()
    files = crash(files)
    assert files.index.holes() == []
    assert read(files, end, files.index.end).data == b"d" * (files.index.end - end)
    files.close(clean=True)


def test_a_full_disk_refuses_data_and_leaves_room_for_promises(
    place: LogPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("borealis.storage.logfile.prepare_file", full)
    monkeypatch.setattr("borealis.storage.logfile.RETRY_SECONDS", 0.0)
    real = prepare_file
    real(place.directory, 1, SMALL.first_file_bytes)
    path = log_path(place.directory, 1)
    files = LogFiles(place, LsnIndex(0), b"{}")
    files.resume(1, os.open(path, os.O_RDWR), path.stat().st_size, 0)
    files.set_state(b"{}", 1, 0, 0)
    while files.has_room(1000):
        put(files, b"x" * 1000)
    assert files.has_room_for_state(100)
    files.set_state(b'{"promised": 3}', 3, 0, files.index.end)
    with pytest.raises(StorageFull):
        put(files, b"x" * 1000)
    monkeypatch.setattr("borealis.storage.logfile.prepare_file", real)
    assert files.has_room(1000)
    put(files, b"y" * 1000)
    files.sync()
    end = files.index.end
    files = crash(files)
    assert files.index.end == end
    assert read(files, end - 1000, end).data == b"y" * 1000
    files.close(clean=True)


def test_a_failed_sync_is_told_and_survived(place: LogPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LogFiles.create(place, 0, b"{}")
    put(files, b"safe")
    files.sync()

    def failing(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.fdatasync", failing)
        put(files, b"lost?")
        with pytest.raises(StorageBroken):
            files.sync()
        files.close(clean=False)
        with pytest.raises(StorageError):
            recover(place)
    again = recover(place)
    assert read(again, 0, 4).data == b"safe"
    again.close(clean=True)


def test_a_large_record_is_split_over_small_files(place: LogPlace) -> None:
    files = LogFiles.create(place, 0, b"{}")
    log = random.Random(6).randbytes(500_000)
    put(files, log)
    files.sync()
    assert read(files, 0, len(log)).data == log
    files = crash(files)
    assert read(files, 123, 400_000).data == log[123:400_000]
    files.close(clean=True)


payloads = st.lists(st.binary(max_size=200), max_size=12)


@given(
    payloads=payloads,
    cut=st.integers(min_value=0, max_value=4000),
    flips=st.lists(st.integers(0, 4000), max_size=3),
)
def test_scan_returns_only_what_was_written(payloads: list[bytes], cut: int, flips: list[int]) -> None:
    """Whatever is cut off or flipped: a record that a scan calls whole was written, at its place."""
    codec = HeaderCodec(3, SEED)
    written: dict[int, bytes] = {}
    buffer = bytearray()
    for number, payload in enumerate(payloads):
        written[len(buffer)] = payload
        buffer += codec.pack(
            Kind.DATA,
            meta_no=0,
            batch=len(buffer),
            length=len(payload),
            dcrc=zlib.crc32(payload),
            term=1,
            lsn=number,
        )
        buffer += payload
    intact = bytes(buffer)
    for position in flips:
        if position < len(buffer):
            buffer[position] ^= 0x40
    data = bytes(buffer[:cut])
    whole = {
        item.offset: bytes(item.payload)
        for item in scan(data, codec)
        if isinstance(item, Found) and item.whole
    }
    assert whole.items() <= written.items()
    if data == intact:
        assert whole == written
        assert not any(isinstance(item, Gap) for item in scan(data, codec))


@given(st.binary(max_size=300))
def test_random_bytes_are_no_summary(data: bytes) -> None:
    assert Summary.decode(data) is None


operations = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 6000)),
        st.tuples(st.just("cut"), st.integers(0, 8000)),
        st.tuples(st.just("trim"), st.integers(0, 8000)),
        st.tuples(st.just("sync"), st.just(0)),
        st.tuples(st.just("crash"), st.just(0)),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("repair"), st.integers(0, 8000)),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(operations=operations, seed=st.integers(0, 1000))
def test_log_is_what_the_model_says(
    operations: list[tuple[str, int]], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = random.Random(seed)
    with ThreadPoolExecutor(1) as executor:
        place = LogPlace(tmp_path_factory.mktemp("log"), SEED, SMALL, executor)
        files = LogFiles.create(place, 0, b"{}")
        base, log = 0, b""  # `log` begins at LSN 0; what is below base is not looked at.
        for operation, number in operations:
            if operation == "append":
                piece = rng.randbytes(number)
                put(files, piece)
                log += piece
            elif operation == "cut":
                log = log[: max(base, len(log) - number)]
                files.set_state(b"{}", 1, base, len(log))
            elif operation == "trim":
                base = min(len(log), base + number)
                files.set_state(b"{}", 1, base, len(log))
                files.sync()
                files.retire()
            elif operation == "sync":
                files.sync()
                if files.wants_summary:
                    files.save_summary()
            elif operation == "repair":
                start = min(len(log), base + number)
                end = min(len(log), start + 700)
                if start < end:
                    files.index.punch(start, end)
                    files.repair(start, log[start:end])
            else:
                files.sync()
                files.close(clean=operation == "restart")
                files = recover(place)
            assert (files.index.base, files.index.end) == (base, len(log))
            assert files.index.holes() == []
            start = rng.randint(base, len(log))
            assert read(files, start, len(log)).data == log[start:]
        files.close(clean=True)
