"""What a replica asks its primary before it asks for the log, and the answers.

Owns the session variables that a replica sets, and the few queries that its I/O thread sends (MariaDB 10.5 to
11.8). It never runs SQL: anything else is refused.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

from borealis.engines.mariadb import protocol as p
from borealis.engines.mariadb.gtid import DOMAIN

UPSTREAM_SERVER_ID: Final = 4_000_000_000
"""The number of the primary that a reader's driver plays; no instance has it."""

_SET: Final = re.compile(r"SET\s+(?:SESSION\s+)?(\S+?)\s*:?=\s*(.*)", re.IGNORECASE | re.DOTALL)
_SHOW: Final = re.compile(r"SHOW\s+(?:GLOBAL\s+)?VARIABLES\s+LIKE\s+'([^']*)'", re.IGNORECASE)
_SELECT: Final = re.compile(r"SELECT\s+(\S+)", re.IGNORECASE)


class ReplicaQueries:
    """The queries of one connection."""

    def __init__(self, version: str, clock: Callable[[], float] = time.time) -> None:
        self._version = version
        self._clock = clock
        self.variables: dict[str, str] = {}
        """What the replica has set, by name in lower case, without quotes."""

    def answer(self, sql: str) -> list[bytes]:
        """The messages to send for one statement."""
        sql = sql.strip().rstrip(";")
        if match := _SET.fullmatch(sql):
            self.variables[match[1].lower()] = match[2].strip().strip("'\"")
            return [p.OK]
        if sql[:4].upper() == "SET ":  # SET NAMES, for example.
            return [p.OK]
        if match := _SHOW.fullmatch(sql):
            return self._show(match[1])
        if (match := _SELECT.fullmatch(sql)) and (value := self._value(match[1].lower())) is not None:
            return p.result([match[1]], [value])
        return [p.error(p.NOT_SERVED, f"only the log is served here, not queries: {sql[:80]!r}")]

    def _show(self, name: str) -> list[bytes]:
        # Nothing but our number: for semi-synchronous replication, even OFF would make a replica ask for it.
        row = [name, str(UPSTREAM_SERVER_ID)] if name.lower() == "server_id" else None
        return p.result(["Variable_name", "Value"], row)

    def _value(self, expression: str) -> str | None:
        if expression == "unix_timestamp()":
            return str(int(self._clock()))
        if expression == "@master_binlog_checksum":
            return "CRC32"  # The log has checksums, and is sent as it is.
        if expression == "@@global.gtid_domain_id":
            return str(DOMAIN)
        if expression in ("version()", "@@version", "@@global.version"):
            return self._version
        return None

    # ------------------------------------------------------------------ what a replica has set
    @property
    def connect_state(self) -> str | None:
        """Its replication position; None: it does not replicate by GTID."""
        return self.variables.get("@slave_connect_state")

    @property
    def heartbeat_seconds(self) -> float:
        """How often it wants to hear from us when there is nothing to send."""
        said = self.variables.get("@master_heartbeat_period", "")
        return int(said) / 1e9 if said.isdigit() and int(said) else 10.0

    @property
    def knows_gtid(self) -> bool:
        """It understands GTID events as they are in the log."""
        said = self.variables.get("@mariadb_slave_capability", "")
        return said.isdigit() and int(said) >= 4

    @property
    def knows_checksums(self) -> bool:
        """It has asked about checksums, so it understands events that have one."""
        return "@master_binlog_checksum" in self.variables
