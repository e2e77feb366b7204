"""Journal records: what a segment must have on disk before it answers.

Owns the records as values and their payloads. How they are laid out in files, synced and found again is the
storage node's matter: it stores (kind, term, lsn, payload) and a checksum of its own.

FORMAT (version 1)
    kind 1 PROMISE  term, lsn 0; payload: the candidate's name in UTF-8
    kind 2 HISTORY  term = the promised term from now on, lsn = where the log is cut;
                    payload: JSON {"history": [...], "writer": the candidate promised to}
    kind 3 DATA     term = the newest term of the history, lsn = first byte; payload: the log bytes
    kind 4 TRIM     term 0, lsn = the new first byte; payload empty
    kind 5 STATE    term = promised, lsn = end; payload: JSON {"writer", "history", "base", "vdl": [term,
                    lsn], "corrupt": [[start, end]]}: all of the above at once, first in each file, so that
                    older files can be recycled
    kind 6 VDL      a hint: term, lsn of the highest commit point heard; payload empty
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias

from borealis.log.history import TermHistory
from borealis.log.types import CommitPoint, LogError, Lsn


class RecordKind(IntEnum):
    """The number of a record on disk; never reused."""

    PROMISE = 1
    HISTORY = 2
    DATA = 3
    TRIM = 4
    STATE = 5
    VDL = 6


class RecordError(LogError):
    """A journal record that is whole (its checksum matches) but not of this format."""

    code = "RecordError"


class RawRecord(NamedTuple):
    """A record as the journal stores it."""

    kind: int
    term: int
    lsn: Lsn
    payload: bytes


@dataclass(frozen=True, slots=True)
class PromiseRecord:
    """Refuse every term below `term`, and `term` to everybody but `writer`."""

    term: int
    writer: str

    def encode(self) -> RawRecord:
        return RawRecord(RecordKind.PROMISE, self.term, 0, self.writer.encode())


@dataclass(frozen=True, slots=True)
class HistoryRecord:
    """From now on the log is the one that `history` names, cut at `cut`. Promises `promised` to `writer`.

    The first one creates the segment: its log is empty and starts at `cut`.
    """

    promised: int
    writer: str
    cut: Lsn
    history: TermHistory

    def encode(self) -> RawRecord:
        body = _dump({"history": self.history.to_json(), "writer": self.writer})
        return RawRecord(RecordKind.HISTORY, self.promised, self.cut, body)


@dataclass(frozen=True, slots=True)
class DataRecord:
    """Log bytes; `start` is the end of the log before them. `term` is the newest term of the history."""

    term: int
    start: Lsn
    data: bytes

    @property
    def end(self) -> Lsn:
        return self.start + len(self.data)

    def encode(self) -> RawRecord:
        return RawRecord(RecordKind.DATA, self.term, self.start, self.data)


@dataclass(frozen=True, slots=True)
class TrimRecord:
    """The log starts at `below` now; where it ended lower, it is empty and ends there too."""

    below: Lsn

    def encode(self) -> RawRecord:
        return RawRecord(RecordKind.TRIM, 0, self.below, b"")


@dataclass(frozen=True, slots=True)
class StateRecord:
    """All that a segment knows besides the bytes. The first record of each journal file."""

    promised: int
    writer: str
    history: TermHistory
    base: Lsn
    end: Lsn
    vdl: CommitPoint
    corrupt: tuple[tuple[Lsn, Lsn], ...] = ()

    def encode(self) -> RawRecord:
        body = {
            "writer": self.writer,
            "history": self.history.to_json(),
            "base": self.base,
            "vdl": list(self.vdl),
            "corrupt": [list(item) for item in self.corrupt],
        }
        return RawRecord(RecordKind.STATE, self.promised, self.end, _dump(body))


@dataclass(frozen=True, slots=True)
class VdlRecord:
    """The highest commit point heard, written now and then. Losing it loses nothing."""

    vdl: CommitPoint

    def encode(self) -> RawRecord:
        return RawRecord(RecordKind.VDL, self.vdl.term, self.vdl.lsn, b"")


Record: TypeAlias = PromiseRecord | HistoryRecord | DataRecord | TrimRecord | StateRecord | VdlRecord


def decode_record(raw: RawRecord) -> Record:
    """Raises RecordError when the record is not of this format."""
    try:
        return _decode(raw)
    except (ValueError, KeyError, TypeError, LogError) as error:
        raise RecordError(
            f"journal record of kind {raw.kind} at {raw.lsn} is not of format version 1: {error!r}"
        ) from error


def _decode(raw: RawRecord) -> Record:
    match RecordKind(raw.kind):
        case RecordKind.PROMISE:
            return PromiseRecord(raw.term, raw.payload.decode())
        case RecordKind.DATA:
            return DataRecord(raw.term, raw.lsn, raw.payload)
        case RecordKind.TRIM:
            return TrimRecord(raw.lsn)
        case RecordKind.VDL:
            return VdlRecord(CommitPoint(raw.term, raw.lsn))
        case RecordKind.HISTORY:
            body = json.loads(raw.payload)
            return HistoryRecord(raw.term, body["writer"], raw.lsn, TermHistory.from_json(body["history"]))
        case RecordKind.STATE:
            return _decode_state(raw)


def _decode_state(raw: RawRecord) -> StateRecord:
    body = json.loads(raw.payload)
    return StateRecord(
        promised=raw.term,
        writer=body["writer"],
        history=TermHistory.from_json(body["history"]),
        base=int(body["base"]),
        end=raw.lsn,
        vdl=CommitPoint(*body["vdl"]),
        corrupt=tuple((int(start), int(end)) for start, end in body["corrupt"]),
    )


def _dump(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
