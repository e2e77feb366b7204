"""The primary that a local PostgreSQL follows: sockets around the `WalSender` state machine.

Owns the Unix socket in the upstream directory, its connections, keepalives, and reading of old log for them.
When the VDL advances, the new log is written to the engine's socket within the same call, without a task
switch. What is not taken by the socket stays unmade: memory is bounded by one message for each connection.
Never decides what is durable.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

from borealis.engines.base import (
    EngineError,
    EngineVersion,
    Feedback,
    InstanceSettings,
    LogFeed,
    ReaderProgress,
    ReaderServer,
)
from borealis.engines.postgres.messages import ProtocolError
from borealis.engines.postgres.wal import format_lsn
from borealis.engines.postgres.walsender import WalSender
from borealis.errors import BorealisError
from borealis.logs import get_logger

log = get_logger(__name__)

KEEPALIVE_SECONDS = 1.0
FETCH_RETRY_SECONDS = 0.05
_RECEIVE_BYTES = 64 * 1024
_SEND_BUFFER_BYTES = 1 << 20
_PEER_CREDENTIALS = struct.Struct("3i")


class PostgresReaderServer(ReaderServer):
    """Implements `engines.base.ReaderServer`."""

    def __init__(
        self,
        version: EngineVersion,
        settings: InstanceSettings,
        feed: LogFeed,
        on_feedback: Callable[[Feedback], None] | None = None,
        on_progress: Callable[[ReaderProgress], None] | None = None,
    ) -> None:
        self._feed = feed
        self._server_version = version.version
        self._path = settings.upstream_dir / f".s.PGSQL.{settings.port}"
        self._on_feedback = on_feedback
        self._on_progress = on_progress
        self._connections: set[_Connection] = set()
        self._progress: ReaderProgress | None = None
        self._listener: socket.socket | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._keepalives: asyncio.TimerHandle | None = None
        self._allowed_uids: frozenset[int] = frozenset()

    # ------------------------------------------------------------------ life
    async def start(self) -> None:
        if self._listener is not None:
            return
        owner = self._path.parent.stat()
        self._allowed_uids = frozenset({0, os.getuid(), owner.st_uid})
        self._listener = _listen(self._path, owner)
        self._unsubscribe = self._feed.subscribe(self._on_change)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._listener, self._accept)
        self._keepalives = loop.call_later(KEEPALIVE_SECONDS, self._send_keepalives)

    async def close(self) -> None:
        if self._listener is None:
            return
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._listener = None
        self._path.unlink(missing_ok=True)
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._keepalives is not None:
            self._keepalives.cancel()
        for connection in tuple(self._connections):
            await connection.close_and_wait()

    # ------------------------------------------------------------------ what is known of the engine
    @property
    def connected(self) -> bool:
        return any(connection.sender.streaming for connection in self._connections)

    @property
    def progress(self) -> ReaderProgress | None:
        return self._progress

    @property
    def feedback(self) -> Feedback:
        return Feedback.merge(connection.feedback for connection in self._connections)

    def request_progress(self) -> None:
        for connection in tuple(self._connections):
            connection.keepalive(reply=True)

    # ------------------------------------------------------------------ events
    def _on_change(self) -> None:
        for connection in tuple(self._connections):
            connection.flush()

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            accepted, _ = self._listener.accept()
        except OSError as error:
            log.warning("cannot accept a reader's connection: %s", error)
            return
        credentials = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
        _, uid, _ = _PEER_CREDENTIALS.unpack(credentials)
        if uid not in self._allowed_uids:
            log.warning("refused a reader's connection of user id %d", uid)
            accepted.close()
            return
        self._connections.add(_Connection(self, accepted))

    def _send_keepalives(self) -> None:
        for connection in tuple(self._connections):
            connection.keepalive(reply=False)
        self._keepalives = asyncio.get_running_loop().call_later(KEEPALIVE_SECONDS, self._send_keepalives)

    def make_sender(self, connection: _Connection) -> WalSender:
        """The state machine of a new connection."""
        return WalSender(
            self._feed,
            self._server_version,
            on_feedback=partial(self._heard_feedback, connection),
            on_progress=self._heard_progress,
        )

    def _heard_feedback(self, connection: _Connection, feedback: Feedback) -> None:
        connection.feedback = feedback
        if self._on_feedback is not None:
            self._on_feedback(self.feedback)

    def _heard_progress(self, progress: ReaderProgress) -> None:
        self._progress = progress
        if self._on_progress is not None:
            self._on_progress(progress)

    def forget(self, connection: _Connection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)

    async def read(self, start: int, end: int) -> bytes:
        """Log that is no longer in memory."""
        return await self._feed.read(start, end)


class _Connection:
    """One client. All methods run on the event loop."""

    def __init__(self, server: PostgresReaderServer, connected: socket.socket) -> None:
        self.feedback = Feedback()
        self.sender = server.make_sender(self)
        self._server = server
        self._socket = connected
        self._pending = memoryview(b"")
        self._waiting_to_write = False
        self._fetch: asyncio.Task[None] | None = None
        self._closed = False
        self._was_streaming = False
        self._loop = asyncio.get_running_loop()
        connected.setblocking(False)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._loop.add_reader(connected, self._on_readable)

    def keepalive(self, *, reply: bool) -> None:
        """Only where the client is not busy with log anyway."""
        if not self._waiting_to_write:
            self.sender.keepalive(reply=reply)
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
            self.sender.receive(data)
        except (ProtocolError, EngineError) as error:
            self.close(str(error))
            return
        self.flush()

    def flush(self) -> None:
        """Write what can be written now. The socket's buffer decides how much is made."""
        if self._closed or self._waiting_to_write:
            return
        try:
            self._write()
        except (BlockingIOError, InterruptedError):
            self._waiting_to_write = True
            self._loop.add_writer(self._socket, self._on_writable)
        except (OSError, ProtocolError) as error:
            self.close(str(error))
        else:
            self._after_flush()

    def _write(self) -> None:
        while True:
            while self._pending:
                self._pending = self._pending[self._socket.send(self._pending) :]
            output = self.sender.next_output()
            if output is None:
                return
            self._pending = memoryview(output)

    def _after_flush(self) -> None:
        if self.sender.closed:
            self.close("done")
            return
        if self.sender.streaming != self._was_streaming:
            self._was_streaming = self.sender.streaming
            log.info(
                "%s: %s timeline %d at %s",
                self.sender.name,
                "streaming" if self._was_streaming else "end of",
                self.sender.timeline,
                format_lsn(self.sender.sent),
            )
        if self.sender.wanted is not None and self._fetch is None:
            self._fetch = self._loop.create_task(self._fetch_old(), name="reader-server-fetch")

    def _on_writable(self) -> None:
        self._waiting_to_write = False
        self._loop.remove_writer(self._socket)
        self.flush()

    async def _fetch_old(self) -> None:
        """Bring the log that is not in memory, as long as some is wanted."""
        try:
            while not self._closed and (wanted := self.sender.wanted) is not None:
                data = await self._server.read(*wanted)
                if not data:
                    await asyncio.sleep(FETCH_RETRY_SECONDS)
                    continue
                if self.sender.wanted == wanted:
                    self.sender.provide(wanted[0], data)
                    self.flush()
        except (BorealisError, OSError) as error:
            self.close(f"the log cannot be read: {error}")
        finally:
            self._fetch = None

    def close(self, why: str) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket)
        if self._waiting_to_write:
            self._loop.remove_writer(self._socket)
        self._socket.close()
        if self._fetch is not None and self._fetch is not asyncio.current_task():
            self._fetch.cancel()
        self._server.forget(self)
        log.info("%s: connection ended: %s", self.sender.name, why)

    async def close_and_wait(self) -> None:
        fetch = self._fetch
        self.close("the server is closing")
        if fetch is not None:
            await asyncio.gather(fetch, return_exceptions=True)


def _listen(path: Path, owner: os.stat_result) -> socket.socket:
    """Only the owner of the directory (the engine's user) and we can connect."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        if os.getuid() == 0:
            os.chown(path, owner.st_uid, owner.st_gid)
        listener.listen(16)
    except BaseException:
        listener.close()
        raise
    return listener
