"""The protocol between a segment and its clients: drivers, control plane, other segments.

Owns the byte format and nothing else: what a message means is said here, what it does is in `segment`,
`opening`, `shipping`. It never touches a socket.

FORMAT (version 1)
    frame    u32 length of what follows (at most 16 MiB), u8 kind, payload; all integers big-endian
    control  the payload is one JSON object whose fields are those of the dataclass; unknown fields are
    ignored data     APPEND       u64 term, u64 start, u64 vdl, u64 sent_ns, u32 crc32 of the data, data
             ACK          u64 term, u64 end, u64 sent_ns, u8 flags (bit 0: the segment has subscribers)
             COMMIT       u64 term, u64 vdl
             SUBSCRIBE    u64 start
             DATA         u64 start, u64 log_term, u32 crc32 of the data, data
             READ         u64 start, u64 end, u64 term, u64 log_term
             BLOB_PUT, BLOB_DATA   u16 length of a JSON object, the object, bytes
The first message on a connection is HELLO; requests are answered in the order in which they came.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from borealis.log.blobs import BlobData, BlobInfo, BlobPut
from borealis.log.codec import NOTHING_CHECKED, ControlMessage, Health, Purpose, Reason
from borealis.log.frames import FRAME_BYTES_MAX, Buffer, FrameReader, Kind, frame
from borealis.log.history import TermHistory
from borealis.log.types import NOTHING_COMMITTED, CommitPoint, Lsn, WireError

__all__ = [
    "FRAME_BYTES_MAX",
    "PROTOCOL_VERSION",
    "Ack",
    "Append",
    "BlobData",
    "BlobDelete",
    "BlobGet",
    "BlobInfo",
    "BlobOk",
    "BlobPut",
    "Buffer",
    "Commit",
    "ControlMessage",
    "Create",
    "Created",
    "Data",
    "DataMessage",
    "Drop",
    "Dropped",
    "Error",
    "FrameReader",
    "Health",
    "Hello",
    "HelloReply",
    "History",
    "Kind",
    "Message",
    "NewTerm",
    "NewTermReply",
    "Purpose",
    "Read",
    "Reason",
    "Refused",
    "Status",
    "StatusReply",
    "Subscribe",
    "Trim",
    "Trimmed",
    "Vote",
    "VoteReply",
    "decode",
    "frame",
]

PROTOCOL_VERSION = 1

_APPEND = struct.Struct(">QQQQI")
_ACK = struct.Struct(">QQQB")
_COMMIT = struct.Struct(">QQ")
_SUBSCRIBE = struct.Struct(">Q")
_DATA = struct.Struct(">QQI")
_READ = struct.Struct(">QQQQ")


# -------------------- control messages


@dataclass(frozen=True, slots=True)
class Hello(ControlMessage):
    """Opens a connection to the segment of `volume`."""

    KIND: ClassVar[Kind] = Kind.HELLO
    volume: str
    purpose: Purpose
    version: int = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class HelloReply(ControlMessage):
    """`exists`: the node has a segment of the volume. Without one, only CREATE and STATUS make sense."""

    KIND: ClassVar[Kind] = Kind.HELLO_REPLY
    node: str
    az: str
    exists: bool


@dataclass(frozen=True, slots=True)
class Error(ControlMessage):
    """A request that failed for a reason outside the log's rules (storage full, no such blob, ...)."""

    KIND: ClassVar[Kind] = Kind.ERROR
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Create(ControlMessage):
    """Create a segment with a history of one entry, the seed. Repeating it is harmless."""

    KIND: ClassVar[Kind] = Kind.CREATE
    volume: str
    history: TermHistory


@dataclass(frozen=True, slots=True)
class Created(ControlMessage):
    """The segment exists; `end` is the end of its log, `promised` the term that it is in."""

    KIND: ClassVar[Kind] = Kind.CREATED
    promised: int = 0
    end: Lsn = 0


@dataclass(frozen=True, slots=True)
class Drop(ControlMessage):
    """Remove the segment and all that it holds."""

    KIND: ClassVar[Kind] = Kind.DROP


@dataclass(frozen=True, slots=True)
class Dropped(ControlMessage):
    KIND: ClassVar[Kind] = Kind.DROPPED


@dataclass(frozen=True, slots=True)
class Status(ControlMessage):
    """Ask how a segment stands. Changes nothing."""

    KIND: ClassVar[Kind] = Kind.STATUS


