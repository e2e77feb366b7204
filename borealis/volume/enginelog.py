"""Reading the engine's own log files while the engine writes them, and finding where the log may be cut.

Owns no bytes and no decision: it gives the writer pieces of log that end where the log may be cut. The choice
of scanner and files follows the log's kind (`Engine.log_device_kind`), the same word that the volume library
is given. Where files lie is in `logfiles`.
"""

from __future__ import annotations

import ctypes
import enum
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from borealis.engines.base import Engine
from borealis.volume.logfiles import BinlogLogFiles, FixedLogFiles, LogFileError, LogFiles, LogPlace
from borealis.volume.nativelib import BinlogScanner, WalScanner

__all__ = ["EngineLog", "LogFile", "LogFileError", "NativeKind", "log_kind"]

READ_BYTES = 1 << 20
"""The most that is read at once, in bytes."""


class Scanner(Protocol):
    """What the writer needs of a scanner."""

    @property
    def position(self) -> int:
        """How far the log was followed; always a place where it may be cut."""

    def scan(self, data: bytes, lsn: int, limit: int) -> object:
        """Go on through `data`, the log from `lsn` on, which was written to `limit` when it was read."""

    def settled(self, written: int) -> bool:
        """Is all taken of what was written to `written`, as far as a sync can wait for it?"""

    def missed(self, written: int) -> bool:
        """Did the scan stop where it must not, with all that was written to `written` before it?"""


class NativeKind(enum.IntEnum):
    """Kinds of scanners, as native code knows them (`enum ship_kind` of native/shiploop.h)."""

    WAL = 0
    BINLOG = 1


class LogKind(NamedTuple):
    """How logs of one kind are followed."""

    native: NativeKind
    begin: Callable[[Engine, Path, int, int], tuple[LogFiles, Scanner]]
    """At a position where a timeline's log begins: (engine, data directory, position, timeline)."""
    resume: Callable[[Engine, Path, int, int], tuple[LogFiles, Scanner]]
    """At any place where the log was cut once; the scanner may stand a little below it."""


class LogFile(NamedTuple):
    """An open file of the log, for native code; it stays open until the next `take` or `close`."""

    descriptor: int
    start: int
    end: int
    device_offset: int
    """See `logfiles.LogPlace`."""


def _begin_wal(engine: Engine, data_dir: Path, position: int, timeline: int) -> tuple[LogFiles, Scanner]:
    return FixedLogFiles(engine, data_dir, timeline), WalScanner(position, timeline)


def _resume_wal(engine: Engine, data_dir: Path, position: int, timeline: int) -> tuple[LogFiles, Scanner]:
    files = FixedLogFiles(engine, data_dir, timeline)
    with LogReader(files) as reader:
        return files, WalScanner.resume(position, timeline, reader.read)


def _begin_binlog(engine: Engine, data_dir: Path, position: int, timeline: int) -> tuple[LogFiles, Scanner]:
    return BinlogLogFiles.begin(data_dir, position, timeline), BinlogScanner(position, timeline)


def _resume_binlog(engine: Engine, data_dir: Path, position: int, timeline: int) -> tuple[LogFiles, Scanner]:
    files = BinlogLogFiles.resume(data_dir, timeline)
    place = files.at(position)
    if place is None:
        raise LogFileError(f"no binlog file of timeline {timeline} holds {position:X}")
    with LogReader(files) as reader:
        return files, BinlogScanner.resume(position, place.start, timeline, reader.read)


KINDS: Mapping[str, LogKind] = {
    "pgwal": LogKind(NativeKind.WAL, _begin_wal, _resume_wal),
    "binlog": LogKind(NativeKind.BINLOG, _begin_binlog, _resume_binlog),
}


def log_kind(name: str) -> LogKind:
    """Raises LogFileError for a kind of log that cannot be followed."""
    try:
        return KINDS[name.partition(":")[0]]
    except KeyError:
        raise LogFileError(f"logs of kind {name!r} cannot be followed; known: {sorted(KINDS)}") from None


