"""PostgreSQL's wire protocol, as far as replication needs it: framing, results, replication messages.

Owns byte layouts (protocol version 3; chapters "Message Formats" and "Streaming Replication Protocol" of the
manual). Never: sockets, and what to answer to what (see `walsender`).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence

from borealis.engines.base import EngineError

PROTOCOL_3 = 196608
SSL_REQUEST, GSSENC_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102
MESSAGE_BYTES_MAX = 1 << 20
STARTUP_BYTES_MAX = 10_000
OID_INT4, OID_INT8, OID_TEXT = 23, 20, 25

WAL_DATA = struct.Struct(">cQQQ")
"""'w', start of the data, the server's end of log, the server's clock."""
KEEPALIVE = struct.Struct(">cQQB")
"""'k', the server's end of log, the server's clock, 1: answer at once."""
STANDBY_STATUS = struct.Struct(">cQQQQB")
"""'r', written, flushed, applied, the client's clock, 1: answer at once."""
STANDBY_FEEDBACK = struct.Struct(">cQIIII")
"""'h', the client's clock, xmin, its epoch, catalog xmin, its epoch."""

_EPOCH_US = 946_684_800_000_000
"""2000-01-01, PostgreSQL's epoch, in Unix microseconds."""


class ProtocolError(EngineError):
    """The other side does not speak the protocol; the connection is of no more use."""

    code = "ProtocolError"


def clock_us() -> int:
    """The time as replication messages carry it: microseconds since 2000."""
    return time.time_ns() // 1000 - _EPOCH_US


def message(kind: bytes, body: bytes = b"") -> bytes:
    """One message: type, length (which counts itself), body."""
    return kind + (len(body) + 4).to_bytes(4, "big") + body


READY = message(b"Z", b"I")
AUTHENTICATION_OK = message(b"R", struct.pack(">I", 0))


def startup(parameters: dict[str, str]) -> bytes:
    """A client's first message."""
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items()) + b"\0"
    return struct.pack(">II", 8 + len(body), PROTOCOL_3) + body


def parse_startup(body: bytes) -> dict[str, str]:
    """The parameters of a client's first message."""
    words = body.split(b"\0")
    pairs = zip(words[::2], words[1::2], strict=False)
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, value in pairs if name}


def parameter_status(name: str, value: str) -> bytes:
    return message(b"S", f"{name}\0{value}\0".encode())


def error_response(sqlstate: str, text: str, severity: str = "ERROR") -> bytes:
    fields = (("S", severity), ("V", severity), ("C", sqlstate), ("M", text))
    return message(b"E", b"".join(f"{key}{value}\0".encode() for key, value in fields) + b"\0")


def error_text(body: bytes) -> str:
    """What an ErrorResponse says: SQLSTATE and message."""
    fields = {part[:1]: part[1:].decode(errors="replace") for part in bytes(body).split(b"\0") if part}
    return f"{fields.get(b'C', '')} {fields.get(b'M', '')}".strip()


def command_complete(tag: str) -> bytes:
    return message(b"C", tag.encode() + b"\0")


def rows(columns: Sequence[tuple[str, int]], values: Sequence[str | None]) -> bytes:
    """A result of one row, all values as text: RowDescription and DataRow."""
    described = struct.pack(">H", len(columns))
    for name, oid in columns:
        described += name.encode() + b"\0" + struct.pack(">IHIhiH", 0, 0, oid, -1, -1, 0)
    data = struct.pack(">H", len(values))
    for value in values:
        encoded = None if value is None else value.encode()
        data += struct.pack(">i", -1) if encoded is None else struct.pack(">i", len(encoded)) + encoded
    return message(b"T", described) + message(b"D", data)


def wal_data(start: int, server_end: int, clock: int, data: bytes) -> bytes:
    """CopyData with a piece of the log."""
    length = 4 + WAL_DATA.size + len(data)
    return b"".join((b"d", length.to_bytes(4, "big"), WAL_DATA.pack(b"w", start, server_end, clock), data))


def keepalive(server_end: int, clock: int, reply: bool) -> bytes:
    return message(b"d", KEEPALIVE.pack(b"k", server_end, clock, reply))


def standby_feedback(xmin: int, catalog_xmin: int, clock: int) -> bytes:
    """CopyData with a standby's demand, from full (64 bit) transaction ids; 0: none."""
    low = 0xFFFFFFFF
    return message(
        b"d",
        STANDBY_FEEDBACK.pack(b"h", clock, xmin & low, xmin >> 32, catalog_xmin & low, catalog_xmin >> 32),
    )


class MessageReader:
    """Cuts a stream of bytes into messages. The first one of a connection has no type: it comes as kind
    b""."""

    def __init__(self, *, startup: bool) -> None:
        self._buffer = bytearray()
        self._startup = startup

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def startup_done(self) -> None:
        """Messages have a type from here on."""
        self._startup = False

    def next(self) -> tuple[bytes, bytes] | None:
        """The next whole message, or None. Raises ProtocolError for an impossible length."""
        head = 0 if self._startup else 1
        if len(self._buffer) < head + 4:
            return None
        length = int.from_bytes(self._buffer[head : head + 4], "big")
        if not 4 <= length <= (STARTUP_BYTES_MAX if self._startup else MESSAGE_BYTES_MAX):
            raise ProtocolError(
                f"a message of {length} bytes was announced; the other side does not speak PostgreSQL"
            )
        if len(self._buffer) < head + length:
            return None
        kind, body = bytes(self._buffer[:head]), bytes(self._buffer[head + 4 : head + length])
        del self._buffer[: head + length]
        return kind, body
