"""The format of a binary log (binlog), as far as Borealis looks into it.

Owns event headers, the few events whose content matters, and where event groups end: pure functions of
bytes, and `UnitReader`, which cuts a stream of log into units wherever the stream itself was cut. It never
changes an event, and never looks at rows.

The volume's log is the concatenation of binlog files, byte for byte: 4 magic bytes, a format description
event, then events; behind the last one, the next file begins with its magic bytes. A *group* is what one
transaction or one stand-alone statement has written. A *unit* is a group, or what stands between groups:
a file's magic bytes, or an event that belongs to no group (format description, GTID list, checkpoint,
rotate, stop).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from enum import Enum, IntEnum
from typing import Final, NamedTuple, Self

from borealis.engines.base import EngineError, Lsn
from borealis.engines.mariadb.gtid import Gtid

MAGIC: Final = b"\xfebin"
HEADER_BYTES: Final = 19
CHECKSUM_BYTES: Final = 4
EVENT_BYTES_MAX: Final = 0xFFFF_FFFF
IN_USE: Final = 0x1
"""Flag of a format description: the file is being written. Not covered by the event's checksum."""
LOOK_BYTES: Final = 2048
"""An event that ends a group by its text, and each other whose content matters, is not longer than this."""

_FLAGS_OFFSET: Final = 17
_FILE_START_BYTES: Final = len(MAGIC) + HEADER_BYTES
_HEADER: Final = struct.Struct("<IBIIIH")
TYPE_AND_LENGTH: Final = struct.Struct("<4xB4xI")
"""Of an event, from its header."""
_GTID: Final = struct.Struct("<QIB")
_QUERY: Final = struct.Struct("<IIBHH")
_STANDALONE: Final = 0x1
_CREATED_OFFSET: Final = HEADER_BYTES + 2 + 50
_POST_LENGTHS_OFFSET: Final = _CREATED_OFFSET + 4 + 1


class BinlogError(EngineError):
    """The bytes are not those of a binary log, or of none that is known here."""

    code = "BinlogDamaged"


class EventType(IntEnum):
    """Types of events that are told apart here; there are more."""

    QUERY = 2
    STOP = 3
    ROTATE = 4
    INTVAR = 5
    RAND = 13
    USER_VAR = 14
    FORMAT_DESCRIPTION = 15
    XID = 16
    BEGIN_LOAD_QUERY = 17
    INCIDENT = 26
    HEARTBEAT = 27
    XA_PREPARE = 38
    ANNOTATE_ROWS = 160
    BINLOG_CHECKPOINT = 161
    GTID = 162
    GTID_LIST = 163
    START_ENCRYPTION = 164


_PRELUDE: Final = frozenset(
    (
        EventType.INTVAR,
        EventType.RAND,
        EventType.USER_VAR,
        EventType.BEGIN_LOAD_QUERY,
        EventType.ANNOTATE_ROWS,
    )
)
"""What stands before the one statement of a stand-alone group."""
_GROUP_ENDS: Final = frozenset((EventType.XID, EventType.XA_PREPARE))
_NEVER_IN_GROUP: Final = frozenset(
    (
        EventType.GTID,
        EventType.FORMAT_DESCRIPTION,
        EventType.GTID_LIST,
        EventType.BINLOG_CHECKPOINT,
        EventType.ROTATE,
        EventType.STOP,
        EventType.START_ENCRYPTION,
    )
)
_MATTERS_IN_TRANSACTION: Final = _NEVER_IN_GROUP | _GROUP_ENDS | {EventType.QUERY}
_ENDING_TEXTS: Final = (b"COMMIT", b"ROLLBACK")
_ENDING_STARTS: Final = (b"XA COMMIT", b"XA ROLLBACK")


class EventHeader(NamedTuple):
    """What each event begins with."""

    timestamp: int
    """Unix time at which the statement began; not ordered."""
    type: int
    server_id: int
    length: int
    """Of the whole event with header and checksum, in bytes."""
    end_log_pos: int
    """Where the event ends in its file, modulo 2**32."""
    flags: int

    @classmethod
    def parse(cls, data: bytes | memoryview, at: int = 0) -> Self:
        """The header at this offset of `data`. Raises BinlogError for a length that no event has."""
        header = cls(*_HEADER.unpack_from(data, at))
        if header.length < HEADER_BYTES:
            raise BinlogError(f"an event of {header.length} bytes: expected at least {HEADER_BYTES}")
        return header


class GtidEvent(NamedTuple):
    """What opens a group."""

    gtid: Gtid
    standalone: bool
    """The group ends with its first statement; otherwise with a commit, rollback or prepare."""


def parse_gtid(event: bytes | memoryview) -> GtidEvent:
    """The content of a GTID event (the first 32 bytes are enough). Raises BinlogError."""
    header = EventHeader.parse(event)
    if header.type != EventType.GTID or len(event) < HEADER_BYTES + _GTID.size:
        raise BinlogError(f"an event of type {header.type} where a GTID event was expected")
    sequence, domain, flags = _GTID.unpack_from(event, HEADER_BYTES)
    return GtidEvent(Gtid(domain, header.server_id, sequence), bool(flags & _STANDALONE))


