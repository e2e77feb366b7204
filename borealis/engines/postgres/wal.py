"""Names and places in PostgreSQL's write-ahead log.

Owns the arithmetic of WAL positions, file names and timeline history files, and reading of a data directory's
own WAL files. Never: what is inside a record (see `walscan`).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from borealis.engines.base import EngineError, TimelineSwitch

PAGE_BYTES = 8192
SEGMENT_BYTES = 16 * 1024 * 1024
_SEGMENTS_PER_ID = (1 << 32) // SEGMENT_BYTES
_WAL_FILE = re.compile(r"[0-9A-F]{24}(\.partial)?")
_HISTORY_FILE = re.compile(r"([0-9A-F]{8})\.history")


def format_lsn(lsn: int) -> str:
    """A position as PostgreSQL writes it, e.g. "0/2000028"."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parse_lsn(text: str) -> int:
    """The reverse of `format_lsn`. Raises EngineError for anything else."""
    match = re.fullmatch(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", text.strip())
    if not match:
        raise EngineError(f"{text!r} is not a WAL position; expected two hexadecimal numbers like 0/2000028")
    return int(match[1], 16) << 32 | int(match[2], 16)


def segment_start(lsn: int) -> int:
    """Position of the first byte of the WAL file that holds `lsn`."""
    return lsn - lsn % SEGMENT_BYTES


def file_name(timeline: int, lsn: int) -> str:
    """Name of the WAL file that holds the byte at `lsn`."""
    number = lsn // SEGMENT_BYTES
    return f"{timeline:08X}{number // _SEGMENTS_PER_ID:08X}{number % _SEGMENTS_PER_ID:08X}"


def is_wal_file(name: str) -> bool:
    """True for segments (also `.partial` ones) and timeline history files."""
    return bool(_WAL_FILE.fullmatch(name) or _HISTORY_FILE.fullmatch(name))


def read_wal(data_dir: Path, timeline: int, start: int, end: int) -> bytes:
    """Bytes [start, end) from the WAL files of one timeline; shorter where a file ends or is not there."""
    parts: list[bytes] = []
    position = start
    while position < end:
        stop = min(end, segment_start(position) + SEGMENT_BYTES)
        part = _read_file(data_dir / "pg_wal" / file_name(timeline, position), position, stop)
        parts.append(part)
        position += len(part)
        if position < stop:
            break
    return b"".join(parts)


def _read_file(path: Path, start: int, end: int) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(handle, end - start, start % SEGMENT_BYTES)
    finally:
        os.close(handle)


def newest_history(data_dir: Path, after: int) -> TimelineSwitch | None:
    """The lowest timeline above `after` of which a history file lies in the data directory."""
    found = [
        int(match[1], 16)
        for name in os.listdir(data_dir / "pg_wal")
        if (match := _HISTORY_FILE.fullmatch(name))
    ]
    later = [timeline for timeline in found if timeline > after]
    if not later:
        return None
    timeline = min(later)
    text = (data_dir / "pg_wal" / f"{timeline:08X}.history").read_text()
    return TimelineSwitch(timeline, switch_position(text), text)


def switch_position(history: str) -> int:
    """Where the timeline of this history file left its parent. Raises EngineError for an empty or damaged
    one."""
    lines = [line for line in history.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    fields = lines[-1].split(None, 2) if lines else []
    if len(fields) < 2 or not fields[0].isdigit():
        raise EngineError(f"timeline history {history!r} names no switch position; the file is damaged")
    return parse_lsn(fields[1])
