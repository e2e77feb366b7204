"""How long a writer may still speak for the volume.

Owns a pure computation. A writer that cannot reach a write quorum may have been replaced without knowing it;
so what it answers is only good until its lease ends. The lease is counted from the *sending* of the newest
message that a write quorum acknowledged: at that moment no newer term could have existed. It reads no clock
and touches no shared memory: the caller passes times in and writes the deadline out.

All times are nanoseconds of the machine's boot-time clock (it goes on while the machine sleeps).
"""

from __future__ import annotations

import time


def boottime_ns() -> int:
    """Now, on the clock of leases."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Lease:
    """The lease of one writer in one term.

    Invariant: `deadline_ns` never goes back.
    """

    def __init__(self, seconds: float, write_quorum: int) -> None:
        self.length_ns = int(seconds * 1e9)
        self._write_quorum = write_quorum
        self._heard: dict[str, int] = {}
        self._deadline_ns = 0

    def acknowledged(self, node: str, sent_ns: int) -> None:
        """`node` acknowledged a message of this term that was sent at `sent_ns`."""
        if sent_ns > self._heard.get(node, 0):
            self._heard[node] = sent_ns

    def renewed(self, seconds: float, now_ns: int) -> None:
        """The control plane, which alone can name another writer, promises not to for so long."""
        self._deadline_ns = max(self._deadline_ns, now_ns + int(seconds * 1e9))

    @property
    def deadline_ns(self) -> int:
        """Until when the writer may answer; 0 before it was ever confirmed."""
        heard = sorted(self._heard.values(), reverse=True)
        if len(heard) >= self._write_quorum:
            confirmed = heard[self._write_quorum - 1]
            self._deadline_ns = max(self._deadline_ns, confirmed + self.length_ns)
        return self._deadline_ns

    def remaining_seconds(self, now_ns: int) -> float:
        """What is left of it; negative when it has ended."""
        return (self.deadline_ns - now_ns) / 1e9