class FormatDescription(NamedTuple):
    """What a file says of its own format."""

    version: int
    server_version: str
    checksum: int
    """Algorithm: 0 none, 1 CRC-32."""


def parse_format_description(event: bytes | memoryview) -> FormatDescription:
    """The content of a whole format description event. Raises BinlogError."""
    header = EventHeader.parse(event)
    if header.type != EventType.FORMAT_DESCRIPTION or len(event) != header.length:
        raise BinlogError(f"an event of type {header.type} where a format description was expected")
    if (
        header.length <= _POST_LENGTHS_OFFSET + 1 + CHECKSUM_BYTES
        or event[_CREATED_OFFSET + 4] != HEADER_BYTES
    ):
        raise BinlogError("a format description that is not of binlog version 4")
    version = int.from_bytes(event[HEADER_BYTES : HEADER_BYTES + 2], "little")
    name = bytes(event[HEADER_BYTES + 2 : _CREATED_OFFSET]).rstrip(b"\0").decode("ascii", "replace")
    return FormatDescription(version, name, event[header.length - CHECKSUM_BYTES - 1])


def without_in_use(event: bytes) -> bytes:
    """A format description event as it is when its file is closed; its checksum holds for this one."""
    cleared = event[_FLAGS_OFFSET] & ~IN_USE
    return event[:_FLAGS_OFFSET] + bytes((cleared,)) + event[_FLAGS_OFFSET + 1 :]


def is_intact(event: bytes) -> bool:
    """True when the CRC-32 at the end of an event is that of its bytes."""
    if len(event) < HEADER_BYTES + CHECKSUM_BYTES:
        return False
    if event[4] == EventType.FORMAT_DESCRIPTION:
        event = without_in_use(event)
    return zlib.crc32(event[:-CHECKSUM_BYTES]) == int.from_bytes(event[-CHECKSUM_BYTES:], "little")


def begins_file(data: bytes | memoryview, at: int = 0) -> bool:
    """Whether a file begins at this offset; `data` holds 23 bytes from there on. An event's time can have the
    value of the magic bytes, so the format description behind them is looked at too."""
    if bytes(data[at : at + len(MAGIC)]) != MAGIC:
        return False
    header = _HEADER.unpack_from(data, at + len(MAGIC))
    return bool(header[1] == EventType.FORMAT_DESCRIPTION and header[4] == len(MAGIC) + header[3])


def query_text(event: bytes | memoryview) -> bytes:
    """The statement of a whole QUERY event. Raises BinlogError."""
    if len(event) < HEADER_BYTES + _QUERY.size + CHECKSUM_BYTES:
        raise BinlogError("a statement event that is too short")
    _, _, database, _, status = _QUERY.unpack_from(event, HEADER_BYTES)
    start = HEADER_BYTES + _QUERY.size + int(status) + int(database) + 1
    return bytes(event[start : len(event) - CHECKSUM_BYTES])


def look_bytes(header: EventHeader) -> int:
    """How many of an event's bytes must be there before it can be told what it does to its group.

    Raises BinlogError for a length that no such event has."""
    if header.type in (EventType.GTID, EventType.FORMAT_DESCRIPTION):
        if header.length > LOOK_BYTES:
            raise BinlogError(f"an event of type {header.type} that is {header.length} bytes long")
        return header.length
    if header.type == EventType.QUERY and header.length <= LOOK_BYTES:
        return header.length
    return HEADER_BYTES


class GroupState(Enum):
    """Where in a group an event stands."""

    NONE = "between groups"
    STANDALONE = "in a group that ends with its first statement"
    TRANSACTION = "in a group that ends with a commit, rollback or prepare"


def after_event(state: GroupState, header: EventHeader, event: bytes | memoryview) -> GroupState:
    """The state behind an event: NONE means that a unit ends with it. `event`: at least `look_bytes` of it.

    Raises BinlogError for an event that cannot stand there.
    """
    if header.type in _NEVER_IN_GROUP and state is not GroupState.NONE:
        raise BinlogError(f"an event of type {header.type} inside an event group")
    if header.type == EventType.GTID:
        return GroupState.STANDALONE if parse_gtid(event).standalone else GroupState.TRANSACTION
    if state is GroupState.STANDALONE:
        return state if header.type in _PRELUDE else GroupState.NONE
    if state is GroupState.TRANSACTION:
        return GroupState.NONE if _ends_transaction(header, event) else state
    return GroupState.NONE


def _ends_transaction(header: EventHeader, event: bytes | memoryview) -> bool:
    if header.type != EventType.QUERY:
        return header.type in _GROUP_ENDS
    if header.length > LOOK_BYTES:
        return False
    text = query_text(event)
    return text in _ENDING_TEXTS or text.startswith(_ENDING_STARTS)


def _plain_bytes(view: memoryview, at: int) -> int:
    """Length of the whole events at this offset that neither end a transaction nor must not be in one: rows,
    mostly. A short cut; the first one that is not plain, or not whole, is looked at in full."""
    start, end = at, len(view) - HEADER_BYTES
    while at <= end:
        kind, length = TYPE_AND_LENGTH.unpack_from(view, at)
        if kind in _MATTERS_IN_TRANSACTION or length < HEADER_BYTES or at + length > len(view):
            break
        at += length
    return at - start


