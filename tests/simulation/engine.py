"""A toy engine's log: records with a length, zeros between them, frames as a driver would cut them.

Owns the format of the simulated log. A record is `A5 <u16 length> <body>`; a zero byte is padding. The log
starts at `LOG_START`; all positions are those of the volume.
"""

from __future__ import annotations

import random
import struct

from borealis.log.types import PAGE_BYTES

LOG_START = PAGE_BYTES
MARK = 0xA5
HEADER = struct.Struct(">BH")
ALIGNMENT = 8
SWITCH_BYTES = 4096
"""A log switch leaves the rest of so many bytes void."""


class BrokenLog(Exception):
    """The log holds something that no engine ever wrote."""


def make_record(rng: random.Random) -> bytes:
    size = rng.randrange(1, 60) if rng.random() < 0.8 else rng.randrange(60, 12000)
    return HEADER.pack(MARK, size) + rng.randbytes(size)


def last_record_end(log: bytes, begin: int = LOG_START, origin: int = LOG_START) -> int:
    """The end of the last complete record, or `begin`, scanning from the boundary `begin`; padding at the end
    counts as nothing. `log[0]` is the byte at `origin`. Raises BrokenLog."""
    position, complete, size = begin - origin, begin - origin, len(log)
    while position < size:
        if log[position] == 0:
            position += 1
            continue
        if log[position] != MARK:
            raise BrokenLog(f"byte {log[position]:#x} at {position + origin} is neither a record nor padding")
        if position + HEADER.size > size:
            break
        (_, length) = HEADER.unpack_from(log, position)
        if position + HEADER.size + length > size:
            break
        position += HEADER.size + length
        complete = position
    return complete + origin


def frame_ends(start: int, record_end: int, rng: random.Random) -> list[int]:
    """Where a driver cuts [start, record_end): here and there at page boundaries, and at the record's end."""
    boundary = (start // PAGE_BYTES + 1) * PAGE_BYTES
    ends = []
    while boundary < record_end:
        if rng.random() < 0.7:
            ends.append(boundary)
        boundary += PAGE_BYTES
    return [*ends, record_end]


def switch_point(log_end: int, complete: int, rng: random.Random) -> int:
    """S: where a promoted engine goes on whose log ends at `log_end` with its last record ending at
    `complete`."""
    if complete < log_end or rng.random() < 0.5:
        return complete
    if rng.random() < 0.5:
        return log_end + (-log_end) % ALIGNMENT
    return (log_end // SWITCH_BYTES + 1) * SWITCH_BYTES
