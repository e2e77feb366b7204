"""The format of binary logs: units are found wherever the stream is cut, in made-up logs and in real ones."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from borealis.engines.base import EngineError
from borealis.engines.mariadb.binlog import (
    MAGIC,
    BinlogError,
    EventHeader,
    EventType,
    Unit,
    UnitKind,
    UnitReader,
    is_intact,
    parse_format_description,
    parse_gtid,
    query_text,
    without_in_use,
)
from borealis.engines.mariadb.binlogscan import BinlogScanner
from tests.unit.engines.binlogs import (
    TIMESTAMP_LIKE_MAGIC,
    FakeBinlog,
    Server,
    event,
    mariadbd,
    query_body,
    server,
)

PRELUDE = (EventType.INTVAR, EventType.RAND, EventType.USER_VAR, EventType.ANNOTATE_ROWS)


def some_log() -> FakeBinlog:
    log = FakeBinlog()
    log.begin_file()
    log.transaction(10, 300)
    log.statement(b"CREATE TABLE t (a INT)")
    log.statement(b"INSERT INTO t VALUES (1)", PRELUDE)
    log.transaction(5000, 20, ending=b"COMMIT")
    log.group(
        [
            (EventType.QUERY, query_body(b"SAVEPOINT a")),
            (EventType.QUERY, query_body(b"ROLLBACK TO a")),
            (EventType.QUERY, query_body(b"ROLLBACK")),
        ],
        standalone=False,
    )
    log.group([(23, bytes(40)), (EventType.XA_PREPARE, bytes(30))], standalone=False)
    log.group([(EventType.QUERY, query_body(b"XA COMMIT X'61',X'',1"))], standalone=False)
    log.rotate()
    log.transaction(1, timestamp=TIMESTAMP_LIKE_MAGIC)
    log.statement(b"DROP TABLE t")
    log.other(EventType.STOP, b"")
    log.begin_file()
    log.transaction(30_000)
    return log


def brief(units: list[Unit]) -> list[tuple[str, int, int]]:
    return [(unit.kind.name, unit.start, unit.end) for unit in units]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_units_are_the_same_wherever_the_log_is_cut(data: st.DataObject) -> None:
    log = some_log()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(log.data)), max_size=40)))
    reader, units = UnitReader(log.start), []
    for begin, end in zip([0, *cuts], [*cuts, len(log.data)], strict=True):
        units += reader.feed(log.data[begin:end])
    assert brief(units) == log.units
    assert reader.position == reader.settled == log.end
    assert [u.gtid.sequence for u in units if u.gtid] == list(range(1, log.sequence + 1))


def test_units_byte_by_byte() -> None:
    log = some_log()
    reader, units = UnitReader(log.start), []
    for at in range(len(log.data)):
        units += reader.feed(log.data[at : at + 1])
        assert reader.position == log.start + at + 1
        assert reader.settled == max((u.end for u in units), default=log.start)
    assert brief(units) == log.units


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_the_scanner_finds_the_ends_of_a_growing_log(data: st.DataObject) -> None:
    """As a writer uses it: the log is written to some place, and read in pieces of some size."""
    log = some_log()
    ends = {end for _, _, end in log.units}
    settled = {end for kind, _, end in log.units if kind != "MAGIC"}
    """A file's magic bytes are known for what they are by what follows them."""
    writes = sorted(data.draw(st.sets(st.integers(0, len(log.data)), max_size=20)))
    piece = data.draw(st.sampled_from([4096, 8192, 1 << 20]))
    scanner = BinlogScanner(log.start)
    for written in [*writes, len(log.data)]:
        before = -1
        while scanner.position != before:
            before = scanner.position
            at = before - log.start
            result = scanner.scan(log.data[at : min(at + piece, written)], before, log.start + written)
            assert scanner.position == max(*result, before)
            assert scanner.position in ends or at + piece < written or scanner.position == before
            assert scanner.between_groups == (scanner.position in ends or scanner.position == log.start)
        assert scanner.position >= max((end for end in settled if end <= log.start + written), default=0)
    assert scanner.position == log.end
    assert scanner.damage is None


def test_a_long_event_is_cut_anywhere_and_nothing_else_is() -> None:
    log = FakeBinlog()
    log.begin_file()
    begin = log.end
    log.transaction(50_000, 10)
    scanner = BinlogScanner(begin)
    whole = log.data[begin - log.start :]
    assert scanner.scan(whole[:20_000], begin, begin + 20_000) == (
        0,
        0,
    )  # More comes: a group is kept together.
    assert scanner.scan(whole[:20_000], begin, log.end) == (0, begin + 20_000)
    assert not scanner.between_groups
    assert scanner.scan(whole, begin, log.end) == (log.end, begin + 20_000)
    assert scanner.between_groups


def test_what_is_no_binlog_is_damage() -> None:
    log = some_log()
    _, _, end = log.units[4]
    for broken in (bytes(100), event(EventType.XID, bytes(8), 12)):
        scanner = BinlogScanner(log.start)
        data = log.data[: end - log.start] + broken
        assert scanner.scan(data, log.start, log.start + len(data)).record_end == end
        assert scanner.damage is not None
    torn = event(EventType.GTID, bytes(19), 4) + event(EventType.ROTATE, bytes(12), 4 + 42)
    with pytest.raises(BinlogError, match="inside an event group"):
        list(UnitReader(0).feed(torn))
    with pytest.raises(EngineError, match="do not hold"):
        BinlogScanner(50).scan(bytes(10), 100, 110)