def _whole_transaction(view: memoryview, at: int) -> tuple[int, Gtid] | None:
    """Length and id of the group at this offset, if it lies here as a whole and is a transaction of rows that
    ends with XID: most are. Another short cut."""
    if len(view) - at < HEADER_BYTES + _GTID.size or view[at] == MAGIC[0]:
        return None
    kind, length = TYPE_AND_LENGTH.unpack_from(view, at)
    sequence, domain, flags = _GTID.unpack_from(view, at + HEADER_BYTES)
    if kind != EventType.GTID or length < HEADER_BYTES + _GTID.size or flags & _STANDALONE:
        return None
    last = at + length
    last += _plain_bytes(view, last)
    if len(view) - last < HEADER_BYTES:
        return None
    kind, length = TYPE_AND_LENGTH.unpack_from(view, last)
    if kind != EventType.XID or length < HEADER_BYTES or last + length > len(view):
        return None
    server = int.from_bytes(view[at + 5 : at + 9], "little")
    return last + length - at, Gtid(domain, server, sequence)


class UnitKind(Enum):
    """What a unit is."""

    MAGIC = "the magic bytes at a file's start"
    FORMAT = "a format description event"
    GROUP = "an event group"
    OTHER = "another event that belongs to no group"


class Unit(NamedTuple):
    """One unit of the log: bytes [start, end)."""

    kind: UnitKind
    start: Lsn
    end: Lsn
    gtid: Gtid | None = None
    """Of a group."""
    type: int = 0
    """Of the unit's first event; 0 for MAGIC."""


class UnitReader:
    """Cuts a log into units. It is fed the log piece by piece, wherever the pieces were cut, and keeps no
    more than the beginning of one event of it.

    `position` (in the constructor): a unit's start.
    """

    def __init__(self, position: Lsn) -> None:
        self._at = position
        """All before it was taken in, apart from `_rest`, which begins here."""
        self._rest = b""
        self._left = 0
        """Bytes of the event at `_at` still to come, when it was looked at already."""
        self._state = GroupState.NONE
        self._after = GroupState.NONE
        """The state behind that event."""
        self._first: Unit | None = None
        """The unit in progress; its end is not known yet."""
        self._settled = position

    @property
    def position(self) -> Lsn:
        """The log is wanted from here on."""
        return self._at + len(self._rest)

    @property
    def settled(self) -> Lsn:
        """End of the last whole unit."""
        return self._settled

    def feed(self, data: bytes | memoryview) -> Iterator[Unit]:
        """Go on with the bytes at `position`; yields the units that end in them. The result must be used up
        before the next call. Raises BinlogError; the reader is of no use then."""
        if self._rest:
            data = self._rest + bytes(data)
            self._rest = b""
        view = memoryview(data)
        at = 0
        while at < len(view):
            if not self._left and self._state is GroupState.NONE:
                whole = _whole_transaction(view, at)
                if whole is not None:
                    start = self._at
                    at += whole[0]
                    self._at = self._settled = start + whole[0]
                    yield Unit(UnitKind.GROUP, start, self._at, whole[1], EventType.GTID)
                    continue
            if self._left:
                taken = min(self._left, len(view) - at)
                self._left -= taken
            else:
                if self._state is GroupState.TRANSACTION:
                    passed = _plain_bytes(view, at)
                    at += passed
                    self._at += passed
                taken = self._begin(view, at)
                if not taken:
                    self._rest = bytes(view[at:])
                    return
            at += taken
            self._at += taken
            if not self._left:
                self._state = self._after
                if self._state is GroupState.NONE and self._first is not None:
                    unit, self._first = self._first._replace(end=self._at), None
                    self._settled = self._at
                    yield unit

    def _begin(self, view: memoryview, at: int) -> int:
        """Look at the event (or the file) that begins at this offset; how many bytes are taken. 0: too few
        are there."""
        room = len(view) - at
        if self._state is GroupState.NONE and view[at] == MAGIC[0]:
            if room < _FILE_START_BYTES:
                return 0
            if begins_file(view, at):
                self._first = Unit(UnitKind.MAGIC, self._at, self._at)
                return len(MAGIC)
        if room < HEADER_BYTES:
            return 0
        header = EventHeader.parse(view, at)
        if room < look_bytes(header):
            return 0
        event = view[at : at + min(room, header.length)]
        self._after = after_event(self._state, header, event)
        if self._state is GroupState.NONE:
            self._first = self._unit(header, event)
        taken = len(event)
        self._left = header.length - taken
        return taken

    def _unit(self, header: EventHeader, event: memoryview) -> Unit:
        if header.type == EventType.GTID:
            return Unit(UnitKind.GROUP, self._at, self._at, parse_gtid(event).gtid, header.type)
        kind = UnitKind.FORMAT if header.type == EventType.FORMAT_DESCRIPTION else UnitKind.OTHER
        return Unit(kind, self._at, self._at, None, header.type)
