"""The primary that a local MariaDB follows: sockets around `ReplicaConversation`.

Owns the listening TCP socket (a replica's I/O thread cannot use a Unix socket), the password that only the
engine's session is told (`upstream.json`), the connections, heartbeats, and the reading of old log. When the
VDL advances, the new groups are written to the engine's socket within the same call, without a task switch.
What is not taken by the socket stays unmade: memory is bounded for each connection. Never decides what is
durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from borealis.engines.base import (
    EngineError,
    EngineVersion,
    Feedback,
    InstanceSettings,
    LogFeed,
    ReaderProgress,
    ReaderServer,
)
from borealis.engines.mariadb.connection import Connection
from borealis.engines.mariadb.dump import ReplicaConversation, Served
from borealis.engines.mariadb.history import KEPT_MAX, LogPoint, forget_points, keep_points, kept_points
from borealis.engines.mariadb.logindex import LogIndex
from borealis.engines.mariadb.positions import positions_for
from borealis.errors import BorealisError
from borealis.logs import get_logger

log = get_logger(__name__)

UPSTREAM_NAME: Final = "upstream.json"
"""File in an instance's upstream directory: host, port, user and password of its server."""
UPSTREAM_USER: Final = "borealis"
TICK_SECONDS: Final = 0.5
FETCH_RETRY_SECONDS: Final = 0.05
KEEP_BYTES: Final = 16 << 20
"""After so much log a place is kept for the server's next life, bytes."""


