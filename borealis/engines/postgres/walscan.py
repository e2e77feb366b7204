"""Where do records end in PostgreSQL's log? The scanner in plain Python.

Owns the structure of WAL pages and records, as far as their ends. The driver uses the native twin of this
module (`native/walscan.c`); both pass the same tests, and this one is the readable account. It never looks
into a record.

The server writes whole 8 KiB pages; behind the last finished record a page may hold zeros, records that are
still being copied, or (in a recycled file) the log of long ago. So the scanner follows the chain of records
from a known boundary and verifies each CRC. A page boundary is settled as soon as the page that begins there
has been written.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from enum import Enum

from borealis.engines.base import EngineError, ScanResult
from borealis.engines.postgres.wal import PAGE_BYTES, SEGMENT_BYTES

RECORD_HEADER_BYTES = 24
RECORD_BYTES_MAX = 1 << 30
_SHORT_PAGE_HEADER_BYTES = 24
_LONG_PAGE_HEADER_BYTES = 40
_CRC_OFFSET = 20
_PAGE_HEADER = struct.Struct("<HHIQI")
"""magic, info, timeline, page address, remaining length of a record that began before."""
_CONTINUES, _LONG_HEADER, _OVERWRITES, _ALL_INFO = 0x1, 0x2, 0x8, 0xF
_RMGR_XLOG, _XLOG_SWITCH = 0, 0x40


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # noqa: PLW2901
        table.append(value)
    return table


_CRC_TABLE = _crc_table()


def crc32c(data: bytes | memoryview, crc: int = 0xFFFFFFFF) -> int:
    """CRC-32C (Castagnoli) so far, without the final inversion."""
    table = _CRC_TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc


def align8(value: int) -> int:
    """The next multiple of eight: records begin there."""
    return value + 7 & ~7


def page_header_bytes(page: int) -> int:
    """Size of the header of the page at this position."""
    return _SHORT_PAGE_HEADER_BYTES if page % SEGMENT_BYTES else _LONG_PAGE_HEADER_BYTES


class _Phase(Enum):
    BETWEEN = "position is a record boundary"
    IN_RECORD = "position is a page boundary inside a record that the scanner saw begin"
    IN_TAIL = "position is a page boundary, perhaps inside a record that began before the scan"
    IN_VOID = "behind an XLOG_SWITCH: the rest of the segment means nothing"


class _Stop(Exception):
    """The walk cannot go on now."""


@dataclass(slots=True)
class _State:
    """All that a scanner remembers. A walk works on a copy, which is kept at each boundary that is
    certain."""

    position: int
    phase: _Phase
    record_end: int = 0
    page_boundary: int = 0
    page_timeline: int = 0
    left: int = 0
    """Bytes of the record in progress still to come."""
    crc: int = 0xFFFFFFFF
    """Of that record's data so far, without its header."""
    header: bytes = b""


class WalScanner:
    """Implements `engines.base.LogScanner`."""

    def __init__(self, position: int, timeline: int) -> None:
        phase = _Phase.BETWEEN if position % PAGE_BYTES else _Phase.IN_TAIL
        self._settled = _State(position, phase)
        self._timeline = timeline

    @property
    def position(self) -> int:
        return self._settled.position

    def scan(self, data: bytes | bytearray | memoryview, start: int, limit: int) -> ScanResult:
        """See `LogScanner.scan`."""
        if not start <= self.position <= start + len(data):
            raise EngineError(
                f"bytes {start:#x} to {start + len(data):#x} do not hold the position {self.position:#x}"
            )
        walk = _Walk(self._settled, self._timeline, memoryview(data), start, min(limit, start + len(data)))
        self._settled = walk.run()
        return ScanResult(self._settled.record_end, self._settled.page_boundary)


