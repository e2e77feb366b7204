"""Journal records survive the journal."""

from __future__ import annotations

import pytest

from borealis.log.records import (
    DataRecord,
    HistoryRecord,
    PromiseRecord,
    RawRecord,
    Record,
    RecordError,
    StateRecord,
    TrimRecord,
    VdlRecord,
    decode_record,
)
from borealis.log.types import CommitPoint
from tests.unit.log.helpers import history

RECORDS: list[Record] = [
    PromiseRecord(3, "écrivain"),
    HistoryRecord(4, "w", 100, history((1, 0), (4, 100))),
    DataRecord(4, 100, b"bytes"),
    TrimRecord(50),
    StateRecord(9, "w", history((1, 0)), 10, 20, CommitPoint(1, 15), ((12, 13),)),
    VdlRecord(CommitPoint(4, 5)),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_round_trip(record: Record) -> None:
    assert decode_record(record.encode()) == record


@pytest.mark.parametrize(
    "raw",
    [
        RawRecord(99, 0, 0, b""),
        RawRecord(1, 1, 0, b"\xff"),
        RawRecord(2, 1, 0, b"{}"),
        RawRecord(2, 1, 0, b'{"history":[{}],"writer":""}'),
        RawRecord(5, 1, 0, b"[]"),
    ],
)
def test_other_formats_are_refused(raw: RawRecord) -> None:
    with pytest.raises(RecordError, match="format version 1"):
        decode_record(raw)
