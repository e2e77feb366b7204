"""Finding out, at start or after a disk error, what a segment's log files hold.

Owns the rules for torn and corrupt records (see FORMAT in format.py). It repairs nothing: damaged ranges
become holes of the index, to be fetched from other nodes. What it returns has been synced: bytes that a
killed process had written but not synced are not in doubt afterwards.
"""

from __future__ import annotations

import os

from borealis.logs import get_logger
from borealis.storage.errors import SegmentDamaged, disk_error
from borealis.storage.format import (
    HEADER_BYTES,
    MAGIC,
    Found,
    Gap,
    HeaderCodec,
    Kind,
    Summary,
    content_end,
    decode_state,
    find_record,
    scan,
)
from borealis.storage.index import LsnIndex
from borealis.storage.logfile import LogFiles, LogPlace
from borealis.storage.prepare import (
    log_files,
    log_path,
    remove_leftovers,
    summary_path,
    write_all,
    write_zeros,
)
from borealis.storage.reading import read_tolerant

log = get_logger(__name__)

FRONT_BYTES = 64 * 1024
"""A file in use has whole records within this much of its beginning, in bytes."""


def recover(place: LogPlace) -> LogFiles:
    """Opens the log files in `place`.

    Raises SegmentDamaged when promises or history may be lost, StorageError when the disk cannot be used.
    """
    try:
        remove_leftovers(place.directory)
        return _Recovery(place).run()
    except OSError as error:
        raise disk_error(error, f"reading the log in {place.directory}") from error


