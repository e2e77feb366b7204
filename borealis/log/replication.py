"""Bringing one history, and the log up to one position, to a write quorum: half of every opening of a volume.

Owns the work of one term: NEW_TERM to each segment, then the bytes that it lacks, READ from a segment that
has them (zeros above the inherited log's end), appended, acknowledged. It decides no term and no position
(`opening` does), keeps no clock, and holds at most one piece per segment.

A segment counts once it has said, in this term, that its log reaches the target: what it said then is on its
disk, so losing the connection later takes nothing away. Bytes are read only from segments that have taken
over this very history, and only while they have (READ's `term` and `log_term`).
"""

from __future__ import annotations

from borealis.log import wire
from borealis.log.history import TermHistory
from borealis.log.quorum import Quorum
from borealis.log.types import PAGE_BYTES, PIECE_BYTES, WINDOW_BYTES, Lsn, piece_end

Outbox = list[tuple[str, wire.Message]]


class Replication:
    """`history` and the log up to `target` on a write quorum, in the term of the history's last entry."""

    def __init__(
        self,
        quorum: Quorum,
        history: TermHistory,
        inherited: Lsn,
        target: Lsn,
        outbox: Outbox,
        *,
        piece: int = PIECE_BYTES,
    ) -> None:
        """Bytes below `inherited` are another leader's: they are read. [inherited, target) is zeros."""
        assert inherited <= target
        self._quorum, self._outbox, self._piece = quorum, outbox, piece
        self.history, self.term = history, history.newest_term
        self.inherited, self.target = inherited, target
        self.ends: dict[str, Lsn] = {}
        """Segment -> how far its log reached when it last spoke in this term."""
        self._ready: set[str] = set()
        """Connected, and known to have taken over the history."""
        self._reading: dict[str, tuple[str, Lsn, Lsn]] = {}
        """Segment that lacks bytes -> the (source, start, end) that was asked for on its behalf."""
        self._appending: dict[str, Lsn] = {}
        """Segment -> the end of the piece that it has not acknowledged yet."""
        self._useless: dict[str, set[str]] = {}
        """Segment -> sources that had nothing for it where it stands."""

    @property
    def done(self) -> bool:
        return self._quorum.is_write([node for node, end in self.ends.items() if end >= self.target])

    @property
    def ready(self) -> frozenset[str]:
        """Connected segments that have taken over the history."""
        return frozenset(self._ready)

    def connected(self, node: str) -> None:
        self._outbox.append((node, wire.NewTerm(self.term, self.history)))

    def lost(self, node: str) -> None:
        self._ready.discard(node)
        self._appending.pop(node, None)
        self._reading = {
            lacking: asked for lacking, asked in self._reading.items() if lacking != node and asked[0] != node
        }
        self._useless = {}
        self._pump()

    def receive(self, node: str, message: wire.Message) -> None:
        match message:
            case wire.NewTermReply(ok=True) if message.promised == self.term:
                self._ready.add(node)
                self._reached(node, message.end)
            case wire.Ack() if message.term == self.term:
                self._reached(node, message.end)
            case wire.Refused():
                self._refused(node, message)
            case wire.Data():
                self._data(node, message)
            case _:
                return
        self._pump()

    def _reached(self, node: str, end: Lsn) -> None:
        self.ends[node] = max(end, self.ends.get(node, 0))
        if end >= self._appending.get(node, 0):
            self._appending.pop(node, None)

    def _refused(self, node: str, message: wire.Refused) -> None:
        """Not for a higher term (the opener saw to that): it was restarted, or has lost the history."""
        self._appending.pop(node, None)
        if message.reason is wire.Reason.NEW_TERM_FIRST:
            self._ready.discard(node)
            self.connected(node)
        elif message.reason is wire.Reason.GAP:
            self.ends[node] = message.end

    def _data(self, source: str, message: wire.Data) -> None:
        for node, asked in list(self._reading.items()):
            if asked[:2] != (source, message.start):
                continue
            del self._reading[node]
            end = message.start + len(message.data)
            if end < asked[2]:
                end = (
                    end // PAGE_BYTES * PAGE_BYTES
                )  # Shorter than asked: leave no end where none is allowed.
            if end <= message.start:
                self._useless.setdefault(node, set()).add(source)
            elif node in self._ready and self.ends[node] == message.start:
                self._append(node, message.start, message.data[: min(end, asked[2]) - message.start])

    def _append(self, node: str, start: Lsn, data: bytes) -> None:
        self._appending[node] = start + len(data)
        self._useless.pop(node, None)
        self._outbox.append((node, wire.Append(self.term, start, 0, 0, data)))

    def _pump(self) -> None:
        """Give the next piece to each chosen segment that waits for none."""
        if self.done:
            return
        for node in self._chosen():
            if node in self._reading or node in self._appending:
                continue
            start = self.ends[node]
            if start < self.inherited:
                self._read_for(node, start)
            else:
                self._append(node, start, bytes(min(self._piece, self.target - start)))

    def _chosen(self) -> list[str]:
        """Who is to be filled up: the nearest ones that make a write quorum, and who else is not far off."""
        enough = {node for node, end in self.ends.items() if end >= self.target}
        chosen = []
        for node in sorted(self._ready - enough, key=lambda node: (-self.ends[node], node)):
            if self.target - self.ends[node] <= WINDOW_BYTES or not self._quorum.is_write(enough):
                chosen.append(node)
                enough.add(node)
        return chosen

    def _read_for(self, node: str, start: Lsn) -> None:
        useless = self._useless.get(node, set())
        sources = [source for source in self._ready - useless if self.ends[source] > start]
        if not sources:
            self._useless.pop(node, None)
            return
        source = max(sources, key=lambda source: (self.ends[source], source))
        end = piece_end(start, min(self.inherited, self.ends[source]), self._piece)
        asked = (source, start, end)
        if asked not in self._reading.values():
            self._outbox.append((source, wire.Read(start, end, self.term, self.term)))
        self._reading[node] = asked
