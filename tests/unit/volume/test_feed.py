"""What a reader is shown: only what is durable, only timelines whose term is committed."""

from __future__ import annotations

from borealis.log.history import TermHistory
from borealis.log.types import PAGE_BYTES, TermEntry
from borealis.volume.feed import VolumeFeed

FIRST = TermEntry(1, 1, 0, "", "seed")
SECOND = TermEntry(3, 2, 100, "1\t0/64\tno reason\n", "i2")
HISTORY = TermHistory((FIRST,))
LATER = TermHistory((FIRST, SECOND))


class Nodes:
    """Stands for the storage: a log of known bytes, and what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    async def fetch(self, start: int, end: int) -> bytes:
        self.asked.append((start, end))
        return bytes(end - start)


def make_feed(ring_bytes: int = 4 * PAGE_BYTES) -> tuple[VolumeFeed, Nodes, list[int]]:
    nodes = Nodes()
    feed = VolumeFeed("42", nodes.fetch, ring_bytes=ring_bytes)
    seen: list[int] = []
    feed.subscribe(lambda: seen.append(feed.vdl))
    return feed, nodes, seen


def test_nothing_is_shown_before_a_commit() -> None:
    feed, _, seen = make_feed()
    assert not feed.known
    feed.set_history(HISTORY)
    feed.append(0, b"x" * 50)
    assert (feed.vdl, feed.timelines) == (0, {})
    feed.commit(1, 40)
    assert feed.vdl == 40
    assert list(feed.timelines) == [1]
    assert seen[-1] == 40


def test_a_commit_point_waits_for_its_bytes() -> None:
    feed, _, seen = make_feed()
    feed.set_history(HISTORY)
    feed.commit(1, 80)
    assert feed.vdl == 0
    feed.append(0, b"x" * 50)
    assert feed.vdl == 50
    feed.append(50, b"x" * 50)
    assert feed.vdl == 80
    assert seen[-2:] == [50, 80]


def test_gaps_are_refused_and_overlaps_are_not_taken_twice() -> None:
    feed, _, _ = make_feed()
    feed.set_history(HISTORY)
    assert feed.append(0, b"abcdef")
    assert not feed.append(7, b"x")
    assert feed.append(4, b"efgh")
    assert feed.append(2, b"cd")
    assert feed.buffered(0, 8) == b"abcdefgh"


def test_a_term_shows_only_when_it_is_committed() -> None:
    feed, _, _ = make_feed()
    feed.set_history(HISTORY)
    feed.append(0, b"x" * 120)
    feed.commit(1, 120)
    # A new writer began at 100: what lies above was the first part of a record, and is void.
    feed.set_history(LATER)
    assert feed.end == 100
    assert feed.vdl == 100
    assert list(feed.timelines) == [1]
    feed.append(100, b"y" * 60)
    assert feed.vdl == 100
    feed.commit(3, 130)
    assert feed.vdl == 130
    assert list(feed.timelines) == [1, 2]
    assert feed.timelines[1][1] == 100
    # What an older writer says is old news.
    feed.commit(1, 160)
    assert feed.vdl == 130


async def test_old_log_is_read_to_a_page_boundary_or_to_the_end_of_the_range() -> None:
    feed, nodes, _ = make_feed()
    feed.set_history(HISTORY)
    feed.restart(3 * PAGE_BYTES + 100)
    feed.append(3 * PAGE_BYTES + 100, bytes(2 * PAGE_BYTES))
    feed.commit(1, 5 * PAGE_BYTES + 100)
    assert feed.vdl == 5 * PAGE_BYTES + 100
    await feed.read(0, feed.vdl)
    await feed.read(3 * PAGE_BYTES, 3 * PAGE_BYTES + 200)
    await feed.read(3 * PAGE_BYTES, feed.vdl)
    assert nodes.asked == [
        (0, 4 * PAGE_BYTES),
        (3 * PAGE_BYTES, 3 * PAGE_BYTES + 200),
        (3 * PAGE_BYTES, 4 * PAGE_BYTES),
    ]
    assert len(await feed.read(4 * PAGE_BYTES, feed.vdl)) == PAGE_BYTES + 100
    assert len(nodes.asked) == 3


def test_unsubscribed_listeners_are_not_called() -> None:
    feed, _, seen = make_feed()
    calls: list[int] = []
    unsubscribe = feed.subscribe(lambda: calls.append(feed.vdl))
    feed.set_history(HISTORY)
    unsubscribe()
    unsubscribe()
    count = len(calls)
    feed.append(0, b"x")
    feed.commit(1, 1)
    assert len(calls) == count
    assert seen[-1] == 1
