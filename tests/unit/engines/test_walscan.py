"""One set of rules for both scanners, plain Python and native, and that the two always agree."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from borealis.engines.base import EngineError, LogScanner
from borealis.engines.postgres.walscan import WalScanner, crc32c
from tests.unit.native.wal import PAGE, SEGMENT, Wal

from .real import Workshop

try:
    from borealis.volume.nativelib import WalScanner as NativeScanner
    from borealis.volume.nativelib import native

    native()
except Exception:  # Not built here: the Python one is tested all the same.
    NativeScanner = None  # type: ignore[assignment, misc]

START = 3 * SEGMENT
SIZES = st.one_of(st.integers(0, 300), st.integers(8000, 8300), st.integers(15000, 25000))
LISTS = st.lists(SIZES, min_size=1, max_size=8)
Make = Callable[[int, int], LogScanner]


@pytest.fixture(params=["python", "native"])
def make(request: pytest.FixtureRequest) -> Make:
    if request.param == "python":
        return WalScanner
    if NativeScanner is None:
        pytest.skip("the native library is not built")
    return NativeScanner


def build(sizes: list[int], start: int = START) -> Wal:
    wal = Wal(start)
    for number, size in enumerate(sizes):
        wal.add(bytes([number % 251 + 1]) * size)
    return wal


def test_crc32c() -> None:
    assert crc32c(b"123456789") ^ 0xFFFFFFFF == 0xE3069283


def test_records_pages_and_limits(make: Make) -> None:
    wal = build([100, 9000, 50])
    scanner = make(START, 1)
    assert scanner.scan(wal.pages, START, START) == (0, 0)
    # Only the first page is written: its first record is whole, the second goes on behind it.
    assert scanner.scan(wal.pages, START, START + PAGE) == (wal.ends[0], START)
    assert scanner.position == wal.ends[0]
    assert scanner.scan(wal.pages, START, wal.end + PAGE) == (wal.ends[2], START + PAGE)
    assert scanner.position == wal.ends[2]


def test_a_long_record_is_settled_page_by_page(make: Make) -> None:
    wal = build([100, 300_000])
    scanner = make(START, 1)
    assert scanner.scan(wal.pages, START, START + 20 * PAGE) == (wal.ends[0], START + 19 * PAGE)
    base = scanner.position
    assert scanner.scan(wal.pages[base - START :], base, wal.end)[0] == wal.ends[1]


def test_starts_in_the_middle_of_a_record(make: Make) -> None:
    wal = build([100, 30_000, 200])
    for page in range(START, wal.end, PAGE):
        scanner = make(page, 1)
        assert scanner.scan(wal.pages[page - START :], page, wal.end)[0] == wal.ends[-1]


def test_a_switch_ends_the_segment(make: Make) -> None:
    wal = build([100])
    own_end = wal.switch()
    last = wal.add(b"y" * 100)
    scanner = make(START, 1)
    assert scanner.scan(wal.pages, START, START + PAGE)[0] == own_end
    assert scanner.scan(wal.pages, START, START + SEGMENT) == (START + SEGMENT, START + SEGMENT)
    assert scanner.scan(wal.pages, START, START + SEGMENT + PAGE) == (last, START + SEGMENT)


def test_a_record_that_was_given_up(make: Make) -> None:
    wal = Wal(START + PAGE)
    wal.add(b"x" * 100)
    wal.begin(20000)
    wal.overwrite()
    last = wal.add(b"y" * 100)
    assert make(wal.start, 1).scan(wal.pages, wal.start, wal.end) == (last, START + 2 * PAGE)


def test_pages_of_a_later_timeline_do_not_belong(make: Make) -> None:
    wal = build([100])
    wal.timeline = 2
    wal.add(b"y" * 20000)
    assert make(START, 1).scan(wal.pages, START, wal.end)[0] == wal.ends[0]
    assert make(START, 2).scan(wal.pages, START, wal.end)[0] == wal.ends[1]


def test_bytes_that_do_not_hold_the_position(make: Make) -> None:
    with pytest.raises((EngineError, ValueError), match="do not"):
        make(START, 1).scan(bytes(PAGE), START + PAGE, START + 2 * PAGE)


@settings(deadline=None, max_examples=40)
@given(LISTS, st.data())
def test_the_python_scanner_finds_every_whole_record(sizes: list[int], data: st.DataObject) -> None:
    """The server writes whole pages, more and more; what lies below the position is not needed again."""
    wal = build(sizes)
    scanner = WalScanner(START, 1)
    limit = START
    while limit < wal.end:
        limit += PAGE * data.draw(st.integers(1, 3))
        base = scanner.position - scanner.position % PAGE
        record_end, boundary = scanner.scan(wal.pages[base - START :], base, limit)
        assert record_end == wal.ends_until(limit)
        assert scanner.position == max(record_end, boundary)
        assert boundary % PAGE == 0
        assert scanner.position > limit - 3 * PAGE


@pytest.mark.skipif(NativeScanner is None, reason="the native library is not built")
@settings(deadline=None, max_examples=50)
@given(LISTS, st.binary(min_size=1, max_size=60), st.booleans(), st.data())
def test_both_scanners_agree_on_damaged_log(
    sizes: list[int], noise: bytes, switches: bool, data: st.DataObject
) -> None:
    wal = build(sizes, START + SEGMENT - 4 * PAGE)
    if switches:
        wal.switch()
        wal.add(b"z" * 500)
    pages = bytearray(wal.pages)
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(pages) - len(noise)))
        pages[at : at + len(noise)] = noise
    begin = wal.start + PAGE * data.draw(st.integers(0, 1))
    python, twin = WalScanner(begin, 1), NativeScanner(begin, 1)
    limit = begin
    while limit < wal.end:
        limit += data.draw(st.integers(1, 4)) * (PAGE if data.draw(st.booleans()) else 8)
        found = python.scan(pages, wal.start, limit)
        assert found == twin.scan(pages, wal.start, limit)
        assert python.position == twin.position
        if limit - begin > 16 * PAGE:
            limit = wal.end - 1 if limit < wal.end - 1 else limit


def test_the_seed_of_a_real_volume(make: Make, images: Workshop) -> None:
    seed = images.seed
    scanner = make(seed.start_lsn, seed.timeline)
    padded = seed.log + bytes(-len(seed.log) % PAGE)
    assert scanner.scan(padded, seed.start_lsn, seed.start_lsn + len(padded))[0] == seed.end_lsn
