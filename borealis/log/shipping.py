"""A writer's steady state: which bytes go to which segment next, what is durable, whether the term holds.

Owns the counting. It holds no log bytes: it names ranges, and the driver reads them from the engine's log. It
has no clock and no connections.

The driver's loop: `produced` for each new frame, `receive` for each message; then send what `sends` returns,
then what `take_outbox` returns; publish `vdl` when it has risen. `heartbeat` now and then, also when nothing
is new: it renews the lease, carries the VDL to idle segments and finds out how far gossip has brought those
that are behind.

A *frame* ends where the engine's log may be cut (a record end or a page boundary). The VDL is only ever a
frame end.

A segment is *behind* when it lacks more than a window below the VDL, or bytes that the driver cannot read any
more (`floor`). It is sent nothing but heartbeats: its peers have what it lacks and gossip brings it near,
without a detour through the writer. Nobody waits for it: what counts is a write quorum.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from borealis.log import wire
from borealis.log.history import TermHistory
from borealis.log.quorum import Quorum
from borealis.log.types import PAGE_BYTES, PIECE_BYTES, WINDOW_BYTES, Lsn, Superseded, piece_end

_FRAMES_KEPT = 4096
"""How many old frame ends are kept before those below the window are forgotten."""


@dataclass(frozen=True, slots=True)
class AppendRange:
    """Send [start, end) as one APPEND to all of `nodes`."""

    start: Lsn
    end: Lsn
    nodes: tuple[str, ...]


@dataclass(slots=True)
class NodeProgress:
    """One segment as the writer sees it."""

    connected: bool = False
    ready: bool = False
    """Connected, and known to have taken over the term's history."""
    sent: Lsn = 0
    """The next byte to send. Meaningless unless ready."""
    acked: Lsn = 0
    """On its disk below here. Stays when the connection breaks."""
    acked_ns: int = 0
    """When the newest message that it acknowledged was sent."""
    has_subscribers: bool = False
    told: Lsn = 0
    """The newest VDL that it was sent on this connection."""


