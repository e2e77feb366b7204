"""A reader's position: nothing above the commit point, and never back."""

from __future__ import annotations

from borealis.log.reading import ReaderCursor
from borealis.log.types import CommitPoint
from tests.unit.log.helpers import history


def following(position: int = 0) -> ReaderCursor:
    cursor = ReaderCursor(position)
    assert cursor.on_history(history((1, 0)))
    return cursor


def test_only_durable_bytes_are_visible() -> None:
    cursor = following()
    assert cursor.on_data(0, 100) == 0
    assert cursor.visible == 0
    assert cursor.on_commit(1, 60)
    assert cursor.visible == 60
    assert not cursor.on_commit(1, 50)
    assert cursor.on_commit(1, 150)
    assert cursor.visible == 100


def test_overlap_is_skipped_and_a_gap_is_told() -> None:
    cursor = following()
    cursor.on_data(0, 100)
    assert cursor.on_data(90, 20) == 10
    assert cursor.on_data(0, 50) == 50
    assert cursor.on_data(200, 10) is None
    assert cursor.end == 110


def test_a_new_history_takes_back_what_was_not_durable() -> None:
    cursor = following()
    cursor.on_data(0, 100)
    cursor.on_commit(1, 80)
    assert cursor.on_history(history((1, 0), (3, 90)))
    assert (cursor.end, cursor.visible) == (90, 80)
    assert cursor.durable_history == history((1, 0)), "term 3 is not durable yet"
    assert cursor.on_commit(3, 90)
    assert cursor.durable_history == history((1, 0), (3, 90))


def test_an_incomplete_record_may_be_taken_back() -> None:
    cursor = following()
    cursor.on_data(0, 100)
    cursor.on_commit(1, 100)
    assert cursor.on_history(history((1, 0), (3, 95)))
    assert (cursor.end, cursor.vdl, cursor.visible) == (95, CommitPoint(1, 95), 95)


def test_a_segment_out_of_date_is_not_listened_to() -> None:
    cursor = following()
    cursor.on_history(history((1, 0), (3, 50)))
    cursor.on_data(0, 100)
    cursor.on_commit(3, 70)
    cursor.resubscribed()
    assert cursor.on_data(100, 10) is None, "before its history"
    assert not cursor.on_history(history((1, 0)))
    assert cursor.on_data(100, 10) is None
    assert not cursor.on_commit(1, 500)
    assert (cursor.end, cursor.visible) == (100, 70)
    assert cursor.on_history(history((1, 0), (3, 50)))
    assert cursor.on_data(100, 10) == 0


def test_a_commit_point_of_an_unknown_term_is_ignored() -> None:
    cursor = following()
    assert not cursor.on_commit(2, 50)
    assert not following().on_history(history())
