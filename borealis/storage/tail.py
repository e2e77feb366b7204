"""The newest log bytes of a segment, kept in memory.

Owns a bounded copy of the log's end: subscribers that lag a little, and peers that fetch the last piece, are
served from it without a read of the disk. It is a cache: nothing depends on what it holds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque


class Tail:
    """Consecutive pieces of the log up to its end, `limit` bytes at most (or one piece)."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: deque[tuple[int, bytes]] = deque()
        self._size = 0

    @property
    def end(self) -> int | None:
        """Where the newest piece ends; None when there is none."""
        return self._pieces[-1][0] + len(self._pieces[-1][1]) if self._pieces else None

    def append(self, start: int, data: bytes) -> None:
        """Adds the log's newest bytes; whatever they do not continue is forgotten."""
        if self._pieces and self.end != start:
            self.clear()
        self._pieces.append((start, data))
        self._size += len(data)
        while self._size > self._limit and len(self._pieces) > 1:
            self._size -= len(self._pieces.popleft()[1])

    def cut(self, end: int) -> None:
        """Forgets bytes at and beyond `end`."""
        while self._pieces and self._pieces[-1][0] >= end:
            self._size -= len(self._pieces.pop()[1])
        if self._pieces:
            start, data = self._pieces[-1]
            if start + len(data) > end:
                self._pieces[-1] = (start, data[: end - start])
                self._size -= start + len(data) - end

    def clear(self) -> None:
        self._pieces.clear()
        self._size = 0

    def read(self, start: int, end: int) -> bytes | None:
        """The bytes [start, end), or None when not all of them are here."""
        if not self._pieces or start < self._pieces[0][0] or end > (self.end or 0):
            return None
        first = bisect_right(self._pieces, start, key=lambda piece: piece[0]) - 1
        parts: list[bytes] = []
        for index in range(first, len(self._pieces)):
            at, data = self._pieces[index]
            if at >= end:
                break
            parts.append(data[max(0, start - at) : end - at])
        return parts[0] if len(parts) == 1 else b"".join(parts)
