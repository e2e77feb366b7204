"""The words of the quorum log: positions, terms, commit points, and the errors of this package.

Owns plain values only. It never decides anything: the rules are in `history`, `quorum`, `segment` and
`opening`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from borealis.errors import BorealisError

Lsn: TypeAlias = int
"""A byte position in a volume's log."""

LSN_MAX: Lsn = (1 << 64) - 1
"""Above every position: "no limit"."""

PAGE_BYTES = 8192
"""Copies of old log are cut at multiples of this, where an engine's reader may be stopped safely."""

PIECE_BYTES = 1 << 20
"""The most log bytes in one message."""

WINDOW_BYTES = 16 << 20
"""The most log bytes that may be on their way to one segment."""


class LogError(BorealisError):
    """A failure of the quorum log."""


class WireError(LogError):
    """Bytes that are not this protocol: the connection they came from must be closed."""

    code = "WireError"


class HistoryError(LogError):
    """A term history that no leader can have made: starts or terms that go down."""

    code = "HistoryError"


class Superseded(LogError):
    """A segment has promised a higher term: this leader or candidate is over. Start again, higher."""

    code = "Superseded"

    def __init__(self, term: int, promised: int, where: str = "a segment") -> None:
        super().__init__(
            f"term {term} is superseded: {where} has promised term {promised}; go on with a new, higher term"
        )
        self.term = term
        self.promised = promised


class NoQuorum(LogError):
    """Too few segments answered. Nothing was acknowledged; try again when more of them are reachable."""

    code = "NoQuorum"


class LogMoved(LogError):
    """The log is not where this candidate left it: it replayed to another end. Open the volume again."""

    code = "LogMoved"


@dataclass(frozen=True, slots=True)
class TermEntry:
    """From `start` on, bytes were written by the leader of `term`."""

    term: int
    """Unique and rising over the whole life of the volume; the state store hands it out."""
    timeline: int
    """The engine's own word for a branch of its log (PostgreSQL: timeline id; otherwise 1)."""
    start: Lsn
    """The first byte that belongs to this term. Invariant: never below the start of an earlier entry."""
    history: str
    """The engine's history text of the timeline; empty where that is the predecessor's."""
    writer: str
    """Which candidate took the term: a unique name, so that a retry is told from a rival."""

    def to_json(self) -> dict[str, Any]:
        return {
            "term": self.term,
            "timeline": self.timeline,
            "start": self.start,
            "history": self.history,
            "writer": self.writer,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TermEntry:
        """Raises HistoryError when a field is missing or of a wrong type."""
        try:
            return cls(
                term=int(data["term"]),
                timeline=int(data["timeline"]),
                start=int(data["start"]),
                history=str(data["history"]),
                writer=str(data["writer"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise HistoryError(
                f"a term entry needs term, timeline, start, history, writer: {error!r}"
            ) from error


class CommitPoint(NamedTuple):
    """All bytes below `lsn` are durable, in the log of the leader of `term`. Compared in that order.

    A later term may still cut off an incomplete record below `lsn` (it starts lower than this term ended):
    see `TermHistory.clamp`.
    """

    term: int
    lsn: Lsn


NOTHING_COMMITTED = CommitPoint(0, 0)


def piece_end(start: Lsn, end: Lsn, limit: int = PIECE_BYTES) -> Lsn:
    """Where the next piece of a copy of [start, end) ends: at `end`, or at a page boundary within `limit`.

    Precondition: start < end and limit >= PAGE_BYTES, so that there always is such a boundary above `start`.
    """
    assert start < end
    assert limit >= PAGE_BYTES
    if end - start <= limit:
        return end
    return (start + limit) // PAGE_BYTES * PAGE_BYTES
