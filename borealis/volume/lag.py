"""How far a reader is behind, in time.

Owns a pure measure: the age of the oldest VDL that this reader has heard of and not replayed yet, by this
machine's clock; 0 when it has replayed all. It measures what a query on the reader would miss, not the way
from the writer to here.
"""

from __future__ import annotations

from collections import deque

STEP_SECONDS = 0.002
"""Commit points that come closer together count as one, of the age of the first."""
SAMPLES_MAX = 4096


class LagMeter:
    """Fed with every new VDL and every replay position."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, float]] = deque()
        self._replayed = 0
        self._newest = 0

    def heard(self, vdl: int, now: float) -> None:
        """The log is durable up to `vdl`, and was heard to be at `now` (seconds)."""
        if vdl <= max(self._newest, self._replayed):
            return
        self._newest = vdl
        waiting = self._waiting
        if waiting and (now - waiting[-1][1] < STEP_SECONDS or len(waiting) >= SAMPLES_MAX):
            waiting[-1] = (vdl, waiting[-1][1])
        else:
            waiting.append((vdl, now))

    def replayed(self, lsn: int) -> None:
        """Queries here see the log up to `lsn`."""
        self._replayed = max(self._replayed, lsn)
        while self._waiting and self._waiting[0][0] <= lsn:
            self._waiting.popleft()

    @property
    def behind(self) -> bool:
        """Something is not replayed yet, as far as is known."""
        return bool(self._waiting)

    def lag_seconds(self, now: float) -> float:
        """The lag at `now`."""
        return max(0.0, now - self._waiting[0][1]) if self._waiting else 0.0
