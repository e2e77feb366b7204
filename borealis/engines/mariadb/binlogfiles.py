"""Which binlog file of this writer's life holds which part of the volume's log.

Owns the list of files with the log position of each one's first byte, and `binlog-files.json` beside the
data directory, so that a driver that comes back, and the session, find it again. The first file is the one
that held no group yet when the engine was promoted; each other one begins where the one before ends. It never
looks into the files.

FORMAT: `binlog-files.json`, version 1: {"version": 1, "timeline": 3, "files": [[number, start], ...]}: the
number in the file's name and the log position of its first byte, oldest first. Replaced by rename.
"""

from __future__ import annotations

import contextlib
import json
import os
from bisect import bisect_right
from pathlib import Path
from typing import Final, NamedTuple, Self

from borealis.engines.base import EngineError, Lsn

VERSION: Final = 1
BASENAME: Final = "binlog"
OFFSET_BITS: Final = 40
"""A place in a binlog file, as the volume library gives it: file number << OFFSET_BITS | offset."""
_FILE_NAME: Final = "binlog-files.json"


class BinlogFile(NamedTuple):
    """One file."""

    number: int
    start: Lsn
    """Log position of its first byte."""


def file_name(number: int) -> str:
    """The name of a binlog file."""
    return f"{BASENAME}.{number:06d}"


def file_number(name: str) -> int:
    """The number in a binlog file's name (a path is good too). Raises EngineError."""
    base, _, digits = name.rpartition("/")[2].rpartition(".")
    if base != BASENAME or not (digits.isascii() and digits.isdigit()):
        raise EngineError(f"{name!r} is not the name of a binlog file; expected one like {file_name(1)!r}")
    return int(digits)


def newest_number(data_dir: Path) -> int | None:
    """The highest number of a binlog file in a data directory; None: there is none."""
    numbers = []
    for path in data_dir.glob(f"{BASENAME}.*"):
        with contextlib.suppress(EngineError):
            numbers.append(file_number(path.name))
    return max(numbers, default=None)


def files_path(data_dir: Path) -> Path:
    """Where the map of a data directory lies."""
    return data_dir.parent / _FILE_NAME


class BinlogFiles:
    """The map of one writer's life. Made by `begin` (at promotion) or `load` (later).

    One object changes it (the driver's, as it comes to the end of a file); `refresh` shows its changes to
    others.
    """

    def __init__(self, data_dir: Path, timeline: int, files: list[BinlogFile]) -> None:
        self.data_dir = data_dir
        self.timeline = timeline
        self._files = files

    @classmethod
    def begin(cls, data_dir: Path, timeline: int, number: int, start: Lsn) -> Self:
        """A new life: the file of this number, of which nothing was shipped, begins at `start`."""
        files = cls(data_dir, timeline, [BinlogFile(number, start)])
        files._save()
        return files

    @classmethod
    def load(cls, data_dir: Path) -> Self:
        """The map that was saved. Raises EngineError when there is none, or it is damaged."""
        path = files_path(data_dir)
        try:
            content = json.loads(path.read_bytes())
            if content["version"] != VERSION:
                raise EngineError(f"{path}: version {content['version']}, expected {VERSION}")
            files = [BinlogFile(int(number), int(start)) for number, start in content["files"]]
            if not files or files != sorted(files):
                raise EngineError(f"{path}: no files, or not in order")
            return cls(data_dir, int(content["timeline"]), files)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EngineError(
                f"{path}: {error!r}: this engine was never a writer, or its map is lost"
            ) from None

    def refresh(self) -> None:
        """Take in what another process has saved since."""
        fresh = type(self).load(self.data_dir)
        self.timeline, self._files = fresh.timeline, fresh._files

    def _save(self) -> None:
        path = files_path(self.data_dir)
        fresh = path.with_suffix(".new")
        content = {"version": VERSION, "timeline": self.timeline, "files": self._files}
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump(content, file)
        fresh.replace(path)

    @property
    def files(self) -> tuple[BinlogFile, ...]:
        """Oldest first; never empty."""
        return tuple(self._files)

    @property
    def newest(self) -> BinlogFile:
        return self._files[-1]

    def add(self, number: int, start: Lsn) -> None:
        """The log goes on at `start` in the file of this number. Raises EngineError when it cannot: numbers
        and positions only grow."""
        if number <= self.newest.number or start <= self.newest.start:
            raise EngineError(
                f"binlog file {number} at {start:X} cannot follow file {self.newest.number} at "
                f"{self.newest.start:X}: the engine's log was begun anew; replace this instance"
            )
        self._files.append(BinlogFile(number, start))
        self._save()

    def path(self, number: int) -> Path:
        """The file of this number."""
        return self.data_dir / file_name(number)

    def at(self, lsn: Lsn) -> BinlogFile | None:
        """The file that holds the byte at `lsn`, or will; None: it is older than this life."""
        index = bisect_right(self._files, lsn, key=lambda file: file.start)
        return self._files[index - 1] if index else None

    def end(self, number: int) -> Lsn | None:
        """Where the file's part of the log ends; None: it is the newest, or not one of these."""
        for file, following in zip(self._files, self._files[1:], strict=False):
            if file.number == number:
                return following.start
        return None

    def lsn(self, number: int, offset: int) -> Lsn | None:
        """The log position of an offset in a file; None: not (yet) known here."""
        for file in reversed(self._files):
            if file.number == number:
                return file.start + offset
        return None

    def lsn_of_device(self, position: int) -> Lsn | None:
        """The log position of a place as the volume library gives it; None as for `lsn`."""
        return self.lsn(position >> OFFSET_BITS, position & (1 << OFFSET_BITS) - 1)

    def read(self, start: Lsn, end: Lsn) -> bytes:
        """Bytes [start, end) of the files; shorter when they do not hold all of it (yet)."""
        data = b""
        while start + len(data) < end and (more := self._read_file(start + len(data), end)):
            data += more
        return data

    def _read_file(self, start: Lsn, end: Lsn) -> bytes:
        file = self.at(start)
        if file is None:
            return b""
        file_end = self.end(file.number)
        length = (end if file_end is None else min(end, file_end)) - start
        try:
            with self.path(file.number).open("rb") as opened:
                return os.pread(opened.fileno(), length, start - file.start)
        except FileNotFoundError:
            return b""
