"""The lease counts from the sending of what a write quorum acknowledged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from borealis.volume.lease import Lease

SECOND = 1_000_000_000


def test_counts_from_the_sending() -> None:
    lease = Lease(3)
    lease.confirmed(0)
    assert lease.deadline_ns == 0
    lease.confirmed(2 * SECOND)
    assert lease.deadline_ns == 5 * SECOND
    assert lease.remaining_seconds(4 * SECOND) == 1
    assert lease.remaining_seconds(7 * SECOND) == -2


def test_the_control_plane_can_extend_it() -> None:
    lease = Lease(3)
    lease.renewed(10, now_ns=SECOND)
    assert lease.deadline_ns == 11 * SECOND
    lease.renewed(1, now_ns=2 * SECOND)
    assert lease.deadline_ns == 11 * SECOND


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10**12)), max_size=40))
def test_the_deadline_never_goes_back(steps: list[tuple[bool, int]]) -> None:
    lease = Lease(1)
    before = 0
    for confirmed, moment in steps:
        if confirmed:
            lease.confirmed(moment)
        else:
            lease.renewed(0.5, moment)
        assert lease.deadline_ns >= before
        before = lease.deadline_ns
