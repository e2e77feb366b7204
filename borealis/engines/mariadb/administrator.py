"""The administrator's name and password on one instance.

Owns `administrator.json` and `start.sql` in the data directory, readable by the engine's user and root
only: made when the instance is prepared, made anew when somebody has shut the administrator out. Its
account is in `grants`. Never: a connection.

FORMAT (administrator.json, version 1): {"version": 1, "user": text, "password": text}
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import NamedTuple

from borealis.engines.mariadb.grants import ADMIN_PREFIX, administrator_sql
from borealis.engines.mariadb.ownedfiles import write_owned
from borealis.engines.mariadb.passwords import native_verifier

ADMINISTRATOR_FILE = "administrator.json"
START_FILE = "start.sql"
_VERSION = 1


class Administrator(NamedTuple):
    """Who the session logs in as."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Administrator({self.user})"

    @classmethod
    def make(cls) -> Administrator:
        """A new one. The name has a random part, so that no account of a customer's can stand before it."""
        return cls(ADMIN_PREFIX + secrets.token_hex(4), secrets.token_urlsafe(32))

    @classmethod
    def load(cls, data_dir: Path) -> Administrator | None:
        """The one of this instance; None when there is none that can be read."""
        try:
            kept = json.loads((data_dir / ADMINISTRATOR_FILE).read_bytes())
            known = kept["version"] == _VERSION
            return cls(str(kept["user"]), str(kept["password"])) if known else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, data_dir: Path) -> None:
        """Replace the file, and what the server runs before it answers anybody (`START_FILE`), which holds
        the password's hash only. Raises OSError."""
        content = {"version": _VERSION, "user": self.user, "password": self.password}
        start = ("SET sql_log_bin = 0", *self.sql())
        write_owned(data_dir / START_FILE, "".join(f"{statement};\n" for statement in start))
        write_owned(data_dir / ADMINISTRATOR_FILE, json.dumps(content))

    def sql(self) -> list[str]:
        """What makes it the administrator of a server; to be run with sql_log_bin=0."""
        return administrator_sql(self.user, native_verifier(self.password))
