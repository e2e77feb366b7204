"""One segment at work: a thread of its own that owns the segment's files, rules and connections.

Everything that has arrived at one wake-up is handled, written with one write and synced with one sync (group
commit); then the answers leave. The sync blocks this thread on purpose: handing it to another one and being
woken again costs more than the sync itself, and nothing else could be answered before it is over. Reads of
old log and work on blobs, which may block for long and need no order with appends, go to a pool instead; the
connection that asked waits, the others go on.

It owns no other segment's state and shares none: other threads talk to it through `adopt`, `call` and `stop`.
After a failed write or sync nothing is acknowledged: the files are read again from the disk, as at a start.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from borealis.log.segment import ReadPlan, SegmentCore, Step
from borealis.log.wire import (
    Append,
    BlobDelete,
    BlobGet,
    BlobPut,
    Commit,
    Create,
    Data,
    Drop,
    Dropped,
    Error,
    FrameReader,
    History,
    Message,
    Purpose,
    Status,
    Subscribe,
)
from borealis.logs import get_logger
from borealis.storage.appendloop import AppendLoop
from borealis.storage.blobs import BlobStore
from borealis.storage.condition import Condition
from borealis.storage.connection import Connection
from borealis.storage.context import NodeContext
from borealis.storage.errors import SegmentDamaged, StorageBroken, StorageError, StorageFull, disk_error
from borealis.storage.feeder import Feeder, trimmed_error
from borealis.storage.format import volume_seed
from borealis.storage.journal import Located, SegmentJournal, open_segment
from borealis.storage.layout import drop_segment, log_directory
from borealis.storage.logfile import LogPlace
from borealis.storage.loop import SocketLoop
from borealis.storage.reading import ReadResult

log = get_logger(__name__)

T = TypeVar("T")

READ_BYTES_MAX = 4 * 1024 * 1024
"""The most that one READ returns, in bytes."""
BATCH_BYTES_MAX = 8 * 1024 * 1024
"""More than this is not gathered for one sync."""
REOPEN_SECONDS = 0.5


class SegmentActor:
    """The segment of one volume in `directory`."""

    def __init__(self, volume: str, directory: Path, context: NodeContext) -> None:
        self.volume = volume
        self.directory = directory
        self.dropping = False
        self.journal: SegmentJournal | None = None
        """None before the files are open and after they failed."""
        self.failure: StorageError | None = None
        self.condition = Condition()
        self._context = context
        self.blobs = BlobStore(directory / "blobs")
        self._loop = SocketLoop(f"volume {volume}", self._handle, self._closed)
        self._thread = threading.Thread(target=self._run, name=f"segment-{volume}", daemon=True)
        self._stopping = False
        self._replies: list[tuple[Connection, Message]] = []
        self._subscriptions: list[tuple[Connection, int, object]] = []
        self._results: list[Callable[[StorageError | None], None]] = []
        self._feeder = Feeder(self._read_files)
        self._append_loop = AppendLoop.make(self._loop.epoll_fd)
        self._writer: Connection | None = None
        """Who sent the last APPEND."""
        self._vdl_changed = False
        self._refusing = ""
        self._reopen_at = 0.0

    @property
    def core(self) -> SegmentCore:
        """The segment's rules. For the segment's thread. Raises StorageError while it cannot be used."""
        if self.journal is None:
            raise self._why()
        return self.journal.core

    # -- for any thread -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the thread; it opens the files first."""
        self._thread.start()

    def adopt(
        self, sock: socket.socket, reader: FrameReader, messages: list[Message], purpose: Purpose
    ) -> None:
        """Hands over a non-blocking socket, with what was read from it but not yet handled."""
        connection = Connection(sock, reader, messages, purpose)
        if not self._loop.post(lambda: self._loop.add(connection)):
            sock.close()

    def call(self, work: Callable[[SegmentActor], T]) -> Future[T]:
        """Runs `work` in the segment's thread. The future is done when all it has changed is synced.

        It fails with StorageError while the segment cannot be used.
        """
        future: Future[T] = Future()

        def run() -> None:
            if self.journal is None:
                future.set_exception(self._why())
                return
            try:
                result = work(self)
            except StorageError as error:
                future.set_exception(error)
                self._fail(error)
                return
            except Exception as error:
                future.set_exception(error)
                return

            def settle(failure: StorageError | None) -> None:
                if failure is None:
                    future.set_result(result)
                else:
                    future.set_exception(failure)

            self._results.append(settle)

        if not self._loop.post(run):
            future.set_exception(self._why())
        return future

    def stop(self) -> None:
        """Ends the thread: clean, with nothing left unsynced. Wait with `join`."""

        def finish() -> None:
            self._stopping = True

        self._loop.post(finish)

    def join(self) -> None:
        """Waits for the end of the thread. Blocks."""
        self._thread.join()

    # -- the loop -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._open()
            more = False
            while not self._stopping:
                more = self._turn(self._timeout(more))
        except BaseException:
            log.exception("volume %s: the segment's thread has ended", self.volume)
        finally:
            self._end()

    def _timeout(self, more: bool) -> float:
        if more:
            return 0.0
        if self.journal is None and not isinstance(self.failure, SegmentDamaged):
            return max(0.0, self._reopen_at - time.monotonic())
        return -1.0

    def _turn(self, timeout: float) -> bool:
        """One wake-up; True when there is more to do at once."""
        try:
            self._loop.turn(self._append_natively(timeout))
            if self.journal is None and not self._stopping:
                self._reopen()
            self._commit()
            return self._pump()
        except StorageError as error:
            self._fail(error)
        except Exception as error:
            log.exception("volume %s: unexpected failure", self.volume)
            self._fail(StorageBroken(f"unexpected failure of the storage node: {error!r}"))
        return False

    def _append_natively(self, timeout: float) -> float:
        """In steady state, waits in the native loop instead of in the poll. Returns how long to poll."""
        writer, journal, loop = self._writer, self.journal, self._append_loop
        if timeout >= 0 or loop is None or writer is None or journal is None or self._refusing:
            return timeout
        if not loop.may_run(journal, writer, self._feeder):
            return timeout
        try:
            rest = loop.run(journal, writer, self._feeder)
        except Exception as error:
            # It waits for an answer: `_fail` gives it one.
            self._replies.append((writer, Error("StorageFailure", str(error))))
            raise
        self._loop.flush(writer)
        self._loop.received(writer, rest)
        return 0.0

    def _closed(self, connection: Connection) -> None:
        if connection is self._writer:
            self._writer = None
        self._feeder.remove(self.journal, connection)

    # -- messages -------------------------------------------------------------------------------------------

    def _handle(self, connection: Connection, message: Message) -> None:
        journal = self.journal
        if isinstance(message, Drop):
            self._drop(connection)
        elif journal is None:
            self._refuse(connection, message, self._why())
        elif isinstance(message, (BlobPut, BlobGet, BlobDelete)):
            self._blob(connection, message)
        elif isinstance(message, Subscribe) and message.start < journal.core.base:
            self._replies.append((connection, trimmed_error(message.start, journal.core.base)))
        elif isinstance(message, Create) and message.volume != self.volume:
            wrong = Error("InvalidRequest", f"this connection is for volume {self.volume}: say HELLO anew")
            self._replies.append((connection, wrong))
        elif not journal.has_room(message):
            self._refuse(connection, message, StorageFull("no room for another log file: free some space"))
        else:
            if isinstance(message, Status):
                self.condition.tell(journal.core, journal.files, self.blobs, self._refusing)
            step = journal.core.handle(message, connection)
            self._replies += step.replies
            self.apply(step)
            if step.read is not None:
                self._read(connection, step.read)
            if step.subscribe is not None:
                self._subscriptions.append((*step.subscribe, journal.core.history))
            if step.wants_gossip:
                self._context.on_gossip(self.volume)
            if isinstance(message, Append):
                self._appended(connection, message)

    def _appended(self, connection: Connection, message: Append) -> None:
        self._writer = connection
        if self._refusing and message.data:
            log.info("volume %s: appends are taken again", self.volume)
            self._refusing = ""

    def apply(self, step: Step[Connection] | Step[None]) -> None:
        """Journals a step and tells the subscribers. For the segment's thread. Raises StorageError."""
        journal = self.journal
        assert journal is not None
        if step.records:
            data = journal.add(step)
            if step.history_changed:
                self._feeder.history(journal)
            for record in data:
                self._feeder.data(journal, record)
        if step.vdl_changed:
            self._vdl_changed = True
        if journal.files.pending_bytes > BATCH_BYTES_MAX:
            self._commit()

    def _refuse(self, connection: Connection, message: Message, error: StorageError) -> None:
        """Answers that the request cannot be met now. A writer is cut off: it comes back and asks where to
        go on, instead of waiting for acknowledgements of what was never taken."""
        if isinstance(message, Append):
            connection.closing = True
            if self._refusing != error.code:
                self._refusing = error.code
                log.error("volume %s: appends are refused: %s", self.volume, error)
        if not isinstance(message, Commit):
            self._replies.append((connection, Error(error.code, error.message)))

    def _why(self) -> StorageError:
        return self.failure or StorageBroken(f"the segment of {self.volume} is not open")

    # -- work in other threads ------------------------------------------------------------------------------

    def _offload(
        self, connection: Connection, work: Callable[[], T], finish: Callable[[Future[T]], None]
    ) -> None:
        """Runs `work` in the pool, then `finish` here, if the connection still stands."""

        def done(future: Future[T]) -> None:
            def arrive() -> None:
                if self._loop.holds(connection):
                    finish(future)

            self._loop.post(arrive)

        self._context.pool.submit(work).add_done_callback(done)

    def _read(self, connection: Connection, plan: ReadPlan[Connection]) -> None:
        journal = self.journal
        assert journal is not None
        end = min(plan.end, plan.start + READ_BYTES_MAX)
        data = b"" if plan.start == end else journal.tail.read(plan.start, end)
        if data is not None:
            self._replies.append((connection, Data(plan.start, data, plan.log_term)))
            return

        def finish(result: ReadResult) -> None:
            if result.damaged is not None and self.journal is journal and journal.is_current(located):
                journal.damaged(*result.damaged)
                self._context.on_gossip(self.volume)
            connection.paused = False
            self._replies.append((connection, Data(plan.start, result.data, plan.log_term)))
            self._loop.process(connection)

        located = journal.locate(plan.start, end)
        connection.paused = True
        self._read_files(connection, located, finish)

    def _read_files(
        self, connection: Connection, located: Located, callback: Callable[[ReadResult], None]
    ) -> None:
        def finish(future: Future[ReadResult]) -> None:
            try:
                result = future.result()
            except OSError as error:
                log.error("volume %s: cannot read [%d, %d): %s", self.volume, *located[3:5], error)
                result = ReadResult(b"")
            if self.journal is not None:
                callback(result)
            else:
                self._loop.close(connection)

        self._offload(connection, located.read, finish)

    def _blob(self, connection: Connection, message: BlobPut | BlobGet | BlobDelete) -> None:
        def finish(future: Future[Message]) -> None:
            self.condition.changed()
            connection.paused = False
            self._replies.append((connection, future.result()))
            self._loop.process(connection)

        connection.paused = True
        self._offload(connection, lambda: self.blobs.answer(message), finish)

    # -- commit ---------------------------------------------------------------------------------------------

    def _commit(self) -> None:
        """Syncs what was added and sends what depends on it. Raises StorageError."""
        journal = self.journal
        if journal is not None:
            if self._vdl_changed:
                self._vdl_changed = False
                self._feeder.commit(journal)
            self._flush_fed()
            if journal.files.unsynced:
                journal.sync()
        self._send_replies()
        if journal is not None:
            self._begin_subscriptions(journal)
            journal.upkeep()
        if self._results:
            results, self._results = self._results, []
            for settle in results:
                settle(None)

    def _send_replies(self) -> None:
        # Flushing may handle further messages of a connection, whose replies wait for the next commit.
        replies, self._replies = self._replies, []
        for connection, message in replies:
            connection.queue(message.encode())
        for connection in dict.fromkeys(connection for connection, _ in replies):
            self._loop.flush(connection)

    def _begin_subscriptions(self, journal: SegmentJournal) -> None:
        if not self._subscriptions:
            return
        subscriptions, self._subscriptions = self._subscriptions, []
        for connection, start, history in subscriptions:
            if not self._loop.holds(connection):
                continue
            self._feeder.add(journal, connection, start)
            if history is not journal.core.history:
                connection.queue(History(journal.core.history).encode())

    def _flush_fed(self) -> None:
        dirty, self._feeder.dirty = self._feeder.dirty, set()
        for connection in dirty:
            self._loop.flush(connection)

    def _pump(self) -> bool:
        if self.journal is None:
            return False
        waiting = self._replies or self._results or self._subscriptions or self._vdl_changed
        more = bool(waiting or self.journal.files.unsynced)
        if self._feeder.connections:
            more |= self._feeder.pump(self.journal)
            self._flush_fed()
        return more

    # -- failures and the end -------------------------------------------------------------------------------

    def _open(self) -> None:
        place = LogPlace(
            log_directory(self.directory), volume_seed(self.volume), self._context.config, self._context.files
        )
        try:
            self.blobs.open()
            self.journal = open_segment(place, self.volume, self._context.node, self._context.az)
        except StorageError as error:
            self._reopen_at = time.monotonic() + REOPEN_SECONDS
            if self.failure is None or self.failure.code != error.code:
                log.error("volume %s: the segment cannot be used: %s", self.volume, error)
            self.failure = error
            return
        if self.failure is not None:
            log.info("volume %s: the segment is in use again", self.volume)
        self.failure = None
        core = self.journal.core
        self.journal.condition = self.condition
        self.condition.changed()
        self.condition.damaged += len(core.corrupt)
        log.info(
            "volume %s: open, log [%d, %d), promised term %d", self.volume, core.base, core.end, core.promised
        )
        self._context.on_gossip(self.volume)

    def _reopen(self) -> None:
        if time.monotonic() >= self._reopen_at and not isinstance(self.failure, SegmentDamaged):
            self._open()

    def _fail(self, error: StorageError) -> None:
        """The files cannot be trusted any more: nobody is acknowledged, all start again from the disk."""
        if self.failure is None or self.failure.code != error.code:
            log.error(
                "volume %s: nothing is acknowledged until the log is read again: %s", self.volume, error
            )
        self.failure = error
        journal, self.journal = self.journal, None
        self._reopen_at = time.monotonic() + REOPEN_SECONDS
        refused = Error(error.code, error.message).encode()
        waiting, self._replies = self._replies, []
        self._subscriptions.clear()
        self._vdl_changed = False
        for connection, _ in waiting:
            connection.queue(refused)
            connection.closing = True
        for connection in [
            *dict.fromkeys(connection for connection, _ in waiting),
            *self._feeder.connections,
        ]:
            connection.closing = True
            self._loop.flush(connection)
        results, self._results = self._results, []
        for settle in results:
            settle(error)
        if journal is not None:
            journal.close(clean=False)

    def _drop(self, connection: Connection) -> None:
        if self.journal is not None:
            self.journal.close(clean=False)
            self.journal = None
        self._replies.clear()
        self.dropping = True
        try:
            drop_segment(self.directory)
        except OSError as error:
            self.dropping = False
            self._refuse(connection, Drop(), disk_error(error, f"removing {self.directory}"))
            return
        self._stopping = True
        connection.queue(Dropped().encode())
        self._loop.flush(connection)

    def _end(self) -> None:
        try:
            if self.journal is not None:
                with contextlib.suppress(StorageError):
                    self._commit()
                self.journal.close(clean=True)
                self.journal = None
        except Exception:
            log.exception("volume %s: not closed cleanly", self.volume)
        finally:
            self.journal = None
            self.failure = StorageBroken(f"the segment of {self.volume} is closed")
            self._loop.end()
            for settle in self._results:
                settle(self.failure)
            if self.dropping:
                self._context.on_dropped(self.volume)
