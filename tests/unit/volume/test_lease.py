"""The lease counts from the sending of what a write quorum acknowledged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from borealis.volume.lease import Lease

SECOND = 1_000_000_000


def test_no_lease_before_a_write_quorum() -> None:
    lease = Lease(3, write_quorum=4)
    for node in ("n1", "n2", "n3"):
        lease.acknowledged(node, 5 * SECOND)
    assert lease.deadline_ns == 0
    lease.acknowledged("n4", 2 * SECOND)
    assert lease.deadline_ns == 5 * SECOND  # the oldest of the four, and three seconds


def test_slow_nodes_do_not_hold_it_back() -> None:
    lease = Lease(3, write_quorum=4)
    for node in ("n1", "n2", "n3", "n4", "n5", "n6"):
        lease.acknowledged(node, SECOND)
    for node in ("n1", "n2", "n3", "n4"):
        lease.acknowledged(node, 9 * SECOND)
    assert lease.deadline_ns == 12 * SECOND
    assert lease.remaining_seconds(10 * SECOND) == 2
    assert lease.remaining_seconds(13 * SECOND) == -1


def test_the_control_plane_can_extend_it() -> None:
    lease = Lease(3, write_quorum=4)
    lease.renewed(10, now_ns=SECOND)
    assert lease.deadline_ns == 11 * SECOND
    lease.renewed(1, now_ns=2 * SECOND)
    assert lease.deadline_ns == 11 * SECOND


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 10**12)), max_size=40))
def test_deadline_never_goes_back_and_is_never_too_late(heard: list[tuple[str, int]]) -> None:
    lease = Lease(1, write_quorum=4)
    newest: dict[str, int] = {}
    before = 0
    for node, sent in heard:
        lease.acknowledged(node, sent)
        newest[node] = max(sent, newest.get(node, 0))
        assert lease.deadline_ns >= before
        before = lease.deadline_ns
        if before:
            assert sum(at + SECOND >= before for at in newest.values()) >= 4
