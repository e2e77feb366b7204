"""Following the log: a subscription to one storage node after the other, feeding `VolumeFeed`.

Owns the choice of the node (own availability zone first; another one when it is lost, silent or left behind)
and the connection to it. It never decides what may be shown: that is the feed's. It is one task, which goes
on until it is cancelled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from borealis.errors import BorealisError
from borealis.log.types import CommitPoint
from borealis.log.wire import Commit, Data, History, Message, Purpose, Status, StatusReply, Subscribe
from borealis.logs import get_logger
from borealis.storage.client import NodeConnection
from borealis.storage.errors import NodeUnreachable
from borealis.volume.config import NodeAddress
from borealis.volume.feed import VolumeFeed
from borealis.volume.source import LogSource

log = get_logger(__name__)

PING_SECONDS = 0.5
PING_TIMEOUT_SECONDS = 1.0
RETRY_SECONDS = (0.02, 1.0)
"""First and longest pause after all nodes were tried in vain."""
COMMIT_SECONDS = 0.001
"""Commit points that follow each other faster are passed on together; one that comes alone goes at once."""
JUMP_BYTES = 32 << 20
"""Further behind a node than this, the log in between is not streamed but read when it is asked for."""


class Follower:
    """Keeps a feed up to date. Run `run()` as a task."""

    def __init__(
        self, volume: str, az: str, nodes: Sequence[NodeAddress], feed: VolumeFeed, source: LogSource
    ):
        self._volume = volume
        self._feed = feed
        self._source = source
        self._order = order_of(nodes, az)
        self._connection: NodeConnection | None = None
        self._peer_turn = 0
        self._committed_at = 0.0
        self._held_commit: Commit | None = None
        """The newest commit point, which the feed is told in a moment."""
        self._joined = False
        """The history of the present subscription has come."""
        self.node = ""
        """The node that is followed now; "" while there is none."""

    async def run(self) -> None:
        """Follow the log for ever."""
        pause = RETRY_SECONDS[0]
        while True:
            for node in await self._candidates():
                reason = await self._follow(node)
                log.info("no longer following %s: %s", node.id, reason)
                if self.node:
                    self.node, pause = "", RETRY_SECONDS[0]
                    break
            else:
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_SECONDS[1])

    async def _candidates(self) -> list[NodeAddress]:
        """Whom to try, the best one first: a node that is behind what we have is of little use."""
        statuses = await self._source.statuses()
        floor = self._feed.commit_point
        usable = [
            n for n in self._order if n.id in statuses and statuses[n.id].history.newest_term >= floor.term
        ]
        newest = max((statuses[n.id].vdl for n in usable), default=floor)

        def lag(node: NodeAddress) -> bool:
            return statuses[node.id].end < min(newest.lsn, max(floor.lsn, newest.lsn))

        return sorted(usable, key=lag)

    async def _follow(self, node: NodeAddress) -> str:
        """Follow one node until that ends; returns why it did."""
        try:
            connection = await NodeConnection.connect(
                node.address,
                self._volume,
                Purpose.READER,
                timeout=PING_TIMEOUT_SECONDS,
                on_message=self._take,
            )
        except (BorealisError, OSError) as error:
            return str(error)
        self._connection = connection
        try:
            status = await connection.request(Status(), timeout=PING_TIMEOUT_SECONDS)
            assert isinstance(status, StatusReply)
            self._join(status)
            self._feed.resubscribed()
            self._joined = False
            connection.send(Subscribe(self._feed.end))
            self.node = node.id
            log.info("following %s from %X", node.id, self._feed.end)
            return await self._watch(node, connection)
        except (BorealisError, OSError) as error:
            return str(error)
        finally:
            self._connection = None
            connection.abort()
            await connection.closed.wait()

    def _join(self, status: StatusReply) -> None:
        """Bring the feed to a place from which this node can go on."""
        feed = self._feed
        point = status.vdl
        if not feed.set_history(status.history):
            raise NodeUnreachable(f"node {status.node} has not heard of term {feed.commit_point.term} yet")
        durable = min(status.history.clamp(point.term, point.lsn), status.end)
        if not feed.end or feed.end < status.base or durable - feed.end > JUMP_BYTES:
            feed.restart(max(durable, status.base))
        feed.commit(*point)

    async def _watch(self, node: NodeAddress, connection: NodeConnection) -> str:
        """Wait for the end of the connection; end it when the node is silent, or left behind by others."""
        before: CommitPoint | None = None
        while True:
            try:
                async with asyncio.timeout(PING_SECONDS):
                    await connection.closed.wait()
                return "the connection was lost"
            except TimeoutError:
                pass
            await connection.request(Status(), timeout=PING_TIMEOUT_SECONDS)
            if before is not None and before > self._feed.commit_point:
                return f"left behind: {before.lsn:X} was durable {PING_SECONDS} s ago"
            before = await self._heard_elsewhere(node)

    async def _heard_elsewhere(self, node: NodeAddress) -> CommitPoint | None:
        """The commit point of one of the other nodes, each time the next one's."""
        others = [other for other in self._order if other.id != node.id]
        if not others:
            return None
        self._peer_turn = (self._peer_turn + 1) % len(others)
        status = await self._source.status(others[self._peer_turn], PING_SECONDS)
        return status.vdl if status is not None else None

    def _take(self, message: Message) -> None:
        """A message of the stream; on the event loop."""
        feed = self._feed
        if isinstance(message, Data):
            if not feed.append(message.start, message.data):
                self._drop(f"a gap: bytes from {message.start:X}, expected {feed.end:X}")
        elif isinstance(message, Commit):
            self._commit(message)
        elif isinstance(message, History):
            end = feed.end
            if not feed.set_history(message.history):
                self._drop(f"its history ends at term {message.history.newest_term}")
            elif feed.end < end and not self._joined:
                self._drop("its log has changed since it was asked")  # Its stream begins above our end.
            self._joined = True
        else:
            self._drop(f"unexpected {type(message).__name__}")

    def _commit(self, message: Commit) -> None:
        """Now, or with those that follow at once: each step wakes the engine's receiver and its replay."""
        now = time.monotonic()
        if self._held_commit is not None:
            self._held_commit = message
        elif now - self._committed_at >= COMMIT_SECONDS:
            self._committed_at = now
            self._feed.commit(message.term, message.vdl)
        else:
            self._held_commit = message
            asyncio.get_running_loop().call_later(COMMIT_SECONDS, self._release_commit)

    def _release_commit(self) -> None:
        message, self._held_commit = self._held_commit, None
        self._committed_at = time.monotonic()
        if message is not None:
            self._feed.commit(message.term, message.vdl)

    def _drop(self, reason: str) -> None:
        if self._connection is not None:
            self._connection.abort(reason)


def order_of(nodes: Sequence[NodeAddress], az: str) -> list[NodeAddress]:
    """The nodes of the own availability zone first; otherwise as given."""
    return sorted(nodes, key=lambda node: node.az != az)
