"""Where log bytes lie: a sparse map from LSN ranges to places in log files, held in memory.

Owns only the map. One entry covers up to EXTENT_BYTES of consecutive records, so that a log of 64 GiB costs
about 7 MiB; the records inside an entry are found by walking their headers. It reads no file and knows no
term. LSNs inside [base, end) that no entry covers are holes: bytes this segment should have but cannot read.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from borealis.storage.format import ExtentRow

EXTENT_BYTES = 256 * 1024
"""An entry is closed when its records span this much of the file, in bytes."""


class Extent(NamedTuple):
    """Log bytes [start, end) lie in file `file_seq`, in records from `offset` on, within `span` bytes."""

    start: int
    end: int
    file_seq: int
    offset: int
    span: int
    repair: bool


class LsnIndex:
    """The map of one segment. Used by one thread."""

    def __init__(self, base: int, end: int | None = None) -> None:
        self.base = base
        self.end = base if end is None else end
        self.generation = 0
        """Rises whenever bytes that could be found before are gone or elsewhere."""
        self._starts = array("Q")
        self._ends = array("Q")
        self._files = array("I")
        self._offsets = array("I")
        self._spans = array("I")
        self._repairs = array("B")
        self._sealed = True
        self._holes: list[tuple[int, int]] | None = []
        self._repaired_files: set[int] = set()

    def __len__(self) -> int:
        return len(self._starts)

    def append(self, lsn: int, length: int, file_seq: int, offset: int, record_bytes: int) -> None:
        """Notes a DATA record. An `lsn` beyond the end leaves a hole, one below it cuts the log first."""
        if lsn < self.end:
            self.cut(lsn)
        elif lsn > self.end:
            self._holes = None
        if (
            not self._sealed
            and lsn == self._ends[-1]
            and file_seq == self._files[-1]
            and offset - self._offsets[-1] < EXTENT_BYTES
        ):
            self._ends[-1] = lsn + length
            self._spans[-1] = offset + record_bytes - self._offsets[-1]
        elif length:
            self._insert(len(self._starts), Extent(lsn, lsn + length, file_seq, offset, record_bytes, False))
            self._sealed = False
        self.end = lsn + length

    def advance(self, lsn: int) -> None:
        """The log is known to reach `lsn`: what is missing up to there is a hole."""
        if lsn > self.end:
            self.end = lsn
            self._sealed = True
            self._holes = None

    def cut(self, lsn: int) -> None:
        """Forgets bytes at and beyond `lsn`. What follows is another entry: old bytes stay in the file."""
        if lsn >= self.end:
            return
        self._moved()
        self._sealed = True
        while self._starts and self._starts[-1] >= lsn:
            self._delete(len(self._starts) - 1, len(self._starts))
        if self._ends and self._ends[-1] > lsn:
            self._ends[-1] = lsn
        self.end = lsn

    def trim(self, base: int) -> None:
        """Forgets bytes below `base`."""
        if base <= self.base:
            return
        self._moved()
        self.base = base
        if base > self.end:
            self.advance(base)
        drop = bisect_right(self._ends, base)
        if drop == len(self._starts):
            self._sealed = True
        self._delete(0, drop)

    def punch(self, start: int, end: int) -> None:
        """Makes [start, end) a hole."""
        self._moved()
        at = max(0, bisect_right(self._starts, start) - 1)
        while at < len(self._starts) and self._starts[at] < end:
            extent = self._extent(at)
            if extent.end <= start:
                at += 1
                continue
            if at == len(self._starts) - 1:
                self._sealed = True
            self._delete(at, at + 1)
            for piece in ((extent.start, min(extent.end, start)), (max(extent.start, end), extent.end)):
                if piece[0] < piece[1]:
                    self._insert(at, extent._replace(start=piece[0], end=piece[1]))
                    at += 1

    def repair(self, lsn: int, length: int, file_seq: int, offset: int, record_bytes: int) -> None:
        """Notes a REPAIR record: [lsn, lsn + length) lies there now. What is beyond the end is ignored."""
        end = min(lsn + length, self.end)
        if lsn >= end:
            return
        self.punch(lsn, end)
        at = bisect_right(self._starts, lsn)
        if at == len(self._starts):
            self._sealed = True
        self._insert(at, Extent(lsn, end, file_seq, offset, record_bytes, True))
        self._repaired_files.add(file_seq)

    def find(self, start: int, end: int) -> Iterator[Extent]:
        """The entries that hold bytes of [start, end), in order. Between them there may be holes."""
        at = max(0, bisect_right(self._starts, start) - 1)
        for i in range(at, len(self._starts)):
            if self._starts[i] >= end:
                return
            if self._ends[i] > start:
                yield self._extent(i)

    def holes(self) -> list[tuple[int, int]]:
        """The ranges of [base, end) that no entry covers, lowest first."""
        if self._holes is None:
            found: list[tuple[int, int]] = []
            position = self.base
            for start, end in zip(self._starts, self._ends, strict=True):
                if start > position:
                    found.append((position, start))
                position = max(position, end)
            if position < self.end:
                found.append((position, self.end))
            self._holes = found
        return self._holes

    def rows(self, file_seq: int) -> tuple[ExtentRow, ...]:
        """The entries that lie in one file, for its summary. Quick for the newest file."""
        first = len(self._files)
        if file_seq in self._repaired_files:
            first = 0
        while first > 0 and self._files[first - 1] >= file_seq:
            first -= 1
        return tuple(
            ExtentRow(self._starts[i], self._ends[i], self._offsets[i], self._spans[i], self._repairs[i])
            for i in range(first, len(self._files))
            if self._files[i] == file_seq
        )

    def load(self, file_seq: int, rows: tuple[ExtentRow, ...], low: int | None) -> None:
        """Adds the entries of a file's summary; `low` is the lowest LSN the log was cut to in that file."""
        if low is not None:
            self.cut(low)
        for row in rows:
            if row.repair:
                self.advance(row.end)
                self.repair(row.start, row.end - row.start, file_seq, row.offset, row.span)
            else:
                extent = Extent(row.start, row.end, file_seq, row.offset, row.span, False)
                self.punch(row.start, row.end)
                self._insert(bisect_right(self._starts, row.start), extent)
                self.advance(row.end)
        self._sealed = True

    def oldest_file(self, default: int) -> int:
        """The lowest number of a file that an entry lies in."""
        return min(self._files, default=default)

    def _moved(self) -> None:
        self.generation += 1
        self._holes = None

    def _extent(self, at: int) -> Extent:
        return Extent(
            self._starts[at],
            self._ends[at],
            self._files[at],
            self._offsets[at],
            self._spans[at],
            bool(self._repairs[at]),
        )

    def _insert(self, at: int, extent: Extent) -> None:
        self._starts.insert(at, extent.start)
        self._ends.insert(at, extent.end)
        self._files.insert(at, extent.file_seq)
        self._offsets.insert(at, extent.offset)
        self._spans.insert(at, extent.span)
        self._repairs.insert(at, extent.repair)

    def _delete(self, first: int, last: int) -> None:
        for column in (self._starts, self._ends, self._files, self._offsets, self._spans, self._repairs):
            del column[first:last]
