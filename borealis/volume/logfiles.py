"""Which of the engine's files holds which part of the volume's log, and how far it is written.

Owns the two ways in which an engine keeps its log: files of one size, named after the position that they
begin at (PostgreSQL), and files of any size, one behind the other, under rising numbers (binlog). It
translates what the log device says of a write into a log position. It reads no log, but for the headers of a
timeline's first binlog.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

from borealis.engines.base import Engine, EngineError
from borealis.engines.mariadb.binlog import UnitKind, UnitReader
from borealis.engines.mariadb.binlogfiles import OFFSET_BITS, BinlogFile, BinlogFiles, newest_number
from borealis.errors import BorealisError


class LogFileError(BorealisError):
    """The engine's log files do not hold what the engine wrote: this instance cannot be a writer."""

    code = "EngineLogDamaged"


class LogPlace(NamedTuple):
    """One file of the log."""

    number: int
    path: Path
    start: int
    """Log position of the file's first byte."""
    end: int
    """Behind its last one; for a file that still grows, behind the last one that it could ever have."""
    grows: bool
    """How long the file will be is not known yet."""
    device_offset: int
    """What is to be added to a position of the log device, while the engine writes this file, to get a log
    position; may be negative."""


class LogFiles(Protocol):
    """The files of one timeline."""

    def at(self, lsn: int) -> LogPlace | None:
        """The file that holds the byte at `lsn`, or will; None: there is none. It may not exist yet."""

    def written(self, timeline: int, position: int) -> int | None:
        """How far the log is written, when the device says `position` on `timeline`. None: nothing was
        written on this timeline yet. Raises LogFileError when the engine writes what it must not."""


class FixedLogFiles:
    """Files of one size. What the device says are log positions."""

    def __init__(self, engine: Engine, data_dir: Path, timeline: int) -> None:
        self._engine = engine
        self._data_dir = data_dir
        self._timeline = timeline

    def at(self, lsn: int) -> LogPlace:
        """See `LogFiles`."""
        size = self._engine.log_file_bytes
        number = lsn // size
        path = self._engine.log_path(self._data_dir, self._timeline, number * size)
        return LogPlace(number, path, number * size, (number + 1) * size, False, 0)

    def written(self, timeline: int, position: int) -> int | None:
        """See `LogFiles`."""
        if timeline > self._timeline:
            raise LogFileError(f"the engine writes timeline {timeline}, expected {self._timeline}")
        return position if timeline == self._timeline else None


class BinlogLogFiles:
    """Files of any size. The device says file number and offset, on timeline 0."""

    def __init__(self, files: BinlogFiles) -> None:
        self._files = files

    @classmethod
    def begin(cls, data_dir: Path, position: int, timeline: int) -> BinlogLogFiles:
        """At a promotion: the newest file begins the timeline, with the headers that are in it already.
        Raises LogFileError when it holds more."""
        number = newest_number(data_dir)
        if number is None:
            raise LogFileError(f"there is no binlog in {data_dir}: start the engine with its binlog on")
        files = BinlogFiles.begin(data_dir, timeline, number, position)
        _check_headers(files.path(number))
        return cls(files)

    @classmethod
    def resume(cls, data_dir: Path, timeline: int) -> BinlogLogFiles:
        """As an earlier driver of this writer left it. Raises LogFileError."""
        try:
            files = BinlogFiles.load(data_dir)
        except EngineError as error:
            raise LogFileError(str(error)) from error
        if files.timeline != timeline:
            raise LogFileError(
                f"the map of binlog files is of timeline {files.timeline}, expected {timeline}"
            )
        return cls(files)

    def at(self, lsn: int) -> LogPlace | None:
        """See `LogFiles`."""
        file = self._files.at(lsn)
        if file is None:
            return None
        end = self._files.end(file.number)
        return LogPlace(
            file.number,
            self._files.path(file.number),
            file.start,
            file.start + (1 << OFFSET_BITS) if end is None else end,
            end is None,
            file.start - (file.number << OFFSET_BITS),
        )

    def written(self, timeline: int, position: int) -> int | None:
        """See `LogFiles`."""
        number = position >> OFFSET_BITS
        if timeline != 0 or number < self._files.files[0].number:
            raise LogFileError(
                f"the engine writes binlog file {number}, expected {self._files.newest.number} or a later "
                "one: its log was begun anew"
            )
        while self._files.newest.number < number:
            self._next()
        return self._files.lsn_of_device(position)

    def _next(self) -> None:
        """The engine has gone on to another file; nothing is added to the one before."""
        newest: BinlogFile = self._files.newest
        path = self._files.path(newest.number)
        try:
            self._files.add(newest.number + 1, newest.start + path.stat().st_size)
        except (OSError, EngineError) as error:
            raise LogFileError(f"{path}: the log cannot be followed into the next file: {error}") from error


def _check_headers(path: Path) -> None:
    """What the engine has written while it was a reader came from nowhere: it must not get into the log."""
    units = UnitReader(0).feed(path.read_bytes())
    if any(unit.kind is UnitKind.GROUP for unit in units):
        raise LogFileError(f"{path}: the engine has written to its binlog while it was a reader: replace it")
