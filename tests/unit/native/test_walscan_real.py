"""The scanner over log that a real PostgreSQL wrote, compared with PostgreSQL's own reading of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from borealis.volume.nativelib import WalScanner

from .wal import PAGE, SEGMENT

BIN = Path("/usr/lib/postgresql/15/bin")

pytestmark = [
    pytest.mark.skipif(not (BIN / "pg_waldump").exists(), reason="needs PostgreSQL 15 with pg_waldump"),
    pytest.mark.xdist_group("walscan_real"),  # the log is made once
]


@dataclass
class RealLog:
    start: int
    data: bytes
    ends: list[int]
    """Ends of all records, from pg_waldump: of each one, where the log goes on."""


def _run(program: str, *arguments: str) -> str:
    user = "postgres" if os.getuid() == 0 else None
    return subprocess.run(
        [str(BIN / program), *arguments], user=user, check=True, capture_output=True, text=True
    ).stdout


def _lsn(text: str) -> int:
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


SQL = """
create table t as select g as id, repeat('x', g % 1000) as text from generate_series(1, 6000) g;
create index on t (id);
select pg_switch_wal();
update t set text = text || 'y';
select pg_logical_emit_message(false, 'test', repeat('0123456789', 2000000));
vacuum t;
select pg_switch_wal();
delete from t where id % 3 = 0;
checkpoint;
"""


@pytest.fixture(scope="module")
def real_log() -> Iterator[RealLog]:
    root = Path(tempfile.mkdtemp(prefix="bor-", dir="/tmp"))
    data_dir = root / "data"
    try:
        if os.getuid() == 0:
            shutil.chown(root, "postgres", "postgres")
        _run("initdb", "-D", str(data_dir), "-A", "trust", "--no-sync")
        # PostgreSQL alone, without a server: one session from standard input.
        user = "postgres" if os.getuid() == 0 else None
        subprocess.run(
            [
                str(BIN / "postgres"),
                "--single",
                "-j",
                "-D",
                str(data_dir),
                "-c",
                "fsync=off",
                "-c",
                "wal_keep_size=1GB",
                "postgres",
            ],
            input=SQL.strip().replace(";\n", ";\n\n") + "\n\n",
            user=user,
            check=True,
            capture_output=True,
            text=True,
        )
        yield _read_log(data_dir / "pg_wal")
    finally:
        shutil.rmtree(root)


def _read_log(directory: Path) -> RealLog:
    names = sorted(path.name for path in directory.iterdir() if re.fullmatch("[0-9A-F]{24}", path.name))
    start = int(names[0][8:16], 16) << 32 | int(names[0][16:], 16) << 24
    # pg_waldump says with an error that the log ends.
    dump = subprocess.run(
        [str(BIN / "pg_waldump"), "-p", str(directory), "-s", f"{start >> 32:X}/{start & 0xFFFFFFFF:X}"],
        capture_output=True,
        text=True,
    ).stdout
    records = re.findall(
        r"^rmgr: (\S+)\s+len \(rec/tot\):\s*\d+/\s*(\d+),.* lsn: (\S+), prev \S+ desc: (\S+)", dump, re.M
    )
    ends: list[int] = []
    for rmgr, total, lsn, what in records:
        end = _end(_lsn(lsn), int(total))
        ends.append(-(-end // SEGMENT) * SEGMENT if (rmgr, what) == ("XLOG", "SWITCH") else end)
    data = b"".join((directory / name).read_bytes() for name in names)
    return RealLog(start, data, ends)


def _end(lsn: int, length: int) -> int:
    """The aligned end of a record, over the headers of the pages that it crosses."""
    room = PAGE - lsn % PAGE
    while length > room:
        length -= room
        lsn += room
        header = 24 if lsn % SEGMENT else 40
        lsn += header
        room = PAGE - header
    return (lsn + length + 7) & ~7


def test_the_log_has_what_is_difficult(real_log: RealLog) -> None:
    assert len(real_log.ends) > 10000
    assert any(b - a > SEGMENT for a, b in zip(real_log.ends, real_log.ends[1:], strict=False))
    assert sum(end % SEGMENT == 0 for end in real_log.ends) >= 2


def test_finds_each_end_that_postgresql_finds(real_log: RealLog) -> None:
    """Given the log page by page, the scanner stops at each record end that is the last one in its page."""
    scanner = WalScanner(real_log.start, 1)
    found: set[int] = set()
    for end in range(real_log.start + PAGE, real_log.ends[-1] + PAGE, PAGE):
        base = scanner.position // PAGE * PAGE
        scanner.scan(real_log.data[base - real_log.start : end - real_log.start], base)
        found.add(scanner.record_end)
        assert not scanner.missed(end)
    assert scanner.record_end == real_log.ends[-1]
    assert scanner.records == len(real_log.ends)
    # pg_waldump does not show where a switch record itself ends, before the void.
    switches = [end for end in real_log.ends if end % SEGMENT == 0]
    assert len(found - {0} - set(real_log.ends)) <= len(switches)


def test_from_every_page(real_log: RealLog) -> None:
    """Whatever page the scan begins at, it comes to the same end."""
    pages = list(range(0, len(real_log.data), PAGE))
    void = [(end // SEGMENT - 1) * SEGMENT for end in real_log.ends if end % SEGMENT == 0]
    last = real_log.ends[-1]
    for offset in pages[:: max(1, len(pages) // 150)]:
        start = real_log.start + offset
        if start >= last or any(segment <= start < segment + SEGMENT for segment in void):
            continue
        window = real_log.data[offset : offset + SEGMENT]
        scanner = WalScanner(start, 1)
        scanner.scan(window, start)
        position = scanner.position
        assert position in real_log.ends or position % PAGE == 0 or _is_switch(real_log, position)
        assert position > start or start + PAGE > last


def _is_switch(log: RealLog, position: int) -> bool:
    return any(end % SEGMENT == 0 and end - SEGMENT < position < end for end in log.ends)


def test_stops_before_every_kind_of_tear(real_log: RealLog) -> None:
    """Cut at any byte, zeros behind: no record end above the cut, and all below it."""
    ends = real_log.ends
    for number in range(100, len(ends), max(1, len(ends) // 100)):
        end = ends[number]
        begin = max(end // SEGMENT * SEGMENT, (end - 6 * PAGE) // PAGE * PAGE)
        if end % SEGMENT == 0 or ends[number - 1] <= begin:
            continue  # the rest of a record that began before `begin` is taken as it is
        for cut in (end - 8, end - 1, end, end + 3, end + 30):
            data = real_log.data[begin - real_log.start : cut - real_log.start]
            scanner = WalScanner(begin, 1)
            scanner.scan(data + bytes(-len(data) % PAGE), begin)
            # Beyond the cut only where the real log has zeros, too.
            assert not real_log.data[cut - real_log.start : scanner.record_end - real_log.start].strip(b"\0")
            assert scanner.record_end in ends[max(0, number - 5000) : number + 100]
            assert cut < end or scanner.record_end >= end
