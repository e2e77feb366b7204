"""A replica's side of the wire protocol, for tests: it logs in, asks, and keeps what it is sent."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from borealis.engines.mariadb import protocol as p
from borealis.engines.mariadb.binlog import EventType
from borealis.engines.mariadb.handshake import METHOD, native_proof

CAPABILITIES = 0x1 | 0x200 | 0x8000 | 0x80000
SETTINGS = (
    "SET @master_heartbeat_period= 2000000000",
    "SET @master_binlog_checksum= @@global.binlog_checksum",
    "SET @mariadb_slave_capability=4",
    "SET @slave_connect_state='{gtid}'",
    "SET @slave_gtid_strict_mode=1",
)
MADE_UP = (EventType.ROTATE, EventType.FORMAT_DESCRIPTION, EventType.GTID_LIST, EventType.HEARTBEAT)


def command(code: int, body: bytes = b"") -> bytes:
    return p.packets(0, bytes((code,)) + body)


def query(sql: str) -> bytes:
    return command(p.COM_QUERY, sql.encode())


def dump_request(server_id: int = 9) -> bytes:
    return command(p.COM_BINLOG_DUMP, struct.pack("<IHI", 4, 0, server_id))


def login(greeting: bytes, user: str, password: str, method: bytes = METHOD) -> bytes:
    """The answer to a greeting."""
    at = greeting.index(0, 1) + 5
    challenge = greeting[at : at + 8] + greeting[at + 27 : at + 39]
    proof = native_proof(password, challenge) if method == METHOD else b"xyz"
    body = struct.pack("<IIB23x", CAPABILITIES, 1 << 24, 45) + user.encode() + b"\0"
    return p.packets(1, body + p.length_encoded(proof) + method + b"\0")


@dataclass
class ReplicaClient:
    """Takes what a server sends, checks packets and checksums, and keeps messages or events."""

    expected: int = 0
    """Sequence number of the next packet."""
    messages: list[bytes] = field(default_factory=list)
    dumping: bool = False
    events: list[bytes] = field(default_factory=list)
    size: int = 0
    """Of `log`."""
    error: str = ""
    _buffer: bytearray = field(default_factory=bytearray)
    _parts: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 4:
            length = int.from_bytes(self._buffer[:3], "little")
            if len(self._buffer) < 4 + length:
                return
            assert self._buffer[3] == self.expected & 0xFF
            self.expected += 1
            self._parts += self._buffer[4 : 4 + length]
            del self._buffer[: 4 + length]
            if length < p.PIECE_MAX:
                message, self._parts = bytes(self._parts), bytearray()
                self._on_message(message)

    def _on_message(self, message: bytes) -> None:
        if not self.dumping:
            self.messages.append(message)
        elif message[0] == 0xFF:
            self.error = message[9:].decode()
        else:
            assert message[0] == 0
            event = message[1:]
            assert int.from_bytes(event[9:13], "little") == len(event)
            assert zlib.crc32(event[:-4]) == int.from_bytes(event[-4:], "little")
            self.events.append(event)
            self.size += len(event) if event[4] not in MADE_UP else 0

    @property
    def whole(self) -> bool:
        """Nothing of an unfinished packet or message has come."""
        return not self._buffer and not self._parts

    @property
    def log(self) -> bytes:
        """All that was sent of groups."""
        return b"".join(event for event in self.events if event[4] not in MADE_UP)

    @property
    def file_names(self) -> list[str]:
        return [event[27:-4].decode() for event in self.events if event[4] == EventType.ROTATE]
