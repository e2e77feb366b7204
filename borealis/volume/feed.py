"""The log as this instance sees it: the newest bytes, the term history, and how far all of it is durable.

Owns the bytes in memory, and what the engine's `ReaderServer` sees of the volume; the rules of what may be
shown are `borealis.log.reading`'s. Bytes come in from `Follower` (and from an opening, which learns the end
of the log by election). It holds no connection: what is no longer in memory is asked of `fetch`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from borealis.log.history import TermHistory
from borealis.log.reading import ReaderCursor
from borealis.log.types import PAGE_BYTES, CommitPoint
from borealis.logs import get_logger
from borealis.volume.ring import LogRing

log = get_logger(__name__)

RING_BYTES = 64 << 20
"""How much of the newest log is kept in memory, in bytes; older ranges are read from a storage node."""

Fetch = Callable[[int, int], Awaitable[bytes]]
"""Reads [start, end) of the committed log from the nodes; shorter or empty when it cannot be had now."""


class VolumeFeed:
    """Implements `engines.base.LogFeed` over a ring of memory.

    Invariants: the ring ends where the cursor does; every byte in it belongs to the cursor's history.
    """

    def __init__(self, system_id: str, fetch: Fetch, *, ring_bytes: int = RING_BYTES) -> None:
        self._system_id = system_id
        self._fetch = fetch
        self._ring = LogRing(ring_bytes)
        self._cursor = ReaderCursor(0)
        self._timelines: Mapping[int, tuple[int, int | None, str]] = {}
        self._listeners: list[Callable[[], None]] = []

    # ------------------------------------------------------------------ what the engine's server sees
    @property
    def system_id(self) -> str:
        return self._system_id

    @property
    def start(self) -> int:
        """First position of the log."""
        entries = self._cursor.history.entries
        return entries[0].start if entries else 0

    @property
    def vdl(self) -> int:
        """Durable up to here, and here in memory or older."""
        return self._cursor.visible

    @property
    def timelines(self) -> Mapping[int, tuple[int, int | None, str]]:
        """Those whose term is committed."""
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
        limit = min(end, self.vdl)
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
        return self._cursor.history

    @property
    def known(self) -> bool:
        """False until a first history was heard: before that there is no log to speak of."""
        return len(self._cursor.history) > 0

    @property
    def end(self) -> int:
        """Where the next bytes go: all before it is in memory or durable."""
        return self._cursor.end

    @property
    def commit_point(self) -> CommitPoint:
        """The newest one that was announced, seen through the history."""
        return self._cursor.vdl

    def resubscribed(self) -> None:
        """Another node is followed from here on: nothing counts before its history."""
        self._cursor.resubscribed()

    def set_history(self, history: TermHistory) -> bool:
        """The history of the node that is followed; bytes that do not belong to it are forgotten. False: the
        node is out of date, and nothing that it says is taken."""
        before = self._cursor.history
        if not self._cursor.on_history(history):
            return False
        if self._cursor.history is not before:
            if self._cursor.end < self._ring.end:
                log.info("%d bytes above %X are void", self._ring.end - self._cursor.end, self._cursor.end)
                self._ring.truncate(self._cursor.end)
            self._reshape()
            self._announce()
        return True

    def append(self, start: int, data: bytes | memoryview) -> bool:
        """Bytes from `start` on. False, and nothing done, if they do not join what is here (a gap)."""
        before = self._cursor.visible
        skip = self._cursor.on_data(start, len(data))
        if skip is None:
            return False
        if skip < len(data):
            self._ring.append(data[skip:] if skip else data)
            if self._cursor.visible > before:  # The commit point came before its bytes.
                self._announce()
        return True

    def commit(self, term: int, vdl: int) -> None:
        """A writer's word that the log is durable up to `vdl`."""
        before = self._cursor.vdl.term
        if self._cursor.on_commit(term, vdl):
            if self._cursor.vdl.term != before:
                self._reshape()
            self._announce()

    def restart(self, position: int) -> None:
        """Forget what is in memory; the next bytes come at `position`, below which all is durable."""
        old = self._cursor
        self._cursor = ReaderCursor(position, old.history)
        self._cursor.on_history(old.history)
        self._cursor.on_commit(*old.vdl)
        if not old.following:
            self._cursor.resubscribed()
        self._ring.reset(position)
        self._announce()

    def _reshape(self) -> None:
        self._timelines = self._cursor.durable_history.timelines()

    def _announce(self) -> None:
        for listener in tuple(self._listeners):
            listener()
