"""A storage node with one segment: the real SegmentCore on a disk that forgets what was not synced.

Owns the simulated disk, the order "journal, sync, reply", feeding of subscribers and the talking part of
gossip.
"""

from __future__ import annotations

import random

from borealis.log import wire
from borealis.log.gossip import GossipPlan
from borealis.log.history import TermHistory
from borealis.log.records import DataRecord, HistoryRecord, Record, StateRecord, TrimRecord, decode_record
from borealis.log.segment import ReadPlan, SegmentCore, Step
from tests.simulation.engine import LOG_START
from tests.simulation.network import Channel, Network

PIECE_BYTES = 8192


class Feed:
    """One subscriber of a node."""

    __slots__ = ("at", "channel", "told")

    def __init__(self, channel: Channel, at: int, told: TermHistory) -> None:
        self.channel, self.at, self.told = channel, at, told


class SimNode:
    """`process` messages and `sync`; `crash` and `restart` at any moment in between."""

    def __init__(
        self, name: str, rng: random.Random, network: Network, core_type: type[SegmentCore], ack_early: bool
    ) -> None:
        self.name, self._rng, self._network = name, rng, network
        self._deaf = 0
        """While above 0: so many times more, what a peer sent is not heard yet."""
        self._core_type, self._ack_early = core_type, ack_early
        self.check_codec = True
        self.disk: list[Record] = []
        self.up = True
        self._start()

    def _start(self) -> None:
        self.core = self._core_type("volume", self.name)
        self.log = bytearray()
        """Bytes [LOG_START, core.end); below core.base they are void."""
        self._unsynced: list[Record] = []
        self._pending: list[tuple[Channel, wire.Message | ReadPlan[Channel] | Feed]] = []
        self._feeds: list[Feed] = []
        self._plan: GossipPlan | None = None
        self._peer: Channel | None = None
        for record in self.disk:
            self.core.replay(record)
            self._keep(record)

    @property
    def content(self) -> bytes:
        return bytes(self.log)

    @property
    def idle(self) -> bool:
        return not (self._unsynced or self._pending)

    def read(self, start: int, end: int) -> bytes:
        return bytes(self.log[start - LOG_START : end - LOG_START])

    # -------------------- messages

    def process(self, channel: Channel, message: wire.Message) -> None:
        if not self.up:
            return
        self.core.subscribers = len(self._feeds)
        step = self.core.handle(message, channel)
        self._journal(step)
        self._pending += step.replies
        if step.read is not None:
            self._pending.append((channel, step.read))
        if step.subscribe is not None:
            self._pending.append((channel, Feed(*step.subscribe, self.core.history)))
        if self._ack_early:
            self._answer()

    def _journal(self, step: Step[Channel] | Step[None]) -> None:
        for record in step.records:
            self._unsynced.append(record)
            self._keep(record)
        if step.history_changed:
            for feed in self._feeds:
                feed.at = min(feed.at, self.core.end)
                feed.channel.to_client.append(wire.History(self.core.history))
        for feed in self._feeds:
            self._pump(feed)
            if step.vdl_changed:
                feed.channel.to_client.append(self.core.commit)

    def _keep(self, record: Record) -> None:
        if isinstance(record, DataRecord):
            del self.log[record.start - LOG_START :]
            self.log += bytes(record.start - LOG_START - len(self.log)) + record.data
        elif isinstance(record, HistoryRecord):
            del self.log[record.cut - LOG_START :]
        elif isinstance(record, TrimRecord):
            self.log += bytes(max(0, record.below - LOG_START - len(self.log)))
        elif isinstance(record, StateRecord) and len(self.log) < record.end - LOG_START:
            self.log += bytes(record.end - LOG_START - len(self.log))

    def _pump(self, feed: Feed) -> None:
        if not feed.channel.closed and self.core.base <= feed.at < self.core.end:
            data = self.read(feed.at, self.core.end)
            feed.channel.to_client.append(wire.Data(feed.at, data, self.core.history.newest_term))
            feed.at = self.core.end

    def sync(self) -> None:
        """One group commit: everything handed out so far is on the disk; then the replies leave."""
        if not self.up:
            return
        self.disk += self._unsynced
        trimmed = any(isinstance(record, TrimRecord) for record in self._unsynced)
        self._unsynced.clear()
        self._answer()
        self._feeds = [feed for feed in self._feeds if not feed.channel.closed]
        if trimmed or self._rng.random() < 0.01:
            self._begin_file()

    def _answer(self) -> None:
        for channel, reply in self._pending:
            if channel.closed:
                continue
            if isinstance(reply, ReadPlan):
                end = min(reply.end, self.core.end)
                data = self.read(reply.start, end) if reply.log_term == self.core.history.newest_term else b""
                channel.to_client.append(wire.Data(reply.start, data, reply.log_term))
            elif isinstance(reply, Feed):
                self._begin_feed(reply)
            else:
                channel.to_client.append(reply)
        self._pending.clear()

    def _begin_feed(self, feed: Feed) -> None:
        """The answer to SUBSCRIBE may be older than the last message of the same wake-up."""
        if feed.told is not self.core.history:
            feed.channel.to_client.append(wire.History(self.core.history))
        feed.channel.to_client.append(self.core.commit)
        self._feeds.append(feed)
        self._pump(feed)

    def _begin_file(self) -> None:
        """A new journal file begins with the whole state; files that lie below the base are recycled."""
        self.disk.append(self.core.snapshot())
        for index in range(len(self.disk) - 1, 0, -1):
            record = self.disk[index]
            if isinstance(record, StateRecord) and record.end <= self.core.base:
                del self.disk[:index]
                return

    # -------------------- faults

    def crash(self) -> None:
        """Power off: of what was not synced, any number of whole records may be there nevertheless, and then
        a torn one, which a journal recognises and drops."""
        self.up = False
        survived = self._rng.randrange(len(self._unsynced) + 1) if self._rng.random() < 0.5 else 0
        self.disk += self._unsynced[:survived]
        self._unsynced.clear()
        self._pending.clear()
        self._feeds.clear()
        if self._peer is not None:
            self._network.close(self._peer)

    def restart(self) -> None:
        if self.check_codec:
            self.disk = [decode_record(record.encode()) for record in self.disk]
        self._start()
        self.up = True

    # -------------------- gossip: this node as the client of another one

    @property
    def frozen(self) -> bool:
        """Gossip is slow now and then: the world has changed between a question and its answer."""
        self._deaf = max(0, self._deaf - 1)
        return self._deaf > 0

    def _dawdle(self) -> None:
        if self._rng.random() < 0.2:
            self._deaf = self._rng.randrange(1, 200)

    def gossip(self, peer: str) -> None:
        if self._peer is not None and not self._peer.closed:
            if self._deaf > 0 or self._peer.to_client or self._peer.to_node:
                return
            self._network.close(self._peer)
        self._plan = None
        self._peer = self._network.open(self.name, self, peer)
        if self._peer is not None:
            self._peer.send(wire.Status())
            self._dawdle()

    def on_message(self, _: str, message: wire.Message) -> None:
        if not self.up or self._peer is None:
            return
        if isinstance(message, wire.StatusReply) and self._plan is None:
            self._plan = self.core.gossip_plan(message)
            if self._plan is not None:
                self._journal(self.core.gossip_adopt(self._plan))
        elif isinstance(message, wire.Data) and self._plan is not None:
            if not message.data:
                self._plan = None
                return
            self._journal(self.core.gossip_append(self._plan, message))
        if self._plan is not None:
            piece = self._plan.next_piece(self.core.end, PIECE_BYTES)
            if piece is not None and self.core.history.newest_term == self._plan.own_term:
                self._peer.send(wire.Read(*piece, 0, self._plan.log_term))
                self._dawdle()

    def on_lost(self, _: str) -> None:
        self._plan = None
