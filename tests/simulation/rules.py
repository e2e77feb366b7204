"""The rules of the log as a simulation plays them: the right ones, or with one of them broken (a mutant).

Owns the mutants. Each breaks one rule in the smallest way; a simulation that does not notice is not worth its
time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from borealis.log import wire
from borealis.log.gossip import GossipPlan
from borealis.log.history import TermHistory
from borealis.log.opening import VolumeOpener
from borealis.log.quorum import QuorumSet
from borealis.log.records import HistoryRecord
from borealis.log.segment import SegmentCore, Step
from borealis.log.types import CommitPoint, Lsn, TermEntry
from borealis.log.wire import Reason


class LongestLogWins(VolumeOpener):
    def _rank(self, vote: wire.VoteReply) -> tuple[int, ...]:
        return vote.end, vote.history.newest_term


class AnyHistory(TermHistory):
    """A history that does not check itself."""

    def __post_init__(self) -> None:
        pass


class NonMonotoneStarts(VolumeOpener):
    def _extend(self, history: TermHistory, entry: TermEntry) -> TermHistory:
        return AnyHistory((*history.entries, entry))


class LowerTermAccepted(SegmentCore):
    def _refusal(self, message: wire.Append) -> Reason | None:
        if message.term < self.promised and message.term == self.history.newest_term:
            return Reason.GAP if message.data and message.start > self.end else None
        return super()._refusal(message)


class AnyCommitPoint(SegmentCore):
    """Believes a commit point without having its leader's history: it speaks of another log's bytes."""

    def _commit(self, step: Step[Any], term: int, vdl: Lsn) -> None:
        if self.exists and CommitPoint(term, vdl) > self.vdl:
            self.vdl, step.vdl_changed = CommitPoint(term, vdl), True


class UndurableGossip(SegmentCore):
    """Adopts any newer history from a peer, and promises nothing."""

    def gossip_plan(self, peer: wire.StatusReply) -> GossipPlan | None:
        if peer.history.newest_term > self.history.newest_term:
            peer = replace(peer, vdl=CommitPoint(peer.history.newest_term, peer.end))
        return super().gossip_plan(peer)

    def _gossip_history(self, promise: int, adopt: TermHistory, cut: Lsn) -> HistoryRecord:
        return HistoryRecord(self.promised, self.promised_writer, cut, adopt)


class SmallWriteQuorum(QuorumSet):
    def __post_init__(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Rules:
    """What may differ between a right run and a mutant's."""

    core: type[SegmentCore] = SegmentCore
    opener: type[VolumeOpener] = VolumeOpener
    quorum: Callable[[frozenset[str]], QuorumSet] = QuorumSet
    shared_terms: bool = False
    """Candidates take the highest promised term that they see, plus one, and have no names."""
    ack_early: bool = False
    """Segments answer before they have synced."""
    right: bool = True

    def writer(self, name: str) -> str:
        return "somebody" if self.shared_terms else name


RIGHT = Rules()
_WRONG = replace(RIGHT, right=False)

MUTANTS: dict[str, Rules] = {
    "longest-log-wins": replace(_WRONG, opener=LongestLogWins),
    "shared-terms": replace(_WRONG, shared_terms=True),
    "lower-term-accepted": replace(_WRONG, core=LowerTermAccepted),
    "ack-before-fsync": replace(_WRONG, ack_early=True),
    "write-quorum-3": replace(_WRONG, quorum=lambda members: SmallWriteQuorum(members, write=3, read=3)),
    "non-monotone-starts": replace(_WRONG, opener=NonMonotoneStarts),
    "any-commit-point": replace(_WRONG, core=AnyCommitPoint),
    "undurable-gossip": replace(_WRONG, core=UndurableGossip),
}
