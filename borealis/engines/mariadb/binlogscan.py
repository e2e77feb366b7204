"""Where do event groups end in a binlog that grows? The scanner in plain Python.

Owns that question for `engines.base.LogScanner`. The driver uses the native twin of this module
(`native/binlogscan.c`); both pass the same tests, and this one is the readable account. It verifies that each
event stands where it says that it stands; it computes no checksums, because a binlog only ever grows:
whatever was written is final.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from borealis.engines.base import EngineError, Lsn, ScanResult
from borealis.engines.mariadb.binlog import (
    HEADER_BYTES,
    MAGIC,
    BinlogError,
    EventHeader,
    GroupState,
    after_event,
    begins_file,
    look_bytes,
)

_FILE_START_BYTES = len(MAGIC) + HEADER_BYTES


@dataclass(slots=True)
class _State:
    """All that a scanner remembers. A scan works on a copy, which is kept where the log may be cut."""

    position: Lsn
    record_end: Lsn = 0
    boundary: Lsn = 0
    state: GroupState = GroupState.NONE
    """In front of `position`, or behind the event that it lies in."""
    left: int = 0
    """Bytes of the event that `position` lies in, from there on; 0: it lies between events."""
    file_start: Lsn | None = None
    """Modulo 2**32, like what events say of their place; None: not known yet."""


class BinlogScanner:
    """Implements `engines.base.LogScanner`. `position`: the end of a unit (see `binlog`).

    `record_end` of a result is the end of a unit. When the log goes on behind the data of a scan and no unit
    ends in them, `boundary` is a place inside a group: the end of an event, or, for one that is longer than
    the data, any. So data of 4 KiB always bring the scanner on, if more is written than that.
    """

    def __init__(self, position: Lsn, timeline: int = 0) -> None:
        self.timeline = timeline
        self._kept = _State(position)
        self.damage: str | None = None
        """Why the log cannot be followed beyond `position`, ever; None: nothing is wrong."""

    @property
    def position(self) -> Lsn:
        return self._kept.position

    @property
    def between_groups(self) -> bool:
        """`position` is the end of a unit."""
        return self._kept.state is GroupState.NONE and not self._kept.left

    def scan(self, data: bytes | bytearray | memoryview, start: Lsn, limit: Lsn) -> ScanResult:
        """See `LogScanner.scan`."""
        end = min(limit, start + len(data))
        if not start <= self.position <= start + len(data):
            raise EngineError(
                f"bytes {start:#x} to {start + len(data):#x} do not hold the position {self.position:#x}"
            )
        began = self.position
        now = replace(self._kept)
        inside = now
        with memoryview(data) as view:
            try:
                while self._step(now, view, start, end):
                    if now.state is GroupState.NONE and not now.left:
                        now.record_end = now.position
                        self._kept = replace(now)
                    else:
                        inside = replace(now)
            except BinlogError as error:
                self.damage = f"at {now.position:#x}: {error}"
        if self._kept.position == began and end < limit and inside.position > began:
            inside.boundary = inside.position
            self._kept = inside
        return ScanResult(self._kept.record_end, self._kept.boundary)

    @staticmethod
    def _step(now: _State, view: memoryview, start: Lsn, end: Lsn) -> bool:
        """Go over one event, or as much of it as there is. False: not enough is there."""
        at, room = now.position - start, end - now.position
        if room <= 0:
            return False
        if now.left:
            taken = min(now.left, room)
            now.position += taken
            now.left -= taken
            return True
        if now.state is GroupState.NONE and view[at] == MAGIC[0]:
            if room < _FILE_START_BYTES:
                return False
            if begins_file(view, at):
                now.file_start = now.position & 0xFFFF_FFFF
                now.position += len(MAGIC)
                return True
        if room < HEADER_BYTES:
            return False
        header = EventHeader.parse(view, at)
        file_start = now.position + header.length - header.end_log_pos & 0xFFFF_FFFF
        if now.file_start is None:
            now.file_start = file_start
        if file_start != now.file_start:
            raise BinlogError(f"an event that says it ends at {header.end_log_pos} of its file, but does not")
        if room < look_bytes(header):
            return False
        taken = min(header.length, room)
        now.state = after_event(now.state, header, view[at : at + taken])
        now.position += taken
        now.left = header.length - taken
        return True
