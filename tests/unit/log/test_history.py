"""Term histories: the rules that everything else rests on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borealis.log.history import TermHistory, Timeline
from borealis.log.types import LSN_MAX, HistoryError, TermEntry, piece_end
from tests.unit.log.helpers import entry, history


@st.composite
def histories(draw: st.DrawFn) -> TermHistory:
    steps = draw(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 50)), max_size=6))
    result, term, start = [], 0, 0
    for more_term, more_start in steps:
        term, start = term + more_term, start + more_start
        result.append((term, start))
    return history(*result)


def test_terms_must_rise_and_starts_never_fall() -> None:
    with pytest.raises(HistoryError, match="terms must rise"):
        history((2, 0), (2, 10))
    with pytest.raises(HistoryError, match="starts must never go down"):
        history((1, 10), (2, 5))


def test_last_term_needs_the_log_to_reach_it() -> None:
    one = history((1, 0), (2, 100))
    assert one.last_term(99) == 1
    assert one.last_term(100) == 2
    assert one.newest_term == 2
    assert one.upto(99) == history((1, 0))


def test_extend_drops_entries_that_own_nothing_any_more() -> None:
    """A recovery at 100, then a timeline that begins at 90: bytes above 90 must not look like agreed ones."""
    recovered = history((1, 0), (2, 100))
    assert recovered.extend(entry(3, 90)) == history((1, 0), (3, 90))
    assert recovered.extend(entry(3, 100)) == history((1, 0), (2, 100), (3, 100))


@pytest.mark.parametrize(
    ("one", "other", "until"),
    [
        (history((1, 0)), history((1, 0)), LSN_MAX),
        (history((1, 0)), history((1, 0), (2, 100)), 100),
        (history((1, 0), (3, 200)), history((1, 0), (2, 150)), 150),
        (history((1, 0), (2, 100)), history((1, 0), (3, 90)), 90),
        (history((1, 0), (2, 100), (3, 100)), history((1, 0), (2, 100)), 100),
        (history((1, 0)), history((1, 50)), 0),
        (history(), history((1, 0)), 0),
    ],
)
def test_agree_until(one: TermHistory, other: TermHistory, until: int) -> None:
    assert one.agree_until(other) == until
    assert other.agree_until(one) == until


def test_rival_writers_of_one_term_do_not_agree() -> None:
    mine, theirs = (history((1, 0)).extend(entry(2, 10, writer=name)) for name in ("a", "b"))
    assert mine.agree_until(theirs) == 10


def test_clamp_cuts_at_the_next_term() -> None:
    seen = history((1, 0), (3, 90))
    assert seen.clamp(2, 100) == 90
    assert seen.clamp(3, 100) == 100


def test_timelines_merge_terms_that_go_on() -> None:
    entries = [
        TermEntry(1, 1, 0, "", "s"),
        TermEntry(2, 1, 100, "", "a"),
        TermEntry(3, 2, 100, "two", "a"),
        TermEntry(5, 2, 200, "", "b"),
        TermEntry(6, 3, 190, "three", "b"),
    ]
    result = TermHistory.of(entries[:3]).extend(entries[3]).extend(entries[4])
    assert result.timelines() == {
        1: Timeline(0, 100, ""),
        2: Timeline(100, 190, "two"),
        3: Timeline(190, None, "three"),
    }


def test_json_round_trip_and_refusal() -> None:
    one = history((1, 0), (2, 5))
    assert TermHistory.from_json(one.to_json()) == one
    wrongs: list[object] = [{}, [{"term": 1}], [{**one.to_json()[0], "start": None}]]
    for wrong in wrongs:
        with pytest.raises(HistoryError):
            TermHistory.from_json(wrong)


@given(histories(), st.integers(0, 400))
def test_upto_and_last_term_say_the_same(one: TermHistory, end: int) -> None:
    assert one.upto(end).newest_term == one.last_term(end)


@given(histories(), st.integers(0, 400), st.integers(1, 3), st.integers(0, 400))
def test_a_leader_agrees_with_its_source_up_to_its_start(
    one: TermHistory, end: int, more: int, start: int
) -> None:
    """What a candidate takes over is its source's log, up to where the new term begins."""
    source = one.upto(end)
    first = source.entries[0].start if source.entries else 0
    start = max(first, min(start, end))
    grown = source.extend(entry(source.newest_term + more, start))
    if source.entries:
        assert grown.agree_until(source) == start
    starts = [item.start for item in grown]
    assert starts == sorted(starts)


@given(histories(), histories())
def test_agreement_is_symmetric_and_total_with_oneself(one: TermHistory, other: TermHistory) -> None:
    assert one.agree_until(other) == other.agree_until(one)
    assert one.agree_until(one) == (LSN_MAX if len(one) else 0)


@given(st.integers(0, 1 << 40), st.integers(1, 1 << 24), st.integers(8192, 1 << 20))
def test_pieces_end_where_they_may(start: int, length: int, limit: int) -> None:
    end = piece_end(start, start + length, limit)
    assert start < end <= start + min(length, limit)
    assert end == start + length or end % 8192 == 0
