"""The newest bytes of a log, in a buffer of a fixed size.

Owns memory, nothing else: which bytes of a volume's log it holds and where they lie. It knows nothing of
terms, durability or nodes. The memory is taken from the system page by page as it is first used.
"""

from __future__ import annotations

import ctypes
import mmap


class LogRing:
    """Bytes [start, end) of a log; the oldest ones make room for the newest.

    Invariant: 0 <= end - start <= capacity, and the byte at position p lies at p % capacity.
    """

    def __init__(self, capacity: int, position: int = 0) -> None:
        self.capacity = capacity
        self.start = position
        self.end = position
        # Not a bytearray: that would touch all of it at once.
        memory = mmap.mmap(-1, capacity)
        self._buffer = memoryview(memory)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        """Where the memory lies, for native code; it stays there as long as this object."""

    def reset(self, position: int) -> None:
        """Forget everything and go on at `position`."""
        self.start = self.end = position

    def adopt(self, start: int, end: int) -> None:
        """Native code has put log into the memory: bytes [start, end) are there now."""
        assert 0 <= end - start <= self.capacity
        self.start, self.end = start, end

    def truncate(self, end: int) -> None:
        """Forget everything at and above `end`."""
        if end < self.start:
            self.reset(end)
        elif end < self.end:
            self.end = end

    def append(self, data: bytes | memoryview) -> None:
        """Put `data` behind the end."""
        capacity = self.capacity
        size = len(data)
        if size > capacity:  # Only its last part would stay anyway.
            self.reset(self.end + size - capacity)
            data = data[-capacity:]
            size = capacity
        at = self.end % capacity
        first = min(size, capacity - at)
        self._buffer[at : at + first] = data[:first]
        if first < size:
            self._buffer[: size - first] = data[first:]
        self.end += size
        self.start = max(self.start, self.end - capacity)

    def read(self, start: int, end: int) -> bytes | None:
        """Bytes [start, end), or None if one of them is not in here."""
        if start < self.start or end > self.end or start > end:
            return None
        capacity = self.capacity
        at = start % capacity
        size = end - start
        if at + size <= capacity:
            return bytes(self._buffer[at : at + size])
        return b"".join((self._buffer[at:], self._buffer[: size - (capacity - at)]))