@dataclass(frozen=True, slots=True)
class StatusReply(ControlMessage):
    """What is on the segment's disk: [base, end), less `corrupt`, of the log that `history` names."""

    KIND: ClassVar[Kind] = Kind.STATUS_REPLY
    node: str
    az: str
    volume: str
    promised: int
    history: TermHistory
    base: Lsn
    end: Lsn
    vdl: CommitPoint = NOTHING_COMMITTED
    bytes_on_disk: int = 0
    corrupt: tuple[tuple[Lsn, Lsn], ...] = ()
    blobs: tuple[BlobInfo, ...] = ()
    subscribers: int = 0
    health: Health = NOTHING_CHECKED


@dataclass(frozen=True, slots=True)
class Vote(ControlMessage):
    """Promise `term` to `writer`: refuse every lower term from now on."""

    KIND: ClassVar[Kind] = Kind.VOTE
    term: int
    writer: str


@dataclass(frozen=True, slots=True)
class VoteReply(ControlMessage):
    """Granted: `promised` is the term asked for. `history` is cut at `end`: its last term names the log."""

    KIND: ClassVar[Kind] = Kind.VOTE_REPLY
    granted: bool
    promised: int
    history: TermHistory
    end: Lsn
    vdl: CommitPoint = NOTHING_COMMITTED


@dataclass(frozen=True, slots=True)
class NewTerm(ControlMessage):
    """Take over the leader's history, whose last entry is `term`, and cut the log where it parts from it."""

    KIND: ClassVar[Kind] = Kind.NEW_TERM
    term: int
    history: TermHistory


@dataclass(frozen=True, slots=True)
class NewTermReply(ControlMessage):
    """Ok: the segment's history is the leader's and its log reaches `end`. Else `promised` says why not."""

    KIND: ClassVar[Kind] = Kind.NEW_TERM_REPLY
    ok: bool
    promised: int
    history: TermHistory
    end: Lsn


@dataclass(frozen=True, slots=True)
class Refused(ControlMessage):
    """An APPEND was not taken; see Reason."""

    KIND: ClassVar[Kind] = Kind.REFUSED
    reason: Reason
    promised: int
    end: Lsn
    history: TermHistory


@dataclass(frozen=True, slots=True)
class History(ControlMessage):
    """To a subscriber: the history of the bytes that follow. It drops its own bytes beyond `agree_until`."""

    KIND: ClassVar[Kind] = Kind.HISTORY
    history: TermHistory


@dataclass(frozen=True, slots=True)
class BlobOk(ControlMessage):
    """The piece is stored (`size` bytes so far), or the blob is gone."""

    KIND: ClassVar[Kind] = Kind.BLOB_OK
    name: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class BlobGet(ControlMessage):
    """Answered with BLOB_DATA: at most `length` bytes of the blob from `offset`."""

    KIND: ClassVar[Kind] = Kind.BLOB_GET
    name: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class BlobDelete(ControlMessage):
    KIND: ClassVar[Kind] = Kind.BLOB_DELETE
    name: str


@dataclass(frozen=True, slots=True)
class Trim(ControlMessage):
    """Log bytes below `below` are not needed any more: a version of the volume stands there, and a complete
    record ends there or later, durably. A segment that lacks some of it, or its durability, does nothing."""

    KIND: ClassVar[Kind] = Kind.TRIM
    below: Lsn


@dataclass(frozen=True, slots=True)
class Trimmed(ControlMessage):
    """The log now starts at `base`."""

    KIND: ClassVar[Kind] = Kind.TRIMMED
    base: Lsn


# -------------------- data messages


@dataclass(frozen=True, slots=True)
class Append:
    """The leader of `term` writes `data` at `start`. Without data it is a heartbeat: acknowledged wherever
    the segment stands. `vdl` is what is durable by now (below the term's start: not known yet); `sent_ns` is
    the sender's clock and comes back in the ACK."""

    KIND: ClassVar[Kind] = Kind.APPEND
    term: int
    start: Lsn
    vdl: Lsn
    sent_ns: int
    data: bytes = b""

    def encode(self) -> bytes:
        head = _APPEND.pack(self.term, self.start, self.vdl, self.sent_ns, zlib.crc32(self.data))
        return frame(self.KIND, head, self.data)

    @classmethod
    def decode_payload(cls, payload: Buffer) -> Append:
        term, start, vdl, sent_ns, crc = _APPEND.unpack_from(payload)
        data = bytes(payload[_APPEND.size :])
        _check(cls.KIND, data, crc)
        return cls(term, start, vdl, sent_ns, data)


