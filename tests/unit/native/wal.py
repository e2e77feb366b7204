"""Makes PostgreSQL log by hand, and remembers where its records end."""

from __future__ import annotations

import struct

from borealis.volume.nativelib import crc32c

PAGE = 8192
SEGMENT = 16 << 20
MAGIC = 0xD110
CONTINUES, LONG_HEADER, OVERWRITES = 1, 2, 8


def header_bytes(page: int) -> int:
    return 24 if page % SEGMENT else 40


class Wal:
    """Log from a page boundary `start` on."""

    def __init__(self, start: int, timeline: int = 1) -> None:
        assert start % PAGE == 0
        self.start = start
        self.timeline = timeline
        self.data = bytearray()
        self.ends: list[int] = []
        """Ends of records, aligned; of a switch: the segment's end."""
        self.starts: list[int] = []

    @property
    def end(self) -> int:
        return self.start + len(self.data)

    @property
    def pages(self) -> bytes:
        """As the engine writes it: whole pages."""
        return bytes(self.data) + bytes(-len(self.data) % PAGE)

    def _page_header(self, rest: int, flags: int = 0) -> None:
        page = self.end
        flags |= (CONTINUES if rest else 0) | (0 if page % SEGMENT else LONG_HEADER)
        self.data += struct.pack("<HHIQI4x", MAGIC, flags, self.timeline, page, rest)
        if page % SEGMENT == 0:
            self.data += struct.pack("<QII", 7, SEGMENT, PAGE)

    def _append(self, record: bytes) -> None:
        rest = record
        while rest:
            if self.end % PAGE == 0:
                self._page_header(0 if rest is record else len(rest))
            room = PAGE - self.end % PAGE
            self.data += rest[:room]
            rest = rest[room:]
        self.data += bytes(-len(self.data) % 8)

    def add(self, payload: bytes, *, rmgr: int = 10, info: int = 0) -> int:
        """A record with this data; its end."""
        previous = self.starts[-1] if self.starts else 0
        head = struct.pack("<IIQBBxx", 24 + len(payload), 0, previous, info, rmgr)
        record = head + struct.pack("<I", crc32c(head, crc32c(payload))) + payload
        self.starts.append(self.end + (header_bytes(self.end) if self.end % PAGE == 0 else 0))
        self._append(record)
        self.ends.append(self.end)
        return self.end

    def begin(self, length: int) -> None:
        """The first part of a record, up to the end of its page, that is never finished."""
        self.data += struct.pack("<IIQBBxx", length, 0, 0, 0, 10)
        self.data += b"\x55" * (PAGE - self.end % PAGE)

    def overwrite(self) -> None:
        """The page on which the unfinished record would go on begins anew."""
        assert self.end % PAGE == 0
        self._page_header(0, OVERWRITES)

    def switch(self) -> int:
        """An XLOG_SWITCH; its own end. The rest of the segment is zeros, without page headers."""
        end = self.add(b"", rmgr=0, info=0x40)
        self.data += bytes(-self.end % SEGMENT)
        self.ends[-1] = self.end
        return end

    def ends_until(self, lsn: int) -> int:
        """The last record end at or below `lsn`; 0: none."""
        return max((end for end in self.ends if end <= lsn), default=0)