class MariadbReaderServer(ReaderServer):
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
        self._settings = settings
        self._on_progress = on_progress
        self._index = LogIndex(feed, positions_for(settings.upstream_dir))
        password = secrets.token_urlsafe(24)
        self._served = Served(
            feed, self._index, settings.upstream_dir, version.version, UPSTREAM_USER, password
        )
        self._connections: set[Connection] = set()
        self._kept: list[LogPoint] | None = None
        """Places that are kept; None: not looked at yet."""
        self._accepted = 0
        self._address = ""
        """What `upstream.json` says."""
        self._read_failed = False
        self._told: ReaderProgress | None = None
        self._listener: socket.socket | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._ticks: asyncio.TimerHandle | None = None
        self._again: asyncio.Handle | None = None
        self._fetch: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------ life
    async def start(self) -> None:
        if self._listener is not None:
            return
        self._listener = _listen(self._settings.listen_address, self._settings.port)
        host, port = self._listener.getsockname()
        self._address = json.dumps(
            {"host": host, "port": port, "user": UPSTREAM_USER, "password": self._served.password}
        )
        _write_private(self._settings.upstream_dir / UPSTREAM_NAME, self._address)
        self._index.positions.on_applied = self._on_applied
        self._unsubscribe = self._feed.subscribe(self.advance)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._listener, self._accept)
        self._ticks = loop.call_later(TICK_SECONDS, self._tick)

    async def close(self) -> None:
        if self._listener is None:
            return
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._listener = None
        self._withdraw_address()
        self._index.positions.on_applied = None
        if self._unsubscribe is not None:
            self._unsubscribe()
        for handle in (self._ticks, self._again):
            if handle is not None:
                handle.cancel()
        self._again = None
        for connection in tuple(self._connections):
            await connection.close_and_wait()
        if self._fetch is not None:
            self._fetch.cancel()
            await asyncio.gather(self._fetch, return_exceptions=True)

    def _withdraw_address(self) -> None:
        """Unless another server, of the next driver, has told its own already."""
        path = self._settings.upstream_dir / UPSTREAM_NAME
        with contextlib.suppress(FileNotFoundError):
            if path.read_text() == self._address:
                path.unlink()

    # ------------------------------------------------------------------ what is known of the engine
    @property
    def connected(self) -> bool:
        return any(connection.conversation.streaming for connection in self._connections)

    @property
    def progress(self) -> ReaderProgress | None:
        """What it was sent; what it has applied is known as far as the session has reported it."""
        applied = self._index.positions.applied
        if applied is None:
            return None
        sent = max((connection.conversation.sent for connection in self._connections), default=0)
        return ReaderProgress(max(sent, applied), applied, applied)

    @property
    def feedback(self) -> Feedback:
        """Replicas ask nothing of their writer."""
        return Feedback()

    def request_progress(self) -> None:
        if self._index.positions.ask is not None:
            self._index.positions.ask()

    def _on_applied(self) -> None:
        progress = self.progress
        if progress is not None and progress != self._told and self._on_progress is not None:
            self._told = progress
            self._on_progress(progress)

    # ------------------------------------------------------------------ events
    def advance(self) -> None:
        """Serve what can be served now: the feed, or a connection, has changed."""
        more = self._index.advance()
        begins = self._index.begins
        for connection in tuple(self._connections):
            if self._index.failure is not None and connection.conversation.streaming:
                connection.close(str(self._index.failure))
            connection.flush()
        if self._listener is None:
            return
        self._keep_place()
        if self._index.positions.caught_up:
            self._on_applied()  # Headers need no applying, so nobody will report them.
        more = more or self._index.begins != begins
        if more and self._again is None:
            self._again = asyncio.get_running_loop().call_soon(self._go_on)
        if self._index.wanted is not None and self._fetch is None:
            self._fetch = asyncio.get_running_loop().create_task(self._fetch_old(), name="log-index-fetch")

    def _keep_place(self) -> None:
        """Note now and then where the log is read: a driver that is started again goes on there, however old
        the instance's image is."""
        directory, positions = self._settings.upstream_dir, self._index.positions
        if self._index.failure is not None:
            self._kept = []
            forget_points(directory)
        last = self._kept[-1].lsn if self._kept else positions.start
        if not self._index.begun or positions.newest.lsn < last + KEEP_BYTES:
            return
        if self._kept is None:
            self._kept = kept_points(directory)
        self._kept = [*self._kept[-KEPT_MAX:], positions.newest]
        try:
            keep_points(directory, self._kept)
        except (OSError, EngineError) as error:
            log.warning("the place in the log cannot be kept: %s", error)

    def _go_on(self) -> None:
        self._again = None
        self.advance()

    async def _fetch_old(self) -> None:
        """Bring the log that the index reads and that is not in memory, as long as some is wanted."""
        try:
            while (wanted := self._index.wanted) is not None:
                data = await self._read_patiently(*wanted)
                if data:
                    self._index.provide(wanted[0], data)
                    self.advance()
        finally:
            self._fetch = None

    async def _read(self, start: int, end: int) -> bytes:
        return await self._feed.read(start, end)

    async def _read_patiently(self, start: int, end: int) -> bytes:
        """The log, or nothing after a pause."""
        try:
            data = await self._feed.read(start, end)
            self._read_failed = False
        except (BorealisError, OSError) as error:
            if not self._read_failed:
                log.warning("the log from %X on cannot be read, and is asked for again: %s", start, error)
            self._read_failed, data = True, b""
        if not data:
            await asyncio.sleep(FETCH_RETRY_SECONDS)
        return data

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            accepted, _ = self._listener.accept()
        except OSError as error:
            log.warning("cannot accept a reader's connection: %s", error)
            return
        self._accepted += 1
        conversation = ReplicaConversation(self._served, self._accepted)
        connection = Connection(conversation, accepted, self._read, self._on_talk, self._forget)
        self._connections.add(connection)
        connection.flush()

    def _on_talk(self, connection: Connection) -> None:
        """A client has said something."""
        number = connection.conversation.server_id
        if number:
            for other in tuple(self._connections - {connection}):
                if other.conversation.server_id == number:
                    other.close("the engine has connected again")
        connection.flush()
        if self._index.begun:
            self.advance()

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def _tick(self) -> None:
        for connection in tuple(self._connections):
            connection.tick()
        self._ticks = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)


def _listen(address: str, taken_port: int) -> socket.socket:
    """Listen on a port of the system's choice, reachable from this machine only. Not on the engine's own
    port, which may still be free."""
    if not _is_loopback(address):
        address = "127.0.0.1"
    while True:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listener.bind((address, 0))
            listener.listen(16)
            if listener.getsockname()[1] != taken_port:
                return listener
        except BaseException:
            listener.close()
            raise
        listener.close()


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.IPv4Address(address).is_loopback
    except ValueError:
        return False


def _write_private(path: Path, text: str) -> None:
    """Replace a file that only its owner may read."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    temporary.replace(path)
