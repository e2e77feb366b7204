"""One replica's socket: a `ReplicaConversation` with back-pressure.

Owns the socket, the output that it has not taken yet, and the task that brings old log. All on the event
loop, nothing blocks. Never: what is said.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from borealis.engines.base import EngineError
from borealis.engines.mariadb.dump import ReplicaConversation
from borealis.errors import BorealisError
from borealis.logs import get_logger

log = get_logger(__name__)

FLUSH_BYTES: Final = 512 * 1024
"""So much is written at most before other work has its turn, bytes."""
FETCH_RETRY_SECONDS: Final = 0.05
_RECEIVE_BYTES: Final = 64 * 1024
_SEND_BUFFER_BYTES: Final = 1 << 20


class Connection:
    """Made for an accepted socket; lives until `close`, which the other side's end calls too."""

    def __init__(
        self,
        conversation: ReplicaConversation,
        connected: socket.socket,
        read: Callable[[int, int], Awaitable[bytes]],
        on_talk: Callable[[Connection], None],
        on_close: Callable[[Connection], None],
    ) -> None:
        self.conversation = conversation
        self._socket = connected
        self._read = read
        self._on_talk = on_talk
        self._on_close = on_close
        self._pending = memoryview(b"")
        self._waiting_to_write = False
        self._again: asyncio.Handle | None = None
        self._fetch: asyncio.Task[None] | None = None
        self._closed = False
        self._was_streaming = False
        self._loop = asyncio.get_running_loop()
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._loop.add_reader(connected, self._on_readable)

    def tick(self) -> None:
        """Some time has gone by. A client that is busy with log anyway needs no heartbeat."""
        if not self._waiting_to_write and not self._pending:
            self.conversation.tick()
            self.flush()

    def flush(self) -> None:
        """Write what can be written now. The socket's buffer decides how much is made."""
        if self._closed or self._waiting_to_write or self._again is not None:
            return
        try:
            done = self._write()
        except (BlockingIOError, InterruptedError):
            self._waiting_to_write = True
            self._loop.add_writer(self._socket, self._on_writable)
        except (OSError, EngineError) as error:
            self.close(str(error))
        else:
            if not done:
                self._again = self._loop.call_soon(self._go_on)
            self._after_flush()

    def _write(self) -> bool:
        """False: there is more, and the socket would take it."""
        room = FLUSH_BYTES
        while room > 0:
            while self._pending:
                sent = self._socket.send(self._pending)
                self._pending = self._pending[sent:]
                room -= sent
            output = self.conversation.next_output()
            if output is None:
                return True
            self._pending = memoryview(output)
        return False

    def _after_flush(self) -> None:
        conversation = self.conversation
        if conversation.streaming and not self._was_streaming:
            self._was_streaming = True
            log.info("%s: follows from %X; it has %s", conversation.name, conversation.sent, conversation.has)
        if conversation.closed and not self._pending:
            self.close("done")
        elif conversation.wanted is not None and self._fetch is None:
            self._fetch = self._loop.create_task(self._fetch_old(), name="reader-server-fetch")

    def _go_on(self) -> None:
        self._again = None
        self.flush()

    def _on_writable(self) -> None:
        self._waiting_to_write = False
        self._loop.remove_writer(self._socket)
        self.flush()

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.close(str(error))
            return
        if not data:
            self.close("the engine closed the connection")
            return
        try:
            self.conversation.receive(data)
        except EngineError as error:
            self.close(str(error))
            return
        self._on_talk(self)

    async def _fetch_old(self) -> None:
        """Bring the log that is not in memory, as long as some is wanted."""
        try:
            while not self._closed and (wanted := self.conversation.wanted) is not None:
                data = await self._read(*wanted)
                if not data:
                    await asyncio.sleep(FETCH_RETRY_SECONDS)
                    continue
                self.conversation.provide(wanted[0], data)
                self.flush()
        except (BorealisError, OSError) as error:
            self.close(f"the log cannot be read: {error}")
        finally:
            self._fetch = None

    def close(self, why: str) -> None:
        """End the connection now."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket)
        if self._waiting_to_write:
            self._loop.remove_writer(self._socket)
        if self._again is not None:
            self._again.cancel()
        self._socket.close()
        if self._fetch is not None and self._fetch is not asyncio.current_task():
            self._fetch.cancel()
        self._on_close(self)
        log.info("%s: connection ended: %s", self.conversation.name, why)

    async def close_and_wait(self) -> None:
        """`close`, and the end of the task that brings log."""
        fetch = self._fetch
        self.close("the server is closing")
        if fetch is not None:
            await asyncio.gather(fetch, return_exceptions=True)
