"""The map of binlog files to log positions: what it says, and that it is found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from borealis.engines.base import EngineError
from borealis.engines.mariadb.binlogfiles import (
    OFFSET_BITS,
    BinlogFile,
    BinlogFiles,
    file_name,
    file_number,
    files_path,
    newest_number,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    return directory


def write(data: Path, number: int, content: bytes) -> None:
    (data / file_name(number)).write_bytes(content)


def test_names() -> None:
    assert file_name(7) == "binlog.000007"
    assert file_number("binlog.000007") == file_number("./binlog.000007") == 7
    assert file_number(file_name(1_234_567)) == 1_234_567
    for name in ("binlog.index", "relay.000001", "binlog", "binlog.", "binlog.-00001"):
        with pytest.raises(EngineError, match="not the name"):
            file_number(name)


def test_the_newest_file(data: Path) -> None:
    assert newest_number(data) is None
    for name in ("binlog.000002", "binlog.000010", "binlog.index", "binlog.state", "relay.000099"):
        (data / name).touch()
    assert newest_number(data) == 10


def test_positions(data: Path) -> None:
    files = BinlogFiles.begin(data, 3, 5, 1000)
    assert files.newest == (5, 1000)
    assert files.at(999) is None
    assert files.at(1000) == files.at(10**12) == (5, 1000)
    assert files.end(5) is None
    files.add(6, 1500)
    assert files.at(1499) == (5, 1000)
    assert files.at(1500) == (6, 1500)
    assert files.end(5) == 1500
    assert (files.lsn(5, 4), files.lsn(6, 4), files.lsn(7, 4)) == (1004, 1504, None)
    assert files.lsn_of_device((6 << OFFSET_BITS) + 17) == 1517
    for number, start in ((6, 2000), (5, 2000), (7, 1500), (7, 20)):
        with pytest.raises(EngineError, match="cannot follow"):
            files.add(number, start)


def test_reading_over_the_end_of_a_file(data: Path) -> None:
    write(data, 5, b"abcdef")
    write(data, 6, b"ghi")
    files = BinlogFiles.begin(data, 3, 5, 1000)
    files.add(6, 1006)
    assert files.read(1004, 1008) == b"efgh"
    assert files.read(1004, 1100) == b"efghi"
    assert files.read(900, 1100) == b""
    assert files.read(2000, 2001) == b""
    (data / file_name(6)).unlink()
    assert files.read(1004, 1100) == b"ef"


def test_it_is_found_again(data: Path) -> None:
    with pytest.raises(EngineError, match="never a writer"):
        BinlogFiles.load(data)
    ours = BinlogFiles.begin(data, 3, 5, 1000)
    theirs = BinlogFiles.load(data)
    assert (theirs.timeline, theirs.files) == (3, (BinlogFile(5, 1000),))
    ours.add(6, 1006)
    theirs.refresh()
    assert theirs.files == ours.files == ((5, 1000), (6, 1006))
    # A later life begins anew.
    BinlogFiles.begin(data, 4, 9, 5000)
    theirs.refresh()
    assert (theirs.timeline, theirs.files) == (4, ((9, 5000),))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"version": 2, "timeline": 1, "files": [[1, 1]]}',
        '{"version": 1, "timeline": 1, "files": []}',
        '{"version": 1, "timeline": 1, "files": [[2, 10], [1, 20]]}',
        '{"version": 1, "timeline": 1, "files": [7]}',
    ],
)
def test_a_damaged_map_is_refused(data: Path, text: str) -> None:
    files_path(data).write_text(text)
    with pytest.raises(EngineError):
        BinlogFiles.load(data)
