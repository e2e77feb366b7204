"""What a reader of the log may show. It follows one segment after the other, and never goes back.

Owns the reader's position, its history and its commit point; it holds no bytes. Bytes may arrive before they
are durable; only those below `visible` may be shown to anybody.

A segment may be out of date, so its word counts only if its history reaches the term of the reader's own
commit point: all that was ever durable up to there is in such a log. Until then nothing is taken from it.
"""

from __future__ import annotations

from borealis.log.history import TermHistory
from borealis.log.types import NOTHING_COMMITTED, CommitPoint, Lsn


class ReaderCursor:
    """Feed it what a subscription brings, in order; call `resubscribed` when another begins at `end`."""

    def __init__(self, position: Lsn, history: TermHistory | None = None) -> None:
        """`position`: the log below is known to be durable (the version of the volume that was attached)."""
        self.history = history or TermHistory()
        self.end = position
        """Where the next bytes go."""
        self.vdl = NOTHING_COMMITTED
        """The highest commit point heard, seen through `history`."""
        self.following = False
        """Does the segment's present history agree with all that is known to be durable?"""

    @property
    def visible(self) -> Lsn:
        """Bytes below may be shown. A later term may take back an incomplete record, never a complete one."""
        return min(self.end, self.vdl.lsn)

    @property
    def durable_history(self) -> TermHistory:
        """The terms, and with them the timelines, that may be shown."""
        return self.history.upto_term(self.vdl.term)

    def resubscribed(self) -> None:
        """A new subscription was begun: nothing counts before its HISTORY."""
        self.following = False

    def on_history(self, history: TermHistory) -> bool:
        """False: the segment is out of date; wait for its next HISTORY or take another segment.

        True: bytes at and above `end`, which may have gone down, are void. If it has gone down on a new
        subscription, subscribe again at `end`.
        """
        self.following = history.newest_term >= max(self.vdl.term, 1)
        if self.following and history != self.history:
            if len(self.history):
                self.end = min(self.end, self.history.agree_until(history))
            self.vdl = CommitPoint(self.vdl.term, history.clamp(*self.vdl))
            self.history = history
        return self.following

    def on_data(self, start: Lsn, length: int) -> int | None:
        """How many of the `length` bytes at `start` to skip: they are there already. The rest is appended.

        None: take none of them (a gap, or the segment is out of date).
        """
        if not self.following or start > self.end:
            return None
        skip = min(self.end - start, length)
        self.end = max(self.end, start + length)
        return skip

    def on_commit(self, term: int, lsn: Lsn) -> bool:
        """True when the commit point has risen."""
        if not self.following or term > self.history.newest_term:
            return False
        point = CommitPoint(term, self.history.clamp(term, lsn))
        if point <= self.vdl:
            return False
        self.vdl = point
        return True
