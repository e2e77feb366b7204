"""The native scanner of binlogs and its twin in Python agree, wherever the log is cut or damaged."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from borealis.engines.mariadb.binlog import EventType
from borealis.engines.mariadb.binlogscan import BinlogScanner as PythonScanner
from borealis.volume.nativelib import BinlogScanner
from tests.unit.engines.binlogs import TIMESTAMP_LIKE_MAGIC, FakeBinlog, query_body

ENDINGS = st.sampled_from([None, b"COMMIT", b"ROLLBACK", b"XA COMMIT X'61'"])
TEXTS = st.sampled_from([b"CREATE TABLE t (a INT)", b"COMMIT", b"x" * 5000, b""])
START = (1 << 32) - 3000
"""Some positions lie beyond what an event says of its place."""

STEPS = st.one_of(
    st.tuples(st.just("transaction"), st.lists(st.integers(0, 9000), max_size=4), ENDINGS),
    st.tuples(st.just("statement"), TEXTS, st.lists(st.sampled_from([5, 13, 14, 17, 160]), max_size=3)),
    st.tuples(st.just("query"), TEXTS, st.none()),
    st.tuples(st.just("rotate"), st.none(), st.none()),
    st.tuples(st.just("stop"), st.none(), st.none()),
)


def build(steps: list[tuple[str, object, object]]) -> FakeBinlog:
    log = FakeBinlog(START)
    log.begin_file()
    for kind, first, second in steps:
        if kind == "transaction":
            stamp = TIMESTAMP_LIKE_MAGIC if second is None else 5
            log.transaction(*first, ending=second, timestamp=stamp)  # type: ignore[misc, arg-type]
        elif kind == "statement":
            log.statement(first, second)  # type: ignore[arg-type]
        elif kind == "query":
            body = query_body(first)  # type: ignore[arg-type]
            log.group([(EventType.QUERY, body), (EventType.XA_PREPARE, bytes(9))], standalone=False)
        elif kind == "rotate":
            log.rotate()
        else:
            log.other(EventType.STOP, b"")
            log.begin_file()
    return log


class Twins:
    """Both scanners, given the same."""

    def __init__(self, position: int) -> None:
        self.native, self.python = BinlogScanner(position), PythonScanner(position)

    @property
    def position(self) -> int:
        return self.native.position

    def scan(self, data: bytes, start: int, limit: int) -> None:
        assert self.native.scan(data, start, limit) == tuple(self.python.scan(data, start, limit))
        assert self.native.position == self.python.position
        assert self.native.between_groups == self.python.between_groups
        assert self.native.missed(limit) == (self.python.damage is not None)


@settings(deadline=None, max_examples=200)
@given(st.lists(STEPS, max_size=12), st.data())
def test_the_twins_agree(steps: list[tuple[str, object, object]], data: st.DataObject) -> None:
    log = build(steps)
    twins = Twins(log.start)
    writes = sorted(data.draw(st.sets(st.integers(0, len(log.data)), max_size=12)))
    piece = data.draw(st.sampled_from([1, 100, 4096, 10_000, 1 << 20]))
    for written in [*writes, len(log.data)]:
        before = -1
        while twins.position != before:
            before = twins.position
            at = before - log.start
            twins.scan(log.data[at : min(at + piece, written)], before, log.start + written)
    if piece >= 4096:
        assert twins.position == log.end
        assert twins.native.between_groups
        assert twins.native.settled(log.end)


@settings(deadline=None, max_examples=150)
@given(st.lists(STEPS, max_size=6), st.data())
def test_the_twins_agree_about_damage(steps: list[tuple[str, object, object]], data: st.DataObject) -> None:
    log = build(steps)
    broken = bytearray(log.data)
    for at in data.draw(st.sets(st.integers(0, len(broken) - 1), min_size=1, max_size=3)):
        broken[at] ^= data.draw(st.integers(1, 255))
    twins = Twins(log.start)
    before = -1
    while twins.position != before:
        before = twins.position
        at = before - log.start
        twins.scan(bytes(broken[at : at + 8192]), before, log.end)


@settings(deadline=None, max_examples=150)
@given(st.lists(STEPS, max_size=8), st.data())
def test_resuming_at_any_byte(steps: list[tuple[str, object, object]], data: st.DataObject) -> None:
    log = build(steps)
    at = log.start + data.draw(st.integers(0, len(log.data)))
    ends = [end for kind, _, end in log.units if kind != "MAGIC" and end <= at]
    scanner = BinlogScanner.resume(at, log.start, 3, lambda a, b: log.data[a - log.start : b - log.start])
    assert max(ends, default=log.start) <= scanner.position <= at
    rest = log.data[scanner.position - log.start :]
    assert scanner.scan(rest, scanner.position)[0] == log.end
    assert scanner.position == log.end


def test_bytes_that_do_not_hold_the_position() -> None:
    with pytest.raises(ValueError, match="do not contain"):
        BinlogScanner(500).scan(bytes(10), 100)
    with pytest.raises(ValueError, match="do not contain"):
        BinlogScanner(50).scan(bytes(10), 100)


def test_a_group_that_is_not_whole_settles_nothing() -> None:
    log = FakeBinlog()
    log.begin_file()
    begin = log.end
    log.transaction(100)
    scanner = BinlogScanner(begin)
    data = log.data[begin - log.start :]
    assert scanner.scan(data[:-1], begin, log.end - 1) == (0, 0)
    assert not scanner.settled(log.end - 1)
    assert not scanner.missed(log.end - 1)
    scanner.scan(data, begin, log.end)
    assert scanner.settled(log.end)
    assert scanner.units == 1
