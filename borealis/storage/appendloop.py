"""The native append path of a segment: native/appendloop.c, and when it may be used.

Owns the state that the native loop works on. While the segment is in steady state (one writer, of the term
that the segment has promised and whose log it holds; nothing waits for anything) the segment's thread waits
in the native loop instead of in the poll, without the interpreter lock. The loop returns as soon as anything
else is to be done; what it did is then told to the rules, the index and the subscribers, and Python goes on.
It decides nothing of its own: with BOREALIS_NATIVE_LOOPS=0, or without the library, Python does the same.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
from functools import lru_cache
from typing import Final

from borealis.log.types import CommitPoint
from borealis.log.wire import Commit, Data
from borealis.logs import get_logger
from borealis.nativelib import NativeLibraryError, Signatures, load
from borealis.storage.connection import Connection
from borealis.storage.feeder import Feeder
from borealis.storage.journal import SegmentJournal

log = get_logger(__name__)

BUFFER_BYTES: Final = 2 * 1024 * 1024
"""For what the writer has sent; a longer frame is left to Python."""
STAGING_BYTES: Final = 512 * 1024
"""The longest direct write; a longer batch goes through the page cache."""
RECORDS_MAX: Final = 256
RUNS_MAX: Final = 64
SUBSCRIBERS_MAX: Final = 16
ANSWER_BYTES: Final = 30
UINT32_MAX: Final = 2**32 - 1

STOP_FAILED: Final = 5


class _Record(ctypes.Structure):
    _fields_ = (
        ("lsn", ctypes.c_uint64),
        ("at", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
        ("crc", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
    )


class _Run(ctypes.Structure):
    _fields_ = (
        ("lsn", ctypes.c_uint64),
        ("length", ctypes.c_uint32),
        ("offset", ctypes.c_uint32),
        ("span", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
    )


class _Subscriber(ctypes.Structure):
    _fields_ = (("sent", ctypes.c_uint64), ("left", ctypes.c_uint32), ("fd", ctypes.c_int32))


class _State(ctypes.Structure):
    """`struct append_state` of native/appendloop.h, field by field."""

    _fields_ = (
        ("term", ctypes.c_uint64),
        ("leader_start", ctypes.c_uint64),
        ("end", ctypes.c_uint64),
        ("vdl", ctypes.c_uint64),
        ("buffer", ctypes.c_void_p),
        ("buffer_bytes", ctypes.c_uint32),
        ("first", ctypes.c_uint32),
        ("last", ctypes.c_uint32),
        ("file_seq", ctypes.c_uint32),
        ("header_seed", ctypes.c_uint32),
        ("meta_no", ctypes.c_uint32),
        ("offset", ctypes.c_uint32),
        ("limit", ctypes.c_uint32),
        ("upkeep_at", ctypes.c_uint32),
        ("record_max", ctypes.c_uint32),
        ("file_fd", ctypes.c_int32),
        ("direct_fd", ctypes.c_int32),
        ("staging", ctypes.c_void_p),
        ("staging_bytes", ctypes.c_uint32),
        ("staged_at", ctypes.c_uint32),
        ("epoll_fd", ctypes.c_int32),
        ("writer_fd", ctypes.c_int32),
        ("has_subscribers", ctypes.c_uint32),
        ("subscriber_count", ctypes.c_uint32),
        ("error", ctypes.c_int32),
        ("sync_failed", ctypes.c_uint32),
        ("run_count", ctypes.c_uint32),
        ("record_count", ctypes.c_uint32),
        ("batch_commits", ctypes.c_uint32),
        ("answers_bytes", ctypes.c_uint32),
        ("answers_sent", ctypes.c_uint32),
        ("appends", ctypes.c_uint64),
        ("syncs", ctypes.c_uint64),
        ("direct", ctypes.c_uint64),
        ("subscribers", _Subscriber * SUBSCRIBERS_MAX),
        ("runs", _Run * RUNS_MAX),
        ("records", _Record * RECORDS_MAX),
        ("answers", ctypes.c_ubyte * (RECORDS_MAX * ANSWER_BYTES)),
    )


@lru_cache(maxsize=1)
def _native() -> ctypes.CDLL | None:
    """The library, or None when it cannot be used here."""
    signatures: Signatures = {"borealis_append_loop": (ctypes.c_int, [ctypes.POINTER(_State)])}
    try:
        return load(signatures, {"borealis_append_state_size": ctypes.sizeof(_State)})
    except NativeLibraryError as error:
        log.warning("appends take the slower way through Python: %s", error)
        return None


class AppendLoop:
    """The native loop of one segment. Used by the segment's thread only."""

    def __init__(self, library: ctypes.CDLL, epoll_fd: int) -> None:
        self._run = library.borealis_append_loop
        self._state = _State(buffer_bytes=BUFFER_BYTES, epoll_fd=epoll_fd)
        self._reference = ctypes.byref(self._state)
        self._buffer: ctypes.Array[ctypes.c_char] | None = None
        """Made when it is first needed: most segments of a node have no writer."""
        self._staging: mmap.mmap | None = None
        self._fed: list[Connection] = []
        self._held_up: list[Connection] = []

    @classmethod
    def make(cls, epoll_fd: int) -> AppendLoop | None:
        """None when appends are to be handled in Python."""
        if os.environ.get("BOREALIS_NATIVE_LOOPS") == "0":
            return None
        library = _native()
        return None if library is None else cls(library, epoll_fd)

    @property
    def appends(self) -> int:
        """How many APPENDs it has acknowledged."""
        return int(self._state.appends)

    @property
    def direct(self) -> int:
        """How many batches it has made durable by direct writes."""
        return int(self._state.direct)

    # -- before ---------------------------------------------------------------------------------------------

    def may_run(self, journal: SegmentJournal, writer: Connection, feeder: Feeder) -> bool:
        """Whether all is in steady state. The caller has nothing unsynced, unanswered or unsent."""
        core, files = journal.core, journal.files
        return (
            core.promised == core.history.newest_term == core.vdl.term
            and not files.unsynced
            and files.next_offset < files.summary_at
            and writer.events == select.EPOLLIN
            and not (writer.inbox or writer.out or writer.feed)
            and writer.reader.wanted <= BUFFER_BYTES
            and self._sort(core.end, feeder.connections)
        )

    def _sort(self, end: int, subscribers: list[Connection]) -> bool:
        """Who is fed by the loop, and who by Python because the socket is full. False: somebody lags who
        could be served now, and would never catch up with a loop that keeps no bytes in memory."""
        self._fed, self._held_up = [], []
        for connection in subscribers:
            feed = connection.feed
            if feed is None or connection.closing or feed.reading:
                return False
            if connection.out:
                self._held_up.append(connection)
            elif feed.next_lsn == end and not feed.commit_due:
                self._fed.append(connection)
            else:
                return False
        return len(self._fed) <= SUBSCRIBERS_MAX

    # -- the loop -------------------------------------------------------------------------------------------

    def run(self, journal: SegmentJournal, writer: Connection, feeder: Feeder) -> bytes:
        """Blocks until something else is to be done (`may_run` was true); returns what the writer has sent
        beyond what was handled. What could not be sent is queued. Raises StorageError: the journal is then
        used up, and the last messages of the writer are not acknowledged."""
        self._fill(journal, writer)
        stop = self._run(self._reference)
        state = self._state
        if stop == STOP_FAILED:
            error = OSError(state.error, os.strerror(state.error))
            raise journal.files.failure(error, syncing=bool(state.sync_failed))
        if state.direct_fd < 0:
            journal.files.forgo_direct()
        vdl = CommitPoint(state.term, state.vdl)
        if vdl != journal.core.vdl:
            for connection in self._held_up:
                assert connection.feed is not None
                connection.feed.commit_due = True
        runs = [(run.lsn, run.length, run.offset, run.span) for run in state.runs[: state.run_count]]
        journal.took(state.end, vdl, runs, state.offset)
        self._settle(state.end, writer, feeder)
        return self._bytes(state.first, state.last)

    def _fill(self, journal: SegmentJournal, writer: Connection) -> None:
        state, core, leader = self._state, journal.core, journal.core.history.last
        assert leader is not None
        if self._buffer is None:
            self._buffer = ctypes.create_string_buffer(BUFFER_BYTES)
            state.buffer = ctypes.addressof(self._buffer)
            self._staging = mmap.mmap(-1, STAGING_BYTES)  # A mapping, because its memory is aligned.
            state.staging = ctypes.addressof(ctypes.c_char.from_buffer(self._staging))
            state.staging_bytes = STAGING_BYTES
        state.term, state.leader_start = leader.term, leader.start
        state.end, state.vdl = core.end, core.vdl.lsn
        rest = writer.reader.take()
        ctypes.memmove(self._buffer, rest, len(rest))
        state.first, state.last = 0, len(rest)
        files = journal.files
        state.file_fd, state.file_seq, state.meta_no = files.fd, files.file_seq, files.meta_no
        state.direct_fd, state.header_seed = files.direct_fd, files.header_seed
        state.offset, state.limit = files.next_offset, files.data_limit
        state.upkeep_at, state.record_max = min(files.summary_at, UINT32_MAX), files.piece_bytes
        state.writer_fd = writer.fd
        state.has_subscribers = core.subscribers
        state.subscriber_count = len(self._fed)
        for number, connection in enumerate(self._fed):
            entry = state.subscribers[number]
            entry.fd, entry.left, entry.sent = connection.fd, 0, 0

    def _settle(self, end: int, writer: Connection, feeder: Feeder) -> None:
        """Notes how far the subscribers are, and queues what they and the writer did not take."""
        state = self._state
        for number, connection in enumerate(self._fed):
            assert connection.feed is not None
            connection.feed.next_lsn = end
            entry = state.subscribers[number]
            if entry.left:
                connection.queue(self._frames()[entry.sent :])
                feeder.dirty.add(connection)
        if state.answers_sent < state.answers_bytes:
            writer.queue(bytes(state.answers[state.answers_sent : state.answers_bytes]))
        self._fed, self._held_up = [], []

    def _frames(self) -> bytes:
        """What the last batch was to send to each subscriber."""
        state = self._state
        parts = [
            Data(record.lsn, self._bytes(record.at, record.at + record.length), state.term).encode()
            for record in state.records[: state.record_count]
        ]
        if state.batch_commits:
            parts.append(Commit(state.term, state.vdl).encode())
        return b"".join(parts)

    def _bytes(self, start: int, end: int) -> bytes:
        assert self._buffer is not None
        return bytes(memoryview(self._buffer)[start:end])
