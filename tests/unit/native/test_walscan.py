"""The scanner over logs made by hand: cut, torn, half copied, recycled, and started anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from borealis.volume.nativelib import ScanStop, WalScanner, crc32c

from .wal import PAGE, SEGMENT, Wal, header_bytes

START = 3 * SEGMENT
# Small ones, ones that end at or near a page's end, and ones over several pages.
SIZES = st.one_of(st.integers(0, 300), st.integers(8000, 8300), st.integers(15000, 40000))
LISTS = st.lists(SIZES, min_size=1, max_size=25)


def build(sizes: list[int], start: int = START) -> Wal:
    wal = Wal(start)
    for number, size in enumerate(sizes):
        wal.add(bytes([number % 251 + 1]) * size)
    return wal


def settled(wal: Wal, scanner: WalScanner, limit: int) -> None:
    """What must hold after a scan of whole pages below `limit`."""
    assert scanner.record_end == wal.ends_until(limit)
    assert scanner.position == max(scanner.record_end, scanner.page_boundary, wal.start)
    assert scanner.page_boundary % PAGE == 0


def test_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"6789", crc32c(b"12345")) == 0xE3069283


@given(st.binary(max_size=200), st.integers(0, 2**32 - 1))
def test_crc32c_without_the_instruction(data: bytes, crc: int) -> None:
    assert crc32c(data, crc) == crc32c(bytearray(data), crc, portable=True)


@settings(deadline=None)
@given(LISTS, st.integers(0, 20))
def test_finds_the_last_record(sizes: list[int], page: int) -> None:
    wal = build(sizes, START + page * PAGE)
    scanner = WalScanner(wal.start, 1)
    assert scanner.scan(wal.pages, wal.start)[0] == wal.ends[-1]
    assert scanner.records == len(wal.ends)
    assert scanner.stopped is ScanStop.NEED_MORE or wal.end % PAGE == 0
    settled(wal, scanner, wal.end)


@settings(deadline=None)
@given(LISTS, st.data())
def test_any_steps_lead_to_the_same_place(sizes: list[int], data: st.DataObject) -> None:
    """The engine writes whole pages, more and more; the caller drops what is below the position."""
    wal = build(sizes)
    scanner = WalScanner(wal.start, 1)
    limit = wal.start
    while limit < wal.end:
        limit = min(limit + PAGE * data.draw(st.integers(1, 4)), wal.start + len(wal.pages))
        base = scanner.position - scanner.position % PAGE
        scanner.scan(wal.pages[base - wal.start :], base, limit)
        settled(wal, scanner, limit)
        assert scanner.position > limit - 3 * PAGE, "everything but the last pages is settled"


@settings(deadline=None)
@given(LISTS, st.data())
def test_a_page_that_fills(sizes: list[int], data: st.DataObject) -> None:
    """The last page is written again and again, each time with more in it, and zeros behind."""
    wal = build(sizes)
    scanner = WalScanner(wal.start, 1)
    for filled in sorted(data.draw(st.lists(st.integers(0, len(wal.data)), min_size=1, max_size=8))):
        written = bytes(wal.data[:filled]) + bytes(-filled % PAGE)
        scanner.scan(written, wal.start)
        assert scanner.record_end <= wal.start + filled + 7
        assert scanner.record_end in (0, *wal.ends)
        assert scanner.position <= wal.start + filled + 7
    scanner.scan(wal.pages, wal.start)
    settled(wal, scanner, wal.end)


@settings(deadline=None)
@given(LISTS, st.data())
def test_a_record_that_is_still_being_copied(sizes: list[int], data: st.DataObject) -> None:
    """A record in the last page lacks a piece: it and all behind it are hidden, nothing before."""
    wal = build(sizes)
    last_page = (wal.end - 1) // PAGE * PAGE
    number = data.draw(st.sampled_from([n for n, end in enumerate(wal.ends) if end > last_page]))
    first = max(wal.starts[number], last_page + header_bytes(last_page))
    hole = data.draw(st.integers(first, wal.ends[number] - 1)) - wal.start
    pages = bytearray(wal.pages)
    length = data.draw(st.integers(1, wal.ends[number] - wal.start - hole))
    pages[hole : hole + length] = bytes(length)
    scanner = WalScanner(wal.start, 1)
    scanner.scan(pages, wal.start)
    if pages == wal.pages:
        assert scanner.record_end == wal.ends[-1]
    else:
        assert scanner.record_end == (wal.ends[number - 1] if number else 0)
    scanner.scan(wal.pages, wal.start)
    settled(wal, scanner, wal.end)


@settings(deadline=None)
@given(LISTS, st.integers(1, 1 << 20), st.integers(0, 255))
def test_old_log_behind_the_end(sizes: list[int], back: int, noise: int) -> None:
    """A recycled segment: behind the written pages lies log of long ago, or noise."""
    wal = build(sizes)
    old = build(sizes * 2, START - SEGMENT * (back % 3 + 1))
    garbage = old.pages if noise % 2 else bytes([noise]) * len(old.pages)
    scanner = WalScanner(wal.start, 1)
    scanner.scan(wal.pages + garbage[len(wal.pages) :] + bytes(PAGE), wal.start)
    settled(wal, scanner, wal.end)


@settings(deadline=None)
@given(LISTS, st.data())
def test_starts_at_any_page(sizes: list[int], data: st.DataObject) -> None:
    wal = build(sizes)
    page = wal.start + PAGE * data.draw(st.integers(0, len(wal.pages) // PAGE - 1))
    scanner = WalScanner(page, 1)
    scanner.scan(wal.pages[page - wal.start :], page)
    if wal.ends[-1] > page:
        assert scanner.record_end == wal.ends[-1]
    assert scanner.position == max(wal.ends[-1], page)


@settings(deadline=None)
@given(LISTS, st.data())
def test_starts_at_any_record(sizes: list[int], data: st.DataObject) -> None:
    wal = build(sizes)
    end = data.draw(st.sampled_from(wal.ends))
    scanner = WalScanner(end, 1)
    scanner.scan(wal.pages, wal.start)
    assert scanner.position == wal.ends[-1]


@settings(deadline=None)
@given(LISTS, st.data())
def test_shipped_log_ends_in_the_middle_of_a_page(sizes: list[int], data: st.DataObject) -> None:
    """Log from storage is cut anywhere; whatever is whole is found."""
    wal = build(sizes)
    cut = data.draw(st.integers(0, len(wal.data)))
    scanner = WalScanner(wal.start, 1)
    scanner.scan(bytes(wal.data[:cut]), wal.start)
    assert scanner.record_end == wal.ends_until(wal.start + cut)


def test_a_long_record_is_settled_page_by_page() -> None:
    wal = Wal(START)
    first = wal.add(b"a" * 100)
    wal.add(b"b" * 1_000_000)
    scanner = WalScanner(START, 1)
    record_end, boundary = scanner.scan(wal.pages, START, START + 50 * PAGE)
    assert (record_end, boundary) == (first, START + 49 * PAGE)
    base = scanner.position
    assert scanner.scan(wal.pages[base - START :], base)[0] == wal.ends[-1]


def test_over_segments() -> None:
    wal = Wal(START + SEGMENT - 2 * PAGE)
    for _ in range(10):
        wal.add(b"x" * 5000)
    scanner = WalScanner(wal.start, 1)
    assert scanner.scan(wal.pages, wal.start)[0] == wal.ends[-1]


def test_a_switch_ends_the_segment() -> None:
    wal = Wal(START)
    wal.add(b"x" * 100)
    own_end = wal.switch()
    last = wal.add(b"y" * 100)
    scanner = WalScanner(START, 1)
    # The record is written, the rest of the segment is not.
    assert scanner.scan(wal.pages, START, START + PAGE) == (own_end, START + PAGE)
    assert scanner.scan(wal.pages, START, START + 5 * PAGE) == (own_end, START + 5 * PAGE)
    assert scanner.scan(wal.pages, START, START + SEGMENT) == (START + SEGMENT, START + SEGMENT)
    assert scanner.scan(wal.pages, START) == (last, START + SEGMENT)


@settings(deadline=None, max_examples=25)
@given(LISTS, st.booleans(), st.data())
def test_resuming_anywhere(sizes: list[int], switches: bool, data: st.DataObject) -> None:
    """Wherever a scanner has ever stood, another one can go on, with the same results."""
    whole = build([7000] * 5 + sizes)
    if switches:
        whole.switch()
        whole.add(b"y" * 9000)
        whole.switch()
    whole.add(b"z" * 9000)
    limit = START + PAGE * data.draw(st.integers(1, len(whole.pages) // PAGE))
    first = WalScanner(START, 1)
    first.scan(whole.pages, START, limit)
    assert not first.missed(limit)
    position = first.position

    def read(begin: int, end: int) -> bytes:
        return whole.pages[begin - START : end - START]

    second = WalScanner.resume(position, 1, read)
    assert second.position == position
    base = position - position % PAGE
    second.scan(read(base, whole.end + PAGE), base)
    assert second.record_end == whole.ends[-1]


def test_a_scan_that_stops_too_early_is_known() -> None:
    wal = build([100, 30000, 100])
    scanner = WalScanner(START, 1)
    end = START + len(wal.pages)
    scanner.scan(wal.pages, START, end)
    assert not scanner.missed(end)
    damaged = bytearray(wal.pages)
    damaged[2 * PAGE] ^= 0xFF
    damaged[2 * PAGE + 9] ^= 0xFF
    scanner = WalScanner(START, 1)
    scanner.scan(damaged, START, end)
    assert scanner.missed(end)
    assert not WalScanner(START, 1).missed(0)


def test_a_switch_that_ends_exactly_at_the_segment() -> None:
    wal = Wal(START + SEGMENT - PAGE)
    wal.add(b"x" * (PAGE - 24 - 24 - 24))
    assert wal.switch() == START + SEGMENT
    last = wal.add(b"y")
    scanner = WalScanner(wal.start, 1)
    assert scanner.scan(wal.pages, wal.start)[0] == last


def test_a_record_that_was_given_up() -> None:
    wal = Wal(START + PAGE)
    wal.add(b"x" * 100)
    wal.begin(20000)
    wal.overwrite()
    last = wal.add(b"y" * 100)
    scanner = WalScanner(wal.start, 1)
    assert scanner.scan(wal.pages, wal.start) == (last, START + 2 * PAGE)


def test_a_new_timeline_in_the_middle_of_a_page() -> None:
    wal = Wal(START, timeline=1)
    switch_point = wal.add(b"x" * 100)
    wal.timeline = 2
    wal.add(b"y" * 20000)
    assert WalScanner(START, 2).scan(wal.pages, START)[0] == wal.ends[-1]
    assert WalScanner(switch_point, 2).scan(wal.pages, START)[0] == wal.ends[-1]
    old = WalScanner(START, 1)
    assert old.scan(wal.pages, START)[0] == switch_point, "a page of a later timeline is not of this log"
    assert old.stopped is ScanStop.BAD_PAGE


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))])
def test_kinds_of_buffers(kind: type[bytes]) -> None:
    wal = build([100, 9000])
    assert WalScanner(START, 1).scan(kind(wal.pages), START)[0] == wal.ends[-1]


def test_bytes_that_do_not_hold_the_position() -> None:
    scanner = WalScanner(START, 1)
    with pytest.raises(ValueError, match="do not contain"):
        scanner.scan(bytes(PAGE), START + PAGE)
    assert scanner.scan(b"", START) == (0, 0)
    with pytest.raises(ValueError, match="multiple of 8"):
        WalScanner(START + 1, 1)


@settings(deadline=None, max_examples=200)
@given(LISTS, st.binary(min_size=1, max_size=60), st.data())
def test_no_damage_leads_outside_the_bytes(sizes: list[int], noise: bytes, data: st.DataObject) -> None:
    wal = build(sizes)
    pages = bytearray(wal.pages)
    at = data.draw(st.integers(0, len(pages) - 1))
    pages[at : at + len(noise)] = noise[: len(pages) - at]
    scanner = WalScanner(wal.start, 1)
    scanner.scan(pages, wal.start)
    assert wal.start <= scanner.position <= wal.start + len(pages)
