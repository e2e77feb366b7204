"""The term history: which leader wrote which bytes of the log, and where two logs are the same log.

Owns the immutable value `TermHistory` and the rules on it. It holds no log bytes and does no I/O.

The rules rest on three facts. (1) A term has one leader. (2) A leader writes each position of its term once.
(3) A leader makes its history from one earlier history, by `extend`. So all histories that contain a term
have the same entries up to it, and two logs hold the same bytes up to the point where their histories part
(`agree_until`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from borealis.log.types import LSN_MAX, HistoryError, Lsn, TermEntry


class Timeline(NamedTuple):
    """The part [start, end) of the log that lies on one engine timeline; `end` is None for the last one."""

    start: Lsn
    end: Lsn | None
    history: str


@dataclass(frozen=True, slots=True)
class TermHistory:
    """Entries, oldest first. Invariants (else HistoryError): terms rise strictly, starts never go down."""

    entries: tuple[TermEntry, ...] = ()

    def __post_init__(self) -> None:
        for older, newer in zip(self.entries, self.entries[1:], strict=False):
            if newer.term <= older.term:
                raise HistoryError(f"term {newer.term} stands after term {older.term}: terms must rise")
            if newer.start < older.start:
                raise HistoryError(
                    f"term {newer.term} starts at {newer.start}, below the start {older.start} before it: "
                    "starts must never go down (use extend)"
                )

    @classmethod
    def of(cls, entries: Iterable[TermEntry]) -> TermHistory:
        return cls(tuple(entries))

    def __iter__(self) -> Iterator[TermEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def last(self) -> TermEntry | None:
        """The newest entry, whether or not the log reaches it."""
        return self.entries[-1] if self.entries else None

    @property
    def newest_term(self) -> int:
        """The term of the newest entry, whether or not the log reaches it; 0 for an empty history."""
        return self.entries[-1].term if self.entries else 0

    def upto(self, end: Lsn) -> TermHistory:
        """What a log that ends at `end` has reached of this history: the entries with start <= end."""
        return replace(self, entries=tuple(entry for entry in self.entries if entry.start <= end))

    def upto_term(self, term: int) -> TermHistory:
        """The entries up to `term`: the history as its leader, or the last one before it, made it."""
        return replace(self, entries=tuple(entry for entry in self.entries if entry.term <= term))

    def last_term(self, end: Lsn) -> int:
        """The term of a log that ends at `end` (0: none). With `end`, it names the log's content."""
        term = 0
        for entry in self.entries:
            if entry.start > end:
                break
            term = entry.term
        return term

    def extend(self, entry: TermEntry) -> TermHistory:
        """The history of a new leader. Entries that start above the new one own no bytes any more and are
        dropped: without that a log that holds cut bytes would look as if it agreed."""
        return TermHistory((*(old for old in self.entries if old.start <= entry.start), entry))

    def agree_until(self, other: TermHistory) -> Lsn:
        """Up to where two logs with these histories hold the same bytes (each as far as it reaches).

        LSN_MAX when neither ends before the other; 0 when they have no entry in common.
        """
        common = 0
        for mine, theirs in zip(self.entries, other.entries, strict=False):
            if (mine.term, mine.start, mine.writer) != (theirs.term, theirs.start, theirs.writer):
                break
            common += 1
        if common == 0:
            return 0
        parted = [history.entries[common].start for history in (self, other) if len(history) > common]
        return min(parted, default=LSN_MAX)

    def clamp(self, term: int, lsn: Lsn) -> Lsn:
        """The commit point (term, lsn) seen through this history, which must be of that term or a later one:
        a later term may have cut off an incomplete record below `lsn`."""
        for entry in self.entries:
            if entry.term > term:
                return min(lsn, entry.start)
        return lsn

    def timelines(self) -> dict[int, Timeline]:
        """Engine timeline -> the part of the log on it. Terms that go on with one timeline are one part."""
        result: dict[int, Timeline] = {}
        previous: int | None = None
        for entry in self.entries:
            if entry.timeline == previous:
                continue
            if previous is not None:
                result[previous] = result[previous]._replace(end=entry.start)
            result[entry.timeline] = Timeline(entry.start, None, entry.history)
            previous = entry.timeline
        return result

    def to_json(self) -> list[dict[str, Any]]:
        return [entry.to_json() for entry in self.entries]

    @classmethod
    def from_json(cls, data: object) -> TermHistory:
        """Raises HistoryError when `data` is not a list of entries in order."""
        if not isinstance(data, list):
            raise HistoryError(f"a term history is a list of entries, not {type(data).__name__}")
        return cls(tuple(TermEntry.from_json(item) for item in data))
