"""The server's side of PostgreSQL's streaming replication, as a state machine without I/O.

Owns what a physical standby's walreceiver (or pg_receivewal) is answered, and which bytes of the log it gets:
from a `LogFeed`, never above the VDL, only timelines that are committed. Bytes in: `receive`. Bytes out:
`next_output`, one piece at a time, so that the caller's back-pressure decides how much is made. It has no
socket, clock or task.

Rules that stock standbys depend on:
- A record is never split between two data messages, except at a page boundary. The VDL is a record end or a
  page boundary, so a message ends there, or at a multiple of 8192.
- A timeline that was left behind ends with CopyDone; after the client's CopyDone come the next timeline's
  number and start, and *two* CommandCompletes.
- A standby begins a timeline at the start of a segment, below the timeline's own first byte: parent bytes are
  served.
- It may already hold bytes past the end of its timeline: the first part of a record that never became
  durable.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from enum import Enum

from borealis.engines.base import Feedback, LogFeed, ReaderProgress
from borealis.engines.postgres import messages as m
from borealis.engines.postgres.wal import PAGE_BYTES, format_lsn, parse_lsn

DATA_BYTES_MAX = 128 * 1024
"""Largest piece of log in one message, bytes; a multiple of the page size."""
FETCH_BYTES_MAX = 1 << 20
"""Largest piece of log that is asked for at once when it is not in memory, bytes."""
_START = re.compile(
    r"START_REPLICATION\s+(?:SLOT\s+\S+\s+)?(?:PHYSICAL\s+)?([0-9A-F]+/[0-9A-F]+)(?:\s+TIMELINE\s+(\d+))?",
    re.IGNORECASE,
)
_SHOWN = {"wal_segment_size": "16MB", "data_directory_mode": "0700", "integer_datetimes": "on"}


class _State(Enum):
    STARTUP = "waiting for the startup message"
    IDLE = "waiting for a command"
    STREAMING = "both sides are copying"
    ENDED = "we have said CopyDone, the client has not"
    CLOSED = "nothing more will be said"


class _Refusal(Exception):
    """A command that is answered with an error; the connection goes on."""

    def __init__(self, sqlstate: str, text: str) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


class WalSender:
    """One connection. After each `receive`, `changed` or `provide`, take `next_output` until it gives
    None."""

    def __init__(
        self,
        feed: LogFeed,
        server_version: str,
        clock: Callable[[], int] = m.clock_us,
        on_feedback: Callable[[Feedback], None] | None = None,
        on_progress: Callable[[ReaderProgress], None] | None = None,
    ) -> None:
        self.name = "?"
        """What the client calls itself (application_name)."""
        self._feed = feed
        self._server_version = server_version
        self._clock = clock
        self._on_feedback = on_feedback
        self._on_progress = on_progress
        self._state = _State.STARTUP
        self._reader = m.MessageReader(startup=True)
        self._replies: deque[bytes] = deque()
        self._timeline = 0
        self._sent = 0
        self._wanted: tuple[int, int] | None = None
        self._fetched: tuple[int, bytes] | None = None

    # ------------------------------------------------------------------ what the caller may ask
    @property
    def streaming(self) -> bool:
        return self._state is _State.STREAMING

    @property
    def closed(self) -> bool:
        """True once the connection is to be closed, after the last output."""
        return self._state is _State.CLOSED

    @property
    def sent(self) -> int:
        """The log was handed out up to here."""
        return self._sent

    @property
    def timeline(self) -> int:
        """The timeline that is (or was last) streamed."""
        return self._timeline

    @property
    def wanted(self) -> tuple[int, int] | None:
        """A range of the log that is not in memory: read it and call `provide`. Stays until then."""
        return self._wanted

    # ------------------------------------------------------------------ what the caller tells
    def receive(self, data: bytes) -> None:
        """Bytes from the client. Raises ProtocolError."""
        self._reader.feed(data)
        while self._state is not _State.CLOSED and (message := self._reader.next()) is not None:
            kind, body = message
            if self._state is _State.STARTUP:
                self._on_startup(body)
            else:
                self._on_message(kind, body)

    def provide(self, start: int, data: bytes) -> None:
        """The bytes of `wanted`, or the first part of them; empty: they cannot be had now, ask again."""
        self._wanted = None
        self._fetched = (start, data) if data else None

    def keepalive(self, *, reply: bool = False) -> None:
        """Say that we are here. `reply`: and ask how far the client is."""
        if self._state is _State.STREAMING:
            self._replies.append(m.keepalive(self._feed.vdl, self._clock(), reply))

    def next_output(self) -> bytes | None:
        """The next bytes for the client; None: nothing now. Raises ProtocolError when the log went another
        way."""
        if self._replies:
            return self._replies.popleft()
        if self._state is not _State.STREAMING or self._wanted is not None:
            return None
        limit, end = self._limits()
        if self._sent < limit:
            return self._data(limit)
        if end is not None and self._sent >= end:
            self._state = _State.ENDED
            return m.message(b"c")
        return None

    # ------------------------------------------------------------------ the log
    def _limits(self) -> tuple[int, int | None]:
        """How far may be sent now, and where the streamed timeline ends (None: it goes on)."""
        timeline = self._feed.timelines.get(self._timeline)
        if timeline is None:
            raise m.ProtocolError(
                f"timeline {self._timeline} is no longer known; the client must begin again"
            )
        end = timeline[1]
        return (self._feed.vdl if end is None else min(self._feed.vdl, end)), end

    def _data(self, limit: int) -> bytes | None:
        start = self._sent
        stop = min(limit, start + DATA_BYTES_MAX)
        if stop < limit:
            stop -= stop % PAGE_BYTES
        data = self._from_fetched(start, stop, limit)
        if data is None:
            data = self._feed.buffered(start, stop)
        if data is None:
            self._wanted = (start, min(limit, start - start % PAGE_BYTES + FETCH_BYTES_MAX))
            return None
        self._sent = start + len(data)
        return m.wal_data(start, self._feed.vdl, self._clock(), data)

    def _from_fetched(self, start: int, stop: int, limit: int) -> bytes | None:
        """The next piece of what `provide` brought; None: nothing (more) there."""
        if self._fetched is None:
            return None
        at, data = self._fetched
        end = min(stop, at + len(data))
        if end < limit:
            end -= end % PAGE_BYTES  # Not necessarily the end of a record.
        if not at <= start < end:
            self._fetched = None
            return None
        return data[start - at : end - at]

    # ------------------------------------------------------------------ the conversation
    def _on_startup(self, body: bytes) -> None:
        code = int.from_bytes(body[:4], "big")
        if code in (m.SSL_REQUEST, m.GSSENC_REQUEST):
            self._replies.append(b"N")
            return
        if code == m.CANCEL_REQUEST:
            self._state = _State.CLOSED
            return
        if code >> 16 != m.PROTOCOL_3 >> 16:
            self._refuse_connection("08P01", f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}")
            return
        parameters = m.parse_startup(body[4:])
        self.name = parameters.get("application_name", "?")
        if parameters.get("replication") not in ("true", "on", "yes", "1"):
            self._refuse_connection("0A000", "only physical replication is served here, not queries")
            return
        self._reader.startup_done()
        self._state = _State.IDLE
        if code & 0xFFFF or any(name.startswith("_pq_.") for name in parameters):
            self._replies.append(m.message(b"v", (m.PROTOCOL_3 & 0xFFFF).to_bytes(4, "big") + bytes(4)))
        self._replies.append(m.AUTHENTICATION_OK + self._greeting() + m.message(b"K", bytes(8)) + m.READY)

    def _greeting(self) -> bytes:
        said = {
            "server_version": self._server_version,
            "server_encoding": "UTF8",
            "client_encoding": "UTF8",
            "integer_datetimes": "on",
            "standard_conforming_strings": "on",
            "DateStyle": "ISO, MDY",
            "TimeZone": "UTC",
        }
        return b"".join(m.parameter_status(name, value) for name, value in said.items())

    def _refuse_connection(self, sqlstate: str, text: str) -> None:
        self._replies.append(m.error_response(sqlstate, text, "FATAL"))
        self._state = _State.CLOSED

    def _on_message(self, kind: bytes, body: bytes) -> None:
        if kind == b"d":
            self._on_copy_data(body)
        elif kind == b"c":
            self._on_copy_done()
        elif kind == b"Q":
            self._on_query(body.rstrip(b"\0").decode(errors="replace").strip().rstrip(";"))
        elif kind == b"X":
            self._state = _State.CLOSED
        elif kind not in (b"f", b"H", b"S"):
            raise m.ProtocolError(f"message type {kind!r} is not part of the replication protocol")

    def _on_query(self, sql: str) -> None:
        if self._state is not _State.IDLE:
            raise m.ProtocolError(f"a command came while the log is being copied: {sql[:80]}")
        try:
            self._replies.append(self._command(sql))
        except _Refusal as refusal:
            self._replies.append(m.error_response(refusal.sqlstate, str(refusal)) + m.READY)

    def _command(self, sql: str) -> bytes:
        word = sql.split(None, 1)[0].upper() if sql else ""
        if word == "SHOW":
            name = sql.split(None, 1)[-1].strip().lower()
            return m.rows([(name, m.OID_TEXT)], [_SHOWN.get(name, "")]) + m.command_complete("SHOW") + m.READY
        if word in ("IDENTIFY_SYSTEM", "TIMELINE_HISTORY", "START_REPLICATION"):
            if not self._feed.timelines:
                raise _Refusal("57P03", "the log is not known yet; try again")
            if word == "IDENTIFY_SYSTEM":
                return self._identify_system()
            if word == "TIMELINE_HISTORY":
                return self._timeline_history(sql)
            return self._start_replication(sql)
        raise _Refusal("0A000", f"{word or 'an empty command'} is not served here")

    def _identify_system(self) -> bytes:
        columns = [
            ("systemid", m.OID_TEXT),
            ("timeline", m.OID_INT8),
            ("xlogpos", m.OID_TEXT),
            ("dbname", m.OID_TEXT),
        ]
        newest = max(self._feed.timelines)
        values = [self._feed.system_id, str(newest), format_lsn(self._feed.vdl), None]
        return m.rows(columns, values) + m.command_complete("IDENTIFY_SYSTEM") + m.READY

    def _timeline_history(self, sql: str) -> bytes:
        number = sql.rsplit(maxsplit=1)[-1]
        timeline = self._feed.timelines.get(int(number)) if number.isdigit() else None
        if timeline is None or not timeline[2]:
            raise _Refusal("58P01", f"there is no history file of timeline {number}")
        columns = [("filename", m.OID_TEXT), ("content", m.OID_TEXT)]
        answer = m.rows(columns, [f"{int(number):08X}.history", timeline[2]])
        return answer + m.command_complete("TIMELINE_HISTORY") + m.READY

    def _start_replication(self, sql: str) -> bytes:
        match = _START.fullmatch(sql)
        if match is None:
            raise _Refusal("42601", f"cannot understand {sql!r}; expected START_REPLICATION X/X TIMELINE n")
        start = parse_lsn(match[1])
        timelines = self._feed.timelines
        timeline = int(match[2]) if match[2] else max(timelines)
        if timeline not in timelines:
            raise _Refusal("XX000", f"requested timeline {timeline} is not in this server's history")
        if start < self._feed.start:
            raise _Refusal(
                "58P01", f"requested WAL position {format_lsn(start)} is older than the volume's log"
            )
        end = timelines[timeline][1]
        if end is not None and start > end:
            raise _Refusal("XX000", f"requested position {format_lsn(start)} is not on timeline {timeline}, "
                                    f"which ended at {format_lsn(end)}")  # fmt: skip
        self._timeline, self._sent = timeline, start
        self._wanted = self._fetched = None
        if end is not None and start == end:
            return self._end_of_stream()
        # A start above the VDL is no error: the log here may just not be as far yet; nothing is sent until it
        # is.
        self._state = _State.STREAMING
        return m.message(b"W", bytes(3))

    def _on_copy_data(self, body: bytes) -> None:
        kind = body[:1]
        if kind == b"r" and len(body) == m.STANDBY_STATUS.size:
            _, written, flushed, applied, _, reply = m.STANDBY_STATUS.unpack(body)
            if self._on_progress is not None:
                self._on_progress(ReaderProgress(written, flushed, applied))
            if reply:
                self.keepalive()
        elif kind == b"h" and len(body) == m.STANDBY_FEEDBACK.size:
            _, _, xmin, epoch, catalog_xmin, catalog_epoch = m.STANDBY_FEEDBACK.unpack(body)
            if self._on_feedback is not None:
                self._on_feedback(
                    Feedback(
                        epoch << 32 | xmin if xmin else 0,
                        catalog_epoch << 32 | catalog_xmin if catalog_xmin else 0,
                    )
                )

    def _on_copy_done(self) -> None:
        """Both sides have left the copy (or the client has, and we follow)."""
        if self._state is _State.STREAMING:
            self._replies.append(m.message(b"c"))
        elif self._state is not _State.ENDED:
            return
        self._state = _State.IDLE
        self._replies.append(self._end_of_stream())

    def _end_of_stream(self) -> bytes:
        """Name the next timeline, if the streamed one has ended. The walreceiver counts on two
        CommandCompletes."""
        out = b""
        timelines = self._feed.timelines
        end = timelines[self._timeline][1] if self._timeline in timelines else None
        later = [number for number in timelines if number > self._timeline]
        if end is not None and self._sent >= end and later:
            following = min(later)
            columns = [("next_tli", m.OID_INT8), ("next_tli_startpos", m.OID_TEXT)]
            out = m.rows(columns, [str(following), format_lsn(end)])
        return out + m.command_complete("START_STREAMING") + m.command_complete("START_REPLICATION") + m.READY
