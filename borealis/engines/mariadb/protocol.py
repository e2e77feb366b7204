"""The MySQL wire protocol, as far as a replica needs it of its primary: packets, answers, rows.

Owns byte layouts (protocol version 10 with protocol 4.1 answers). Never: sockets, the log-in (see
`handshake`), and what to answer to what (see `queries`, `dump`).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from borealis.engines.base import EngineError

PIECE_MAX: Final = 0xFFFFFF
"""Largest piece of a message in one packet, bytes; a message of this length or more is continued."""
MESSAGE_BYTES_MAX: Final = 1 << 20
"""Largest message that a client is listened to, bytes."""
PREFIX_BYTES: Final = 4
"""Length and sequence number before each packet."""

COM_QUIT, COM_QUERY, COM_PING, COM_BINLOG_DUMP, COM_REGISTER_REPLICA = 0x01, 0x03, 0x0E, 0x12, 0x15

ACCESS_DENIED = (1045, "28000")
UNKNOWN_COMMAND = (1047, "08S01")
NOT_SERVED = (1235, "42000")
FATAL_READING_LOG = (1236, "HY000")
"""A replica that is told so stops for good; it needs a person, or to be made anew."""

_UTF8: Final = 45
_VAR_STRING: Final = 253
_AUTOCOMMIT: Final = 0x0002
_COLUMN: Final = struct.Struct("<BHIBHBH")


class ProtocolError(EngineError):
    """The other side does not speak the protocol; the connection is of no more use."""

    code = "ProtocolError"


def packets(sequence: int, message: bytes) -> bytes:
    """A message as it goes over the wire, the first packet with this sequence number."""
    if len(message) < PIECE_MAX:
        return prefix(len(message), sequence) + message
    out = bytearray()
    for number in range(len(message) // PIECE_MAX + 1):  # A last full piece is followed by an empty one.
        piece = message[number * PIECE_MAX : (number + 1) * PIECE_MAX]
        out += prefix(len(piece), sequence + number) + piece
    return bytes(out)


def prefix(length: int, sequence: int) -> bytes:
    """What stands before `length` bytes of one packet."""
    return (length | (sequence & 0xFF) << 24).to_bytes(PREFIX_BYTES, "little")


def length_encoded(data: bytes) -> bytes:
    """A string with its length before it."""
    size = len(data)
    if size < 0xFB:
        return bytes((size,)) + data
    if size < 1 << 16:
        return b"\xfc" + size.to_bytes(2, "little") + data
    return b"\xfd" + size.to_bytes(3, "little") + data


def take_length_encoded(data: bytes, at: int) -> tuple[bytes, int]:
    """The string at this offset, and the offset behind it. Raises ProtocolError."""
    first = data[at : at + 1]
    width = {b"\xfc": 2, b"\xfd": 3}.get(first, 0)
    if not first or (first[0] >= 0xFB and not width):
        raise ProtocolError("a string without a length")
    size = int.from_bytes(data[at + 1 : at + 1 + width], "little") if width else first[0]
    start = at + 1 + width
    if start + size > len(data):
        raise ProtocolError("a string that is longer than its message")
    return data[start : start + size], start + size


def take_terminated(data: bytes, at: int) -> tuple[bytes, int]:
    """The string up to the next zero byte, and the offset behind that. Raises ProtocolError."""
    end = data.find(b"\0", at)
    if end < 0:
        raise ProtocolError("a string without an end")
    return data[at:end], end + 1


OK: Final = b"\0\0\0" + struct.pack("<HH", _AUTOCOMMIT, 0)
_END_OF_ROWS: Final = b"\xfe" + struct.pack("<HH", 0, _AUTOCOMMIT)


def error(kind: tuple[int, str], text: str) -> bytes:
    """An error: its number and SQLSTATE, and what to do about it."""
    number, state = kind
    return b"\xff" + number.to_bytes(2, "little") + b"#" + state.encode() + text.encode()


def result(columns: Sequence[str], row: Sequence[str] | None) -> list[bytes]:
    """The messages of a result with one row, or with none; all values are text."""
    messages = [bytes((len(columns),))]
    for name in columns:
        fixed = _COLUMN.pack(_COLUMN.size - 1, _UTF8, 1024, _VAR_STRING, 0, 0, 0)
        messages.append(b"\x03def\0\0\0" + length_encoded(name.encode()) + b"\0" + fixed)
    messages.append(_END_OF_ROWS)
    if row is not None:
        messages.append(b"".join(length_encoded(value.encode()) for value in row))
    messages.append(_END_OF_ROWS)
    return messages


class PacketReader:
    """Cuts a client's bytes into messages. Clients' messages are small; a longer one is refused."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> tuple[int, bytes] | None:
        """The next whole message with its sequence number, or None. Raises ProtocolError."""
        if len(self._buffer) < PREFIX_BYTES:
            return None
        length = int.from_bytes(self._buffer[:3], "little")
        if length > MESSAGE_BYTES_MAX:
            raise ProtocolError(f"a message of {length} bytes; the other side does not speak MySQL")
        if len(self._buffer) < PREFIX_BYTES + length:
            return None
        sequence = self._buffer[3]
        message = bytes(self._buffer[PREFIX_BYTES : PREFIX_BYTES + length])
        del self._buffer[: PREFIX_BYTES + length]
        return sequence, message
