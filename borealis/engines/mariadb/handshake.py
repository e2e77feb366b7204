"""The log-in of a client to a server of the MySQL protocol, from the server's side, without I/O.

Owns the greeting, the check of `mysql_native_password` proofs, and the change to that method for a client
that begins with another one. It knows one user; it never sees a password on the wire, and never logs one.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from enum import Enum
from typing import Final

from borealis.engines.mariadb.protocol import (
    ACCESS_DENIED,
    OK,
    ProtocolError,
    error,
    take_length_encoded,
    take_terminated,
)

METHOD: Final = b"mysql_native_password"
_CHALLENGE_BYTES: Final = 20
_FIRST_PART: Final = 8

_LONG_PASSWORD, _FOUND_ROWS, _LONG_FLAG, _CONNECT_WITH_DB = 0x1, 0x2, 0x4, 0x8
_PROTOCOL_41, _SSL, _TRANSACTIONS, _SECURE_CONNECTION = 0x200, 0x800, 0x2000, 0x8000
_PLUGIN_AUTH: Final = 0x80000
_OFFERED: Final = (
    _LONG_PASSWORD | _FOUND_ROWS | _LONG_FLAG | _CONNECT_WITH_DB | _PROTOCOL_41
    | _TRANSACTIONS | _SECURE_CONNECTION | _PLUGIN_AUTH
)  # fmt: skip
_REQUIRED: Final = _PROTOCOL_41 | _SECURE_CONNECTION
_ANSWER: Final = struct.Struct("<IIB23x")
_UTF8: Final = 45


def native_proof(password: str, challenge: bytes) -> bytes:
    """What a client that knows the password answers to a challenge."""
    once = hashlib.sha1(password.encode()).digest()
    twice = hashlib.sha1(once).digest()
    mask = hashlib.sha1(challenge + twice).digest()
    return bytes(a ^ b for a, b in zip(once, mask, strict=True))


class _State(Enum):
    ANSWER = "waiting for the client's answer to the greeting"
    PROOF = "waiting for a proof by the method that was asked for"
    DONE = "the client is known"
    REFUSED = "the client was turned away"


class ServerHandshake:
    """One log-in. Send `greeting()`, give each message to `receive`, and send what that returns."""

    def __init__(
        self, version: str, user: str, password: str, connection_id: int = 1, challenge: bytes | None = None
    ) -> None:
        self._version = version
        self._user = user.encode()
        self._connection_id = connection_id
        # No zero byte in it: clients take it for a C string.
        self._challenge = challenge or bytes(1 + secrets.randbelow(127) for _ in range(_CHALLENGE_BYTES))
        self._expected = native_proof(password, self._challenge)
        self._state = _State.ANSWER
        self._is_user = False

    @property
    def done(self) -> bool:
        """The client has shown that it knows the password."""
        return self._state is _State.DONE

    @property
    def refused(self) -> bool:
        """The client was told that it is not let in; end the connection."""
        return self._state is _State.REFUSED

    def greeting(self) -> bytes:
        """The first message of a connection."""
        return b"".join(
            (
                # Clients take the version behind this prefix; without it "10." would read as 1.
                b"\x0a5.5.5-" + self._version.encode() + b"\0",
                self._connection_id.to_bytes(4, "little"),
                self._challenge[:_FIRST_PART] + b"\0",
                struct.pack("<HBHH", _OFFERED & 0xFFFF, _UTF8, 2, _OFFERED >> 16),
                bytes((_CHALLENGE_BYTES + 1,)) + bytes(10),
                self._challenge[_FIRST_PART:] + b"\0" + METHOD + b"\0",
            )
        )

    def receive(self, message: bytes) -> bytes:
        """The client's next message; returns the answer. Raises ProtocolError."""
        if self._state is _State.PROOF:
            return self._check(message)
        if self._state is not _State.ANSWER:
            raise ProtocolError("a message after the log-in has ended")
        return self._on_answer(message)

    def _on_answer(self, message: bytes) -> bytes:
        if len(message) < _ANSWER.size:
            raise ProtocolError("an answer to the greeting that is too short")
        flags, _, _ = _ANSWER.unpack_from(message)
        if flags & _SSL and len(message) == _ANSWER.size:
            raise ProtocolError(
                "the client asks for TLS, which is not offered on this machine's own addresses"
            )
        if flags & _REQUIRED != _REQUIRED:
            raise ProtocolError("a client of a protocol older than 4.1")
        user, at = take_terminated(message, _ANSWER.size)
        proof, at = take_length_encoded(message, at)
        if flags & _CONNECT_WITH_DB:
            _, at = take_terminated(message, at)
        method = message[at:].split(b"\0", 1)[0] if flags & _PLUGIN_AUTH else METHOD
        self._is_user = hmac.compare_digest(user, self._user)
        if method != METHOD:
            self._state = _State.PROOF
            return b"\xfe" + METHOD + b"\0" + self._challenge + b"\0"
        return self._check(proof)

    def _check(self, proof: bytes) -> bytes:
        if hmac.compare_digest(proof, self._expected) and self._is_user:
            self._state = _State.DONE
            return OK
        self._state = _State.REFUSED
        return error(ACCESS_DENIED, "access denied: only the local engine is served here")
