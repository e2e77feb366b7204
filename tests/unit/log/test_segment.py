"""One segment: what it answers, what it journals first, and that the journal alone rebuilds it."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from borealis.log import wire
from borealis.log.records import (
    DataRecord,
    HistoryRecord,
    PromiseRecord,
    Record,
    TrimRecord,
    decode_record,
)
from borealis.log.segment import SegmentCore
from borealis.log.types import CommitPoint
from borealis.log.wire import Reason
from tests.unit.log.helpers import ask, entry, history, segment


def refused(core: SegmentCore, message: wire.Append) -> wire.Refused:
    reply = ask(core, message)
    assert isinstance(reply, wire.Refused)
    return reply


# -------------------- creation


def test_nothing_but_create_and_status_before_creation() -> None:
    core = SegmentCore("vol", "n1")
    for message in (wire.Vote(2, "w"), wire.Append(1, 0, 0, 0, b"x"), wire.Subscribe(0), wire.Read(0, 1)):
        reply = ask(core, message)
        assert isinstance(reply, wire.Error)
        assert reply.code == "SegmentNotFound"
    assert ask(core, wire.Commit(1, 5)) is None
    assert isinstance(ask(core, wire.Status()), wire.StatusReply)
    assert core.gossip_plan(segment((1, 0), data=b"abc").status()) is None


def test_create_can_be_repeated_but_not_with_another_seed() -> None:
    core = SegmentCore("vol", "n1")
    first = core.handle(wire.Create("vol", history((1, 8))), "me")
    assert first.records == [HistoryRecord(1, "w1", 8, history((1, 8)))]
    assert ask(core, wire.Append(1, 8, 8, 0, b"abc")) == wire.Ack(1, 11, 0)
    again = core.handle(wire.Create("vol", history((1, 8))), "me")
    assert (again.records, again.replies) == ([], [("me", wire.Created(1, 11))])
    other = ask(core, wire.Create("vol", history((1, 9))))
    assert isinstance(other, wire.Error)
    assert other.code == "SegmentExists"
    assert isinstance(ask(core, wire.Create("vol", history((1, 8), (2, 9)))), wire.Error)


# -------------------- votes


def test_a_promise_is_journaled_and_lower_terms_are_refused() -> None:
    core = segment((1, 0), data=b"abc")
    step = core.handle(wire.Vote(5, "a"), "me")
    assert step.records == [PromiseRecord(5, "a")]
    assert step.replies == [("me", wire.VoteReply(True, 5, history((1, 0)), 3, core.vdl))]
    lower = core.handle(wire.Vote(4, "b"), "me")
    assert lower.records == []
    assert lower.replies[0][1] == wire.VoteReply(False, 5, history((1, 0)), 3, core.vdl)
    assert refused(core, wire.Append(1, 3, 0, 0, b"x")).reason is Reason.SUPERSEDED


def test_a_repeated_vote_is_granted_to_the_same_candidate_only() -> None:
    core = segment((1, 0))
    ask(core, wire.Vote(5, "a"))
    again = core.handle(wire.Vote(5, "a"), "me")
    assert again.records == []
    assert again.replies[0][1] == wire.VoteReply(True, 5, history((1, 0)), 0, core.vdl)
    rival = ask(core, wire.Vote(5, "b"))
    assert isinstance(rival, wire.VoteReply)
    assert not rival.granted


def test_a_vote_names_the_log_as_far_as_it_reaches() -> None:
    core = segment((1, 0), data=b"abc")
    ask(core, wire.NewTerm(2, history((1, 0), (2, 100))))
    reply = ask(core, wire.Vote(3, "w3"))
    assert isinstance(reply, wire.VoteReply)
    assert (reply.history.newest_term, reply.end) == (1, 3)


# -------------------- new terms


def test_a_new_term_cuts_where_the_histories_part() -> None:
    core = segment((1, 0), data=b"0123456789")
    step = core.handle(wire.NewTerm(3, history((1, 0), (3, 6))), "me")
    assert step.records == [HistoryRecord(3, "w3", 6, history((1, 0), (3, 6)))]
    assert step.history_changed
    assert step.replies == [("me", wire.NewTermReply(True, 3, history((1, 0), (3, 6)), 6))]
    assert ask(core, wire.Append(3, 6, 6, 1, b"xy")) == wire.Ack(3, 8, 1)


def test_a_new_term_needs_no_vote_before_it_but_no_lower_term_gets_in() -> None:
    core = segment((1, 0))
    assert ask(core, wire.NewTerm(7, history((1, 0), (7, 0)))) == wire.NewTermReply(
        True, 7, history((1, 0), (7, 0)), 0
    )
    late = ask(core, wire.NewTerm(6, history((1, 0), (6, 0))))
    assert late == wire.NewTermReply(False, 7, history((1, 0), (7, 0)), 0)


def test_a_repeated_new_term_changes_nothing() -> None:
    core = segment((1, 0), (3, 6), data=b"xy")
    step = core.handle(wire.NewTerm(3, history((1, 0), (3, 6))), "me")
    assert (step.records, step.history_changed) == ([], False)
    assert step.replies == [("me", wire.NewTermReply(True, 3, history((1, 0), (3, 6)), 8))]


def test_another_history_under_the_same_term_is_refused() -> None:
    core = segment((1, 0), (3, 6), data=b"xy")
    other = history((1, 0)).extend(entry(3, 4))
    reply = ask(core, wire.NewTerm(3, other))
    assert isinstance(reply, wire.NewTermReply)
    assert not reply.ok
    assert core.end == 8


def test_a_new_term_promised_to_another_candidate_is_refused() -> None:
    core = segment((1, 0))
    ask(core, wire.Vote(3, "somebody else"))
    reply = ask(core, wire.NewTerm(3, history((1, 0), (3, 0))))
    assert isinstance(reply, wire.NewTermReply)
    assert not reply.ok


def test_a_foreign_or_trimmed_away_history_is_refused() -> None:
    core = segment((1, 0), data=b"0123456789", vdl=8)
    ask(core, wire.Trim(8))
    for wrong in (history((1, 5), (3, 10)), history((1, 0), (3, 7)), history((1, 0))):
        reply = ask(core, wire.NewTerm(3, wrong))
        assert isinstance(reply, wire.NewTermReply)
        assert not reply.ok
    assert (core.promised, core.base, core.end) == (1, 8, 10)


# -------------------- appends


def test_a_gap_is_refused_and_asks_for_gossip() -> None:
    core = segment((1, 0), data=b"abc")
    step = core.handle(wire.Append(1, 5, 0, 0, b"x"), "me")
    assert step.wants_gossip
    assert step.replies == [("me", wire.Refused(Reason.GAP, 1, 3, history((1, 0))))]


def test_a_leader_without_new_term_is_refused() -> None:
    core = segment((1, 0), data=b"abc")
    assert refused(core, wire.Append(2, 3, 0, 0, b"x")).reason is Reason.NEW_TERM_FIRST
    ask(core, wire.Vote(2, "w2"))
    assert refused(core, wire.Append(2, 3, 0, 0, b"x")).reason is Reason.NEW_TERM_FIRST


def test_a_repeated_append_never_writes_twice() -> None:
    core = segment((1, 0), data=b"abcdef")
    step = core.handle(wire.Append(1, 2, 0, 7, b"XX"), "me")
    assert (step.records, step.replies) == ([], [("me", wire.Ack(1, 6, 7))])
    step = core.handle(wire.Append(1, 4, 0, 8, b"XXgh"), "me")
    assert step.records == [DataRecord(1, 6, b"gh")]
    assert step.replies == [("me", wire.Ack(1, 8, 8))]


def test_heartbeats_are_acknowledged_wherever_the_segment_stands() -> None:
    core = segment((1, 0), data=b"abc")
    core.subscribers = 2
    step = core.handle(wire.Append(1, 900, 2, 42), "me")
    assert (step.records, step.vdl_changed) == ([], True)
    assert step.replies == [("me", wire.Ack(1, 3, 42, True))]


# -------------------- commit points


def test_commit_points_rise_and_only_their_own_leader_sets_them() -> None:
    core = segment((1, 0), (3, 6), data=b"xyz")
    assert core.handle(wire.Commit(3, 8), "me").vdl_changed
    for ignored in (wire.Commit(3, 7), wire.Commit(1, 100), wire.Commit(4, 100), wire.Commit(3, 5)):
        assert not core.handle(ignored, "me").vdl_changed
    assert core.vdl == CommitPoint(3, 8)
    assert core.commit == wire.Commit(3, 8)


def test_a_leader_that_is_only_catching_up_says_nothing_about_durability() -> None:
    """Its first appends carry bytes from below its term, and no commit point yet."""
    core = segment((1, 0), data=b"abcdef", vdl=6)
    ask(core, wire.NewTerm(3, history((1, 0), (3, 9))))
    ask(core, wire.Append(3, 6, 0, 0, b"ghi"))
    assert core.vdl == CommitPoint(1, 6)


def test_a_new_term_clamps_the_commit_point() -> None:
    core = segment((1, 0), (3, 6))
    ask(core, wire.Commit(3, 6))
    ask(core, wire.NewTerm(4, history((1, 0), (4, 5))))
    assert core.vdl == CommitPoint(3, 5)


# -------------------- reads, subscriptions, trimming


def read(core: SegmentCore, *args: int) -> tuple[int, int]:
    plan = core.handle(wire.Read(*args), "me").read
    assert plan is not None
    return plan.start, plan.end


def test_reads_are_clipped_and_conditional() -> None:
    core = segment((1, 0), (3, 6), data=b"xyz")
    assert read(core, 2, 100) == (2, 9)
    assert read(core, 20, 30) == (20, 20)
    assert read(core, 2, 5, 3, 3) == (2, 5)
    ask(core, wire.Vote(4, "w4"))
    assert read(core, 2, 5, 3, 0) == (2, 2)
    assert read(core, 2, 5, 4, 3) == (2, 5)
    assert read(core, 2, 5, 0, 1) == (2, 2)


def test_damaged_ranges_are_never_served() -> None:
    core = segment((1, 0), data=b"0123456789")
    core.mark_corrupt(4, 6)
    core.mark_corrupt(5, 8)
    assert core.corrupt == ((4, 8),)
    assert read(core, 0, 10) == (0, 4)
    assert read(core, 5, 10) == (5, 5)
    assert read(core, 8, 10) == (8, 10)
    core.mark_repaired(4, 7)
    assert core.corrupt == ((7, 8),)
    core.mark_repaired(0, 10)
    assert not core.corrupt


def test_a_subscription_opens_with_history_and_commit_point() -> None:
    core = segment((1, 0), data=b"abc", vdl=2)
    step = core.handle(wire.Subscribe(1), "me")
    assert step.subscribe == ("me", 1)
    assert step.replies == [("me", wire.History(history((1, 0)))), ("me", wire.Commit(1, 2))]


def test_trimming_takes_only_what_is_here_and_durable() -> None:
    core = segment((1, 0), data=b"0123456789", vdl=6)
    assert ask(core, wire.Trim(7)) == wire.Trimmed(0)
    step = core.handle(wire.Trim(6), "me")
    assert (step.records, step.replies) == ([TrimRecord(6)], [("me", wire.Trimmed(6))])
    assert ask(core, wire.Trim(3)) == wire.Trimmed(6)
    assert read(core, 5, 10) == (5, 5)


# -------------------- replay


def test_a_damaged_record_in_the_middle_leaves_a_corrupt_range() -> None:
    core = SegmentCore("vol", "n1")
    core.replay(HistoryRecord(1, "w1", 0, history((1, 0))))
    core.replay(DataRecord(1, 0, b"0123"))
    core.replay(DataRecord(1, 7, b"789"))
    assert (core.end, core.corrupt) == (10, ((4, 7),))
    core.replay(DataRecord(1, 5, b"5"))
    assert (core.end, core.corrupt) == (6, ((4, 5),))


def test_a_state_record_stands_for_the_files_before_it() -> None:
    old = segment((1, 0), (3, 6), data=b"xyz")
    ask(old, wire.Commit(3, 9))
    ask(old, wire.Trim(9))
    core = SegmentCore("vol", "n1", "az")
    core.replay(old.snapshot())
    assert core.status() == old.status()
    assert (core.base, core.end) == (9, 9)


def test_a_state_record_repairs_what_damage_hid() -> None:
    old = segment((1, 0), (3, 6), data=b"xyz")
    core = segment((1, 0), data=b"ab")
    core.replay(old.snapshot())
    assert (core.history, core.promised, core.end) == (old.history, 3, 9)
    assert core.corrupt == ((2, 9),)


class JournalMachine(RuleBasedStateMachine):
    """Whatever a segment is told, its journal rebuilds it, and what it promised stays promised."""

    def __init__(self) -> None:
        super().__init__()
        self.core = SegmentCore("vol", "n1")
        self.journal: list[Record] = []
        self.promised = 0
        self.vdl = CommitPoint(0, 0)
        self.tell(wire.Create("vol", history((1, 0))))

    def tell(self, message: wire.Message) -> None:
        step = self.core.handle(message, None)
        self.journal += step.records

    @rule(more=st.integers(-1, 3), writer=st.sampled_from("ab"))
    def vote(self, more: int, writer: str) -> None:
        self.tell(wire.Vote(max(1, self.core.promised + more), writer))

    @rule(more=st.integers(-1, 2), back=st.integers(0, 5), writer=st.sampled_from("ab"))
    def new_term(self, more: int, back: int, writer: str) -> None:
        term = self.core.promised + more
        if term > self.core.history.newest_term:
            start = max(self.core.base, self.core.vdl.lsn, self.core.end - back)
            grown = self.core.history.upto(self.core.end).extend(entry(term, start, writer=writer))
            self.tell(wire.NewTerm(term, grown))

    @rule(more=st.integers(-1, 1), offset=st.integers(-5, 2), data=st.binary(max_size=9))
    def append(self, more: int, offset: int, data: bytes) -> None:
        start = max(0, self.core.end + offset)
        self.tell(wire.Append(self.core.history.newest_term + more, start, self.core.vdl.lsn, 0, data))

    @rule(back=st.integers(0, 9))
    def commit(self, back: int) -> None:
        self.tell(wire.Commit(self.core.history.newest_term, max(0, self.core.end - back)))

    @rule(back=st.integers(0, 9))
    def trim(self, back: int) -> None:
        self.tell(wire.Trim(max(0, self.core.vdl.lsn - back)))

    @rule()
    def begin_file(self) -> None:
        self.journal.append(self.core.snapshot())

    @invariant()
    def journal_rebuilds_the_state(self) -> None:
        rebuilt = SegmentCore("vol", "n1")
        for record in self.journal:
            rebuilt.replay(decode_record(record.encode()))
        for name in ("promised", "promised_writer", "history", "base", "end", "corrupt"):
            assert getattr(rebuilt, name) == getattr(self.core, name), name

    @invariant()
    def promises_hold(self) -> None:
        core = self.core
        assert core.promised >= max(self.promised, core.history.newest_term)
        assert core.base <= core.end
        assert core.vdl >= self.vdl or core.vdl.term == self.vdl.term
        self.promised, self.vdl = core.promised, core.vdl


JournalMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestJournal = JournalMachine.TestCase