class LogReader:
    """Reads ranges of the log out of the engine's files; keeps the one that was read last open."""

    def __init__(self, files: LogFiles) -> None:
        self._files = files
        self._descriptor = -1
        """The engine does not give a file another name (and other bytes) while it holds log that is not
        durable, so it is what its name said while it is read here."""
        self._number = -1

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, start: int, end: int) -> bytes:
        """Bytes [start, end), shorter where a file is not there."""
        data = self._read_file(start, end)
        # What belongs together may lie across the border of two files.
        while start + len(data) < end and (more := self._read_file(start + len(data), end)):
            data += more
        return data

    def _read_file(self, start: int, end: int) -> bytes:
        place = self._files.at(start)
        if place is None or self.open(place) < 0:
            return b""
        return os.pread(self._descriptor, min(end, place.end) - start, start - place.start)

    def open(self, place: LogPlace) -> int:
        """The file's descriptor, which stays the reader's; -1: it is not there."""
        if place.number != self._number:
            self.close()
            try:
                self._descriptor = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return -1
            self._number = place.number
        return self._descriptor

    def close(self) -> None:
        """Close the file; the next `read` opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = self._number = -1


class EngineLog:
    """The log of one timeline from a position on, as the local engine writes it."""

    def __init__(self, engine: Engine, data_dir: Path, position: int, timeline: int, *, resume: bool = False):
        """`position` is where the timeline's own log begins, or, with `resume`, where it was cut once (this
        reads and follows up to one file of log, which blocks for some milliseconds). Raises LogFileError."""
        self.timeline = timeline
        kind = log_kind(engine.log_device_kind)
        self.native_kind = kind.native
        self.device_timeline = timeline if kind.native is NativeKind.WAL else 0
        """How the log device calls it."""
        self._files, self._scanner = (kind.resume if resume else kind.begin)(
            engine, data_dir, position, timeline
        )
        self._floor = position
        """All below was taken before: a scanner that was resumed may stand lower."""
        self._reader = LogReader(self._files)

    @property
    def position(self) -> int:
        """All before it was taken."""
        return max(self._scanner.position, self._floor)

    @property
    def scanner_address(self) -> int:
        """Where the scanner's state lies, for native code that goes on with it; 0: not now."""
        state = getattr(self._scanner, "_state", None)
        if self._scanner.position < self._floor or not isinstance(state, ctypes.Structure):
            return 0
        return ctypes.addressof(state)

    def file(self) -> LogFile | None:
        """The file that native code goes on with at `position`; None: it is not there yet, or cannot be left
        to it, because the engine writes another one by now."""
        place = self._files.at(self.position)
        if place is None or (self.native_kind is NativeKind.BINLOG and not place.grows):
            return None
        descriptor = self._reader.open(place)
        return LogFile(descriptor, place.start, place.end, place.device_offset) if descriptor >= 0 else None

    def written(self, timeline: int, position: int) -> int | None:
        """How far the log is written, when the device says so; see `LogFiles.written`."""
        return self._files.written(timeline, position)

    def missed(self, written: int) -> bool:
        """The files do not hold what the engine has written below `written`, or it cannot be understood: then
        nothing may be called durable. To be asked when `take` has nothing more."""
        return self._scanner.missed(written)

    def settled(self, written: int) -> bool:
        """All was taken of what the engine has written below `written`, as far as a sync can wait for it: a
        number that counts these writes may be released when `position` is durable. Asked like `missed`."""
        return self._scanner.settled(written)

    def take(self, written: int) -> tuple[bytes, bool]:
        """The next piece that ends where the log may be cut, below `written`, and whether more may follow it.

        `written`: how far the log is known to be written, asked before this call. Empty: there is none yet.
        """
        start = self._scanner.position
        limit = min(written, start + READ_BYTES)
        if limit <= start:
            return b"", False
        data = self._reader.read(start, limit)
        if not data:
            return b"", False
        floor = max(self._floor - start, 0)
        self._scanner.scan(data, start, written)
        taken = self._scanner.position - start
        more = taken > 0 and limit < written
        return (data if taken == len(data) and not floor else data[floor:taken]), more

    def close(self) -> None:
        """Close the file; the next `take` opens it again."""
        self._reader.close()
