"""Reading the engine's own log files while the engine writes them, and finding where records end in them.

Owns no bytes and no decision: it gives the writer pieces of log that end where the log may be cut. The choice
of scanner follows the log's kind (`Engine.log_device_kind`), the same word that the volume library is given.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from borealis.engines.base import Engine
from borealis.errors import BorealisError
from borealis.volume.nativelib import WalScanner

READ_BYTES = 1 << 20
"""The most that is read at once, in bytes."""

Read = Callable[[int, int], bytes]


class LogFileError(BorealisError):
    """The engine's log files do not hold what the engine wrote: this instance cannot be a writer."""

    code = "EngineLogDamaged"


class Scanner(Protocol):
    """What the writer needs of a scanner."""

    @property
    def position(self) -> int:
        """How far the log was followed; always a place where it may be cut."""

    def scan(self, data: bytes, lsn: int, limit: int) -> object:
        """Go on through `data`, the log from `lsn` on, which was written to `limit` when it was read."""

    def missed(self, written: int) -> bool:
        """Did the scan stop where it must not, with all that was written to `written` before it?"""


class LogKind(NamedTuple):
    """How logs of one kind are followed."""

    begin: Callable[[int, int], Scanner]
    """At a position where a timeline's log begins: (position, timeline)."""
    resume: Callable[[int, int, Read], Scanner]
    """At any place where the log was cut once: (position, timeline, a way to read what lies before)."""


class LogFile(NamedTuple):
    """An open file of the log, for native code; it stays open until the next `take` or `close`."""

    descriptor: int
    start: int
    end: int


KINDS: Mapping[str, LogKind] = {"pgwal": LogKind(WalScanner, WalScanner.resume)}


def log_kind(name: str) -> LogKind:
    """Raises LogFileError for a kind of log that cannot be followed."""
    try:
        return KINDS[name]
    except KeyError:
        raise LogFileError(f"logs of kind {name!r} cannot be followed; known: {sorted(KINDS)}") from None


class EngineLog:
    """The log of one timeline from a position on, as the local engine writes it."""

    def __init__(self, engine: Engine, data_dir: Path, position: int, timeline: int, *, resume: bool = False):
        """`position` is where the timeline's own log begins, or, with `resume`, where it was cut once (this
        reads and follows up to one file of log, which blocks for some milliseconds)."""
        self.timeline = timeline
        self._engine = engine
        self._data_dir = data_dir
        self._file_bytes = engine.log_file_bytes
        self._file = -1
        """Descriptor of the file that was read last. The engine does not give a file another name (and other
        bytes) while it holds log that is not durable, so it is what its name said while it is read here."""
        self._file_number = -1
        kind = log_kind(engine.log_device_kind)
        self._scanner = (
            kind.resume(position, timeline, self._read) if resume else kind.begin(position, timeline)
        )

    @property
    def position(self) -> int:
        """All before it was taken."""
        return self._scanner.position

    @property
    def scanner_address(self) -> int:
        """Where the scanner's state lies, for native code that goes on with it; 0: it has none."""
        state = getattr(self._scanner, "_state", None)
        return ctypes.addressof(state) if isinstance(state, ctypes.Structure) else 0

    def file(self) -> LogFile | None:
        """The file that holds `position`; None: it is not there yet."""
        number = self.position // self._file_bytes
        if not self._open(number):
            return None
        return LogFile(self._file, number * self._file_bytes, (number + 1) * self._file_bytes)

    def missed(self, written: int) -> bool:
        """The files do not hold what the engine has written below `written`, or it cannot be understood: then
        nothing may be called durable. To be asked when `take` has nothing more."""
        return self._scanner.missed(written)

    def take(self, written: int) -> tuple[bytes, bool]:
        """The next piece of whole records (or final pages) below `written`, and whether more may follow it.

        `written`: how far the log is known to be written, asked before this call. Empty: there is none yet.
        """
        start = self._scanner.position
        limit = min(written, start + READ_BYTES)
        if limit <= start:
            return b"", False
        data = self._read(start, limit)
        if not data:
            return b"", False
        self._scanner.scan(data, start, written)
        taken = self._scanner.position - start
        more = taken > 0 and limit < written
        return (data if taken == len(data) else data[:taken]), more

    def _read(self, start: int, end: int) -> bytes:
        """Bytes [start, end), shorter where a file is not there."""
        data = self._read_file(start, end)
        # A record may lie across the border of two files.
        while start + len(data) < end and (more := self._read_file(start + len(data), end)):
            data += more
        return data

    def _read_file(self, start: int, end: int) -> bytes:
        number, offset = divmod(start, self._file_bytes)
        if not self._open(number):
            return b""
        return os.pread(self._file, min(end - start, self._file_bytes - offset), offset)

    def _open(self, number: int) -> bool:
        """Makes the file of this number the open one; False: it is not there."""
        if number != self._file_number:
            self.close()
            try:
                path = self._engine.log_path(self._data_dir, self.timeline, number * self._file_bytes)
                self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return False
            self._file_number = number
        return True

    def close(self) -> None:
        """Close the file; the next `take` opens it again."""
        if self._file >= 0:
            os.close(self._file)
        self._file = self._file_number = -1
