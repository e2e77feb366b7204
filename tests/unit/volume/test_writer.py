"""The way of a commit: what is sent, when it is released, and what ends the writer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from borealis.errors import BorealisError
from borealis.log.history import TermHistory
from borealis.log.quorum import QuorumSet
from borealis.log.types import Superseded, TermEntry
from borealis.log.wire import (
    Ack,
    Append,
    Commit,
    FrameReader,
    Message,
    NewTerm,
    NewTermReply,
    Reason,
    Refused,
    decode,
)
from borealis.volume import writer as writer_module
from borealis.volume.device import LogDevice
from borealis.volume.enginelog import EngineLog, LogFileError
from borealis.volume.lease import Lease
from borealis.volume.link import Links
from borealis.volume.writer import Writer

NODES = [f"n{number}" for number in range(1, 7)]
TERM, START = 7, 1000
HISTORY = TermHistory((TermEntry(1, 1, 0, "", "seed"), TermEntry(TERM, 2, START, "history", "i1/7")))


class FakeEngine:
    """An engine that writes its log, and its log device."""

    def __init__(self) -> None:
        self.log = bytearray()
        self.whole = START
        """Where the last whole record ends."""
        self.position = START
        self.timeline = self.written_timeline = 2
        self.write_seq = self.released_seq = 0
        self.lease_deadline_ns = 0
        self.blind = False
        self.whole_only = True
        """Behind the last whole record the log holds nothing that a sync can wait for."""
        receiver, self.sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.setblocking(False)
        self.receiver = receiver

    def write(self, data: bytes, unfinished: bytes = b"") -> int:
        """Writes a record, and perhaps the first part of another one; the number of the write."""
        del self.log[self.whole - START :]
        self.log += data + unfinished
        self.whole += len(data)
        self.write_seq += 1
        self.sender.send(b"notice")
        return self.write_seq

    # what the writer calls of LogDevice
    def bind_notices(self) -> socket.socket:
        return self.receiver

    def view(self) -> SimpleNamespace:
        return SimpleNamespace(
            write_seq=self.write_seq, written_lsn=START + len(self.log), timeline=self.written_timeline
        )

    def release(self, seq: int) -> None:
        self.released_seq = max(self.released_seq, seq)

    def set_lease(self, deadline_ns: int) -> None:
        self.lease_deadline_ns = deadline_ns

    def beat(self) -> None: ...

    # what it calls of EngineLog
    def take(self, written: int) -> tuple[bytes, bool]:
        if self.blind:
            return b"", False
        data = bytes(self.log[self.position - START : self.whole - START])
        self.position = self.whole
        return data, False

    def missed(self, written: int) -> bool:
        return self.blind

    def settled(self, written: int) -> bool:
        return self.whole_only or written == self.position

    def written(self, timeline: int, position: int) -> int | None:
        if timeline > self.timeline:
            raise LogFileError(f"timeline {timeline}")
        return position if timeline == self.timeline else None

    def close(self) -> None: ...

    scanner_address = 0


class FakeLinks:
    """Remembers what was sent to whom."""

    def __init__(self) -> None:
        self.user: Any = None
        self.connected = frozenset(NODES)
        self.sent: dict[str, list[Message]] = {node: [] for node in NODES}

    def send(self, node: str, *parts: bytes) -> None:
        for kind, payload in FrameReader().feed(b"".join(parts)):
            self.sent[node].append(decode(kind, payload))

    def drop(self, node: str, reason: str) -> None: ...

    def appends(self, node: str) -> list[tuple[int, bytes]]:
        return [(m.start, m.data) for m in self.sent[node] if isinstance(m, Append) and m.data]

    def commits(self, node: str) -> list[int]:
        return [m.vdl for m in self.sent[node] if isinstance(m, Commit)]


class Bench:
    """A running writer between a fake engine and fake links."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.links = FakeLinks()
        self.ends: list[BorealisError] = []
        self.writer = Writer(
            QuorumSet(frozenset(NODES)),
            HISTORY,
            cast(EngineLog, self.engine),
            cast(LogDevice, self.engine),
            cast(Links, self.links),
            Lease(3600),
            self.ends.append,
        )
        self.task = asyncio.create_task(self.writer.run(dict.fromkeys(NODES, START)))

    async def __aenter__(self) -> Bench:
        await self.until(lambda: self.links.user is self.writer)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.engine.sender.close()
        self.engine.receiver.close()

    @staticmethod
    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0)

    async def written(self, data: bytes, unfinished: bytes = b"") -> int:
        seq = self.engine.write(data, unfinished)
        await self.until(lambda: self.engine.position == self.engine.whole)
        return seq

    def ack(self, *nodes: str, end: int | None = None, sent_ns: int = 1, subscribers: bool = False) -> None:
        for node in nodes:
            reached = self.engine.whole if end is None else end
            self.writer.link_acknowledged(node, Ack(TERM, reached, sent_ns, subscribers))


async def test_released_when_four_have_it() -> None:
    async with Bench() as bench:
        seq = await bench.written(b"record-1", unfinished=b"rec")
        for node in NODES:
            assert bench.links.appends(node) == [(START, b"record-1")]
        bench.ack("n1", "n2", "n3")
        assert bench.engine.released_seq == 0
        bench.ack("n6")
        assert bench.engine.released_seq == seq
        assert bench.writer.vdl == START + 8


