"""The primary's side of MariaDB replication, as a state machine without I/O.

Owns the conversation with one replica: log-in, its queries, registration, and the place from which it is sent
the log, by its GTID. Bytes in: `receive`. Bytes out: `next_output`, one piece at a time, so that the caller's
back-pressure decides how much is made. It has no socket or task; the log is `LogStream`'s.

A replica that has what the log does not have must not be served: it is told so with an error that stops its
replication for good. One whose last group the log does not have *yet* just waits.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from borealis.engines.base import EngineError, LogFeed, Lsn
from borealis.engines.mariadb import protocol as p
from borealis.engines.mariadb.gtid import Gtid, gtid_text, parse_state
from borealis.engines.mariadb.handshake import ServerHandshake
from borealis.engines.mariadb.history import (
    LogPoint,
    TimelineHistory,
    kept_points,
    read_attached,
    timeline_points,
)
from borealis.engines.mariadb.logindex import LogIndex
from borealis.engines.mariadb.logstream import Diverged, LogStream
from borealis.engines.mariadb.queries import ReplicaQueries
from borealis.logs import get_logger

log = get_logger(__name__)

_MAKE_ANEW = "this instance cannot follow the volume any more; it must be made again from an image"


@dataclass(frozen=True, slots=True)
class Served:
    """What a connection is served from, and as whom."""

    feed: LogFeed
    index: LogIndex
    upstream_dir: Path
    version: str
    user: str
    password: str = field(repr=False)


class _State(Enum):
    LOGIN = "waiting for the log-in"
    COMMANDS = "waiting for a command"
    ASKED = "the log was asked for, and is not known yet"
    STREAMING = "the log is sent"
    CLOSED = "nothing more will be said"


class _Refused(Exception):
    """The replica's position is none that it can be served from."""


