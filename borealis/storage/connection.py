"""A client's connection as a segment's thread sees it: a non-blocking socket with bounded buffers.

Owns the socket, the bytes on their way in and out, and where a subscriber stands. It decides nothing: the
actor tells it what to send.
"""

from __future__ import annotations

import socket
from collections import deque
from dataclasses import dataclass

from borealis.log.wire import FrameReader, Message, Purpose

OUT_BYTES_MAX = 4 * 1024 * 1024
"""A client that leaves this many bytes unread is neither read from nor fed until it has read."""

SEND_BUFFERS_MAX = 64


@dataclass(slots=True)
class Feed:
    """A subscription. Bytes below `next_lsn` were queued."""

    next_lsn: int
    reading: bool = False
    """A read of the files is under way for it."""
    commit_due: bool = False
    """A commit point was left out, because too much is queued."""


class Connection:
    """One client. Used by the segment's thread only."""

    __slots__ = (
        "closing",
        "events",
        "fd",
        "feed",
        "inbox",
        "out",
        "out_bytes",
        "paused",
        "purpose",
        "reader",
        "sock",
    )

    def __init__(
        self, sock: socket.socket, reader: FrameReader, inbox: list[Message], purpose: Purpose
    ) -> None:
        """`inbox`: messages that were read before the connection came here."""
        self.sock = sock
        self.fd = sock.fileno()
        self.reader = reader
        self.purpose = purpose
        self.inbox: deque[Message] = deque(inbox)
        """Received, not handled: while an earlier request waits for the disk."""
        self.out: deque[bytes | memoryview] = deque()
        self.out_bytes = 0
        self.paused = False
        """An answer is being made in another thread; later requests wait: answers keep their order."""
        self.closing = False
        """To be closed as soon as all is sent."""
        self.feed: Feed | None = None
        self.events = 0
        """What the poll waits for."""

    @property
    def clogged(self) -> bool:
        """The client does not read what it is sent."""
        return self.out_bytes > OUT_BYTES_MAX

    def queue(self, data: bytes) -> None:
        """Adds bytes to be sent by `flush`."""
        self.out.append(data)
        self.out_bytes += len(data)

    def flush(self) -> None:
        """Sends what the socket takes. Raises OSError when the connection is lost."""
        while self.out:
            try:
                if len(self.out) == 1:
                    sent = self.sock.send(self.out[0])
                else:
                    sent = self.sock.sendmsg(
                        [self.out[i] for i in range(min(len(self.out), SEND_BUFFERS_MAX))]
                    )
            except (BlockingIOError, InterruptedError):
                return
            self.out_bytes -= sent
            while sent:
                first = self.out.popleft()
                if sent < len(first):
                    self.out.appendleft(memoryview(first)[sent:])
                    break
                sent -= len(first)