class _Recovery:
    def __init__(self, place: LogPlace) -> None:
        self._directory = place.directory
        self._seed = place.seed
        self._started = False
        self._meta_lost = False
        self._files = LogFiles(place, LsnIndex(0), b"")

    def run(self) -> LogFiles:
        numbers = log_files(self._directory)
        while numbers and not self._is_used(numbers[-1]):
            numbers.pop()
        if not numbers:
            raise self._damaged("there is no log")
        for file_seq in numbers[:-1]:
            self._read_file(file_seq, last=False)
        offset = self._read_file(numbers[-1], last=True)
        if self._meta_lost or not self._started:
            raise self._damaged("promises or history were lost to damage")
        path = log_path(self._directory, numbers[-1])
        self._files.resume(numbers[-1], os.open(path, os.O_RDWR), path.stat().st_size, offset)
        return self._files

    def _damaged(self, what: str) -> SegmentDamaged:
        return SegmentDamaged(f"{what} in {self._directory}: drop this segment, the volume has other copies")

    def _is_used(self, file_seq: int) -> bool:
        """Whether anything was ever recorded in this file (it may have been prepared, but not begun)."""
        if self._summary(file_seq) is not None:
            return True
        path = log_path(self._directory, file_seq)
        codec = HeaderCodec(file_seq, self._seed)
        with path.open("rb", buffering=0) as file:
            front = read_tolerant(file.fileno(), 0, FRONT_BYTES)
            if find_record(front, codec, 0) is not None:
                return True
            # A file that was not begun starts with zeros, or with a record from its life before.
            if front[:8] == bytes(8) or (front[:4] == MAGIC and front[:8] != codec.pattern):
                return False
            data = read_tolerant(file.fileno(), 0, path.stat().st_size)
        return find_record(data, codec, 0) is not None

    def _summary(self, file_seq: int) -> Summary | None:
        try:
            summary = Summary.decode(summary_path(self._directory, file_seq).read_bytes())
        except OSError:
            return None
        return summary if summary is not None and summary.file_seq == file_seq else None

    def _read_file(self, file_seq: int, *, last: bool) -> int:
        """Takes over one file's content; returns the offset where its log ends."""
        files = self._files
        files.file_seq, files.low = file_seq, None
        summary = self._summary(file_seq)
        position = 0
        if summary is not None:
            self._take_summary(summary)
            position = summary.upto
            if summary.final:
                return position
        path = log_path(self._directory, file_seq)
        fd = os.open(path, os.O_RDWR if last else os.O_RDONLY)
        try:
            data = read_tolerant(fd, position, path.stat().st_size - position)
            end = self._take_records(data, position, last=last)
            if last:
                self._settle(fd, data, position, end)
            return end
        finally:
            os.close(fd)

    def _take_summary(self, summary: Summary) -> None:
        files = self._files
        if not self._started:
            files.index = LsnIndex(summary.base)
        files.index.load(summary.file_seq, summary.extents, summary.low)
        files.index.cut(summary.end)
        files.index.advance(summary.end)
        files.index.trim(summary.base)
        files.meta, files.meta_no, files.low = summary.meta, summary.meta_no, summary.low
        self._started, self._meta_lost = True, False

    def _take_records(self, data: bytes, origin: int, *, last: bool) -> int:
        codec = HeaderCodec(self._files.file_seq, self._seed)
        end, limit = origin, content_end(data)
        for item in scan(data, codec, 0, origin, limit=limit):
            whole = isinstance(item, Found) and item.whole
            if not whole and last and not _proven(data, codec, item.offset, origin, limit):
                return end
            if isinstance(item, Gap):
                if item.next_offset is not None:
                    log.error("%s: damage in log file %x at %d", self._directory, codec.file_seq, item.offset)
                continue
            self._take_record(item)
            end = item.offset + _record_bytes(item)
        return end

    def _take_record(self, found: Found) -> None:
        files, header = self._files, found.header
        if not found.whole:
            log.error(
                "%s: damaged record in log file %x at %d, LSN %d",
                self._directory, files.file_seq, found.offset, header.lsn,
            )  # fmt: skip
        if header.kind == Kind.STATE:
            if found.whole:
                self._take_state(found)
            return
        if header.meta_no > files.meta_no:
            self._meta_lost = True
        if header.kind == Kind.DATA and found.whole:
            files.index.append(header.lsn, header.length, files.file_seq, found.offset, _record_bytes(found))
        elif header.kind == Kind.DATA:
            files.index.cut(header.lsn)
            files.index.advance(header.lsn + header.length)
        elif header.kind == Kind.REPAIR and found.whole:
            files.index.repair(header.lsn, header.length, files.file_seq, found.offset, _record_bytes(found))

    def _take_state(self, found: Found) -> None:
        files, end = self._files, found.header.lsn
        base, meta = decode_state(found.payload)
        if not self._started:
            files.index = LsnIndex(base, end)
            files.index.advance(end)
            self._started = True
        if end < files.index.end:
            files.low = end if files.low is None else min(files.low, end)
            files.index.cut(end)
        files.index.advance(end)
        files.index.trim(base)
        files.meta, files.meta_no = meta, found.header.meta_no
        self._meta_lost = False

    def _settle(self, fd: int, data: bytes, origin: int, end: int) -> None:
        """Makes sure that the tail is on disk as it was read, and that nothing follows it.

        The tail is written once more: after a failed sync the operating system may hold pages that it
        believes to be written. Remains of a torn batch are zeroed, so that they never follow a new record.
        """
        write_all(fd, memoryview(data)[: end - origin], origin)
        codec = HeaderCodec(self._files.file_seq, self._seed)
        if data.find(codec.pattern, end - origin, content_end(data)) >= 0:
            log.warning("%s: torn tail in log file %x at %d cut", self._directory, codec.file_seq, end)
            write_zeros(fd, end, origin + len(data))
        os.fdatasync(fd)


def _proven(data: bytes, codec: HeaderCodec, offset: int, origin: int, limit: int) -> bool:
    """Whether a later record shows that the bytes at `offset` had been synced before it was written."""
    later = find_record(data, codec, offset + 1 - origin, limit)
    if later is None:
        return False
    items = scan(data, codec, later, origin, check=False, limit=limit)
    return any(isinstance(item, Found) and item.header.batch > offset for item in items)


def _record_bytes(found: Found) -> int:
    return HEADER_BYTES + len(found.payload)
