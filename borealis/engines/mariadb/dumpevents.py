"""Events that are not in the log, which a primary makes up for its replica, and the format description as a
replica is sent it.

Owns their bytes. Never: when they are sent (see `dump`).
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from borealis.engines.base import Lsn
from borealis.engines.mariadb.binlog import CHECKSUM_BYTES, HEADER_BYTES, EventType, without_in_use
from borealis.engines.mariadb.gtid import Gtid
from borealis.engines.mariadb.queries import UPSTREAM_SERVER_ID

_HEADER: Final = struct.Struct("<IBIIIH")
_ARTIFICIAL: Final = 0x20
"""Flag: the event stands in no file."""
_FILE_START: Final = 4
_ANY_POSITION: Final = 0xFFFF_FFFF
"""A replica compares the position in a heartbeat with how far it is, and must not be further."""
_CREATED: Final = slice(HEADER_BYTES + 52, HEADER_BYTES + 56)
_END_LOG_POS: Final = slice(13, 17)


def _event(kind: EventType, body: bytes, end_log_pos: int = 0, flags: int = _ARTIFICIAL) -> bytes:
    length = HEADER_BYTES + len(body) + CHECKSUM_BYTES
    event = _HEADER.pack(0, kind, UPSTREAM_SERVER_ID, length, end_log_pos, flags) + body
    return event + zlib.crc32(event).to_bytes(CHECKSUM_BYTES, "little")


def file_name(lsn: Lsn) -> str:
    """What a replica is told the file is called that begins at this position of the log. Its status then
    shows where it is: the position in the name, plus the offset, less 4."""
    return f"borealis.{lsn:016x}"


def rotate(name: str) -> bytes:
    """What follows is of the file of this name, from its start."""
    return _event(EventType.ROTATE, struct.pack("<Q", _FILE_START) + name.encode())


def heartbeat(name: str) -> bytes:
    """We are here; `name`: of the last `rotate`."""
    return _event(EventType.HEARTBEAT, name.encode(), _ANY_POSITION, 0)


def gtid_list(gtid: Gtid | None) -> bytes:
    """The groups that the replica has already."""
    if gtid is None:
        return _event(EventType.GTID_LIST, bytes(4))
    body = struct.pack("<IIIQ", 1, gtid.domain, gtid.server_id, gtid.sequence)
    return _event(EventType.GTID_LIST, body)


def format_in_file(event: bytes) -> bytes:
    """The format description at the start of a file that is read from its start."""
    return without_in_use(event)


def format_at_connect(event: bytes) -> bytes:
    """The format description for a replica that goes on in the middle of a file. With the time of the
    writer's start in it, the replica would take the writer for just started, and drop temporary tables."""
    changed = bytearray(without_in_use(event)[:-CHECKSUM_BYTES])
    changed[_CREATED] = bytes(4)
    changed[_END_LOG_POS] = bytes(4)
    return bytes(changed) + zlib.crc32(changed).to_bytes(CHECKSUM_BYTES, "little")
