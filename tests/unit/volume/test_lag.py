"""The lag of a reader: the age of the oldest commit point that it has not replayed."""

from __future__ import annotations

from borealis.volume.lag import SAMPLES_MAX, LagMeter


def test_no_lag_when_all_is_replayed() -> None:
    meter = LagMeter()
    meter.heard(100, now=1.0)
    meter.replayed(100)
    assert not meter.behind
    assert meter.lag_seconds(9.0) == 0


def test_the_oldest_missing_point_counts() -> None:
    meter = LagMeter()
    meter.heard(100, now=1.0)
    meter.heard(200, now=2.0)
    meter.heard(300, now=3.0)
    assert meter.lag_seconds(4.0) == 3.0
    meter.replayed(150)
    assert meter.lag_seconds(4.0) == 2.0
    meter.replayed(299)
    assert meter.lag_seconds(4.0) == 1.0
    meter.replayed(400)
    meter.heard(350, now=5.0)  # heard late: here it is replayed already
    assert not meter.behind


def test_memory_is_bounded() -> None:
    meter = LagMeter()
    for step in range(3 * SAMPLES_MAX):
        meter.heard(step + 1, now=step * 1.0)
    assert meter.lag_seconds(3.0 * SAMPLES_MAX) == 3.0 * SAMPLES_MAX
    meter.replayed(3 * SAMPLES_MAX)
    assert not meter.behind
