"""Opening a volume: the right log is found, made durable and gone on with, whatever breaks on the way."""

from __future__ import annotations

import pytest

from borealis.log import wire
from borealis.log.opening import Phase, VolumeOpener
from borealis.log.types import LogMoved, NoQuorum, Superseded
from tests.unit.log.cluster import START, Cluster
from tests.unit.log.helpers import NODES, SIX, history


def opener(first: int = 2, second: int = 3, writer: str = "w", piece: int = 8192) -> VolumeOpener:
    return VolumeOpener(SIX, first, second, writer, piece=piece)


def recover(cluster: Cluster, attempt: VolumeOpener | None = None) -> VolumeOpener:
    attempt = attempt or opener()
    cluster.connect(attempt)
    return attempt


def open_at(cluster: Cluster, attempt: VolumeOpener, switch: int, timeline: int = 2) -> VolumeOpener:
    attempt.promoted(START + switch, timeline, f"history of {timeline}", 0.0)
    cluster.drive(attempt)
    return attempt


def test_a_fresh_volume_opens_at_the_end_of_its_seed() -> None:
    cluster = Cluster()
    attempt = recover(cluster)
    assert attempt.recovered is not None
    assert (attempt.phase, attempt.recovered.end, attempt.recovered.timeline) == (Phase.REPLAY, START + 4, 1)
    open_at(cluster, attempt, 4)
    opened = attempt.opened
    assert opened is not None
    assert (opened.term, opened.start, opened.vdl) == (3, START + 4, START + 4)
    assert [(e.term, e.timeline, e.start, e.history) for e in opened.history] == [
        (1, 1, START, ""),
        (2, 1, START + 4, ""),
        (3, 2, START + 4, "history of 2"),
    ]
    assert set(cluster.heads().values()) == {(3, 4)}
    assert sum(core.vdl == (3, START + 4) for core in cluster.cores.values()) >= 4
    assert len(opened.ends) >= 4
    assert set(opened.ends.values()) == {START + 4}


def test_a_torn_record_at_the_end_is_cut_off() -> None:
    cluster = Cluster()
    cluster.write(1, b"torn")
    attempt = open_at(cluster, recover(cluster), 6)
    assert attempt.opened is not None
    assert (attempt.opened.start, attempt.opened.vdl) == (START + 6, START + 6)
    assert [entry.term for entry in attempt.opened.history] == [1, 3], "term 2 owns nothing any more"
    assert set(cluster.heads().values()) == {(3, 6)}


def test_a_gap_up_to_the_first_record_is_padded_with_zeros() -> None:
    cluster = Cluster()
    attempt = open_at(cluster, recover(cluster), 20_000)
    assert attempt.opened is not None
    assert (attempt.opened.start, attempt.opened.vdl) == (START + 4, START + 20_000)
    assert sum(core.end == START + 20_000 for core in cluster.cores.values()) >= 4
    assert bytes(cluster.data["n1"]) == b"seed" + bytes(19_996)


def test_the_newest_term_wins_over_the_longest_log() -> None:
    cluster = Cluster()
    cluster.down = {"n5", "n6"}
    open_at(cluster, recover(cluster), 4)
    cluster.down = set()
    cluster.write(1, b"never acknowledged by anybody", nodes=("n5", "n6"))
    cluster.write(3, b"acked", nodes=("n1", "n2", "n3", "n4"))
    cluster.down = {"n1", "n2"}
    attempt = recover(cluster, opener(4, 5))
    assert attempt.recovered is not None
    assert attempt.recovered.end == START + 9
    assert {bytes(cluster.data[node]) for node in ("n3", "n4", "n5", "n6")} == {b"seedacked"}


def test_missing_bytes_are_copied_in_pieces() -> None:
    cluster = Cluster()
    body = bytes(range(256)) * 200
    cluster.write(1, body, nodes=("n3",))
    cluster.down = {"n1", "n2"}
    attempt = recover(cluster)
    assert attempt.phase is Phase.REPLAY
    assert all(cluster.data[node] == b"seed" + body for node in ("n3", "n4", "n5", "n6"))
    reads = [message for _, message in cluster.heard if isinstance(message, wire.Read)]
    assert {(read.term, read.log_term) for read in reads} == {(2, 2)}
    assert all(read.end % 8192 == 0 or read.end == START + 4 + len(body) for read in reads)


def test_a_damaged_source_is_replaced_by_another_one() -> None:
    cluster = Cluster()
    cluster.write(1, b"abcdef", nodes=("n1", "n2"))
    cluster.down = {"n5", "n6"}
    cluster.cores["n2"].mark_corrupt(START + 4, START + 10)
    assert recover(cluster).phase is Phase.REPLAY
    assert all(cluster.data[node] == b"seedabcdef" for node in ("n1", "n3", "n4"))


@pytest.mark.parametrize("down", [{"n1", "n2", "n3"}, {"n1", "n2", "n3", "n4"}])
def test_without_a_write_quorum_nobody_is_fenced(down: set[str]) -> None:
    cluster = Cluster()
    cluster.down = down
    attempt = opener()
    with pytest.raises(NoQuorum, match="phase probe"):
        cluster.connect(attempt)
    assert attempt.phase is Phase.FAILED
    assert all(core.promised == 1 for core in cluster.cores.values())
    assert attempt.take_outbox() == []


def test_four_of_six_are_enough_for_everything() -> None:
    cluster = Cluster()
    cluster.down = {"n2", "n5"}
    assert open_at(cluster, recover(cluster), 4).phase is Phase.OPEN