def test_single_events() -> None:
    log = some_log()
    fde = log.data[4 : log.units[1][2] - log.start]
    assert EventHeader.parse(fde).end_log_pos == len(fde) + 4
    assert parse_format_description(fde) == (4, "10.11.19-MariaDB-log", 1)
    assert is_intact(fde)
    assert without_in_use(fde)[17] == 0
    assert not is_intact(fde[:-1] + bytes((fde[-1] ^ 1,)))
    assert query_text(event(EventType.QUERY, query_body(b"COMMIT"), 0)) == b"COMMIT"
    with pytest.raises(BinlogError, match="GTID event"):
        parse_gtid(fde)
    with pytest.raises(BinlogError, match="format description"):
        parse_format_description(event(EventType.XID, bytes(8), 0))
    with pytest.raises(BinlogError, match="at least 19"):
        EventHeader.parse(bytes(19))


# ---- real logs ---------------------------------------------------------------------------------------------

STATEMENTS = """
CREATE DATABASE shop; USE shop;
CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v LONGTEXT) ENGINE=InnoDB;
CREATE TABLE m (id INT) ENGINE=MyISAM;
INSERT INTO t (v) VALUES ('a'), ('b');
INSERT INTO m VALUES (1);
BEGIN; INSERT INTO t (v) VALUES ('c'); SAVEPOINT s; INSERT INTO t (v) VALUES ('d'); ROLLBACK TO s; COMMIT;
BEGIN; INSERT INTO m VALUES (2); INSERT INTO t (v) VALUES ('e'); ROLLBACK;
CREATE TABLE c AS SELECT * FROM t;
CREATE TEMPORARY TABLE x (a INT); INSERT INTO x VALUES (1); DROP TEMPORARY TABLE x;
CREATE SEQUENCE q; SELECT NEXTVAL(q);
XA START 'one'; INSERT INTO t (v) VALUES ('f'); XA END 'one'; XA PREPARE 'one'; XA COMMIT 'one';
XA START 'two'; INSERT INTO t (v) VALUES ('g'); XA END 'two'; XA PREPARE 'two'; XA ROLLBACK 'two';
XA START 'three'; INSERT INTO t (v) VALUES ('h'); XA END 'three'; XA COMMIT 'three' ONE PHASE;
CREATE TRIGGER g AFTER INSERT ON t FOR EACH ROW INSERT INTO m VALUES (NEW.id);
INSERT INTO t (v) VALUES (REPEAT('long', 100000));
SET STATEMENT binlog_format=STATEMENT FOR INSERT INTO t (id, v) VALUES (LAST_INSERT_ID() + 100, 'i');
CREATE USER u IDENTIFIED BY 'p'; GRANT SELECT ON shop.* TO u;
FLUSH BINARY LOGS;
INSERT INTO t (v) VALUES ('COMMIT');
ALTER TABLE t ADD COLUMN w INT; OPTIMIZE TABLE t; ANALYZE TABLE t; TRUNCATE TABLE m;
FLUSH BINARY LOGS;
"""


class RealLog:
    """So large that it must not be shown."""

    def __init__(self, content: bytes) -> None:
        self.content = content


@pytest.fixture(scope="module")
def real() -> RealLog:
    """The log that a server has written: some files, one behind the other."""
    if mariadbd() is None:
        pytest.skip("no MariaDB is installed on this machine")
    with server() as running:
        return RealLog(written_by(running))


def written_by(running: Server) -> bytes:
    running.sql(STATEMENTS)
    running.stop()
    return b"".join(path.read_bytes() for path in running.binlogs())


def dumped_gtids(log: bytes, directory: Path) -> list[str]:
    """What the server's own tool says."""
    found = []
    for number, part in enumerate(log.split(MAGIC)[1:]):
        path = directory / f"binlog.{number:06d}"
        path.write_bytes(MAGIC + part)
        out = subprocess.run(
            ["mariadb-binlog", "--no-defaults", "--base64-output=decode-rows", str(path)],
            capture_output=True, check=True,
        ).stdout.decode("utf-8", "replace")  # fmt: skip
        found += [line.split("GTID ")[1].split()[0] for line in out.splitlines() if "\tGTID " in line]
    return found


def test_a_real_log(real: RealLog, tmp_path: Path) -> None:
    content = real.content
    units = list(UnitReader(0).feed(content))
    assert units[-1].end == len(content)
    assert units[-1].type == EventType.STOP
    assert [unit.kind for unit in units].count(UnitKind.MAGIC) == 3
    assert all(a.end == b.start for a, b in itertools.pairwise(units))
    groups = [unit for unit in units if unit.kind is UnitKind.GROUP]
    assert [str(unit.gtid) for unit in groups] == dumped_gtids(content, tmp_path)
    assert len(groups) > 20
    for unit in units:
        if unit.kind is UnitKind.MAGIC:
            continue
        at = unit.start
        while at < unit.end:
            header = EventHeader.parse(content, at)
            assert is_intact(content[at : at + header.length])
            at += header.length


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_real_log_cut_anywhere(real: RealLog, data: st.DataObject) -> None:
    _cut(real.content, data)


def _cut(real: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(real)), max_size=30)))
    reader, units = UnitReader(0), []
    for begin, end in zip([0, *cuts], [*cuts, len(real)], strict=True):
        units += reader.feed(real[begin:end])
    assert units == list(UnitReader(0).feed(real))
    ends = {unit.end for unit in units if unit.kind is not UnitKind.MAGIC}
    scanner = BinlogScanner(0)
    for cut in [*cuts, len(real)]:
        while True:
            before = scanner.position
            scanner.scan(real[before : before + 65536], before, cut)
            if scanner.position == before or scanner.position >= cut:
                break
        assert scanner.position >= max((end for end in ends if end <= cut), default=0)
    assert scanner.damage is None
    assert scanner.position == len(real)
