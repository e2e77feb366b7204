"""The sockets of one segment's thread: waiting for them, reading messages, sending what is queued.

Owns the poll, the connections' lives, and the mailbox through which other threads reach this one. What a
message means is the owner's matter. Used by one thread, except `post`.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections import deque
from collections.abc import Callable

from borealis.log.types import WireError
from borealis.log.wire import Message, decode
from borealis.logs import get_logger
from borealis.storage.connection import Connection

log = get_logger(__name__)

RECEIVE_BYTES = 1024 * 1024


class SocketLoop:
    """Connections and their messages."""

    def __init__(
        self,
        name: str,
        on_message: Callable[[Connection, Message], None],
        on_closed: Callable[[Connection], None],
    ) -> None:
        """`name` is for the log."""
        self._name = name
        self._on_message = on_message
        self._on_closed = on_closed
        self._connections: dict[int, Connection] = {}
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._posted: deque[Callable[[], None]] = deque()
        self._ended = False
        self._lock = threading.Lock()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._wake_fd, select.EPOLLIN)

    @property
    def epoll_fd(self) -> int:
        """Where one may wait for whatever `turn` would wait for."""
        return self._epoll.fileno()

    def post(self, action: Callable[[], None]) -> bool:
        """Has `action` run in the loop's thread; False when that has ended. For any thread."""
        with self._lock:
            if self._ended:
                return False
            self._posted.append(action)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_write(self._wake_fd, 1)
        return True

    def turn(self, timeout: float) -> None:
        """Waits at most `timeout` seconds (-1: for ever) and handles what has happened."""
        for fd, events in self._epoll.poll(timeout):
            if fd == self._wake_fd:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(fd)
            elif connection := self._connections.get(fd):
                self._on_event(connection, events)
        while self._posted:
            self._posted.popleft()()

    def _on_event(self, connection: Connection, events: int) -> None:
        if events & select.EPOLLOUT:
            self.flush(connection)
        if events & select.EPOLLIN:
            self._receive(connection)
        elif events & (select.EPOLLHUP | select.EPOLLERR):
            self.close(connection)

    def add(self, connection: Connection) -> None:
        """Begins with a connection; messages that came before are handled now."""
        self._connections[connection.fd] = connection
        connection.events = select.EPOLLIN
        self._epoll.register(connection.fd, select.EPOLLIN)
        self.process(connection)

    def holds(self, connection: Connection) -> bool:
        """The connection still stands."""
        return self._connections.get(connection.fd) is connection

    def _receive(self, connection: Connection) -> None:
        if not self.holds(connection):
            return
        try:
            count = connection.sock.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            count = 0
        if count == 0:
            self.close(connection)
            return
        self.received(connection, self._buffer[:count])

    def received(self, connection: Connection, data: bytes | memoryview) -> None:
        """Handles what a client has sent."""
        if not self.holds(connection):
            return
        try:
            for kind, payload in connection.reader.feed(data):
                connection.inbox.append(decode(kind, payload))
        except WireError as error:
            log.warning("%s: a client was cut off: %s", self._name, error)
            self.close(connection)
            return
        self.process(connection)

    def process(self, connection: Connection) -> None:
        """Handles what was received, as far as the connection's state allows."""
        while connection.inbox and not (connection.paused or connection.closing or connection.clogged):
            self._on_message(connection, connection.inbox.popleft())
        self._watch(connection)

    def flush(self, connection: Connection) -> None:
        """Sends what is queued, as far as the client takes it; closes a connection that was to be closed."""
        if not self.holds(connection):
            return
        try:
            connection.flush()
        except OSError:
            self.close(connection)
            return
        if connection.closing and not connection.out:
            self.close(connection)
        elif connection.inbox:
            self.process(connection)
        else:
            self._watch(connection)

    def _watch(self, connection: Connection) -> None:
        """Has the poll wait for what this connection can do next."""
        events = 0
        if not (connection.paused or connection.closing or connection.clogged):
            events = select.EPOLLIN
        if connection.out:
            events |= select.EPOLLOUT
        if events != connection.events and self.holds(connection):
            connection.events = events
            self._epoll.modify(connection.fd, events)

    def close(self, connection: Connection) -> None:
        """Ends a connection at once; nothing more is sent."""
        if not self.holds(connection):
            return
        del self._connections[connection.fd]
        self._epoll.unregister(connection.fd)
        connection.inbox.clear()
        connection.out.clear()
        connection.closing = True
        connection.sock.close()
        self._on_closed(connection)

    def end(self) -> None:
        """Runs what was posted, sends what can be sent, closes all."""
        with self._lock:
            self._ended = True
        while self._posted:
            self._posted.popleft()()
        for connection in list(self._connections.values()):
            self.flush(connection)
            self.close(connection)
        self._epoll.close()
        os.close(self._wake_fd)
