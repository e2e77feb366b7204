"""What one segment may take from another without the leader: the rules of gossip, as pure functions.

Owns the decision only: `gossip_plan` says what to adopt and which bytes to fetch, `SegmentCore.gossip_adopt`
and `gossip_append` apply it, the storage node does the talking.

The rules, and why they are safe:

1. *Bytes* may be taken from a peer from the own end on, up to the point where the two histories part,
   durable or not. Up to there both histories name the same leaders, and a leader writes a position once, so
   they are the same bytes. They must be read under the same history that the plan was made with (READ's
   `log_term`), and appended only if the own history is still the one of the plan: a history may change
   between the question and the answer. Promises do not matter here: a byte that arrives by gossip is not an
   acknowledgement to any leader.
2. A *newer history* may be adopted from a peer only up to the term `t` of the peer's commit point, and only
   where the own newest term is below `t`. Then a write quorum had term `t` on disk before any later
   candidate's votes, so each later candidate's log contains it; whatever the own log has beyond the point
   where the histories part was never acknowledged, and no later candidate chooses this segment's log.
   Adopting it promises `t` as well: otherwise the leader of a term below `t` could still cut what was
   adopted.
3. A *commit point* may be learned when the own newest term is at least its term, clamped by the own history.
4. Where the peer has trimmed the bytes that are wanted, the log may start anew at the peer's base: what
   lies below a base is durable and not needed any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from borealis.log.history import TermHistory
from borealis.log.types import PIECE_BYTES, CommitPoint, Lsn, piece_end


class LogView(Protocol):
    """The part of a segment's state that gossip looks at: a SegmentCore and a StatusReply both have it."""

    @property
    def history(self) -> TermHistory: ...
    @property
    def base(self) -> Lsn: ...
    @property
    def end(self) -> Lsn: ...
    @property
    def vdl(self) -> CommitPoint: ...
    @property
    def corrupt(self) -> tuple[tuple[Lsn, Lsn], ...]: ...


@dataclass(frozen=True, slots=True)
class GossipPlan:
    """What to take from one peer. Apply `adopt`, `rebase` and `vdl` first (`gossip_adopt`), then fetch."""

    adopt: TermHistory | None
    """Take over this history (rule 2)."""
    promise: int
    """The term to promise along with `adopt`."""
    rebase: Lsn | None
    """Start the log anew here (rule 4). Prefer a peer that asks for none."""
    vdl: CommitPoint
    """The peer's commit point, to be learned by rule 3."""
    fetch: tuple[Lsn, Lsn] | None
    """The bytes to READ (rule 1); may be long: cut it with `next_piece`."""
    log_term: int
    """The peer's newest term: READ's `log_term`."""
    own_term: int
    """The own newest term that the fetched bytes are good for."""

    def next_piece(self, at: Lsn, limit: int = PIECE_BYTES) -> tuple[Lsn, Lsn] | None:
        """The next range to READ when the own log ends at `at`; None when the plan is done or stale."""
        if self.fetch is None or not self.fetch[0] <= at < self.fetch[1]:
            return None
        return at, piece_end(at, self.fetch[1], limit)


def gossip_plan(own: LogView, peer: LogView) -> GossipPlan | None:
    """What `own` may take from `peer`; None when there is nothing to take."""
    own_term = own.history.newest_term
    adopt = _newer_history(own_term, peer)
    history = adopt or own.history
    end = own.end if adopt is None else min(own.end, own.history.agree_until(adopt))
    if end < own.base:
        return None
    limit = min(peer.end, history.agree_until(peer.history))
    rebase = None
    if end < peer.base:
        if peer.base > limit or peer.base > peer.vdl.lsn:
            return None
        rebase = end = peer.base
    fetch = _without_corrupt(end, limit, peer.corrupt)
    news = peer.vdl > own.vdl and peer.vdl.term <= history.newest_term
    if adopt is None and rebase is None and fetch is None and not news:
        return None
    return GossipPlan(
        adopt, peer.vdl.term, rebase, peer.vdl, fetch, peer.history.newest_term, history.newest_term
    )


def repair_range(own: LogView, peer: LogView, start: Lsn, end: Lsn) -> tuple[Lsn, Lsn] | None:
    """The part, from `start` on, of the damaged range [start, end) of `own` that `peer` has whole.

    To be READ with `log_term` = the peer's newest term. None when the peer cannot help.
    """
    if peer.base > start:
        return None
    limit = min(end, peer.end, own.history.agree_until(peer.history))
    return _without_corrupt(start, limit, peer.corrupt)


def _newer_history(own_term: int, peer: LogView) -> TermHistory | None:
    """The durable part of the peer's history, where it is newer than the own one (rule 2)."""
    durable = peer.history.upto_term(peer.vdl.term)
    return durable if durable.newest_term > own_term > 0 else None


def _without_corrupt(start: Lsn, end: Lsn, corrupt: tuple[tuple[Lsn, Lsn], ...]) -> tuple[Lsn, Lsn] | None:
    for bad_start, bad_end in corrupt:
        if bad_end > start:
            end = min(end, bad_start)
    return (start, end) if start < end else None