class _Walk:
    """One scan: `now` runs ahead, `settled` is what is certain."""

    def __init__(self, settled: _State, timeline: int, data: memoryview, start: int, end: int) -> None:
        self.settled = settled
        self.now = replace(settled)
        self.timeline = timeline
        self.data = data
        self.start = start
        self.end = end

    def run(self) -> _State:
        steps = {
            _Phase.BETWEEN: self._begin_record,
            _Phase.IN_RECORD: self._resume_record,
            _Phase.IN_TAIL: self._skip_tail,
            _Phase.IN_VOID: self._cross_void,
        }
        try:
            while True:
                steps[self.now.phase]()
        except _Stop:
            return self.settled

    def _need(self, position: int) -> None:
        if position > self.end:
            raise _Stop

    def _bytes(self, start: int, end: int) -> memoryview:
        self._need(end)
        return self.data[start - self.start : end - self.start]

    def _settle(self, position: int, phase: _Phase) -> None:
        self.now.position = position
        self.now.phase = phase
        self.settled = replace(self.now)

    def _settle_page(self, boundary: int, phase: _Phase) -> None:
        self.now.page_boundary = boundary
        self._settle(boundary, phase)

    def _settle_record(self, end: int, phase: _Phase) -> None:
        self.now.record_end = end
        self._settle(end, phase)

    def _enter_page(self, page: int) -> tuple[int, bool]:
        """Check a page's header; returns the rest of the record that crosses its start, and whether that
        record was given up for another one."""
        header = self._bytes(page, page + page_header_bytes(page))
        magic, info, timeline, address, rest = _PAGE_HEADER.unpack_from(header)
        if not magic or info & ~_ALL_INFO or address != page:
            raise _Stop
        if not max(self.now.page_timeline, 1) <= timeline <= self.timeline:
            raise _Stop
        if bool(info & _LONG_HEADER) != (page % SEGMENT_BYTES == 0) or bool(info & _CONTINUES) != (rest != 0):
            raise _Stop
        self.now.page_timeline = timeline
        return rest, bool(info & _OVERWRITES)

    def _begin_record(self) -> None:
        at = self.now.position
        if at % PAGE_BYTES == 0:
            rest, _ = self._enter_page(at)
            if rest:
                raise _Stop
            self._settle_page(at, _Phase.BETWEEN)
            at += page_header_bytes(at)
        length = int.from_bytes(self._bytes(at, at + 4), "little")
        if not RECORD_HEADER_BYTES <= length <= RECORD_BYTES_MAX:
            raise _Stop
        self.now.left = length
        self.now.header = b""
        self.now.crc = 0xFFFFFFFF
        self._follow_record(at)

    def _resume_record(self) -> None:
        page = self.now.position
        self._enter_page(page)
        self._follow_record(page + page_header_bytes(page))

    def _follow_record(self, at: int) -> None:
        """Go on with the record in progress, whose next bytes lie at `at`."""
        while True:
            part = min(self.now.left, PAGE_BYTES - at % PAGE_BYTES)
            self._take(self._bytes(at, at + part))
            at += part
            if not self.now.left:
                self._finish_record(at)
                return
            rest, overwrites = self._enter_page(at)
            if overwrites and not rest:
                self._settle_page(at, _Phase.BETWEEN)
                return
            if rest != self.now.left:
                raise _Stop
            self._settle_page(at, _Phase.IN_RECORD)
            at += page_header_bytes(at)

    def _take(self, part: memoryview) -> None:
        now = self.now
        now.left -= len(part)
        missing = RECORD_HEADER_BYTES - len(now.header)
        now.header += bytes(part[:missing])
        now.crc = crc32c(part[missing:], now.crc)

    def _finish_record(self, end: int) -> None:
        """All bytes have been taken: the CRC decides. `end`: behind the last byte."""
        self._need(align8(end))
        header = self.now.header
        crc = crc32c(header[:_CRC_OFFSET], self.now.crc) ^ 0xFFFFFFFF
        if crc != int.from_bytes(header[_CRC_OFFSET:], "little"):
            raise _Stop
        is_switch = header[17] == _RMGR_XLOG and header[16] & 0xF0 == _XLOG_SWITCH
        leaves_void = is_switch and align8(end) % SEGMENT_BYTES != 0
        self._settle_record(align8(end), _Phase.IN_VOID if leaves_void else _Phase.BETWEEN)

    def _skip_tail(self) -> None:
        """Over the rest of a record whose beginning is unknown. It is taken as it is: the server writes a
        page only after all records that begin on earlier pages are complete."""
        page = self.now.position
        rest, _ = self._enter_page(page)
        if not rest:
            self._settle_page(page, _Phase.BETWEEN)
            return
        room = PAGE_BYTES - page_header_bytes(page)
        if rest <= room:
            end = align8(page + page_header_bytes(page) + rest)
            self._need(end)
            self._settle_record(end, _Phase.BETWEEN)
            return
        next_rest, overwrites = self._enter_page(page + PAGE_BYTES)
        if next_rest != rest - room and not overwrites:
            raise _Stop
        self._settle_page(page + PAGE_BYTES, _Phase.IN_TAIL)

    def _cross_void(self) -> None:
        """Whatever has been written of the segment's rest is final."""
        position = self.now.position
        end = (position - 1) // SEGMENT_BYTES * SEGMENT_BYTES + SEGMENT_BYTES
        written = min(self.end, end) // PAGE_BYTES * PAGE_BYTES
        if written > position:
            self._settle_page(written, _Phase.IN_VOID)
        if self.now.position < end:
            raise _Stop
        self._settle_record(end, _Phase.BETWEEN)
