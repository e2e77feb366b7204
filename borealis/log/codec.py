"""Control messages: dataclasses whose payload on the wire is one JSON object.

Owns the translation between the fields of such a message and JSON, and the enumerations used in them. The
messages are in `wire`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar, Self

from borealis.log.blobs import BlobInfo
from borealis.log.frames import Buffer, Kind, frame
from borealis.log.history import TermHistory
from borealis.log.types import CommitPoint, HistoryError, Lsn, WireError


class Purpose(StrEnum):
    """Why a connection was opened; for limits and for people who read logs. It grants nothing."""

    WRITER = "writer"
    READER = "reader"
    CONTROL = "control"
    GOSSIP = "gossip"


class Reason(StrEnum):
    """Why an APPEND was refused, and what its sender should do."""

    SUPERSEDED = "superseded"
    """A higher term is promised: the sender is over."""
    NEW_TERM_FIRST = "new-term-first"
    """The segment does not know the sender's term: send NEW_TERM, then go on from the end in its reply."""
    GAP = "gap"
    """The data starts above the segment's end: go on from `end`, or leave the gap to gossip."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a segment has found out about its own disk since its node was started."""

    checked_bytes: int = 0
    """Log and blobs that were read again in the background and compared with their checksums."""
    passes: int = 0
    """How often all of it was checked."""
    damaged: int = 0
    """Ranges of the log, and blobs, that did not match."""
    repaired: int = 0
    """How many of them were had again from other nodes."""
    trouble: str = ""
    """Why appends are refused now; empty: they are taken."""


NOTHING_CHECKED = Health()


def _health(value: Any) -> Health:
    return Health(**{name: value[name] for name in asdict(NOTHING_CHECKED) if name in value})


def _history(value: Any) -> TermHistory:
    try:
        return TermHistory.from_json(value)
    except HistoryError as error:
        raise WireError(f"a message holds no valid term history: {error}") from error


def _point(value: Any) -> CommitPoint:
    term, lsn = value
    return CommitPoint(int(term), int(lsn))


def _ranges(value: Any) -> tuple[tuple[Lsn, Lsn], ...]:
    return tuple((int(start), int(end)) for start, end in value)


def _blobs(value: Any) -> tuple[BlobInfo, ...]:
    return tuple(BlobInfo(str(item["name"]), int(item["size"]), str(item["sha256"])) for item in value)


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "Lsn": int,
    "str": str,
    "bool": bool,
    "Purpose": Purpose,
    "Reason": Reason,
    "TermHistory": _history,
    "CommitPoint": _point,
    "tuple[tuple[Lsn, Lsn], ...]": _ranges,
    "tuple[BlobInfo, ...]": _blobs,
    "Health": _health,
}


def _plain(value: Any) -> Any:
    if isinstance(value, TermHistory):
        return value.to_json()
    if isinstance(value, BlobInfo):
        return {"name": value.name, "size": value.size, "sha256": value.sha256}
    if isinstance(value, Health):
        return asdict(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class ControlMessage:
    """A message whose payload is JSON: rare, and readable on the wire."""

    KIND: ClassVar[Kind]

    def encode(self) -> bytes:
        body = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return frame(self.KIND, json.dumps(body, separators=(",", ":")).encode())

    @classmethod
    def decode_payload(cls, payload: Buffer) -> Self:
        try:
            body = json.loads(bytes(payload))
            known = {f.name: _PARSERS[str(f.type)](body[f.name]) for f in fields(cls) if f.name in body}
            return cls(**known)
        except WireError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise WireError(f"not a valid {cls.KIND.name}: {error!r}") from error
