"""Short words for the tests of the quorum log."""

from __future__ import annotations

from borealis.log import wire
from borealis.log.history import TermHistory
from borealis.log.quorum import QuorumSet
from borealis.log.segment import SegmentCore
from borealis.log.types import TermEntry

NODES = ("n1", "n2", "n3", "n4", "n5", "n6")
SIX = QuorumSet(frozenset(NODES))


def entry(term: int, start: int, timeline: int = 1, writer: str = "") -> TermEntry:
    return TermEntry(term, timeline, start, "", writer or f"w{term}")


def history(*entries: tuple[int, int]) -> TermHistory:
    """history((1, 0), (3, 100)): term 1 from 0, term 3 from 100."""
    return TermHistory.of(entry(term, start) for term, start in entries)


def segment(*entries: tuple[int, int], data: bytes = b"", vdl: int = 0) -> SegmentCore:
    """A segment that was created and led through these terms, and then got `data` at its end."""
    core = SegmentCore("vol", "n1", "az")
    ask(core, wire.Create("vol", history(entries[0])))
    for count in range(2, len(entries) + 1):
        # Bytes up to the next term's start come from the leader before it.
        fill(core, entries[count - 1][1])
        reply = ask(core, wire.NewTerm(entries[count - 1][0], history(*entries[:count])))
        assert isinstance(reply, wire.NewTermReply)
        assert reply.ok
    if data:
        ask(core, wire.Append(entries[-1][0], core.end, vdl, 0, data))
    return core


def fill(core: SegmentCore, end: int) -> None:
    if end > core.end:
        ask(core, wire.Append(core.history.newest_term, core.end, 0, 0, b"." * (end - core.end)))


def ask(core: SegmentCore, message: wire.Message) -> wire.Message | None:
    """The one reply to a message, if there is one."""
    step = core.handle(message, "me")
    assert len(step.replies) <= 1
    return step.replies[0][1] if step.replies else None
