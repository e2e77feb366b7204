"""Global transaction ids: the name of one event group of the binary log.

Owns their text forms (`domain-server-sequence`, and the positions made of them). Never: where a group lies
(see `positions`).
"""

from __future__ import annotations

from typing import NamedTuple

from borealis.engines.base import EngineError

DOMAIN = 0
"""The one replication domain of a volume: its sequence numbers only grow, from writer to writer."""


class Gtid(NamedTuple):
    """One event group."""

    domain: int
    server_id: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.domain}-{self.server_id}-{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> Gtid:
        """From `0-11-57`. Raises EngineError."""
        parts = text.strip().split("-")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
            raise EngineError(f"{text!r} is not a GTID; expected DOMAIN-SERVER-SEQUENCE, for example 0-11-57")
        return cls(*map(int, parts))


def gtid_text(gtid: Gtid | None) -> str:
    """As MariaDB writes a replication position: empty when nothing was applied."""
    return "" if gtid is None else str(gtid)


def parse_state(text: str) -> Gtid | None:
    """The GTID of our domain in a replication position such as `0-11-57` or `0-11-57,3-1-8`; None: nothing of
    this domain was applied yet. Raises EngineError."""
    for part in text.split(","):
        if part.strip():
            gtid = Gtid.parse(part)
            if gtid.domain == DOMAIN:
                return gtid
    return None
