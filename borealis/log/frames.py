"""Frames: how a stream of bytes between a segment and its clients is cut into messages.

Owns the numbers of the messages and the framing; the messages themselves, and the whole format, are in
`wire`. It never touches a socket.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TypeAlias

from borealis.log.types import WireError

FRAME_BYTES_MAX = 16 << 20

Buffer: TypeAlias = bytes | bytearray | memoryview

_HEAD = struct.Struct(">IB")


class Kind(IntEnum):
    """The number of a message on the wire; never reused."""

    HELLO = 1
    HELLO_REPLY = 2
    ERROR = 3
    CREATE = 4
    CREATED = 5
    DROP = 6
    DROPPED = 7
    STATUS = 8
    STATUS_REPLY = 9
    VOTE = 10
    VOTE_REPLY = 11
    NEW_TERM = 12
    NEW_TERM_REPLY = 13
    APPEND = 14
    ACK = 15
    REFUSED = 16
    COMMIT = 17
    SUBSCRIBE = 18
    HISTORY = 19
    DATA = 20
    READ = 21
    BLOB_PUT = 22
    BLOB_OK = 23
    BLOB_DATA = 24
    BLOB_GET = 25
    BLOB_DELETE = 26
    TRIM = 27
    TRIMMED = 28


def frame(kind: int, *parts: Buffer) -> bytes:
    """One whole frame. Raises WireError when it would be longer than FRAME_BYTES_MAX."""
    length = 1 + sum(map(len, parts))
    if length > FRAME_BYTES_MAX:
        raise WireError(f"a {Kind(kind).name} of {length} bytes is above the limit of {FRAME_BYTES_MAX}")
    return b"".join((_HEAD.pack(length, kind), *parts))


class FrameReader:
    """Cuts a stream of bytes into frames. Holds at most one unfinished frame."""

    def __init__(self, limit: int = FRAME_BYTES_MAX) -> None:
        self._limit = limit
        self._chunks: list[bytes] = []
        self._held = 0
        self._wanted = _HEAD.size

    def feed(self, data: Buffer) -> list[tuple[int, memoryview]]:
        """The frames that `data` completes, as (kind, payload); payloads are views that never change.

        Raises WireError on a frame with an impossible length; the stream is unusable after that.
        """
        self._chunks.append(bytes(data))
        self._held += len(data)
        if self._held < self._wanted:
            return []
        block = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        frames, position = self._cut(memoryview(block))
        rest = block[position:]
        self._chunks = [rest] if rest else []
        self._held = len(rest)
        return frames

    @property
    def wanted(self) -> int:
        """How long the unfinished frame is, as far as it is known, in bytes."""
        return self._wanted

    def take(self) -> bytes:
        """The unfinished frame's bytes so far; whoever takes them gives them back with `feed`."""
        rest = b"".join(self._chunks)
        self._chunks, self._held, self._wanted = [], 0, _HEAD.size
        return rest

    def _cut(self, view: memoryview) -> tuple[list[tuple[int, memoryview]], int]:
        frames = []
        position, size = 0, len(view)
        self._wanted = _HEAD.size
        while size - position >= _HEAD.size:
            length, kind = _HEAD.unpack_from(view, position)
            if not 1 <= length <= self._limit:
                raise WireError(
                    f"a frame of {length} bytes: expected 1 to {self._limit}; is the peer one of ours?"
                )
            if size - position < 4 + length:
                self._wanted = 4 + length
                break
            frames.append((kind, view[position + _HEAD.size : position + 4 + length]))
            position += 4 + length
        return frames, position