@dataclass(frozen=True, slots=True)
class Ack:
    """All bytes below `end` are on the segment's disk; it had promised nothing above `term` then."""

    KIND: ClassVar[Kind] = Kind.ACK
    term: int
    end: Lsn
    sent_ns: int
    has_subscribers: bool = False

    def encode(self) -> bytes:
        return frame(self.KIND, _ACK.pack(self.term, self.end, self.sent_ns, self.has_subscribers))

    @classmethod
    def decode_payload(cls, payload: Buffer) -> Ack:
        term, end, sent_ns, flags = _ACK.unpack(payload)
        return cls(term, end, sent_ns, bool(flags & 1))


@dataclass(frozen=True, slots=True)
class Commit:
    """All bytes below `vdl` in the log of `term` are durable. Not answered."""

    KIND: ClassVar[Kind] = Kind.COMMIT
    term: int
    vdl: Lsn

    def encode(self) -> bytes:
        return frame(self.KIND, _COMMIT.pack(self.term, self.vdl))

    @classmethod
    def decode_payload(cls, payload: Buffer) -> Commit:
        return cls(*_COMMIT.unpack(payload))


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Send HISTORY, COMMIT and the log from `start` on, for as long as the connection lives."""

    KIND: ClassVar[Kind] = Kind.SUBSCRIBE
    start: Lsn

    def encode(self) -> bytes:
        return frame(self.KIND, _SUBSCRIBE.pack(self.start))

    @classmethod
    def decode_payload(cls, payload: Buffer) -> Subscribe:
        return cls(*_SUBSCRIBE.unpack(payload))


@dataclass(frozen=True, slots=True)
class Data:
    """Log bytes from `start`, read under a history whose newest term is `log_term` (0: not said)."""

    KIND: ClassVar[Kind] = Kind.DATA
    start: Lsn
    data: bytes
    log_term: int = 0

    def encode(self) -> bytes:
        return frame(self.KIND, _DATA.pack(self.start, self.log_term, zlib.crc32(self.data)), self.data)

    @classmethod
    def decode_payload(cls, payload: Buffer) -> Data:
        start, log_term, crc = _DATA.unpack_from(payload)
        data = bytes(payload[_DATA.size :])
        _check(cls.KIND, data, crc)
        return cls(start, data, log_term)


@dataclass(frozen=True, slots=True)
class Read:
    """Answered with DATA from [start, end): shorter, or empty, where the segment does not hold it all.

    `term` not 0: only if the segment still has promised just that term. `log_term` not 0: only if the newest
    term of its history is still that one, so that bytes planned from an earlier STATUS cannot be another
    leader's.
    """

    KIND: ClassVar[Kind] = Kind.READ
    start: Lsn
    end: Lsn
    term: int = 0
    log_term: int = 0

    def encode(self) -> bytes:
        return frame(self.KIND, _READ.pack(self.start, self.end, self.term, self.log_term))

    @classmethod
    def decode_payload(cls, payload: Buffer) -> Read:
        return cls(*_READ.unpack(payload))


def _check(kind: Kind, data: bytes, crc: int) -> None:
    if zlib.crc32(data) != crc:
        raise WireError(
            f"a {kind.name} of {len(data)} bytes was damaged on its way: its checksum does not match"
        )


DataMessage: TypeAlias = Append | Ack | Commit | Subscribe | Data | Read | BlobPut | BlobData
Message: TypeAlias = ControlMessage | DataMessage

_CLASSES: dict[int, type[Message]] = {
    cls.KIND: cls
    for cls in (
        *(Hello, HelloReply, Error, Create, Created, Drop, Dropped, Status, StatusReply, Vote, VoteReply),
        *(NewTerm, NewTermReply, Append, Ack, Refused, Commit, Subscribe, History, Data, Read),
        *(BlobPut, BlobOk, BlobData, BlobGet, BlobDelete, Trim, Trimmed),
    )
}


def decode(kind: int, payload: Buffer) -> Message:
    """The message of a frame. Raises WireError: there is no such kind, or the payload is not of its form."""
    cls = _CLASSES.get(kind)
    if cls is None:
        raise WireError(f"there is no message of kind {kind} in protocol version {PROTOCOL_VERSION}")
    try:
        return cls.decode_payload(payload)
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise WireError(f"not a valid {Kind(kind).name}: {error!r}") from error