class Shipper:
    """The log of `term` from `start` on, fanned out to the segments of `quorum`."""

    def __init__(
        self,
        quorum: Quorum,
        history: TermHistory,
        start: Lsn,
        *,
        window: int = WINDOW_BYTES,
        piece: int = PIECE_BYTES,
    ) -> None:
        """`start`: durable up to here in this term, and the first byte that the driver can read
        (`OpenedVolume.vdl`; after a restart of the driver, a frame end that is known to be durable)."""
        assert window >= piece >= PAGE_BYTES
        self._quorum, self._window, self._piece = quorum, window, piece
        self.history, self.term = history, history.newest_term
        self.vdl = start
        """Durable: on a write quorum, cut at a frame end. Never goes down."""
        self.end = start
        """Where the produced log ends."""
        self.floor = start
        """The first byte that the driver can still read; it rises as the engine recycles its log."""
        self.nodes = {node: NodeProgress() for node in sorted(quorum.members)}
        self._acked: dict[str, Lsn] = {}
        self._frames: list[Lsn] = []
        self._outbox: list[tuple[str, wire.Message]] = []

    # -------------------- input

    def connected(self, node: str, end: Lsn | None = None) -> None:
        """A connection stands. `end`: what the segment said in this term on the same connection
        (`OpenedVolume.ends`), which saves it a NEW_TERM."""
        progress = self.nodes[node]
        progress.connected, progress.ready, progress.told = True, False, 0
        if end is None:
            self._outbox.append((node, wire.NewTerm(self.term, self.history)))
        else:
            self._rejoin(node, end)

    def lost(self, node: str) -> None:
        """The connection is gone; what the segment acknowledged is not."""
        progress = self.nodes[node]
        progress.connected = progress.ready = progress.has_subscribers = False

    def produced(self, end: Lsn) -> None:
        """The next frame reaches from the last one's end to `end`, and the driver can read it."""
        assert end > self.end
        self.end = end
        self._frames.append(end)
        if len(self._frames) > _FRAMES_KEPT:
            del self._frames[: bisect_left(self._frames, self.vdl - 2 * self._window)]

    def receive(self, node: str, message: wire.Message) -> bool:
        """A message from a segment; True when the VDL has risen.

        Raises Superseded when a segment has promised a higher term: this writer is fenced and must end its
        engine.
        """
        match message:
            case wire.Ack() if message.term == self.term:
                return self._on_ack(node, message)
            case wire.NewTermReply():
                self._check_superseded(node, message.promised)
                if message.ok and message.promised == self.term and self.nodes[node].connected:
                    self._rejoin(node, message.end)
                    return self._advance()
            case wire.Refused():
                self._check_superseded(node, message.promised)
                self._on_refused(node)
        return False

    # -------------------- output

    def sends(self) -> list[AppendRange]:
        """The ranges to send now, marked as sent: for each segment up to a window above its last ACK."""
        grouped: dict[tuple[Lsn, Lsn], list[str]] = {}
        for node, progress in self.nodes.items():
            if not progress.ready or self.is_behind(node):
                continue
            while (end := self._next_end(progress)) > progress.sent:
                grouped.setdefault((progress.sent, end), []).append(node)
                progress.sent, progress.told = end, self.vdl
        return [AppendRange(start, end, tuple(nodes)) for (start, end), nodes in sorted(grouped.items())]

    def take_outbox(self) -> list[tuple[str, wire.Message]]:
        """NEW_TERM to new connections; the VDL to segments with subscribers that heard of it by no APPEND."""
        for node, progress in self.nodes.items():
            if progress.ready and progress.has_subscribers and progress.told < self.vdl:
                progress.told = self.vdl
                self._outbox.append((node, wire.Commit(self.term, self.vdl)))
        out, self._outbox = self._outbox, []
        return out

    def heartbeat(self, now_ns: int) -> list[tuple[str, wire.Message]]:
        """To every connected segment an APPEND without data, or NEW_TERM again if it was not answered."""
        beat = wire.Append(self.term, self.end, self.vdl, now_ns)
        again = wire.NewTerm(self.term, self.history)
        messages: list[tuple[str, wire.Message]] = []
        for node, progress in self.nodes.items():
            if progress.ready:
                progress.told = self.vdl
                messages.append((node, beat))
            elif progress.connected:
                messages.append((node, again))
        return messages

    @property
    def lease_from_ns(self) -> int:
        """The newest moment, by the sender's clock, after which a write quorum has acknowledged a message
        that was sent then: until at least then no other writer had been elected. 0: none yet."""
        return self._quorum.durable_point({node: progress.acked_ns for node, progress in self.nodes.items()})

    def is_behind(self, node: str) -> bool:
        """Is the segment left to gossip?"""
        acked = self.nodes[node].acked
        return acked < self.floor or acked + self._window < self.vdl

    # -------------------- inside

    def _rejoin(self, node: str, end: Lsn) -> None:
        """From here on all that is sent on the connection follows what the segment has."""
        progress = self.nodes[node]
        self._reached(node, end)
        if not progress.ready:
            progress.ready, progress.sent = True, end

    def _reached(self, node: str, end: Lsn) -> None:
        progress = self.nodes[node]
        progress.acked = self._acked[node] = max(progress.acked, end)
        progress.sent = max(progress.sent, end)

    def _on_ack(self, node: str, ack: wire.Ack) -> bool:
        progress = self.nodes[node]
        self._reached(node, ack.end)
        progress.acked_ns = max(progress.acked_ns, ack.sent_ns)
        if progress.connected:
            progress.has_subscribers = ack.has_subscribers
        return self._advance()

    def _on_refused(self, node: str) -> None:
        """The segment lacks bytes or the term; everything that is still on its way to it will be refused too.
        The reply to a NEW_TERM marks where the stream starts anew."""
        progress = self.nodes[node]
        if progress.ready:
            progress.ready = False
            self._outbox.append((node, wire.NewTerm(self.term, self.history)))

    def _advance(self) -> bool:
        point = min(self._quorum.durable_point(self._acked), self.end)
        index = bisect_right(self._frames, point)
        vdl = self._frames[index - 1] if index else 0
        if vdl <= self.vdl:
            return False
        self.vdl = vdl
        return True

    def _next_end(self, progress: NodeProgress) -> Lsn:
        """Where the next APPEND to this segment ends; `sent` itself: there is nothing to send, or no room."""
        sent = progress.sent
        limit = min(sent + self._piece, progress.acked + self._window, self.end)
        index = bisect_right(self._frames, limit)
        if index and self._frames[index - 1] > sent:
            return self._frames[index - 1]
        # No frame ends within the limit: a long frame, or old log whose frame ends are forgotten.
        following = bisect_right(self._frames, sent)
        if following == len(self._frames) or limit - sent < PAGE_BYTES:
            return sent
        return max(sent, piece_end(sent, self._frames[following], limit - sent))

    def _check_superseded(self, node: str, promised: int) -> None:
        if promised > self.term:
            raise Superseded(self.term, promised, f"segment {node}")
