"""The log files of one segment: appended to in batches, synced, summarised, recycled.

Owns the files of one directory, the index into them and the segment's journaled state (an opaque JSON text,
base and end). It never decides what may be appended or cut, and never acknowledges: whoever calls `sync` may,
once it has returned. After any exception from `write` or `sync` the object is used up: what is on disk is
unknown until `recover` (module recovery) has read it again.

One thread uses it. Work that blocks for long (preparing the next file, saving a summary, removing files) goes
to the executor given to it; that executor must have one worker, so that this work keeps its order.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import zlib
from concurrent.futures import CancelledError, Executor, Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from pathlib import Path

from borealis.logs import get_logger
from borealis.storage.errors import StorageBroken, StorageError, StorageFull, disk_error
from borealis.storage.format import (
    HEADER_BYTES,
    PAD_BYTES,
    HeaderCodec,
    Kind,
    Summary,
    encode_state,
)
from borealis.storage.index import LsnIndex
from borealis.storage.prepare import log_path, prepare_file, replace_file, retire_files, summary_path

log = get_logger(__name__)

IOV_MAX = os.sysconf("SC_IOV_MAX")
PREPARE_SECONDS_MAX = 60.0
RETRY_SECONDS = 0.5
"""After a failure to prepare a file the next try waits this long."""

_PAD = bytes(PAD_BYTES)
_PAD_CRC = zlib.crc32(_PAD)


@dataclass(frozen=True)
class LogConfig:
    """Sizes, in bytes. Small ones are for tests."""

    first_file_bytes: int = 4 * 1024 * 1024
    """The first file; each next one is twice as long, up to file_bytes: a small volume stays small."""
    file_bytes: int = 64 * 1024 * 1024
    summary_bytes: int = 8 * 1024 * 1024
    """A summary is saved whenever this much was written: it bounds what a restart must scan."""
    reserve_bytes: int = 128 * 1024
    """The end of each file is kept for STATE records: a full disk does not stop elections at once."""
    spare_files: int = 2


@dataclass(frozen=True)
class LogPlace:
    """Where the files are, and what they need from their node."""

    directory: Path
    seed: int
    """Of the checksums of headers: see format.volume_seed."""
    config: LogConfig
    executor: Executor
    """Has one worker."""


class LogFiles:
    """The files of one segment, open for appending. Made by `create` or by `recovery.recover`."""

    def __init__(self, place: LogPlace, index: LsnIndex, meta: bytes) -> None:
        self.place = place
        self.directory = place.directory
        self.config = place.config
        self.index = index
        self.meta = meta
        self.meta_no = 0
        self.file_seq = 0
        self.low: int | None = None
        self._executor = place.executor
        self._fd = self._direct_fd = -1
        self._size = 0
        self._offset = 0
        self._written = 0
        self._batch = 0
        self._pending: list[bytes | memoryview] = []
        self._summarised = 0
        self._next: Future[int] | None = None
        self._hurry = threading.Event()
        """Set when the next file is waited for."""
        self._retry_at = 0.0
        self._saving: Future[None] | None = None
        self._retiring: Future[None] | None = None
        self._codec = HeaderCodec(0, place.seed)

    @classmethod
    def create(cls, place: LogPlace, start: int, meta: bytes) -> LogFiles:
        """Makes the first file, with the segment's first state, durable. Raises StorageError."""
        files = cls(place, LsnIndex(start), meta)
        directory = place.directory
        try:
            size = prepare_file(directory, 1, place.config.first_file_bytes)
            files.resume(1, os.open(log_path(directory, 1), os.O_RDWR), size, 0)
        except OSError as error:
            raise disk_error(error, f"creating the log in {directory}") from error
        files._add_state()
        files.sync()
        return files

    def resume(self, file_seq: int, fd: int, size: int, offset: int) -> None:
        """Goes on in an open file at `offset`, all below which is synced; takes over `fd`."""
        self.file_seq, self._fd, self._size = file_seq, fd, size
        self._direct_fd = self._open_direct()
        self._offset = self._written = self._batch = offset
        self._codec = HeaderCodec(file_seq, self.place.seed)
        self._order_next()

    # -- adding ---------------------------------------------------------------------------------------------

    @property
    def pending_bytes(self) -> int:
        """Bytes added but not yet written."""
        return self._offset - self._written

    @property
    def unsynced(self) -> bool:
        """Something was added or written since the last sync."""
        return self._offset != self._batch

    def has_room(self, count: int) -> bool:
        """Whether a DATA record of `count` bytes can be added; may wait for a file that is being prepared."""
        fits = self._offset + HEADER_BYTES + count <= self._size - self.config.reserve_bytes
        return fits or self._next_ready()

    def has_room_for_state(self, meta_bytes: int) -> bool:
        """Whether a STATE change of about `meta_bytes` can be added."""
        return self._offset + _state_bytes(meta_bytes) <= self._size or self._next_ready()

    def append(self, term: int, lsn: int, data: bytes | memoryview, crc: int) -> None:
        """Adds log bytes whose crc32 is `crc` at the end. Raises StorageFull, StorageBroken."""
        if len(data) > self.piece_bytes:
            self._append_in_pieces(term, lsn, memoryview(data), self.piece_bytes)
        else:
            self._append_record(term, lsn, data, crc)

    def _append_in_pieces(self, term: int, lsn: int, data: memoryview, piece_bytes: int) -> None:
        for at in range(0, len(data), piece_bytes):
            piece = data[at : at + piece_bytes]
            self._append_record(term, lsn + at, piece, zlib.crc32(piece))

    def _append_record(self, term: int, lsn: int, data: bytes | memoryview, crc: int) -> None:
        record_bytes = HEADER_BYTES + len(data)
        if self._offset + record_bytes > self._size - self.config.reserve_bytes:
            self._switch()
        offset = self._offset
        self._add(Kind.DATA, term, lsn, data, crc)
        self.index.append(lsn, len(data), self.file_seq, offset, record_bytes)

    def repair(self, lsn: int, data: bytes) -> None:
        """Adds bytes that take the place of damaged ones below the end. Raises StorageFull, StorageBroken."""
        if self._offset + HEADER_BYTES + len(data) > self._size - self.config.reserve_bytes:
            self._switch()
        offset = self._offset
        self._add(Kind.REPAIR, 0, lsn, data, zlib.crc32(data))
        self.index.repair(lsn, len(data), self.file_seq, offset, HEADER_BYTES + len(data))

    def set_state(self, meta: bytes, term: int, base: int, end: int) -> None:
        """Adds a change of the state; bytes at and beyond `end`, and below `base`, are forgotten."""
        if self._offset + _state_bytes(len(meta)) > self._size:
            self._switch()
        if end < self.index.end:
            self.low = end if self.low is None else min(self.low, end)
            self.index.cut(end)
        self.index.advance(end)
        self.index.trim(base)
        self.meta = meta
        self.meta_no += 1
        self._add_state(term)

    def _add_state(self, term: int = 0) -> None:
        payload = encode_state(self.index.base, self.meta)
        crc = zlib.crc32(payload)
        self._add(Kind.STATE, term, self.index.end, payload, crc)
        self._add(Kind.PAD, 0, 0, _PAD, _PAD_CRC)
        self._add(Kind.STATE, term, self.index.end, payload, crc)

    def _add(self, kind: Kind, term: int, lsn: int, data: bytes | memoryview, crc: int) -> None:
        header = self._codec.pack(
            kind,
            meta_no=self.meta_no,
            batch=self._batch,
            length=len(data),
            dcrc=crc,
            term=term,
            lsn=lsn,
        )
        self._pending.append(header)
        self._pending.append(data)
        self._offset += HEADER_BYTES + len(data)

    # -- the disk -------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Hands what was added to the operating system. Raises StorageError: the object is then used up."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        try:
            for first in range(0, len(pending), IOV_MAX):
                self._write_vector(pending[first : first + IOV_MAX])
        except OSError as error:
            raise self.failure(error) from error

    def _write_vector(self, buffers: list[bytes | memoryview]) -> None:
        total = sum(map(len, buffers))
        done = os.pwritev(self._fd, buffers, self._written)
        self._written += done
        if done < total:  # Rare: a signal, or a disk that is nearly full.
            rest = memoryview(b"".join(buffers))[done:]
            while rest:
                done = os.pwrite(self._fd, rest, self._written)
                self._written += done
                rest = rest[done:]

    def sync(self) -> None:
        """Makes all that was added durable. Raises StorageError: the object is then used up."""
        self.write()
        if self._batch == self._offset:
            return
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise self.failure(error, syncing=True) from error
        self._batch = self._offset

    def failure(self, error: OSError, *, syncing: bool = False) -> StorageError:
        """What to raise when writing or syncing the newest file has failed."""
        path = log_path(self.directory, self.file_seq)
        if syncing:
            return StorageBroken(f"syncing {path}: {error.strerror}: the disk may be failing")
        return disk_error(error, f"writing {path}")

    # -- what the native loop needs -------------------------------------------------------------------------

    @property
    def fd(self) -> int:
        """The newest file."""
        return self._fd

    @property
    def direct_fd(self) -> int:
        """The newest file for writes of whole blocks that are durable when they return; -1: not here."""
        return self._direct_fd

    def forgo_direct(self) -> None:
        """This file is not written directly any more: its file system refuses it."""
        if self._direct_fd >= 0:
            os.close(self._direct_fd)
            self._direct_fd = -1

    def _open_direct(self) -> int:
        path = log_path(self.directory, self.file_seq)
        try:
            return os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_DSYNC | os.O_CLOEXEC)
        except OSError as error:  # Not every file system has it.
            log.debug("%s is written through the page cache: %s", path, error)
            return -1

    @property
    def next_offset(self) -> int:
        """Where the next record goes in the newest file."""
        return self._offset

    @property
    def data_limit(self) -> int:
        """No DATA record ends above this offset of the newest file."""
        return self._size - self.config.reserve_bytes

    @property
    def piece_bytes(self) -> int:
        """Log bytes are added in records of at most this length."""
        capacity = min(self._size, self._next_size()) - self.config.reserve_bytes - HEADER_BYTES
        return capacity // 2

    @property
    def summary_at(self) -> int:
        """The offset from which on a summary is wanted."""
        return self._summarised + self.config.summary_bytes

    @property
    def header_seed(self) -> int:
        """What the checksums of this file's headers begin with."""
        return self._codec.seed

    def took(self, runs: list[tuple[int, int, int, int]], offset: int) -> None:
        """DATA records were written and synced up to `offset`, without being added here. Each run is (lsn,
        length, offset, span) of consecutive ones. Nothing may be added but not synced."""
        assert self._offset == self._written == self._batch
        for lsn, length, at, span in runs:
            self.index.append(lsn, length, self.file_seq, at, span)
        self._offset = self._written = self._batch = offset

    def _switch(self) -> None:
        """Ends this file and begins the next one. Raises StorageFull, StorageBroken."""
        if not self._next_ready():
            raise StorageFull(f"no room for another log file in {self.directory}")
        self.sync()
        self._save(final=True)
        assert self._next is not None
        size = self._next.result()
        self._close_files()
        try:
            fd = os.open(log_path(self.directory, self.file_seq + 1), os.O_RDWR)
        except OSError as error:
            raise disk_error(error, f"opening the next log file in {self.directory}") from error
        self._next = None
        self.low = None
        self._summarised = 0
        self.resume(self.file_seq + 1, fd, size, 0)
        self._add_state()

    def _next_size(self) -> int:
        return max(self._size, min(2 * self._size, self.config.file_bytes))

    def _order_next(self) -> None:
        self._hurry.clear()
        self._next = self._executor.submit(
            prepare_file, self.directory, self.file_seq + 1, self._next_size(), self._hurry
        )

    def _next_ready(self) -> bool:
        if self._next is None:
            if time.monotonic() < self._retry_at:
                return False
            self._order_next()
        assert self._next is not None
        self._hurry.set()
        try:
            self._next.result(timeout=PREPARE_SECONDS_MAX)
            return True
        except FutureTimeout:
            log.error("%s: the next log file is not ready after %s s", self.directory, PREPARE_SECONDS_MAX)
            return False
        except OSError as error:
            log.error("%s: cannot prepare the next log file: %s", self.directory, error)
            self._next = None
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return False

    # -- upkeep ---------------------------------------------------------------------------------------------

    @property
    def wants_summary(self) -> bool:
        """Enough was written and synced since the last summary."""
        return self._batch >= self.summary_at

    def save_summary(self) -> None:
        """Saves a summary in the background. Nothing may be added but not synced."""
        self._save(final=False)

    def _save(self, *, final: bool) -> None:
        if not final and self._saving is not None and not self._saving.done():
            return
        self._summarised = self._batch
        self._saving = self._executor.submit(save_summary, self.directory, self.summary(final=final))

    def summary(self, *, final: bool = False) -> Summary:
        """What this file holds up to the last sync. Nothing may be added but not synced."""
        return Summary(
            file_seq=self.file_seq,
            upto=self._batch,
            final=final,
            meta_no=self.meta_no,
            base=self.index.base,
            end=self.index.end,
            low=self.low,
            meta=self.meta,
            extents=self.index.rows(self.file_seq),
        )

    def retire(self) -> None:
        """Lets go of files that hold nothing any more. Call it after the sync that follows a trim."""
        below = min(self.index.oldest_file(self.file_seq), self.file_seq)
        self._retiring = self._executor.submit(
            _retire, self.directory, below, self.config.file_bytes, self.config.spare_files
        )

    def bytes_on_disk(self) -> int:
        """The sizes of the files there are, in bytes."""
        total = 0
        for entry in os.scandir(self.directory):
            with contextlib.suppress(FileNotFoundError):
                total += entry.stat().st_size
        return total

    def close(self, *, clean: bool) -> None:
        """Ends the use of the files; `clean`: syncs them and saves a summary, so that a restart is quick."""
        try:
            if clean and self._fd >= 0:
                self.sync()
                self._save(final=False)
        except StorageError as error:
            log.error("%s: not closed cleanly: %s", self.directory, error)
        finally:
            self._pending.clear()
            # Nothing may happen to these files any more once this has returned.
            self._hurry.set()
            if self._next is not None:
                self._next.cancel()
            for job in (self._next, self._saving, self._retiring):
                with contextlib.suppress(OSError, CancelledError):
                    if job is not None:
                        job.result()
            self._close_files()

    def _close_files(self) -> None:
        for fd in (self._fd, self._direct_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._direct_fd = -1


def _state_bytes(meta_bytes: int) -> int:
    return 2 * (HEADER_BYTES + 8 + meta_bytes) + HEADER_BYTES + PAD_BYTES


def save_summary(directory: Path, summary: Summary) -> None:
    """Writes a summary; a failure only makes the next restart slower, so it is logged, not raised."""
    try:
        replace_file(summary_path(directory, summary.file_seq), summary.encode())
    except OSError as error:
        log.warning("%s: cannot save the summary of log file %x: %s", directory, summary.file_seq, error)


def _retire(directory: Path, below: int, size: int, spares: int) -> None:
    try:
        retire_files(directory, below, size, spares)
    except OSError as error:
        log.warning("%s: cannot remove old log files: %s", directory, error)
