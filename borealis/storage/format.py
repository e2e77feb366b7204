"""Records of log files: their bytes on disk, and how to find them again.

Owns the layout and its checksums. It opens no file and decides nothing: a scan reports what is whole and
what is not.

FORMAT (log file <seq, 8 hex digits>.log, version 1; big-endian; a file is prewritten with zeros, or recycled)
    A file is a row of records without gaps, from offset 0. Each has a header of 48 bytes, then its payload:
      magic     4s   b"BLG1"
      file_seq  u32  number of the file: what a recycled file held before has another number
      hcrc      u32  crc32 of the other 44 bytes, seeded with the crc32 of the volume's name
      kind      u8   1 STATE, 2 DATA, 3 REPAIR, 4 PAD
      flags     u8   0
      reserved  u16  0
      meta_no   u32  number of STATE changes made to the segment so far (a lost STATE record is noticed by it)
      batch     u32  offset where the batch of this record begins: all below it was synced before
      length    u32  payload bytes
      dcrc      u32  crc32 of the payload
      term      u64  DATA: the term it was appended under; STATE: the promised term
      lsn       u64  DATA, REPAIR: LSN of the first byte; STATE: the segment's end after it
    STATE   payload = base u64, then an opaque JSON object (promised term, history, …). Every file
            begins with one, and every change of it (promise, history, cut, trim) writes one; always twice,
            at least 4 KiB apart (a PAD between), so that one bad sector takes only one. Bytes at and beyond
            its lsn are cut.
    DATA    log bytes, always at the segment's end.
    REPAIR  log bytes that replace damaged ones below the end.
    PAD     zeros.
    The log ends at the first record that is not whole and that no later whole record (its batch field) proves
    to have been synced. A record that is not whole but proven to be synced is corrupt.

FORMAT (summary <seq>.idx of a log file, version 1; a cache: without it the file is scanned)
    "BLX1", crc32 u32 of the rest, JSON length u32, JSON {file_seq, upto, final, meta_no, base, end, low,
    meta}, then per extent start u64, end u64, offset u32, span u32, repair u32.
    upto: offset that the summary covers; final: nothing follows it; low: lowest LSN to which a STATE of this
    file cut the log, or null.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

MAGIC = b"BLG1"
HEADER_BYTES = 48
PAD_BYTES = 4096
RECORD_BYTES_MAX = 32 * 1024 * 1024
"""No payload is longer, in bytes: a longer one in a header is damage."""

_FRONT = struct.Struct(">4sII")
_REST = struct.Struct(">BBHIIIIQQ")
_BASE = struct.Struct(">Q")
_SUMMARY = struct.Struct(">4sII")
_EXTENT = struct.Struct(">QQIII")
_ZEROS = memoryview(bytes(1024 * 1024))
_CRC_BYTES = struct.Struct(">I")

Buffer = bytes | bytearray | memoryview


class Kind(IntEnum):
    STATE = 1
    DATA = 2
    REPAIR = 3
    PAD = 4


class Header(NamedTuple):
    """A whole record header. Offsets are bytes in the file."""

    kind: int
    meta_no: int
    batch: int
    length: int
    dcrc: int
    term: int
    lsn: int


def volume_seed(volume: str) -> int:
    """The seed of header checksums: a record of another volume is never taken for one of this."""
    return zlib.crc32(volume.encode())


class HeaderCodec:
    """Packs and checks the headers of one file."""

    def __init__(self, file_seq: int, seed: int) -> None:
        self.file_seq = file_seq
        self.pattern = MAGIC + file_seq.to_bytes(4, "big")
        self.seed = zlib.crc32(self.pattern, seed)
        """What the checksum of each header begins with."""

    def pack(
        self, kind: Kind, *, meta_no: int, batch: int, length: int, dcrc: int, term: int, lsn: int
    ) -> bytes:
        rest = _REST.pack(kind, 0, 0, meta_no, batch, length, dcrc, term, lsn)
        return b"".join((self.pattern, _CRC_BYTES.pack(zlib.crc32(rest, self.seed)), rest))

    def unpack(self, buffer: Buffer, at: int) -> Header | None:
        """The header at `at`, or None when there is no whole one."""
        if at + HEADER_BYTES > len(buffer) or buffer[at : at + 8] != self.pattern:
            return None
        (hcrc,) = _CRC_BYTES.unpack_from(buffer, at + 8)
        if zlib.crc32(buffer[at + 12 : at + HEADER_BYTES], self.seed) != hcrc:
            return None
        kind, _, _, meta_no, batch, length, dcrc, term, lsn = _REST.unpack_from(buffer, at + 12)
        if length > RECORD_BYTES_MAX:
            return None
        return Header(kind, meta_no, batch, length, dcrc, term, lsn)


class Found(NamedTuple):
    """A record met by a scan. `whole`: its payload matches its checksum (only looked at when asked for)."""

    offset: int
    header: Header
    payload: memoryview
    whole: bool


class Gap(NamedTuple):
    """Bytes [offset, next_offset) hold no record that can be read; without `next_offset` none follows."""

    offset: int
    next_offset: int | None


def scan(
    buffer: bytes,
    codec: HeaderCodec,
    at: int = 0,
    origin: int = 0,
    *,
    check: bool = True,
    limit: int | None = None,
) -> Iterator[Found | Gap]:
    """Walks the records in `buffer`, which lies at offset `origin` of its file, from index `at`.

    From `limit` on (see `content_end`) no record begins. Stops at the end of the buffer, or with a final
    `Gap` whose `next_offset` is None. A record that the buffer cuts off counts as a gap.
    """
    view = memoryview(buffer)
    size = len(buffer)
    while at < size:
        header = codec.unpack(buffer, at)
        body = at + HEADER_BYTES
        if header is not None and body + header.length <= size:
            payload = view[body : body + header.length]
            yield Found(origin + at, header, payload, not check or zlib.crc32(payload) == header.dcrc)
            at = body + header.length
            continue
        later = find_record(buffer, codec, at + 1, limit)
        yield Gap(origin + at, None if later is None else origin + later)
        if later is None:
            return
        at = later


def find_record(buffer: bytes, codec: HeaderCodec, at: int, limit: int | None = None) -> int | None:
    """The index of the first whole header at or after `at` whose payload lies inside the buffer, too."""
    while (at := buffer.find(codec.pattern, at, limit)) >= 0:
        header = codec.unpack(buffer, at)
        if header is not None and at + HEADER_BYTES + header.length <= len(buffer):
            return at
        at += 1
    return None


def content_end(buffer: bytes) -> int:
    """An index from which on the buffer holds zeros only: comparing is much quicker than searching."""
    view, end = memoryview(buffer), len(buffer)
    while end > 0:
        start = max(0, end - len(_ZEROS))
        if view[start:end] != _ZEROS[: end - start]:
            break
        end = start
    return end


def encode_state(base: int, meta: bytes) -> bytes:
    """The payload of a STATE record."""
    return _BASE.pack(base) + meta


def decode_state(payload: Buffer) -> tuple[int, bytes]:
    """(base, meta) of a STATE payload."""
    return _BASE.unpack_from(payload)[0], bytes(payload[_BASE.size :])


class ExtentRow(NamedTuple):
    """Log bytes [start, end) are in the records from `offset` on, within `span` bytes of one file."""

    start: int
    end: int
    offset: int
    span: int
    repair: int


@dataclass(frozen=True)
class Summary:
    """What a log file holds up to the offset `upto`; see FORMAT."""

    file_seq: int
    upto: int
    final: bool
    meta_no: int
    base: int
    end: int
    low: int | None
    meta: bytes
    extents: tuple[ExtentRow, ...]

    def encode(self) -> bytes:
        head = json.dumps(
            {
                "file_seq": self.file_seq,
                "upto": self.upto,
                "final": self.final,
                "meta_no": self.meta_no,
                "base": self.base,
                "end": self.end,
                "low": self.low,
                "meta": self.meta.decode(),
            }
        ).encode()
        body = b"".join((head, *(_EXTENT.pack(*row) for row in self.extents)))
        crc = zlib.crc32(body, zlib.crc32(len(head).to_bytes(4, "big")))
        return _SUMMARY.pack(b"BLX1", crc, len(head)) + body

    @classmethod
    def decode(cls, data: bytes) -> Summary | None:
        """None when the summary is not whole or of another version."""
        if len(data) < _SUMMARY.size:
            return None
        magic, crc, head_bytes = _SUMMARY.unpack_from(data)
        body = data[_SUMMARY.size :]
        if magic != b"BLX1" or zlib.crc32(body, zlib.crc32(head_bytes.to_bytes(4, "big"))) != crc:
            return None
        head = json.loads(body[:head_bytes])
        rows = tuple(ExtentRow(*row) for row in _EXTENT.iter_unpack(body[head_bytes:]))
        head["meta"] = head["meta"].encode()
        return cls(**head, extents=rows)
