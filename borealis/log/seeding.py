"""A volume's birth: six segments with the seed entry, and the first bytes of the log on a write quorum.

Owns that one-time work as a sans-IO state machine, like `opening`. The caller makes the seed (an engine's
first log) and keeps it: repeating the work after a crash needs the very same entry and bytes. A volume whose
seed is lost before `done` is dropped and another volume is made: it has never been used.
"""

from __future__ import annotations

from borealis.log import wire
from borealis.log.history import TermHistory
from borealis.log.quorum import Quorum
from borealis.log.replication import Outbox
from borealis.log.types import LogError, Lsn, Superseded, TermEntry, piece_end

SEED_TERM = 1
"""The term of a seed. The state store hands out higher ones only."""


class SeedRefused(LogError):
    """A node has another segment under this volume's name, or cannot make one."""

    code = "SeedRefused"


class VolumeSeeder:
    """Feed it `connected`, `lost` and `receive`; send what `take_outbox` returns; stop when `complete`, or
    when `done` and no other segment can be reached (a segment that was away is created later, by the same
    work again)."""

    def __init__(
        self,
        quorum: Quorum,
        volume: str,
        *,
        timeline: int,
        start: Lsn,
        data: bytes,
        history: str = "",
        writer: str = "seed",
    ) -> None:
        """`data`: the log's bytes from `start` on; `history`: the engine's history text of `timeline`."""
        self._quorum, self._volume = quorum, volume
        self._start, self._data = start, data
        self.history = TermHistory((TermEntry(SEED_TERM, timeline, start, history, writer),))
        self.end = start + len(data)
        self.ends: dict[str, Lsn] = {}
        """Segment -> how far its log reaches."""
        self._outbox: Outbox = []

    @property
    def done(self) -> bool:
        """The seed is durable: the volume may be opened."""
        return self._quorum.is_write(self._seeded)

    @property
    def complete(self) -> bool:
        """Every segment has the seed."""
        return len(self._seeded) == len(self._quorum.members)

    @property
    def _seeded(self) -> list[str]:
        return [node for node, end in self.ends.items() if end >= self.end]

    def connected(self, node: str) -> None:
        self._outbox.append((node, wire.Create(self._volume, self.history)))

    def lost(self, node: str) -> None:
        """Nothing to do: what a segment said is on its disk, and `connected` starts it again."""

    def receive(self, node: str, message: wire.Message) -> None:
        """Raises SeedRefused, or Superseded when the volume is in use already."""
        match message:
            case wire.Created():
                if message.promised > SEED_TERM:
                    raise Superseded(SEED_TERM, message.promised, f"segment {node}")
                self._reached(node, message.end)
            case wire.Ack() if message.term == SEED_TERM:
                self._reached(node, message.end)
            case wire.Refused() if message.promised > SEED_TERM:
                raise Superseded(SEED_TERM, message.promised, f"segment {node}")
            case wire.Refused():
                self._reached(node, message.end)
            case wire.Error():
                raise SeedRefused(f"node {node} refused the seed: {message.code}: {message.message}")

    def take_outbox(self) -> Outbox:
        out, self._outbox = self._outbox, []
        return out

    def _reached(self, node: str, end: Lsn) -> None:
        self.ends[node] = end
        vdl = self.end if self.done else self._start
        if end < self.end:
            upto = piece_end(end, self.end)
            data = self._data[end - self._start : upto - self._start]
            self._outbox.append((node, wire.Append(SEED_TERM, end, vdl, 0, data)))
        elif self.done:
            self._outbox += [(other, wire.Commit(SEED_TERM, self.end)) for other in self._seeded]
