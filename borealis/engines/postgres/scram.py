"""SCRAM-SHA-256 password verifiers, as PostgreSQL stores them.

Owns their computation, so that a password never travels to the engine or into a record. Never stores
anything.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import stringprep
import unicodedata

ITERATIONS = 4096
SALT_BYTES = 16
_VERIFIER = re.compile(r"SCRAM-SHA-256\$\d+:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+")


def scram_verifier(password: str, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """The stored form of a password: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`."""
    salt = os.urandom(SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", _normalized(password), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${iterations}:{_b64(salt)}${_b64(stored_key)}:{_b64(server_key)}"


def is_verifier(text: str) -> bool:
    """True for text that has the form of a verifier (so the server takes it as it is)."""
    return bool(_VERIFIER.fullmatch(text))


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _normalized(password: str) -> bytes:
    """SASLprep (RFC 4013); a password that it prohibits is used as it is, which is what clients do too."""
    if password.isascii():
        return password.encode()
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char
        for char in password
        if not stringprep.in_table_b1(char)
    )
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    return (prepared if prepared and not _prohibited(prepared) else password).encode()


def _prohibited(text: str) -> bool:
    tables = (
        stringprep.in_table_c12,
        stringprep.in_table_c21_c22,
        stringprep.in_table_c3,
        stringprep.in_table_c4,
        stringprep.in_table_c5,
        stringprep.in_table_c6,
        stringprep.in_table_c7,
        stringprep.in_table_c8,
        stringprep.in_table_c9,
        stringprep.in_table_a1,
    )
    if any(table(char) for char in text for table in tables):
        return True
    if not any(stringprep.in_table_d1(char) for char in text):
        return False
    right_to_left_ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return not right_to_left_ends or any(stringprep.in_table_d2(char) for char in text)
