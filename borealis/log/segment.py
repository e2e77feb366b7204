"""The state of one segment, one of the six copies of a volume's log: its promises, its log, how far it is.

Owns the rules by which a segment answers; it holds no log bytes, no file, no socket and no clock. The storage
node drives it: `handle` each message, journal the step's records in their order, sync, send the replies.

The node's contract:
1. Records are journaled in the order in which the steps returned them. A reply leaves only when its step's
   records *and all records before them* are on disk: replies speak of the end of the whole log.
2. After a start, `replay` gets every whole record of the journal in order; nothing else rebuilds the state.
   What was handed out and not synced may be lost: nobody was told of it.
3. Bytes are found by position: a DataRecord puts bytes at [start, end); a HistoryRecord makes everything from
   `cut` on void; a TrimRecord everything below.
4. Subscribers may be fed before the sync (they wait for COMMIT), in the order of the records.

What a segment promises to others, once its reply has left:
- It never again takes anything from a leader of a term below the promised one, or of the same term and
  another name.
- [base, end) is on its disk, in the log that `history` names; bytes are only ever taken away by a NEW_TERM
  whose history parts from the own one, by gossip's adoption of a durable history (`gossip`, rule 2), or by
  TRIM.
- It never writes other bytes at a position under the same history: a repeated APPEND adds what lies above
  `end`, nothing else.

Gossip: which bytes, histories and commit points a segment may take from a peer is defined in `gossip`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from borealis.log import wire
from borealis.log.gossip import GossipPlan, gossip_plan
from borealis.log.history import TermHistory
from borealis.log.records import (
    DataRecord,
    HistoryRecord,
    PromiseRecord,
    Record,
    StateRecord,
    TrimRecord,
    VdlRecord,
)
from borealis.log.types import NOTHING_COMMITTED, CommitPoint, Lsn
from borealis.log.wire import Reason

SenderT = TypeVar("SenderT")


@dataclass(frozen=True, slots=True)
class ReadPlan(Generic[SenderT]):
    """Answer `sender`, in its turn, with DATA(start, the bytes of [start, end), log_term)."""

    sender: SenderT
    start: Lsn
    end: Lsn
    log_term: int


@dataclass(slots=True)
class Step(Generic[SenderT]):
    """What one message leads to."""

    records: list[Record] = field(default_factory=list)
    """To be journaled, in this order."""
    replies: list[tuple[SenderT, wire.Message]] = field(default_factory=list)
    """To be sent when the records are synced."""
    read: ReadPlan[SenderT] | None = None
    subscribe: tuple[SenderT, Lsn] | None = None
    """Feed this sender from here on. The replies open its stream; where the history or the commit point
    changed between this step and the first byte, tell it again, or it takes the bytes for those of an older
    history."""
    history_changed: bool = False
    """Send HISTORY to the subscribers, and move those that stand above `end` back to it."""
    vdl_changed: bool = False
    """Send COMMIT (`SegmentCore.commit`) to the subscribers."""
    wants_gossip: bool = False
    """The leader is ahead of this segment: ask the peers now."""


class SegmentCore:
    """One segment. The attributes are for reading; only the methods change them."""

    def __init__(self, volume: str, node: str = "", az: str = "") -> None:
        self.volume, self.node, self.az = volume, node, az
        self.promised = 0
        """Terms below are refused for ever. Invariant: >= history.newest_term."""
        self.promised_writer = ""
        """The one candidate that may use the promised term; "": nobody (it was learned by gossip)."""
        self.history = TermHistory()
        """Names the log. It may have entries that the log does not reach yet. Empty: no segment here."""
        self.base: Lsn = 0
        """The first byte held. Invariant: base <= end."""
        self.end: Lsn = 0
        """One past the last byte held without a gap (SCL)."""
        self.vdl = NOTHING_COMMITTED
        """The highest commit point heard; may be above `end`. Invariant: vdl.term <= history.newest_term."""
        self.corrupt: tuple[tuple[Lsn, Lsn], ...] = ()
        """Damaged ranges of [base, end), in order: never served until they are repaired."""
        self.subscribers = 0
        self.bytes_on_disk = 0
        self.blobs: tuple[wire.BlobInfo, ...] = ()
        self.health = wire.Health()

    @property
    def exists(self) -> bool:
        """Has the segment been created?"""
        return len(self.history) > 0

    @property
    def commit(self) -> wire.Commit:
        """What subscribers are told."""
        return wire.Commit(self.vdl.term, self.vdl.lsn)

    # -------------------- messages

    def handle(self, message: wire.Message, sender: SenderT) -> Step[SenderT]:
        """One message from `sender` (any value; it comes back in the replies).

        Messages that are not the log's (blobs, HELLO, DROP) are the caller's: they get an ERROR here.
        """
        step: Step[SenderT] = Step()
        match message:
            case wire.Append() if self.exists:
                reply: wire.Message | None = self._append(step, message)
            case wire.Commit():
                reply = None
                self._commit(step, message.term, message.vdl)
            case wire.Create():
                reply = self._create(step, message)
            case wire.Status():
                reply = self.status()
            case _ if not self.exists:
                reply = wire.Error(
                    "SegmentNotFound",
                    f"no segment of {self.volume} on {self.node}: create it first",
                )
            case wire.Vote():
                reply = self._vote(step, message)
            case wire.NewTerm():
                reply = self._new_term(step, message)
            case wire.Read():
                reply = None
                step.read = self._read(message, sender)
            case wire.Subscribe():
                reply = None
                step.replies += [(sender, wire.History(self.history)), (sender, self.commit)]
                step.subscribe = (sender, message.start)
            case wire.Trim():
                reply = self._trim(step, message)
            case _:
                reply = wire.Error("InvalidRequest", f"a segment does not take {message.KIND.name}")
        if reply is not None:
            step.replies.append((sender, reply))
        return step

    def status(self) -> wire.StatusReply:
        return wire.StatusReply(
            node=self.node,
            az=self.az,
            volume=self.volume,
            promised=self.promised,
            history=self.history,
            base=self.base,
            end=self.end,
            vdl=self.vdl,
            bytes_on_disk=self.bytes_on_disk,
            corrupt=self.corrupt,
            blobs=self.blobs,
            subscribers=self.subscribers,
            health=self.health,
        )

    def _create(self, step: Step[SenderT], message: wire.Create) -> wire.Message:
        seed = message.history.last
        if seed is None or len(message.history) != 1:
            return wire.Error("InvalidRequest", "CREATE needs a history of exactly one entry: the seed")
        if not self.exists:
            self._record(step, HistoryRecord(seed.term, seed.writer, seed.start, message.history))
        elif self.history.entries[0] != seed:
            return wire.Error("SegmentExists", f"volume {self.volume} exists here with another seed")
        return wire.Created(self.promised, self.end)

    def _vote(self, step: Step[SenderT], message: wire.Vote) -> wire.Message:
        granted = self._may_promise(message.term, message.writer)
        if granted and message.term > self.promised:
            self._record(step, PromiseRecord(message.term, message.writer))
        return wire.VoteReply(granted, self.promised, self.history.upto(self.end), self.end, self.vdl)

    def _may_promise(self, term: int, writer: str) -> bool:
        """A higher term, or the same one once more to the same candidate (its question was repeated)."""
        return term > self.promised or (term == self.promised and writer == self.promised_writer)

    def _new_term(self, step: Step[SenderT], message: wire.NewTerm) -> wire.Message:
        ok = self._adopt(step, message)
        return wire.NewTermReply(ok, self.promised, self.history, self.end)

    def _adopt(self, step: Step[SenderT], message: wire.NewTerm) -> bool:
        leader = message.history.last
        if leader is None or leader.term != message.term:
            return False
        if not self._may_promise(message.term, leader.writer):
            return False
        if message.term == self.history.newest_term:
            # Repeated. A leader has one history; another one under its name is refused rather than believed.
            return message.history == self.history
        cut = min(self.end, self.history.agree_until(message.history))
        if cut < self.base or message.history.entries[0] != self.history.entries[0]:
            # Another volume's history, or one that lacks bytes which were durable when they were trimmed.
            return False
        self._record(step, HistoryRecord(message.term, leader.writer, cut, message.history))
        step.history_changed = True
        return True

    def _append(self, step: Step[SenderT], message: wire.Append) -> wire.Message:
        refusal = self._refusal(message)
        if refusal is not None:
            step.wants_gossip = refusal is Reason.GAP
            return wire.Refused(refusal, self.promised, self.end, self.history)
        if message.start + len(message.data) > self.end and message.data:
            # What lies below the end came before (sent again after a reconnect): never written a second time.
            fresh = message.data[self.end - message.start :]
            self._record(step, DataRecord(message.term, self.end, fresh))
        self._commit(step, message.term, message.vdl)
        return wire.Ack(message.term, self.end, message.sent_ns, self.subscribers > 0)

    def appended(self, end: Lsn, vdl: CommitPoint) -> None:
        """The driver took APPENDs and COMMITs of the promised term by these very rules (each continued the
        log exactly), and has journaled them: the log reaches `end`, the highest point heard is `vdl`."""
        assert vdl.term == self.promised == self.history.newest_term
        assert end >= self.end
        assert vdl >= self.vdl
        self.end, self.vdl = end, vdl

    def _refusal(self, message: wire.Append) -> Reason | None:
        if message.term < self.promised:
            return Reason.SUPERSEDED
        if message.term != self.history.newest_term:
            return Reason.NEW_TERM_FIRST
        if message.data and message.start > self.end:
            return Reason.GAP
        return None

    def _commit(self, step: Step[SenderT], term: int, vdl: Lsn) -> None:
        """Believed only from the leader whose log this is: an older one's point is old news, and a newer
        one's speaks of bytes that this log need not have. Below its own start a leader knows of nothing
        durable yet."""
        leader = self.history.last
        if leader is not None and leader.term == term and leader.start <= vdl:
            self._learn(step, CommitPoint(term, vdl))

    def _read(self, message: wire.Read, sender: SenderT) -> ReadPlan[SenderT]:
        start, end = message.start, min(message.end, self.end)
        for bad_start, bad_end in self.corrupt:
            if bad_end > start:
                end = min(end, bad_start)
        refused = (
            (message.term not in (0, self.promised))
            or (message.log_term not in (0, self.history.newest_term))
            or start < self.base
        )
        if refused or end < start:
            end = start
        return ReadPlan(sender, start, end, self.history.newest_term)

    def _trim(self, step: Step[SenderT], message: wire.Trim) -> wire.Message:
        """Only when all of it is here and durable: a higher base could stand in a later term's way."""
        if self.base < message.below <= min(self.end, self.vdl.lsn):
            self._record(step, TrimRecord(message.below))
        return wire.Trimmed(self.base)

    def _learn(self, step: Step[SenderT], point: CommitPoint) -> None:
        if point.term > self.history.newest_term:
            return
        point = CommitPoint(point.term, self.history.clamp(point.term, point.lsn))
        if point > self.vdl:
            self.vdl = point
            step.vdl_changed = True

    # -------------------- gossip

    def gossip_plan(self, peer: wire.StatusReply) -> GossipPlan | None:
        """What may be taken from a peer that answered STATUS so; None: nothing. Changes nothing."""
        return gossip_plan(self, peer) if self.exists else None

    def gossip_adopt(self, plan: GossipPlan) -> Step[None]:
        """Take over the plan's history, commit point and base, as far as the plan still holds."""
        step: Step[None] = Step()
        adopt = plan.adopt
        if adopt is not None and adopt.newest_term > self.history.newest_term:
            cut = min(self.end, self.history.agree_until(adopt))
            if cut < self.base:
                return step
            self._record(step, self._gossip_history(plan.promise, adopt, cut))
            step.history_changed = True
        if self.history.newest_term != plan.own_term:
            return step
        self._learn(step, plan.vdl)
        if plan.rebase is not None and plan.rebase > self.end:
            self._record(step, TrimRecord(plan.rebase))
            step.history_changed = True
        return step

    def _gossip_history(self, promise: int, adopt: TermHistory, cut: Lsn) -> HistoryRecord:
        """Promise the term of the commit point that vouches for `adopt`, unless a higher one is promised."""
        if promise <= self.promised:
            return HistoryRecord(self.promised, self.promised_writer, cut, adopt)
        last = adopt.entries[-1]
        return HistoryRecord(promise, last.writer if last.term == promise else "", cut, adopt)

    def gossip_append(self, plan: GossipPlan, piece: wire.Data) -> Step[None]:
        """Append fetched bytes, as far as they still continue the log that the plan was made for."""
        step: Step[None] = Step()
        stale = self.history.newest_term != plan.own_term or piece.log_term != plan.log_term
        if plan.fetch is None or stale:
            return step
        start = piece.start
        usable = piece.data[: max(0, plan.fetch[1] - start)]
        if start <= self.end < start + len(usable) and start >= plan.fetch[0]:
            self._record(step, DataRecord(plan.own_term, self.end, usable[self.end - start :]))
        return step

    def mark_corrupt(self, start: Lsn, end: Lsn) -> None:
        """[start, end) of the log turned out to be damaged on disk."""
        self._set_corrupt([*self.corrupt, (start, end)])

    def mark_repaired(self, start: Lsn, end: Lsn) -> None:
        """[start, end) was written again from a peer (`gossip.repair_range`) and is synced."""
        left = []
        for bad_start, bad_end in self.corrupt:
            left += [(bad_start, min(bad_end, start)), (max(bad_start, end), bad_end)]
        self._set_corrupt(left)

    def _set_corrupt(self, ranges: list[tuple[Lsn, Lsn]]) -> None:
        merged: list[tuple[Lsn, Lsn]] = []
        for start, end in sorted((max(start, self.base), min(end, self.end)) for start, end in ranges):
            if start >= end:
                continue
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        self.corrupt = tuple(merged)

    # -------------------- the journal

    def snapshot(self) -> StateRecord:
        """The whole state as one record, to begin a journal file with."""
        return StateRecord(
            self.promised, self.promised_writer, self.history, self.base, self.end, self.vdl, self.corrupt
        )

    def vdl_hint(self) -> VdlRecord:
        """To be journaled now and then, without a sync of its own."""
        return VdlRecord(self.vdl)

    def replay(self, record: Record) -> None:
        """Apply one record of the journal at start, in order.

        Where records in the middle of the journal were damaged and left out, the next one shows it: a
        DataRecord above the end leaves a corrupt range behind it, one below the end stands for a cut that was
        lost.
        """
        self._apply(record)

    def _record(self, step: Step[SenderT], record: Record) -> None:
        """The only way in which a living segment changes what is on disk: journal and state cannot part."""
        step.records.append(record)
        self._apply(record)

    def _apply(self, record: Record) -> None:
        match record:
            case DataRecord():
                self._apply_data(record)
            case PromiseRecord():
                if record.term > self.promised:
                    self.promised, self.promised_writer = record.term, record.writer
            case HistoryRecord():
                self._apply_history(record)
            case TrimRecord():
                self.base = max(self.base, record.below)
                self.end = max(self.end, self.base)
                self._set_corrupt(list(self.corrupt))
            case StateRecord():
                self._apply_state(record)
            case VdlRecord():
                if record.vdl.term <= self.history.newest_term:
                    self.vdl = max(self.vdl, record.vdl)

    def _apply_data(self, record: DataRecord) -> None:
        if record.start < self.end:
            self.end = record.start
            self._set_corrupt(list(self.corrupt))
        hole = (self.end, record.start)
        self.end = record.end
        if hole[0] < hole[1]:
            self.mark_corrupt(*hole)
        if record.term > self.promised:
            self.promised, self.promised_writer = record.term, ""

    def _apply_history(self, record: HistoryRecord) -> None:
        if not self.exists:
            self.base = self.end = record.cut
        self.history = record.history
        self.end = min(self.end, record.cut)
        self.vdl = CommitPoint(self.vdl.term, record.history.clamp(*self.vdl))
        if record.promised >= self.promised:
            self.promised, self.promised_writer = record.promised, record.writer
        self._set_corrupt(list(self.corrupt))

    def _apply_state(self, record: StateRecord) -> None:
        """First of the journal: older files are gone, and with them the bytes below. Else: it repairs what
        damaged records before it would have said."""
        if not self.exists:
            self.base = self.end = record.end
        self.history = record.history
        self.vdl = max(self.vdl, record.vdl)
        if record.promised >= self.promised:
            self.promised, self.promised_writer = record.promised, record.writer
        self.base = max(self.base, record.base) if record.base <= record.end else record.end
        if record.end > self.end:
            hole = (self.end, record.end)
            self.end = record.end
            self.mark_corrupt(*hole)
        self.end = record.end
        self._set_corrupt([*self.corrupt, *record.corrupt])
