"""Files made ready before they are needed: written with zeros, or recycled, never on the way of an append.

Owns the making, renaming and removing of log files in one directory. Everything here blocks for long and is
called from the node's helper thread (or before a segment serves). A file is prewritten, not only allocated:
a sync of bytes that overwrite written blocks has no file system journal to wait for.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from pathlib import Path

CHUNK_BYTES = 1024 * 1024
"""Prewriting syncs in steps of this many bytes: it piles up no writes in front of an append's sync."""

_LOG = re.compile(r"([0-9a-f]{8})\.log")
_SPARE = re.compile(r"spare-[0-9a-f]{8}")


def log_path(directory: Path, file_seq: int) -> Path:
    return directory / f"{file_seq:08x}.log"


def summary_path(directory: Path, file_seq: int) -> Path:
    return directory / f"{file_seq:08x}.idx"


def log_files(directory: Path) -> list[int]:
    """The numbers of the log files there are, rising."""
    return sorted(int(m[1], 16) for name in os.listdir(directory) if (m := _LOG.fullmatch(name)))


def sync_directory(directory: Path) -> None:
    """Makes renames and removals in `directory` durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, data: bytes) -> None:
    """Writes `path` as a whole or not at all, durably. Raises OSError."""
    temporary = path.with_name(path.name + ".tmp")
    fd = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    try:
        write_all(fd, data, 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    sync_directory(path.parent)


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """pwrite of all of `data`."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def write_zeros(fd: int, start: int, end: int, hurry: threading.Event | None = None) -> None:
    """Writes zeros to [start, end) of the file and syncs them; the disk rests half of the time, to be free
    for appends, until `hurry` is set."""
    zeros = memoryview(bytes(CHUNK_BYTES))
    for at in range(start, end, CHUNK_BYTES):
        began = time.monotonic()
        write_all(fd, zeros[: end - at], at)
        os.fdatasync(fd)
        if hurry is not None and not hurry.is_set():
            hurry.wait(time.monotonic() - began)
    os.fdatasync(fd)


def prepare_file(directory: Path, file_seq: int, size: int, hurry: threading.Event | None = None) -> int:
    """Makes log file `file_seq` of `size` bytes, recycled or new; returns its size. Raises OSError.

    `hurry`: somebody waits for it. After a failure nothing is left but, at most, a temporary file that the
    next try overwrites.
    """
    path = log_path(directory, file_seq)
    if path.exists():
        return path.stat().st_size
    spare = _take_spare(directory, size)
    if spare is None:
        spare = path.with_name(path.name + ".tmp")
        fd = os.open(spare, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        try:
            write_zeros(fd, 0, size, hurry)
            os.fsync(fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(spare)
            raise
        finally:
            os.close(fd)
    os.rename(spare, path)
    sync_directory(directory)
    return path.stat().st_size


def _take_spare(directory: Path, size: int) -> Path | None:
    for name in sorted(os.listdir(directory)):
        if _SPARE.fullmatch(name) and (directory / name).stat().st_size == size:
            return directory / name
    return None


def retire_files(directory: Path, below: int, size: int, spares: int) -> None:
    """Removes the log files with numbers below `below`; up to `spares` of `size` bytes are kept for reuse."""
    kept = sum(1 for name in os.listdir(directory) if _SPARE.fullmatch(name))
    for file_seq in log_files(directory):
        if file_seq >= below:
            break
        path = log_path(directory, file_seq)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(summary_path(directory, file_seq))
        if kept < spares and path.stat().st_size == size:
            os.rename(path, directory / f"spare-{file_seq:08x}")
            kept += 1
        else:
            os.unlink(path)
    sync_directory(directory)


def remove_leftovers(directory: Path) -> None:
    """Removes what a crash left half made."""
    for name in os.listdir(directory):
        if name.endswith(".tmp"):
            os.unlink(directory / name)
