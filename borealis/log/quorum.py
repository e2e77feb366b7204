"""Quorum sets: how many segments must answer.

Owns the arithmetic of quorums. It compares positions, and knows nothing of terms or of connections.

The one rule: every read quorum meets every write quorum, so `write + read > members`. With 4 and 3 of six, a
volume writes on without one availability zone, and its log is found again without one zone and one more
segment.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol


class Quorum(Protocol):
    """What the log asks of a set of segments, be it one set or two at once."""

    @property
    def members(self) -> frozenset[str]:
        """All segments that are to be asked."""

    def is_write(self, present: Collection[str]) -> bool:
        """Do these segments make what they all hold durable?"""

    def is_read(self, present: Collection[str]) -> bool:
        """Does every write quorum have a member among these?"""

    def durable_point(self, reached: Mapping[str, int]) -> int:
        """The highest value that a write quorum has reached; 0 where too few have reached any."""


@dataclass(frozen=True, slots=True)
class QuorumSet:
    """`write` and `read` of `members`. Raises ValueError when a read quorum could miss a write quorum."""

    members: frozenset[str]
    write: int = 4
    read: int = 3

    def __post_init__(self) -> None:
        size = len(self.members)
        if not (0 < self.write <= size and 0 < self.read <= size):
            raise ValueError(f"quorums of {self.write} and {self.read} cannot be met by {size} segments")
        if self.write + self.read <= size:
            raise ValueError(
                f"write quorum {self.write} and read quorum {self.read} of {size} may miss each other: "
                f"their sum must be above {size}"
            )

    def is_write(self, present: Collection[str]) -> bool:
        return len(self.members.intersection(present)) >= self.write

    def is_read(self, present: Collection[str]) -> bool:
        return len(self.members.intersection(present)) >= self.read

    def durable_point(self, reached: Mapping[str, int]) -> int:
        values = sorted((value for node, value in reached.items() if node in self.members), reverse=True)
        return values[self.write - 1] if len(values) >= self.write else 0


@dataclass(frozen=True, slots=True)
class JointQuorum:
    """Two quorum sets at once, while a segment is replaced: both must agree; each can be returned to."""

    old: QuorumSet
    new: QuorumSet

    @property
    def members(self) -> frozenset[str]:
        return self.old.members | self.new.members

    def is_write(self, present: Collection[str]) -> bool:
        return self.old.is_write(present) and self.new.is_write(present)

    def is_read(self, present: Collection[str]) -> bool:
        return self.old.is_read(present) and self.new.is_read(present)

    def durable_point(self, reached: Mapping[str, int]) -> int:
        return min(self.old.durable_point(reached), self.new.durable_point(reached))