def test_a_node_without_the_segment_counts_as_unreachable() -> None:
    cluster = Cluster(seed=b"")
    cluster.down = {"n1", "n2"}
    cluster.seed(b"seed")
    cluster.down = {"n3"}
    with pytest.raises(NoQuorum):
        recover(cluster)
    attempt = opener()
    attempt.lost("n3", 0.0)
    attempt.receive("n1", wire.Error("SegmentNotFound", ""), 0.0)
    with pytest.raises(NoQuorum):
        attempt.receive("n2", wire.Error("SegmentNotFound", ""), 0.0)


def test_a_higher_promise_anywhere_ends_the_attempt() -> None:
    cluster = Cluster()
    cluster.ask("n4", wire.Vote(9, "rival"))
    with pytest.raises(Superseded) as caught:
        recover(cluster)
    assert caught.value.promised == 9
    assert cluster.cores["n1"].promised == 1, "the probe was enough to see it"


def test_a_rival_with_the_same_term_ends_the_attempt() -> None:
    cluster = Cluster()
    cluster.ask("n4", wire.Vote(2, "rival"))
    with pytest.raises(Superseded, match="to another candidate"):
        recover(cluster)


def test_a_term_cannot_be_used_twice() -> None:
    cluster = Cluster()
    recover(cluster)
    with pytest.raises(Superseded):
        recover(cluster)


def test_a_rival_between_the_two_terms_is_noticed() -> None:
    """Terms 2 and 9 are ours; a rival opens 3 and 4 and commits before we ask for 9."""
    cluster = Cluster()
    mine = opener(2, 9)
    held: list[tuple[str, wire.Message]] = []
    for node in NODES:
        mine.connected(node, 0.0)
    while mine.phase is not Phase.REPLAY:
        for node, message in mine.take_outbox():
            for reply in cluster.ask(node, message):
                mine.receive(node, reply, 0.0)
    held = mine.take_outbox()
    open_at(cluster, recover(cluster, opener(3, 4, "rival")), 4)
    cluster.write(4, b"acked")
    votes = [(node, message) for node, message in held if isinstance(message, wire.Vote)]
    assert len(votes) == 6
    with pytest.raises(LogMoved, match="another candidate"):
        for node, vote in votes:
            for reply in cluster.ask(node, vote):
                mine.receive(node, reply, 0.0)
    assert mine.take_outbox() == []


def test_the_second_vote_does_not_wait_for_the_engine() -> None:
    cluster = Cluster()
    recover(cluster)
    assert all(core.promised == 3 for core in cluster.cores.values())


@pytest.mark.parametrize("lost_after", range(1, 40))
def test_connections_may_break_after_any_message(lost_after: int) -> None:
    """All connections break at some point, in the middle of whatever was going on, and come back."""
    cluster = Cluster()
    cluster.write(1, b"x" * 20_000, nodes=("n1", "n2"))
    attempt = opener()
    count = 0
    for node in NODES:
        attempt.connected(node, 0.0)
    for _ in range(3):
        while outbox := attempt.take_outbox():
            for node, message in outbox:
                replies = cluster.ask(node, message)
                count += 1
                if count == lost_after:
                    break_all(attempt)
                    replies = []
                for reply in replies:
                    attempt.receive(node, reply, 0.0)
                    attempt.receive(node, reply, 0.0)
        if attempt.recovered is not None and attempt.phase is Phase.REPLAY:
            open_at(cluster, attempt, attempt.recovered.end - START)
    assert attempt.phase is Phase.OPEN


def break_all(attempt: VolumeOpener) -> None:
    """One after the other, so that a write quorum is never known to be unreachable."""
    for node in NODES:
        attempt.lost(node, 0.0)
        attempt.connected(node, 0.0)


def test_late_and_foreign_replies_change_nothing() -> None:
    cluster = Cluster()
    attempt = recover(cluster)
    for message in (
        wire.StatusReply("n1", "a", "vol", 1, history((1, START)), START, START + 4),
        wire.VoteReply(True, 2, history((1, START)), START + 900),
        wire.NewTermReply(True, 2, history((1, START)), START + 900),
        wire.Ack(2, START + 900, 0),
        wire.Data(START, b"zzzz", 2),
        wire.Created(),
    ):
        attempt.receive("n1", message, 0.0)
    attempt.receive("stranger", wire.VoteReply(True, 99, history((1, START)), 0), 0.0)
    assert open_at(cluster, attempt, 4).phase is Phase.OPEN
    attempt.receive("n1", wire.VoteReply(False, 99, history((1, START)), 0), 0.0)
    assert attempt.phase is Phase.OPEN


def test_the_time_of_each_phase_is_told() -> None:
    cluster = Cluster()
    attempt = opener()
    for node in NODES:
        attempt.connected(node, 10.0)
    clock = [10.0]

    def receive(node: str, message: wire.Message) -> None:
        clock[0] += 0.5
        attempt.receive(node, message, clock[0])

    cluster.run(attempt.take_outbox, receive)
    clock[0] += 5.0
    attempt.promoted(START + 4, 2, "", clock[0])
    cluster.run(attempt.take_outbox, receive)
    assert attempt.opened is not None
    assert list(attempt.opened.timings) == ["probe", "vote", "adopt", "replay", "opening"]
    assert all(seconds > 0 for seconds in attempt.opened.timings.values())
    assert attempt.timings["replay"] >= 5.0


def test_promotion_before_recovery_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="wait for"):
        opener().promoted(START, 2, "", 0.0)
