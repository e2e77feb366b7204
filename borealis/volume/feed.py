"""The log as this instance sees it: the newest bytes, the term history, and how far all of it is durable.

Owns the reader's view of the volume, and the two rules of it: nothing above the VDL leaves here, and a
timeline shows only when the term that began it is committed. Bytes come in from `Follower` (and from
the opening, which learns the end of the log by election); they go out to the engine's `ReaderServer`.
It holds no connection: what is no longer in memory is asked of `fetch`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from borealis.log.history import TermHistory
from borealis.log.types import LSN_MAX, NOTHING_COMMITTED, PAGE_BYTES, CommitPoint
from borealis.logs import get_logger
from borealis.volume.ring import LogRing

log = get_logger(__name__)

RING_BYTES = 64 << 20
"""How much of the newest log is kept in memory, in bytes; older ranges are read from a storage node."""

Fetch = Callable[[int, int], Awaitable[bytes]]
"""Reads [start, end) of the committed log from the nodes; shorter or empty when it cannot be had now."""


class VolumeFeed:
    """Implements `engines.base.LogFeed` over a ring of memory.

    Invariants: `vdl` <= the ring's end; `vdl` is a commit point of a writer, or the start of the term that
    replaced it; every byte in the ring belongs to `history`.
    """

    def __init__(self, system_id: str, fetch: Fetch, *, ring_bytes: int = RING_BYTES) -> None:
        self._system_id = system_id
        self._fetch = fetch
        self._ring = LogRing(ring_bytes)
        self._history = TermHistory()
        self._commit = NOTHING_COMMITTED
        self._ceiling = LSN_MAX
        """Start of the first term that is not committed: what an older writer called durable ends there."""
        self._vdl = 0
        self._timelines: Mapping[int, tuple[int, int | None, str]] = {}
        self._listeners: list[Callable[[], None]] = []

    # ------------------------------------------------------------------ what the engine's server sees
    @property
    def system_id(self) -> str:
        return self._system_id

    @property
    def start(self) -> int:
        """First position of the log."""
        entries = self._history.entries
        return entries[0].start if entries else 0

    @property
    def vdl(self) -> int:
        """Durable up to here, and here in memory or older."""
        return self._vdl

    @property
    def timelines(self) -> Mapping[int, tuple[int, int | None, str]]:
        return self._timelines

    def buffered(self, start: int, end: int) -> bytes | None:
        return self._ring.read(start, end)

    async def read(self, start: int, end: int) -> bytes:
        held = self._ring.read(start, end)
        if held is not None:
            return held
        # Up to the first page that is all in memory: the rest is asked for again, and found there. A piece
        # must not end in the middle of a page, except where the whole range does.
        first_page = -(-self._ring.start // PAGE_BYTES) * PAGE_BYTES
        limit = min(end, self._vdl)
        if start < first_page < limit:
            limit = first_page
        return await self._fetch(start, limit)

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        self._listeners.append(on_change)

        def unsubscribe() -> None:
            if on_change in self._listeners:
                self._listeners.remove(on_change)

        return unsubscribe

    # ------------------------------------------------------------------ what comes in
    @property
    def history(self) -> TermHistory:
        """The term history that the bytes in memory belong to; its last entries may not be committed yet."""
        return self._history

    @property
    def end(self) -> int:
        """Where the next bytes go: all before it is in memory or durable."""
        return self._ring.end

    @property
    def commit_point(self) -> CommitPoint:
        """The newest (term, LSN) that a writer announced as durable."""
        return self._commit

    @property
    def known(self) -> bool:
        """False until a first history was heard: before that there is no log to speak of."""
        return len(self._history) > 0

    def set_history(self, history: TermHistory) -> None:
        """A node's history: bytes that do not belong to it are forgotten."""
        if history == self._history:
            return
        agreed = self._history.agree_until(history)
        if self.known and agreed < self._ring.end:
            log.info("history changed: %d bytes above %X are void", self._ring.end - agreed, agreed)
            self._ring.truncate(agreed)
        self._history = history
        self._reshape()
        self._settle()
        self._announce()

    def append(self, start: int, data: bytes | memoryview) -> bool:
        """Bytes from `start` on. False, and nothing done, if they do not join what is here (a gap)."""
        skip = self._ring.end - start
        if skip < 0:
            return False
        if skip < len(data):
            self._ring.append(data[skip:] if skip else data)
            # For a commit point that came before its bytes.
            if self._vdl < self._commit[1] and self._settle():
                self._announce()
        return True

    def restart(self, position: int) -> None:
        """Forget what is in memory; the next bytes come at `position`, below which all is durable."""
        self._ring.reset(position)
        if self._settle():
            self._announce()

    def commit(self, term: int, vdl: int) -> None:
        """A writer's word that the log is durable up to `vdl`."""
        known = self._commit
        if (term, vdl) <= known:
            return
        self._commit = CommitPoint(term, vdl)
        if term != known[0]:
            self._reshape()
            self._settle()
            self._announce()
        elif self._settle():
            self._announce()

    def _reshape(self) -> None:
        """The history or the committing term has changed: which timelines show, and what caps the VDL."""
        term = self._commit[0]
        if term:
            self._timelines = self._history.upto_term(term).timelines()
            self._ceiling = self._history.clamp(term, LSN_MAX)

    def _settle(self) -> bool:
        """Work out the VDL again; True if it moved."""
        vdl = min(self._commit[1], self._ring.end, self._ceiling)
        if vdl == self._vdl:
            return False
        self._vdl = vdl
        return True

    def _announce(self) -> None:
        for listener in tuple(self._listeners):
            listener()