async def test_several_batches_are_under_way() -> None:
    async with Bench() as bench:
        first = await bench.written(b"one")
        middle = bench.engine.whole
        second = await bench.written(b"two")
        assert bench.links.appends("n1") == [(START, b"one"), (START + 3, b"two")]
        bench.ack("n1", "n2", "n3", "n4", end=middle)
        assert bench.engine.released_seq == first
        bench.ack("n1", "n2", "n3", "n4")
        assert bench.engine.released_seq == second


async def test_what_is_written_of_a_group_is_not_released_before_all_of_it() -> None:
    async with Bench() as bench:
        bench.engine.whole_only = False
        first = await bench.written(b"one")
        bench.engine.write(b"", unfinished=b"half a gr")
        await bench.until(lambda: bench.engine.write_seq > first)
        bench.ack(*NODES)
        await bench.until(lambda: bench.engine.released_seq == first)
        whole = await bench.written(b"half a group")
        assert bench.engine.released_seq == first
        bench.ack(*NODES)
        await bench.until(lambda: bench.engine.released_seq == whole)


async def test_a_write_without_a_new_record_is_released_with_what_was_sent() -> None:
    async with Bench() as bench:
        await bench.written(b"one")
        again = bench.engine.write(b"", unfinished=b"half a rec")
        await bench.until(lambda: bench.writer._seen_seq() == again)
        assert bench.engine.released_seq == 0
        bench.ack("n1", "n2", "n3", "n4")
        assert bench.engine.released_seq == again
        # And with nothing under way at once.
        idle = bench.engine.write(b"", unfinished=b"half a record")
        await bench.until(lambda: bench.engine.released_seq == idle)


async def test_nodes_with_subscribers_hear_of_it_at_once() -> None:
    async with Bench() as bench:
        await bench.written(b"one")
        bench.ack("n1", subscribers=True)
        bench.ack("n2", "n3", "n4")
        assert bench.links.commits("n1") == [bench.engine.whole]
        assert bench.links.commits("n2") == []


async def test_a_higher_promise_is_the_end() -> None:
    async with Bench() as bench:
        await bench.written(b"one")
        bench.ack("n1", "n2", "n3")
        bench.writer.link_received("n5", Refused(Reason.SUPERSEDED, TERM + 1, START, HISTORY))
        assert isinstance(bench.ends[0], Superseded)
        bench.ack("n4")
        assert bench.engine.released_seq == 0
        bench.engine.write(b"two")
        await asyncio.sleep(0)
        assert bench.links.appends("n1") == [(START, b"one")]
        assert len(bench.ends) == 1


async def test_nothing_is_released_while_the_log_cannot_be_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Bench() as bench:
        bench.engine.blind = True
        bench.engine.write(b"one")
        await bench.until(lambda: bench.writer._behind_since is not None)
        assert bench.engine.released_seq == 0
        monkeypatch.setattr(writer_module, "BEHIND_SECONDS_MAX", -1)
        bench.engine.write(b"two")
        await bench.until(lambda: bool(bench.ends))
        assert isinstance(bench.ends[0], LogFileError)
        assert bench.engine.released_seq == 0


async def test_an_unexpected_timeline_is_the_end() -> None:
    async with Bench() as bench:
        bench.engine.written_timeline = 3
        bench.engine.write(b"one")
        await bench.until(lambda: bool(bench.ends))
        assert bench.engine.released_seq == 0


async def test_a_node_that_comes_back_gets_what_it_missed() -> None:
    async with Bench() as bench:
        bench.writer.link_lost("n6")
        await bench.written(b"one")
        await bench.written(b"two")
        bench.ack("n1", "n2", "n3", "n4")
        assert bench.links.appends("n6") == []
        bench.writer.link_connected("n6")
        assert isinstance(bench.links.sent["n6"][-1], NewTerm)
        bench.writer.link_received("n6", NewTermReply(True, TERM, HISTORY, START))
        joined = b"".join(data for _, data in bench.links.appends("n6"))
        assert joined == b"onetwo"


async def test_the_lease_counts_from_the_quorums_oldest_word() -> None:
    async with Bench() as bench:
        await bench.written(b"one")
        for moment, node in enumerate(NODES, start=1):
            bench.ack(node, sent_ns=moment * 10**12)
        assert bench.engine.lease_deadline_ns == (3000 + 3600) * 10**9
        bench.writer.renew(10**6)
        assert bench.writer.lease.deadline_ns == bench.engine.lease_deadline_ns > 10**15


async def test_what_is_not_acknowledged_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "UNACKNOWLEDGED_BYTES_MAX", 5)
    async with Bench() as bench:
        await bench.written(b"123456")
        bench.engine.write(b"789")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert bench.links.appends("n1") == [(START, b"123456")]
        bench.ack("n1", "n2", "n3", "n4", end=START + 6)
        await bench.until(lambda: len(bench.links.appends("n1")) == 2)
        assert bench.engine.released_seq == 1
        bench.ack("n1", "n2", "n3", "n4")
        assert bench.engine.released_seq == 2
