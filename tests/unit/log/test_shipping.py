"""A writer's steady state: what is sent to whom, and what counts."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from borealis.log import wire
from borealis.log.shipping import AppendRange, Shipper
from borealis.log.types import Superseded
from borealis.log.wire import Reason
from tests.unit.log.helpers import NODES, SIX, history

PAGE = 8192
HISTORY = history((1, 0), (5, 100))


def shipper(ends: dict[str, int] | None = None, **options: int) -> Shipper:
    """Open at 100, with connections to the nodes named (all at 100 by default)."""
    result = Shipper(SIX, HISTORY, 100, **options)
    for node, end in (ends or dict.fromkeys(NODES, 100)).items():
        result.connected(node, end)
    return result


def ack(ship: Shipper, nodes: tuple[str, ...], end: int, *, sent_ns: int = 0, feeds: bool = False) -> bool:
    risen = [ship.receive(node, wire.Ack(5, end, sent_ns, feeds)) for node in nodes]
    return any(risen)


def test_one_frame_goes_to_all_as_one_message() -> None:
    ship = shipper()
    ship.produced(150)
    ship.produced(180)
    assert ship.sends() == [AppendRange(100, 180, NODES)]
    assert ship.sends() == []


def test_the_vdl_is_what_four_have_cut_at_a_frame_end() -> None:
    ship = shipper()
    ship.produced(150)
    ship.produced(180)
    ship.sends()
    assert not ack(ship, NODES[:3], 180)
    assert ack(ship, NODES[3:4], 170)
    assert ship.vdl == 150
    assert not ack(ship, NODES[4:], 160)
    assert ack(ship, NODES[4:5], 180)
    assert ship.vdl == 180


def test_acks_beyond_what_was_produced_count_once_it_is() -> None:
    """After a restart of the driver segments may have more than it has found in the engine's log."""
    ship = shipper(dict.fromkeys(NODES, 300))
    ship.produced(200)
    assert ack(ship, NODES[:1], 300)
    assert ship.vdl == 200
    assert ship.sends() == []
    ship.produced(350)
    assert ship.sends() == [AppendRange(300, 350, NODES)]


def test_acks_of_another_term_do_not_count() -> None:
    ship = shipper()
    ship.produced(150)
    for node in NODES:
        assert not ship.receive(node, wire.Ack(4, 150, 0))
    assert ship.vdl == 100


def test_segments_with_subscribers_are_told_the_vdl() -> None:
    ship = shipper()
    ship.produced(150)
    ship.sends()
    ack(ship, NODES[:4], 150, feeds=True)
    assert ship.sends() == []
    assert ship.take_outbox() == [(node, wire.Commit(5, 150)) for node in NODES[:4]]
    assert ship.take_outbox() == []
    ship.produced(160)
    ship.sends()
    ack(ship, NODES[:4], 160, feeds=True)
    ship.produced(170)
    ship.sends()
    assert ship.take_outbox() == [], "the frame that was just sent carried it"


def test_a_new_connection_begins_with_the_term() -> None:
    ship = shipper({"n1": 100})
    ship.connected("n2")
    assert ship.take_outbox() == [("n2", wire.NewTerm(5, HISTORY))]
    ship.produced(150)
    assert ship.sends() == [AppendRange(100, 150, ("n1",))]
    ship.receive("n2", wire.NewTermReply(True, 5, HISTORY, 120))
    assert ship.sends() == [AppendRange(120, 150, ("n2",))]
    ship.receive("n2", wire.NewTermReply(True, 5, HISTORY, 120))
    assert ship.sends() == [], "a doubled reply sends nothing twice"


def test_a_reconnected_segment_goes_on_where_it_is() -> None:
    ship = shipper()
    ship.produced(150)
    ship.sends()
    ship.lost("n1")
    assert ack(ship, NODES[1:5], 150)
    ship.connected("n1")
    ship.receive("n1", wire.NewTermReply(True, 5, HISTORY, 100))
    assert ship.sends() == [AppendRange(100, 150, ("n1",))]


def test_a_late_reply_of_a_lost_connection_makes_nothing_ready() -> None:
    ship = shipper({"n1": 100})
    ship.lost("n1")
    ship.receive("n1", wire.NewTermReply(True, 5, HISTORY, 100))
    ship.produced(150)
    assert ship.sends() == []


def test_no_more_than_a_window_is_under_way() -> None:
    ship = shipper(window=4 * PAGE, piece=PAGE)
    for end in range(200, 100 * PAGE, 100):
        ship.produced(end)
    sent = ship.sends()
    assert all(item.nodes == NODES and item.end - item.start <= PAGE for item in sent)
    assert all(one.end == other.start for one, other in pairwise(sent))
    assert 3 * PAGE < sent[-1].end - 100 <= 4 * PAGE
    ack(ship, ("n1",), sent[0].end)
    more = ship.sends()
    assert {item.nodes for item in more} == {("n1",)}
    assert more[0].start == sent[-1].end


