"""How long a writer may still speak for the volume.

Owns a pure computation. A writer that cannot reach a write quorum may have been replaced without knowing it;
so what it answers is only good until its lease ends. The lease is counted from the *sending* of the newest
message that a write quorum acknowledged: at that moment no newer term could have existed. It reads no clock
and touches no shared memory: the caller passes times in and writes the deadline out.

All times are nanoseconds of the machine's boot-time clock (it goes on while the machine sleeps).
"""

from __future__ import annotations


class Lease:
    """The lease of one writer in one term.

    Invariant: `deadline_ns` never goes back.
    """

    def __init__(self, seconds: float) -> None:
        self.length_ns = int(seconds * 1e9)
        self.deadline_ns = 0
        """Until when the writer may answer; 0 before it was ever confirmed."""

    def confirmed(self, sent_ns: int) -> None:
        """A write quorum has acknowledged what was sent at `sent_ns`; 0: it has not acknowledged anything."""
        if sent_ns:
            self.deadline_ns = max(self.deadline_ns, sent_ns + self.length_ns)

    def renewed(self, seconds: float, now_ns: int) -> None:
        """The control plane, which alone can name another writer, promises not to for so long."""
        self.deadline_ns = max(self.deadline_ns, now_ns + int(seconds * 1e9))

    def remaining_seconds(self, now_ns: int) -> float:
        """What is left of it; negative when it has ended."""
        return (self.deadline_ns - now_ns) / 1e9
