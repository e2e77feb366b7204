"""Reading log bytes back from files, checksums verified.

Owns no state: it is given extents (from the index) and may run in any thread beside the one that appends.
Bytes that do not match their checksum are never returned.
"""

from __future__ import annotations

import errno
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from borealis.storage.format import Found, HeaderCodec, Kind, scan
from borealis.storage.index import Extent
from borealis.storage.prepare import log_path

SECTOR_BYTES = 4096


@dataclass(frozen=True)
class ReadResult:
    """`data` begins at the LSN asked for. It may be shorter: `damaged` says where it stopped and why."""

    data: bytes
    damaged: tuple[int, int] | None = None
    gone: bool = False
    """A file was removed or recycled meanwhile: look the range up again."""


def read_range(directory: Path, seed: int, extents: list[Extent], start: int, end: int) -> ReadResult:
    """Log bytes [start, end) from `extents`; stops at the first damage or hole."""
    pieces: list[bytes] = []
    position = start
    for extent in extents:
        if extent.start > position:
            break
        want = min(end, extent.end)
        try:
            found, damaged = _read_extent(directory, seed, extent, position, want)
        except FileNotFoundError:
            return ReadResult(b"".join(pieces), gone=True)
        pieces.extend(found)
        if damaged is not None:
            return ReadResult(b"".join(pieces), damaged)
        position = want
        if position >= end:
            break
    return ReadResult(b"".join(pieces))


def _read_extent(
    directory: Path, seed: int, extent: Extent, position: int, end: int
) -> tuple[list[bytes], tuple[int, int] | None]:
    fd = os.open(log_path(directory, extent.file_seq), os.O_RDONLY)
    try:
        buffer = read_tolerant(fd, extent.offset, extent.span)
    finally:
        os.close(fd)
    pieces: list[bytes] = []
    for lsn, payload, crc in _records(buffer, HeaderCodec(extent.file_seq, seed), extent):
        record_end = lsn + len(payload)
        if record_end <= position:
            continue
        if lsn > position:
            return pieces, (position, min(lsn, end))
        if zlib.crc32(payload) != crc:
            return pieces, (position, min(record_end, extent.end))
        stop = min(end, record_end)
        pieces.append(bytes(payload[position - lsn : stop - lsn]))
        position = stop
        if position >= end:
            return pieces, None
    return pieces, (position, end)


def _records(buffer: bytes, codec: HeaderCodec, extent: Extent) -> list[tuple[int, memoryview, int]]:
    """(lsn, payload, crc) of the records of an extent: the first one, then those that continue it."""
    records: list[tuple[int, memoryview, int]] = []
    for item in scan(buffer, codec, check=False):
        if not isinstance(item, Found):
            continue
        header = item.header
        if header.kind == Kind.DATA or (header.kind == Kind.REPAIR and extent.repair):
            if records and header.lsn < records[-1][0] + len(records[-1][1]):
                break
            if header.lsn >= extent.end:
                break
            records.append((header.lsn, item.payload, header.dcrc))
    return records


def read_tolerant(fd: int, offset: int, count: int) -> bytes:
    """pread of `count` bytes; sectors that cannot be read come back as zeros (and fail their checksum)."""
    try:
        return _pread_all(fd, offset, count)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    parts: list[bytes] = []
    while count > 0:
        step = min(count, SECTOR_BYTES)
        try:
            parts.append(_pread_all(fd, offset, step).ljust(step, b"\0"))
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            parts.append(bytes(step))
        offset, count = offset + step, count - step
    return b"".join(parts)


def _pread_all(fd: int, offset: int, count: int) -> bytes:
    first = os.pread(fd, count, offset)
    if len(first) == count or not first:
        return first
    parts = [first]
    done = len(first)
    while done < count and (part := os.pread(fd, count - done, offset + done)):
        parts.append(part)
        done += len(part)
    return b"".join(parts)