def test_a_long_frame_is_cut_at_page_boundaries_but_not_the_vdl() -> None:
    ship = shipper(window=16 * PAGE, piece=2 * PAGE)
    ship.produced(5 * PAGE + 50)
    sent = ship.sends()
    assert [item.end for item in sent] == [2 * PAGE, 4 * PAGE, 5 * PAGE + 50]
    assert not ack(ship, NODES, 4 * PAGE)
    assert ship.vdl == 100
    assert ack(ship, NODES, 5 * PAGE + 50)


def test_a_segment_far_behind_is_left_to_gossip_until_it_is_near() -> None:
    ship = shipper({**dict.fromkeys(NODES, 100), "n6": 10}, window=4 * PAGE, piece=PAGE)
    assert ship.is_behind("n6"), "the driver cannot read below 100"
    assert not ship.is_behind("n5")
    for end in range(PAGE, 12 * PAGE, PAGE):
        ship.produced(end)
        for item in ship.sends():
            assert "n6" not in item.nodes
            ack(ship, tuple(set(item.nodes) - {"n5"}), item.end)
    assert ship.vdl == 11 * PAGE
    assert ship.is_behind("n5")
    assert "n6" in dict(ship.heartbeat(7))
    ack(ship, ("n6", "n5"), 9 * PAGE)
    assert not ship.is_behind("n6")
    assert {item.nodes for item in ship.sends()} == {("n5", "n6")}


def test_a_raised_floor_leaves_laggards_to_gossip() -> None:
    ship = shipper()
    ship.produced(150)
    ship.floor = 120
    assert all(ship.is_behind(node) for node in NODES)
    assert ship.sends() == []


def test_a_refusal_starts_the_stream_anew_once() -> None:
    ship = shipper({"n1": 100})
    ship.produced(150)
    ship.sends()
    refusal = wire.Refused(Reason.GAP, 5, 90, HISTORY)
    ship.receive("n1", refusal)
    ship.receive("n1", refusal)
    assert ship.take_outbox() == [("n1", wire.NewTerm(5, HISTORY))]
    assert ship.sends() == []


def test_a_higher_promise_fences_the_writer() -> None:
    for message in (
        wire.Refused(Reason.SUPERSEDED, 6, 100, HISTORY),
        wire.NewTermReply(False, 6, HISTORY, 100),
    ):
        with pytest.raises(Superseded):
            shipper().receive("n3", message)


def test_heartbeats_ask_again_where_the_term_was_not_answered() -> None:
    ship = shipper({"n1": 100})
    ship.connected("n2")
    ship.take_outbox()
    assert ship.heartbeat(77) == [
        ("n1", wire.Append(5, 100, 100, 77)),
        ("n2", wire.NewTerm(5, HISTORY)),
    ]


def test_the_lease_begins_when_a_write_quorum_was_asked() -> None:
    ship = shipper()
    assert ship.lease_from_ns == 0
    for node, sent in zip(NODES, (10, 20, 30, 40, 50, 60), strict=True):
        ack(ship, (node,), 100, sent_ns=sent)
    assert ship.lease_from_ns == 30
    ack(ship, ("n1",), 100, sent_ns=5)
    assert ship.lease_from_ns == 30


def test_old_frame_ends_are_forgotten() -> None:
    ship = shipper(window=2 * PAGE, piece=PAGE)
    end = 100
    for _ in range(20_000):
        end += 10
        ship.produced(end)
        ship.sends()
        ack(ship, NODES, end)
    assert ship.vdl == end
    assert len(ship._frames) < 8000


@settings(max_examples=200)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("produce"), st.integers(1, 3 * PAGE)),
            st.tuples(st.just("ack"), st.sampled_from(NODES)),
            st.tuples(st.just("reconnect"), st.sampled_from(NODES)),
        ),
        max_size=60,
    )
)
def test_streams_have_no_gaps_and_the_vdl_is_on_four(events: list[tuple[str, int | str]]) -> None:
    """Against six perfect segments that acknowledge late: each gets its bytes in order, without a hole."""
    ship = shipper(window=4 * PAGE, piece=PAGE)
    logs = dict.fromkeys(NODES, 100)
    frames = {100}
    for kind, value in events:
        if kind == "produce":
            ship.produced(ship.end + int(value))
            frames.add(ship.end)
        elif kind == "ack":
            ack(ship, (str(value),), logs[str(value)])
        else:
            ship.lost(str(value))
            ship.connected(str(value), logs[str(value)])
        for item in ship.sends():
            for node in item.nodes:
                assert item.start <= logs[node], "a gap"
                logs[node] = max(logs[node], item.end)
                assert item.end in frames or item.end % PAGE == 0
        assert ship.vdl in frames
        assert sum(end >= ship.vdl for end in logs.values()) >= 4
