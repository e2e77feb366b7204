"""Passwords as MariaDB and MySQL store them for `mysql_native_password`.

Owns their computation, so that a password never travels to the engine or into a record. Never stores
anything.
"""

from __future__ import annotations

import hashlib
import re

_VERIFIER = re.compile(r"\*[0-9A-F]{40}")


def native_verifier(password: str) -> str:
    """The stored form of a password: `*` and 40 hexadecimal digits; the same password has always the same
    one."""
    once = hashlib.sha1(password.encode()).digest()
    return "*" + hashlib.sha1(once).hexdigest().upper()


def is_verifier(text: str) -> bool:
    """True for text that has the form of a verifier (so the server takes it as it is)."""
    return bool(_VERIFIER.fullmatch(text))
