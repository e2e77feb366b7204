"""Quorum arithmetic, also against a naive model."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borealis.log.quorum import JointQuorum, QuorumSet
from tests.unit.log.helpers import NODES, SIX


def naive_point(quorum: QuorumSet, reached: dict[str, int]) -> int:
    """The best that any write quorum has reached in common."""
    holders = [node for node in reached if node in quorum.members]
    return max((min(reached[n] for n in chosen) for chosen in combinations(holders, quorum.write)), default=0)


def test_every_read_quorum_meets_every_write_quorum() -> None:
    for write in combinations(NODES, 4):
        assert SIX.is_write(write)
        assert all(set(write) & set(read) for read in combinations(NODES, 3))
    assert SIX.is_read(NODES[:3])
    assert not SIX.is_read(NODES[:2])
    assert not SIX.is_write(NODES[:3])


@pytest.mark.parametrize(("write", "read"), [(3, 3), (4, 2), (0, 6), (7, 1)])
def test_quorums_that_may_miss_each_other_are_refused(write: int, read: int) -> None:
    with pytest.raises(ValueError, match="quorum"):
        QuorumSet(frozenset(NODES), write, read)


def test_strangers_do_not_count() -> None:
    assert not SIX.is_write(["n1", "n2", "n3", "stranger"])
    assert SIX.durable_point({"n1": 9, "n2": 9, "n3": 9, "stranger": 9}) == 0


@given(st.dictionaries(st.sampled_from([*NODES, "stranger"]), st.integers(0, 20)))
def test_durable_point_is_the_naive_one(reached: dict[str, int]) -> None:
    assert SIX.durable_point(reached) == naive_point(SIX, reached)


@given(st.dictionaries(st.sampled_from([*NODES, "n7"]), st.integers(0, 20)))
def test_a_joint_quorum_needs_both_sets(reached: dict[str, int]) -> None:
    new = QuorumSet(frozenset([*NODES[:5], "n7"]))
    joint = JointQuorum(SIX, new)
    assert joint.members == SIX.members | new.members
    assert joint.durable_point(reached) == min(naive_point(SIX, reached), naive_point(new, reached))
    assert joint.is_write(reached) == (SIX.is_write(reached) and new.is_write(reached))
    assert joint.is_read(reached) == (SIX.is_read(reached) and new.is_read(reached))
