"""Reading the engine's own log files while the engine writes them, and finding where records end in them.

Owns no bytes and no decision: it gives the writer pieces of log that end where the log may be cut. The choice
of scanner follows the log's kind (`Engine.log_device_kind`), the same word that the volume library is given.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from borealis.engines.base import Engine
from borealis.errors import BorealisError
from borealis.volume.nativelib import WalScanner

READ_BYTES = 1 << 20
"""The most that is read at once, in bytes."""


class LogFileError(BorealisError):
    """The engine's log files do not hold what the engine wrote: this instance cannot be a writer."""

    code = "EngineLogDamaged"


class Scanner(Protocol):
    """What the writer needs of a scanner; `position` is always a place where the log may be cut."""

    @property
    def position(self) -> int: ...

    def scan(self, data: bytes, lsn: int, limit: int) -> object: ...


_SCANNERS: dict[str, Callable[[int, int], Scanner]] = {"pgwal": WalScanner}


def log_scanner(kind: str, position: int, timeline: int) -> Scanner:
    """A native scanner for this kind of log. Raises LogFileError for a kind that has none."""
    try:
        return _SCANNERS[kind](position, timeline)
    except KeyError:
        raise LogFileError(
            f"there is no scanner for logs of kind {kind!r}; known: {sorted(_SCANNERS)}"
        ) from None


class EngineLog:
    """The log of one timeline from `position` on, as the local engine writes it."""

    def __init__(self, engine: Engine, data_dir: Path, position: int, timeline: int) -> None:
        self.timeline = timeline
        self._engine = engine
        self._data_dir = data_dir
        self._scanner = log_scanner(engine.log_device_kind, position, timeline)
        self._file_bytes = engine.log_file_bytes
        self._file = -1
        """Descriptor of the file that is being read. The engine does not give a file another name (and other
        bytes) while it holds log that is not durable, so it is what its name said while it is read here."""
        self._file_number = -1

    @property
    def position(self) -> int:
        """All before it was taken."""
        return self._scanner.position

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
        self._scanner.scan(data, start, start + len(data))
        taken = self._scanner.position - start
        more = taken > 0 and start + len(data) < written
        return (data if taken == len(data) else data[:taken]), more

    def _read(self, start: int, end: int) -> bytes:
        """Bytes [start, end) as far as one file holds them."""
        number, offset = divmod(start, self._file_bytes)
        if number != self._file_number:
            self.close()
            try:
                path = self._engine.log_path(self._data_dir, self.timeline, start)
                self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return b""
            self._file_number = number
        return os.pread(self._file, min(end - start, self._file_bytes - offset), offset)

    def close(self) -> None:
        """Close the file; the next `take` opens it again."""
        if self._file >= 0:
            os.close(self._file)
        self._file = self._file_number = -1
