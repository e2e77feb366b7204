"""Which transaction ends where in the log, and how far the local engine says it has come.

Owns the map from transaction ids to log positions and back, which the reader server fills with what it reads,
and the mailbox between that server and the engine's session: both live in one process and share one map
(`positions_for`). Memory is bounded: the newest groups are all known, of older ones every so many. It never
reads the log or asks the engine itself.
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from weakref import WeakValueDictionary

from borealis.engines.base import Lsn
from borealis.engines.mariadb.gtid import DOMAIN, Gtid, parse_state
from borealis.engines.mariadb.history import LogPoint

HOT_GROUPS = 1 << 16
"""So many of the newest groups are all known (up to twice as many are kept): about 2 MiB."""
OLD_STRIDE = 256
"""Of older groups one in so many is kept at first; fewer when these get too many."""
OLD_GROUPS_MAX = 1 << 15


class _Groups:
    """A row of groups: sequence numbers and ends, both rising."""

    def __init__(self) -> None:
        self.sequences, self.ends, self.servers = array("Q"), array("Q"), array("I")

    def __len__(self) -> int:
        return len(self.ends)

    def add(self, sequence: int, end: Lsn, server: int) -> None:
        self.sequences.append(sequence)
        self.ends.append(end)
        self.servers.append(server)

    def point(self, index: int) -> LogPoint:
        return LogPoint(self.ends[index], Gtid(DOMAIN, self.servers[index], self.sequences[index]))

    def take(self, start: int | None, stop: int | None, step: int) -> _Groups:
        taken = _Groups()
        part = slice(start, stop, step)
        taken.sequences, taken.ends, taken.servers = self.sequences[part], self.ends[part], self.servers[part]
        return taken

    def extend(self, other: _Groups) -> None:
        self.sequences += other.sequences
        self.ends += other.ends
        self.servers += other.servers

    def drop(self, start: int, stop: int) -> None:
        for row in (self.sequences, self.ends, self.servers):
            del row[start:stop]


class PositionMap:
    """Everything on one event loop."""

    def __init__(self) -> None:
        self.start: Lsn = 0
        """The log was read from here on; nothing is known of what lies below."""
        self.settled: Lsn = 0
        """It was read to here: all groups that end at or below are taken in, and none goes on here."""
        self.applied_gtid: Gtid | None = None
        """The engine's last word on what it has applied; None as well when that is nothing yet."""
        self._reported = False
        self.ask: Callable[[], None] | None = None
        """Makes the session find out soon how far the engine is, and call `report_applied`; set by the
        session."""
        self.on_applied: Callable[[], None] | None = None
        """Called when `report_applied` brought something new; set by the reader server."""
        self._origin = LogPoint(0, None)
        self._read: Lsn = 0
        self._old, self._hot = _Groups(), _Groups()
        self._stride = OLD_STRIDE
        self._waiting: list[tuple[Lsn, asyncio.Future[None]]] = []

    # ------------------------------------------------------------------ what is asked
    def lsn_of(self, gtid: Gtid | str) -> Lsn | None:
        """Where the log holds nothing but what an engine has applied whose last group is `gtid`: the group's
        end; for the newest group the end of what was read, since only headers follow it. None: not known
        (now, or any more)."""
        wanted = parse_state(gtid) if isinstance(gtid, str) else gtid
        found = self.floor(wanted)
        if found is None or found.gtid != wanted:
            return None
        return self.settled if found == self.newest else found.lsn

    def gtid_at(self, lsn: Lsn) -> Gtid | None:
        """The last group that ends at or below `lsn`; of old ones, the last that is still known. None: no
        group is known there."""
        for groups in (self._hot, self._old):
            index = bisect_right(groups.ends, lsn) - 1
            if index >= 0:
                return groups.point(index).gtid
        return self._origin.gtid if self.start <= lsn else None

    def floor(self, gtid: Gtid | None) -> LogPoint | None:
        """The newest known place whose sequence number is at or below that of `gtid`. None: all are above."""
        sequence = gtid.sequence if gtid is not None else 0
        for groups in (self._hot, self._old):
            index = bisect_right(groups.sequences, sequence) - 1
            if index >= 0:
                return groups.point(index)
        known = self.settled > 0 and self._origin.sequence <= sequence
        return self._origin if known else None

    @property
    def newest(self) -> LogPoint:
        """The last group that was read, and where it ends."""
        return self._hot.point(-1) if len(self._hot) else self._origin

    @property
    def applied(self) -> Lsn | None:
        """How far the engine has applied the log, as it said last; where that place is no longer known
        exactly, a little below. None: it has not said, or the log was not read as far."""
        sequence = self.applied_gtid.sequence if self.applied_gtid is not None else 0
        if not self._reported or sequence > self.newest.sequence:
            return None
        found = self.floor(self.applied_gtid)
        if found is None:
            return None
        return self.settled if found == self.newest else found.lsn

    @property
    def caught_up(self) -> bool:
        """The engine has said that it has applied all groups that were read."""
        return self.applied_gtid is not None and self.applied_gtid.sequence == self.newest.sequence

    async def wait_settled(self, lsn: Lsn) -> None:
        """Wait until the log was read to `lsn`: then `gtid_at(lsn)` is all there is to wait for. A torn group
        at the end counts as read."""
        if self.settled < lsn and self._read < lsn:
            future = asyncio.get_running_loop().create_future()
            entry = (lsn, future)
            self._waiting.append(entry)
            try:
                await future
            finally:
                self._waiting.remove(entry)

    # ------------------------------------------------------------------ what is told
    def begin(self, origin: LogPoint) -> None:
        """Forget all groups: the log is read from `origin` on."""
        self._origin, self._old, self._hot, self._stride = origin, _Groups(), _Groups(), OLD_STRIDE
        self.start = self.settled = self._read = origin.lsn

    def add(self, gtid: Gtid, end: Lsn) -> None:
        """The next group. Groups of other domains, and numbers that do not rise, are not taken in."""
        known = self._hot.sequences
        if gtid.domain != DOMAIN or gtid.sequence <= (known[-1] if known else self._origin.sequence):
            return
        self._hot.add(gtid.sequence, end, gtid.server_id)
        if len(self._hot) >= 2 * HOT_GROUPS:
            self._thin()

    def settle(self, settled: Lsn, read: Lsn) -> None:
        """The log was read to `read`, and the last whole group or header ended at `settled`."""
        self.settled, self._read = settled, read
        for lsn, future in self._waiting:
            if lsn <= read and not future.done():
                future.set_result(None)

    def cut(self, lsn: Lsn) -> None:
        """What lies above `lsn` is void."""
        for groups in (self._old, self._hot):
            groups.drop(bisect_right(groups.ends, lsn), len(groups))
        self.settled, self._read = min(self.settled, lsn), min(self._read, lsn)

    def report_applied(self, state: str) -> None:
        """The engine's own word (`@@gtid_slave_pos`). Raises EngineError when it is none."""
        applied = parse_state(state)
        new = not self._reported or applied != self.applied_gtid
        self.applied_gtid, self._reported = applied, True
        if new and self.on_applied is not None:
            self.on_applied()

    def _thin(self) -> None:
        self._old.extend(self._hot.take(None, HOT_GROUPS, self._stride))
        self._hot.drop(0, len(self._hot) - HOT_GROUPS)
        if len(self._old) > OLD_GROUPS_MAX:
            self._old = self._old.take(None, None, 2)
            self._stride *= 2


_maps: WeakValueDictionary[Path, PositionMap] = WeakValueDictionary()


def positions_for(upstream_dir: Path) -> PositionMap:
    """The map that the reader server and the session of one instance share; it lives as long as one of
    them holds it."""
    return _maps.setdefault(upstream_dir.absolute(), PositionMap())
