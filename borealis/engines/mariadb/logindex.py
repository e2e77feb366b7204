"""Reading ahead in the log, to know where event groups end: only whole ones may be served.

Owns the walk through a `LogFeed` up to its VDL, from timeline to timeline, and with it the limit of what may
be sent and the contents of the `PositionMap`. It has no task: log that is not in memory is `wanted`, and
given by `provide`. It never keeps log.
"""

from __future__ import annotations

from bisect import bisect_right

from borealis.engines.base import LogFeed, Lsn
from borealis.engines.mariadb.binlog import BinlogError, UnitKind, UnitReader
from borealis.engines.mariadb.history import LogPoint
from borealis.engines.mariadb.positions import PositionMap
from borealis.logs import get_logger

log = get_logger(__name__)

STEP_BYTES = 64 * 1024
"""Log that is looked through at once, bytes."""
ADVANCE_BYTES = 256 * 1024
"""Log that one `advance` looks through, bytes: the event loop has other work, too."""
FETCH_BYTES = 1 << 20
"""Log that is asked for at once when it is not in memory, bytes."""


class LogIndex:
    """Call `begin`, then `advance` whenever the feed has changed, until it returns False."""

    def __init__(self, feed: LogFeed, positions: PositionMap) -> None:
        self.positions = positions
        self.torn: dict[Lsn, Lsn] = {}
        """Groups that a timeline's end has cut off: where each begins, and where the log goes on. At most one
        for each timeline."""
        self.failure: BinlogError | None = None
        """The log cannot be read any further; nothing is served until `begin` was called again."""
        self.begins = 0
        """How often `begin` was called."""
        self.wanted: tuple[Lsn, Lsn] | None = None
        """A range of the log that is not in memory: read it and call `provide`."""
        self._feed = feed
        self._reader: UnitReader | None = None
        self._timelines: object = None
        """Those that `_ends` was made of."""
        self._ends: list[Lsn] = []

    @property
    def begun(self) -> bool:
        """False before the first `begin`, and after a failure."""
        return self._reader is not None and self.failure is None

    @property
    def start(self) -> Lsn:
        """What lies below is not known."""
        return self.positions.start

    @property
    def limit(self) -> Lsn:
        """Everything from `start` to here may be sent: it is durable, and no group goes on here."""
        return self.positions.settled

    def begin(self, origin: LogPoint) -> None:
        """Read the log from `origin` on, and forget all that was known."""
        self.begins += 1
        self._reader = UnitReader(origin.lsn)
        self.positions.begin(origin)
        self.torn, self.failure, self.wanted = {}, None, None

    def provide(self, start: Lsn, data: bytes) -> None:
        """The bytes of `wanted`, or the first part of them."""
        if self.wanted is not None and self.wanted[0] == start:
            self.wanted = None
            if data and self._reader is not None and self._reader.position == start:
                self._take(self._reader, data)

    def advance(self) -> bool:
        """Go on to the VDL as far as the log is in memory. True: there is more to do; call again soon."""
        self._note_timelines()
        room = ADVANCE_BYTES
        while self.wanted is None and self.failure is None and self._reader is not None:
            reader = self._cut_torn(self._reader)
            start = reader.position
            stop = min(self._limit_of(reader), start + STEP_BYTES)
            if start >= stop:
                return False
            if room <= 0:
                return True
            data = self._feed.buffered(start, stop)
            if data is None:
                self.wanted = (start, min(self._limit_of(reader), start + FETCH_BYTES))
                return False
            self._take(reader, data)
            room -= len(data)
        return False

    def _take(self, reader: UnitReader, data: bytes) -> None:
        try:
            for unit in reader.feed(data):
                if unit.kind is UnitKind.GROUP and unit.gtid is not None:
                    self.positions.add(unit.gtid, unit.end)
        except BinlogError as error:
            self.failure = BinlogError(f"the log cannot be read behind {reader.settled:X}: {error}")
            log.error("%s", self.failure)
        self.positions.settle(reader.settled, reader.position)

    def _limit_of(self, reader: UnitReader) -> Lsn:
        end = self._end_above(reader.settled)
        return self._feed.vdl if end is None else min(self._feed.vdl, end)

    def _cut_torn(self, reader: UnitReader) -> UnitReader:
        """A group that is not whole where its timeline ends is void: go on with the next timeline."""
        end = self._end_above(reader.settled)
        if end is None or reader.position < end:
            return reader
        log.info("a group from %X on is void: its timeline ends at %X", reader.settled, end)
        if reader.settled < end:
            self.torn[reader.settled] = end
        self._reader = UnitReader(end)
        self.positions.settle(end, end)
        return self._reader

    def _note_timelines(self) -> None:
        """A new timeline may begin where a group was being read that is void now."""
        timelines = self._feed.timelines
        if timelines is self._timelines:
            return
        self._timelines = timelines
        self._ends = sorted(end for _, end, _ in timelines.values() if end is not None)
        self.wanted = None
        reader = self._reader
        if reader is not None and reader.position > reader.settled and reader.settled in self._ends:
            log.info("a group that began at %X is void: a timeline begins there", reader.settled)
            self._reader = UnitReader(reader.settled)

    def _end_above(self, lsn: Lsn) -> Lsn | None:
        """Where the timeline ends that holds the bytes from `lsn` on; None: it is the newest."""
        index = bisect_right(self._ends, lsn)
        return self._ends[index] if index < len(self._ends) else None
