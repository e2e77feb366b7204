"""Subscribers of one segment: each gets the log from where it wants, then every new byte at once.

Owns who is fed from where. A subscriber that keeps up is fed from memory as bytes arrive, before they are
synced: it shows nothing to anybody before a COMMIT says so. One that lags is fed in pieces, from memory or
from the files (read in another thread), and holds up nobody. Used by the segment's thread only.
"""

from __future__ import annotations

from collections.abc import Callable

from borealis.log.records import DataRecord
from borealis.log.types import piece_end
from borealis.log.wire import Data, Error, History
from borealis.storage.connection import Connection, Feed
from borealis.storage.journal import Located, SegmentJournal
from borealis.storage.reading import ReadResult

PIECE_BYTES = 256 * 1024
"""How much a lagging subscriber is given in one turn, in bytes."""

LOW_BYTES = 1024 * 1024
"""A lagging subscriber is given more when it has less than this to read."""

ReadFiles = Callable[[Connection, Located, Callable[[ReadResult], None]], None]
"""Reads in another thread; the callback runs in the segment's thread, if the connection still stands."""


class Feeder:
    """The subscribers of one segment."""

    def __init__(self, read_files: ReadFiles) -> None:
        self.connections: list[Connection] = []
        self.dirty: set[Connection] = set()
        """Connections that something was queued for: the owner flushes them."""
        self._read_files = read_files

    def add(self, journal: SegmentJournal, connection: Connection, start: int) -> None:
        """Begins to feed `connection` at `start`; a second subscription moves it there."""
        if connection.feed is None:
            self.connections.append(connection)
        connection.feed = Feed(start)
        journal.core.subscribers = len(self.connections)

    def remove(self, journal: SegmentJournal | None, connection: Connection) -> None:
        if connection.feed is not None:
            connection.feed = None
            self.connections.remove(connection)
            if journal is not None:
                journal.core.subscribers = len(self.connections)
        self.dirty.discard(connection)

    def data(self, journal: SegmentJournal, record: DataRecord) -> None:
        """The log has grown: whoever stands at its former end gets the new bytes."""
        encoded: bytes | None = None
        for connection in self.connections:
            feed = connection.feed
            if feed is None or feed.next_lsn != record.start or connection.clogged:
                continue
            if encoded is None:
                encoded = Data(record.start, record.data, journal.core.history.newest_term).encode()
            connection.queue(encoded)
            feed.next_lsn = record.end
            self.dirty.add(connection)

    def history(self, journal: SegmentJournal) -> None:
        """The history has changed: everybody is told, and goes back where the log was cut."""
        encoded = History(journal.core.history).encode()
        for connection in self.connections:
            connection.queue(encoded)
            self.dirty.add(connection)
            if connection.feed is not None:
                connection.feed.next_lsn = min(connection.feed.next_lsn, journal.core.end)

    def commit(self, journal: SegmentJournal) -> None:
        """The commit point has risen."""
        encoded = journal.core.commit.encode()
        for connection in self.connections:
            if connection.feed is None:
                continue
            if connection.clogged:
                connection.feed.commit_due = True
            else:
                connection.queue(encoded)
                self.dirty.add(connection)

    def pump(self, journal: SegmentJournal) -> bool:
        """Gives each lagging subscriber its next piece; True when there is more to do right away."""
        more = False
        for connection in self.connections:
            feed = connection.feed
            if feed is None or connection.closing or connection.out_bytes > LOW_BYTES:
                continue
            if feed.commit_due:
                feed.commit_due = False
                connection.queue(journal.core.commit.encode())
                self.dirty.add(connection)
            if feed.next_lsn < journal.core.end and not feed.reading:
                more |= self._give(journal, connection, feed)
        return more

    def _give(self, journal: SegmentJournal, connection: Connection, feed: Feed) -> bool:
        start = feed.next_lsn
        core = journal.core
        if start < core.base:
            connection.queue(trimmed_error(start, core.base).encode())
            connection.closing = True
            self.dirty.add(connection)
            return False
        end = piece_end(start, core.end, PIECE_BYTES)
        for bad_start, bad_end in core.corrupt:
            if bad_end > start:
                end = min(end, bad_start)
        if start >= end:
            return False
        data = journal.tail.read(start, end)
        if data is not None:
            self._queue(journal, connection, feed, data)
            return feed.next_lsn < core.end
        feed.reading = True
        located = journal.locate(start, end)

        def finish(result: ReadResult) -> None:
            feed.reading = False
            if connection.feed is feed and feed.next_lsn == start and journal.is_current(located):
                if result.damaged is not None:
                    journal.damaged(*result.damaged)
                if result.data:
                    self._queue(journal, connection, feed, result.data)

        self._read_files(connection, located, finish)
        return False

    def _queue(self, journal: SegmentJournal, connection: Connection, feed: Feed, data: bytes) -> None:
        connection.queue(Data(feed.next_lsn, data, journal.core.history.newest_term).encode())
        feed.next_lsn += len(data)
        self.dirty.add(connection)


def trimmed_error(start: int, base: int) -> Error:
    """The answer to a subscription that begins below the segment's base."""
    return Error("LogTrimmed", f"LSN {start} is below this segment's base {base}: start from a newer image")