class ReplicaConversation:
    """One connection. After each `receive`, `provide`, `tick`, or when the index has advanced, take
    `next_output` until it gives None."""

    def __init__(
        self, served: Served, connection_id: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.server_id = 0
        """The replica's own number, once it has said it."""
        self._served = served
        self._clock = clock
        self._state = _State.LOGIN
        self._handshake = ServerHandshake(served.version, served.user, served.password, connection_id)
        self._queries = ReplicaQueries(served.version)
        self._reader = p.PacketReader()
        self._replies: deque[bytes] = deque([p.packets(0, self._handshake.greeting())])
        self._stream: LogStream | None = None
        self._has: Gtid | None = None
        self._spoke_at = clock()

    # ------------------------------------------------------------------ what the caller may ask
    @property
    def name(self) -> str:
        return f"engine {self.server_id}" if self.server_id else "a client"

    @property
    def streaming(self) -> bool:
        return self._state is _State.STREAMING

    @property
    def closed(self) -> bool:
        """True once the connection is to be closed, after the last output."""
        return self._state is _State.CLOSED

    @property
    def sent(self) -> Lsn:
        """The log was handed out up to here."""
        return self._stream.sent if self._stream is not None else 0

    @property
    def has(self) -> str:
        """The last group that the replica had when it connected."""
        return gtid_text(self._has) or "nothing"

    @property
    def wanted(self) -> tuple[Lsn, Lsn] | None:
        """A range of the log that is not in memory: read it and call `provide`. Stays until then."""
        return self._stream.wanted if self._stream is not None and self.streaming else None

    # ------------------------------------------------------------------ what the caller tells
    def receive(self, data: bytes) -> None:
        """Bytes from the client. Raises ProtocolError."""
        self._reader.feed(data)
        while self._state is not _State.CLOSED and (received := self._reader.next()) is not None:
            sequence, message = received
            if self._state is _State.LOGIN:
                self._on_login(sequence, message)
            else:
                self._on_command(message)

    def provide(self, start: Lsn, data: bytes) -> None:
        """The bytes of `wanted`, or the first part of them."""
        if self._stream is not None:
            self._stream.provide(start, data)

    def tick(self) -> None:
        """Some time has gone by: a heartbeat may be due."""
        if self._clock() - self._spoke_at < self._queries.heartbeat_seconds:
            return
        if self._state is _State.ASKED:
            self._state = _State.CLOSED  # It asks again; until then its connection would be taken for dead.
        elif self._stream is not None:
            self._stream.heartbeat()

    def next_output(self) -> bytes | None:
        """The next bytes for the client; None: nothing now."""
        output = self._replies.popleft() if self._replies else self._next_of_stream()
        if output is not None:
            self._spoke_at = self._clock()
        return output

    def _next_of_stream(self) -> bytes | None:
        if self._state is _State.ASKED:
            self._begin()
            if self._replies:
                return self._replies.popleft()
        if self._state is not _State.STREAMING or self._stream is None:
            return None
        try:
            return self._stream.next_output()
        except Diverged as error:
            log.error("%s has diverged: %s", self.name, error)
            self._state = _State.CLOSED
            return self._stream.error(p.FATAL_READING_LOG, f"{error}: {_MAKE_ANEW}")

    # ------------------------------------------------------------------ the conversation
    def _reply(self, messages: Iterable[bytes], sequence: int = 1) -> None:
        numbered = enumerate(messages, sequence)
        self._replies.append(b"".join(p.packets(number, message) for number, message in numbered))

    def _on_login(self, sequence: int, message: bytes) -> None:
        self._reply([self._handshake.receive(message)], sequence + 1)
        if self._handshake.done:
            self._state = _State.COMMANDS
        elif self._handshake.refused:
            log.warning("a client was refused: it does not know the engine's password for its upstream")
            self._state = _State.CLOSED

    def _on_command(self, message: bytes) -> None:
        command, body = message[:1], message[1:]
        if command == bytes((p.COM_QUIT,)):
            self._state = _State.CLOSED
        elif self._state is not _State.COMMANDS:
            raise p.ProtocolError("a command came while the log is being sent")
        elif command == bytes((p.COM_QUERY,)):
            self._reply(self._queries.answer(body.decode(errors="replace")))
        elif command == bytes((p.COM_PING,)):
            self._reply([p.OK])
        elif command == bytes((p.COM_REGISTER_REPLICA,)) and len(body) >= 4:
            self.server_id = int.from_bytes(body[:4], "little")
            self._reply([p.OK])
        elif command == bytes((p.COM_BINLOG_DUMP,)) and len(body) >= 10:
            self.server_id = int.from_bytes(body[6:10], "little")
            self._state = _State.ASKED
        else:
            self._reply([p.error(p.UNKNOWN_COMMAND, "this command is not served here, only the log is")])

    # ------------------------------------------------------------------ where to begin
    def _begin(self) -> None:
        """Find the replica's place, once the log is known."""
        if not self._served.feed.timelines:
            return
        try:
            self._stream = self._open_stream()
            self._state = _State.STREAMING
        except (_Refused, EngineError) as error:
            log.error("%s is not served: %s", self.name, error)
            self._reply([p.error(p.FATAL_READING_LOG, str(error))])
            self._state = _State.CLOSED

    def _open_stream(self) -> LogStream:
        feed, index = self._served.feed, self._served.index
        state = self._queries.connect_state
        if state is None or not self._queries.knows_gtid or not self._queries.knows_checksums:
            raise _Refused(
                "only replication by GTID is served; use CHANGE MASTER TO MASTER_USE_GTID=slave_pos"
            )
        self._has = has = parse_state(state)
        start = self._nearest(has)
        if (
            start.gtid is not None
            and has is not None
            and start.sequence == has.sequence
            and start.gtid != has
        ):
            raise _Refused(f"the log holds {start.gtid} where the engine has {has}: {_MAKE_ANEW}")
        if not index.begun or start.lsn < index.start:
            index.begin(start)
        timelines = feed.timelines
        number = max(
            (n for n, (begin, _, _) in timelines.items() if begin <= start.lsn), default=min(timelines)
        )
        format_description = TimelineHistory.parse(timelines[number][2]).format_description
        return LogStream(feed, index, start, has, format_description)

    def _nearest(self, has: Gtid | None) -> LogPoint:
        """The last known place at or before the replica's. Raises _Refused when there is none in the log."""
        feed, index = self._served.feed, self._served.index
        points = list(timeline_points(feed.timelines).values())
        if (image := read_attached(self._served.upstream_dir)) is not None:
            points.append(image)
        if index.begun and (point := index.positions.floor(has)) is not None:
            points.append(point)
        points += kept_points(self._served.upstream_dir)
        sequence = has.sequence if has is not None else 0
        usable = [point for point in points if point.sequence <= sequence and point.lsn >= feed.start]
        if not usable:
            oldest = min(points, key=lambda point: point.lsn)
            raise _Refused(
                f"the engine has {gtid_text(has) or 'no transaction'}, which is older than the volume's log "
                f"(it begins behind {gtid_text(oldest.gtid) or 'nothing'}): {_MAKE_ANEW}"
            )
        return max(usable, key=lambda point: (point.sequence, point.lsn))
