"""The map between transaction ids and log positions: exact where it is hot, bounded, honest elsewhere."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest

from borealis.engines.base import EngineError
from borealis.engines.mariadb import positions as module
from borealis.engines.mariadb.gtid import Gtid, parse_state
from borealis.engines.mariadb.history import LogPoint, TimelineHistory, read_attached
from borealis.engines.mariadb.positions import PositionMap, positions_for


def filled(groups: int, origin: LogPoint | None = None) -> PositionMap:
    """Group n (server 7) ends at 1000 + 10 * n; headers follow the last one."""
    made = PositionMap()
    made.begin(origin or LogPoint(1000, None))
    for number in range(1, groups + 1):
        made.add(Gtid(0, 7, number), 1000 + 10 * number)
    end = 1000 + 10 * groups
    made.settle(end + 3, end + 5)
    return made


def test_exact_answers() -> None:
    known = filled(100)
    assert known.lsn_of("0-7-50") == 1500
    assert known.lsn_of(Gtid(0, 7, 100)) == 2003, "the last group, and the headers behind it"
    assert known.lsn_of("0-8-50") is None, "another server's"
    assert known.lsn_of("0-7-101") is None
    assert known.lsn_of("") == 1000 or known.lsn_of("") is None
    assert known.gtid_at(1500) == known.gtid_at(1509) == Gtid(0, 7, 50)
    assert known.gtid_at(10**9) == Gtid(0, 7, 100)
    assert known.gtid_at(1005) is None
    assert known.floor(Gtid(0, 7, 300)) == LogPoint(2000, Gtid(0, 7, 100))


def test_nothing_is_known_before_the_log_was_read() -> None:
    known = PositionMap()
    assert known.lsn_of("0-7-1") is None
    assert known.floor(Gtid(0, 7, 1)) is None
    assert known.applied is None
    assert known.lsn_of("") is None


def test_the_origin_counts() -> None:
    known = filled(0, LogPoint(5000, Gtid(0, 3, 40)))
    assert known.gtid_at(5000) == Gtid(0, 3, 40)
    assert known.gtid_at(4999) is None
    assert known.floor(Gtid(0, 3, 39)) is None
    assert known.lsn_of("0-3-40") == known.settled


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOT_GROUPS", 1000)
    monkeypatch.setattr(module, "OLD_STRIDE", 10)
    monkeypatch.setattr(module, "OLD_GROUPS_MAX", 200)
    known = filled(100_000)
    assert len(known._hot) < 2000
    assert len(known._old) <= 300
    for number in (99_001, 99_500, 100_000):
        found = known.floor(Gtid(0, 7, number))
        assert found == LogPoint(1000 + 10 * number, Gtid(0, 7, number))
    for number in (5, 400, 20_000, 90_000):
        found = known.floor(Gtid(0, 7, number))
        assert found is not None
        assert found.sequence <= number
        assert number - found.sequence < 5000
        assert found.lsn == 1000 + 10 * found.sequence
        gtid = known.gtid_at(1000 + 10 * number)
        assert (gtid.sequence if gtid else 0) == found.sequence
    assert list(known._old.sequences) == sorted(set(known._old.sequences))


def test_what_does_not_rise_or_is_not_ours_is_left_out() -> None:
    known = filled(10)
    known.add(Gtid(0, 8, 10), 3000)
    known.add(Gtid(5, 8, 11), 3000)
    assert known.newest == LogPoint(1100, Gtid(0, 7, 10))
    known.cut(1055)
    assert known.newest == LogPoint(1050, Gtid(0, 7, 5))
    assert known.settled == 1055


def test_what_the_engine_says() -> None:
    known = filled(10)
    told: list[int | None] = []
    known.on_applied = lambda: told.append(known.applied)
    known.report_applied("0-7-4,3-1-9")
    known.report_applied("0-7-4")
    known.report_applied("0-7-10")
    assert told == [1040, 1103]
    known.report_applied("0-7-12")
    assert known.applied is None, "more than was read"
    with pytest.raises(EngineError, match="is not a GTID"):
        known.report_applied("what?")


async def test_waiting_for_the_log_to_be_read() -> None:
    known = filled(10)
    await known.wait_settled(1105)
    waiter = asyncio.create_task(known.wait_settled(1500))
    given_up = asyncio.create_task(known.wait_settled(1500))
    await asyncio.sleep(0)
    given_up.cancel()
    known.settle(1450, 1499)
    await asyncio.sleep(0)
    assert not waiter.done()
    known.settle(1450, 1500)
    await waiter
    assert not known._waiting


def test_one_map_for_one_directory(tmp_path: Path) -> None:
    server, session = positions_for(tmp_path / "a"), positions_for(tmp_path / "a")
    assert server is session
    assert positions_for(tmp_path / "b") is not server
    server.begin(LogPoint(77, None))
    del server, session
    gc.collect()
    assert positions_for(tmp_path / "a").start == 0


def test_texts(tmp_path: Path) -> None:
    assert parse_state("3-1-2, 0-11-57") == Gtid(0, 11, 57)
    assert parse_state("") is None
    history = TimelineHistory(9, Gtid(0, 9, 3), b"\0\1\2")
    assert TimelineHistory.parse(history.to_text()) == history
    for bad in ("", "{}", '{"version": 2}', '{"version": 1, "server_id": 1, "gtid": "x", "fde": ""}', "[]"):
        with pytest.raises(EngineError):
            TimelineHistory.parse(bad)
        with pytest.raises(EngineError):
            LogPoint.parse(bad)
    assert read_attached(tmp_path) is None
    point = LogPoint(4096, None)
    (tmp_path / "attached.json").write_text(point.to_text())
    assert read_attached(tmp_path) == point
