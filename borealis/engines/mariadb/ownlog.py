"""The binlog files of one engine, as its session sees them.

Owns the answers to: which file is the newest, how far it is written, what it begins with, whether a
reader's own one holds anything. The files' places in the volume's log are `BinlogFiles`'. Never writes into
a log file, and never asks the engine: it would wait with its commits.
"""

from __future__ import annotations

import os
from pathlib import Path

from borealis.engines.base import EngineError, Lsn
from borealis.engines.mariadb.binlog import (
    HEADER_BYTES,
    LOOK_BYTES,
    MAGIC,
    EventHeader,
    UnitKind,
    UnitReader,
    is_intact,
    without_in_use,
)
from borealis.engines.mariadb.binlogfiles import BASENAME, BinlogFiles, file_name

_PIECE_BYTES = 1 << 16


class OwnLog:
    """The files of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._files: BinlogFiles | None = None

    def newest(self) -> int:
        """The number of the newest file. Raises EngineError when there is none."""
        start = f"{BASENAME}."
        digits = [
            entry.removeprefix(start) for entry in os.listdir(self._data_dir) if entry.startswith(start)
        ]
        numbers = [int(one) for one in digits if one.isdigit()]
        if not numbers:
            raise EngineError(f"{self._data_dir} holds no log file; was the engine started with its log?")
        return max(numbers)

    def begin(self, timeline: int, start: Lsn) -> bytes:
        """The newest file is the first of a timeline that begins at `start`. Its format description."""
        number = self.newest()
        with (self._data_dir / file_name(number)).open("rb") as file:
            data = file.read(len(MAGIC) + LOOK_BYTES)
        event = data[len(MAGIC) :]
        event = event[: EventHeader.parse(event).length] if len(event) >= HEADER_BYTES else b""
        if not event or not is_intact(event):
            raise EngineError(f"{file_name(number)} does not begin with a format description")
        self._files = BinlogFiles.begin(self._data_dir, timeline, number, start)
        return without_in_use(event)

    def end(self) -> Lsn | None:
        """How far the log is written; None: this engine was never a writer. While the driver has not come
        to a new file yet, the end of the one before."""
        try:
            files = self._files = self._files or BinlogFiles.load(self._data_dir)
            number = self.newest()
            if number != files.newest.number:
                files.refresh()
        except EngineError:
            return None
        known = min(number, files.newest.number)
        try:
            return files.lsn(known, (self._data_dir / file_name(known)).stat().st_size)
        except FileNotFoundError:
            return files.newest.start

    def holds_groups(self) -> bool:
        """Whether there is anything but headers in the newest file."""
        reader = UnitReader(0)
        with (self._data_dir / file_name(self.newest())).open("rb") as file:
            while data := file.read(_PIECE_BYTES):
                if any(unit.kind is UnitKind.GROUP for unit in reader.feed(data)):
                    return True
        return reader.settled < reader.position


def path_at(data_dir: Path, lsn: Lsn) -> Path:
    """The file that holds the byte at `lsn`. Raises EngineError."""
    files = BinlogFiles.load(data_dir)
    file = files.at(lsn)
    if file is None:
        raise EngineError(f"the log at {lsn:X} was not written by this engine; its own begins later")
    return files.path(file.number)
