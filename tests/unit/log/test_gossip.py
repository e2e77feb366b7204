"""What a segment may take from a peer, and what it must not."""

from __future__ import annotations

from borealis.log import wire
from borealis.log.gossip import GossipPlan, repair_range
from borealis.log.records import DataRecord, HistoryRecord, TrimRecord
from borealis.log.segment import SegmentCore
from borealis.log.types import CommitPoint
from tests.unit.log.helpers import ask, history, segment


def plan_of(own: SegmentCore, peer: SegmentCore) -> GossipPlan:
    plan = own.gossip_plan(peer.status())
    assert plan is not None
    return plan


def test_bytes_of_the_same_history_are_taken_durable_or_not() -> None:
    own, peer = segment((1, 0), data=b"abc"), segment((1, 0), data=b"abcdef")
    plan = plan_of(own, peer)
    assert (plan.adopt, plan.fetch, plan.log_term) == (None, (3, 6), 1)
    step = own.gossip_append(plan, wire.Data(3, b"def", 1))
    assert step.records == [DataRecord(1, 3, b"def")]
    assert own.gossip_plan(peer.status()) is None


def test_an_old_peer_helps_up_to_where_the_histories_part() -> None:
    own = segment((1, 0), data=b"abc")
    ask(own, wire.NewTerm(2, history((1, 0), (2, 5))))
    peer = segment((1, 0), data=b"abcdefgh")
    assert plan_of(own, peer).fetch == (3, 5)


def test_a_newer_history_is_adopted_only_as_far_as_it_is_durable() -> None:
    own = segment((1, 0), data=b"......old")
    peer = segment((1, 0), (3, 6), data=b"xyz")
    assert own.gossip_plan(peer.status()) is None, "term 3 is on no write quorum that the peer knows of"
    ask(peer, wire.Commit(3, 8))
    ask(peer, wire.NewTerm(5, history((1, 0), (3, 6), (5, 9))))
    plan = plan_of(own, peer)
    assert plan.adopt == history((1, 0), (3, 6))
    assert plan.fetch == (6, 9)
    step = own.gossip_adopt(plan)
    assert step.records == [HistoryRecord(3, "w3", 6, history((1, 0), (3, 6)))]
    assert step.history_changed
    assert (own.end, own.promised, own.vdl) == (6, 3, CommitPoint(3, 8))
    assert own.gossip_append(plan, wire.Data(6, b"xyz", 5)).records == [DataRecord(3, 6, b"xyz")]


def test_adoption_keeps_a_higher_promise_and_raises_a_lower_one() -> None:
    peer = segment((1, 0), (3, 6), data=b"xyz", vdl=9)
    own = segment((1, 0))
    ask(own, wire.Vote(8, "a"))
    own.gossip_adopt(plan_of(own, peer))
    assert (own.promised, own.promised_writer) == (8, "a")
    late = segment((1, 0))
    late.gossip_adopt(plan_of(late, peer))
    assert refused_new_term(late, 2)


def refused_new_term(core: SegmentCore, term: int) -> bool:
    reply = ask(core, wire.NewTerm(term, history((1, 0), (term, 3))))
    assert isinstance(reply, wire.NewTermReply)
    return not reply.ok


def test_a_commit_point_of_a_dropped_term_is_promised_all_the_same() -> None:
    """Term 4 was durable at 6, and a later term at 6 has dropped its entry: term 4's rivals stay shut out."""
    peer = segment((1, 0), (2, 6))
    ask(peer, wire.NewTerm(4, history((1, 0), (2, 6), (4, 7))))
    ask(peer, wire.Append(4, 6, 0, 0, b"z"))
    ask(peer, wire.Commit(4, 7))
    ask(peer, wire.NewTerm(5, history((1, 0), (2, 6), (5, 6))))
    assert peer.vdl == CommitPoint(4, 6)
    own = segment((1, 0), data=b"abc")
    own.gossip_adopt(plan_of(own, peer))
    assert own.history == history((1, 0), (2, 6))
    assert (own.promised, own.promised_writer) == (4, "")


def test_answers_that_come_too_late_are_dropped() -> None:
    own, peer = segment((1, 0), data=b"abc"), segment((1, 0), data=b"abcdef")
    plan = plan_of(own, peer)
    assert own.gossip_append(plan, wire.Data(3, b"def", 2)).records == [], "read under another history"
    assert own.gossip_append(plan, wire.Data(4, b"ef", 1)).records == [], "a gap"
    ask(own, wire.NewTerm(2, history((1, 0), (2, 3))))
    assert own.gossip_append(plan, wire.Data(3, b"def", 1)).records == [], "the own history has changed"
    assert own.gossip_adopt(plan).records == []


def test_only_the_planned_and_missing_part_is_appended() -> None:
    own, peer = segment((1, 0), data=b"abc"), segment((1, 0), data=b"abcdef")
    plan = plan_of(own, peer)
    ask(own, wire.Append(1, 3, 0, 0, b"d"))
    step = own.gossip_append(plan, wire.Data(3, b"defghi", 1))
    assert step.records == [DataRecord(1, 4, b"ef")]
    assert plan.next_piece(own.end) is None
    assert plan.next_piece(3) == (3, 6)


def test_a_log_may_start_anew_at_the_base_of_a_trimmed_peer() -> None:
    peer = segment((1, 0), data=b"0123456789", vdl=8)
    ask(peer, wire.Trim(7))
    own = segment((1, 0), data=b"012")
    plan = plan_of(own, peer)
    assert (plan.rebase, plan.fetch) == (7, (7, 10))
    assert own.gossip_adopt(plan).records == [TrimRecord(7)]
    assert (own.base, own.end) == (7, 7)
    ask(own, wire.NewTerm(3, history((1, 0), (3, 9))))
    assert own.base == 7


def test_news_of_durability_alone_is_worth_a_plan() -> None:
    own, peer = segment((1, 0), data=b"abc"), segment((1, 0), data=b"abc", vdl=3)
    plan = plan_of(own, peer)
    assert (plan.adopt, plan.fetch, plan.next_piece(3)) == (None, None, None)
    assert own.gossip_adopt(plan).vdl_changed
    assert own.vdl == CommitPoint(1, 3)


def test_damaged_bytes_are_neither_fetched_nor_used_for_repair() -> None:
    own, peer = segment((1, 0), data=b"012"), segment((1, 0), data=b"0123456789")
    peer.mark_corrupt(6, 7)
    assert plan_of(own, peer).fetch == (3, 6)
    other = segment((1, 0), data=b"0123456789")
    other.mark_corrupt(2, 9)
    assert repair_range(other, peer, 2, 9) == (2, 6)
    assert repair_range(other, peer, 6, 9) is None
    assert repair_range(other, peer, 7, 9) == (7, 9)
    assert repair_range(other, own, 2, 9) == (2, 3)
