"""Segments fill their gaps, and replace their damaged bytes, from the same segments on other nodes.

Owns the talking: whom to ask, when, and how much at a time. What may be taken is decided by
borealis.log.gossip and applied by the segment's own thread. Runs on the node's event loop, in small pieces,
so that live appends go on between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable
from typing import cast

from borealis.errors import BorealisError
from borealis.log.gossip import GossipPlan, repair_range
from borealis.log.types import Lsn, piece_end
from borealis.log.wire import Data, Purpose, Read, Status, StatusReply
from borealis.logs import get_logger
from borealis.storage.actor import SegmentActor
from borealis.storage.client import NodeConnection
from borealis.storage.errors import StorageFull
from borealis.storage.peers import Peer, PeerBook

log = get_logger(__name__)

ROUND_SECONDS = 1.0
PAUSE_SECONDS = 0.02
"""The least time between two rounds of one segment, however often it is told that it lacks bytes."""
ASK_SECONDS_MAX = 2.0
PIECE_BYTES = 512 * 1024


class SegmentGossip:
    """The gossip of one segment: one task, `run`, until it is cancelled."""

    def __init__(self, actor: SegmentActor, book: PeerBook) -> None:
        self._actor = actor
        self._book = book
        self._wanted = asyncio.Event()
        self._connections: dict[str, NodeConnection] = {}
        self._turns = itertools.count()
        self._last_seen: tuple[Lsn, int] = (-1, 0)

    def wake(self) -> None:
        """The segment lacks bytes: ask now."""
        self._wanted.set()

    async def run(self) -> None:
        try:
            while True:
                wanted = self._wanted.is_set()
                self._wanted.clear()
                try:
                    await self._round(everybody=wanted)
                except BorealisError as error:
                    log.debug("volume %s: gossip: %s", self._actor.volume, error)
                except Exception:
                    log.exception("volume %s: gossip failed", self._actor.volume)
                await asyncio.sleep(PAUSE_SECONDS)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ROUND_SECONDS):
                        await self._wanted.wait()
        finally:
            for connection in self._connections.values():
                connection.abort()

    async def _round(self, *, everybody: bool) -> None:
        """Asks all peers when the segment has changed or was told to; else one of them, in turn."""
        own = await self._own()
        seen = (own.end, own.history.newest_term)
        if seen != self._last_seen or own.corrupt or own.vdl.lsn > own.end:
            everybody = True
        self._last_seen = seen
        peers = self._book.peers()
        if not everybody and peers:
            peers = (peers[next(self._turns) % len(peers)],)
        rebasing: list[tuple[NodeConnection, StatusReply]] = []
        for answer in asyncio.as_completed([self._ask(peer) for peer in peers]):
            found = await answer
            if found is None:
                continue
            connection, status = found
            if own.corrupt:
                await self._repair(connection, status)
            plan = await self._plan(status)
            if plan is not None and plan.rebase is not None:
                rebasing.append(found)  # A peer that still has the bytes is better, if there is one.
            elif plan is not None:
                await self._take(connection, plan)
        for connection, status in rebasing:
            plan = await self._plan(status)
            if plan is not None:
                await self._take(connection, plan)

    async def _own(self) -> StatusReply:
        return await asyncio.wrap_future(self._actor.call(lambda actor: actor.core.status()))

    async def _plan(self, peer: StatusReply) -> GossipPlan | None:
        return await asyncio.wrap_future(self._actor.call(lambda actor: actor.core.gossip_plan(peer)))

    async def _ask(self, peer: Peer) -> tuple[NodeConnection, StatusReply] | None:
        """The peer's STATUS; None when it does not answer or has no such segment."""
        try:
            connection = self._connections.get(peer.node)
            if connection is None or connection.closed.is_set():
                connection = await NodeConnection.connect(
                    peer.address, self._actor.volume, Purpose.GOSSIP, timeout=ASK_SECONDS_MAX
                )
                self._connections[peer.node] = connection
            status = cast(StatusReply, await connection.request(Status(), timeout=ASK_SECONDS_MAX))
        except BorealisError:
            return None
        return (connection, status) if len(status.history) else None

    async def _take(self, connection: NodeConnection, plan: GossipPlan) -> None:
        """Applies a plan and fetches its bytes, one piece at a time."""

        def adopt(actor: SegmentActor) -> Lsn | None:
            if not _has_room_for_state(actor):
                return None
            actor.apply(actor.core.gossip_adopt(plan))
            return actor.core.end

        first = end = _stored(await asyncio.wrap_future(self._actor.call(adopt)))
        while (piece := plan.next_piece(end, PIECE_BYTES)) is not None:
            reply = await connection.request(Read(*piece, 0, plan.log_term), timeout=ASK_SECONDS_MAX)
            reached = await self._append(plan, cast(Data, reply))
            if reached <= end:
                break
            end = reached
        if end > first:
            log.info("volume %s: took [%d, %d) from node %s", self._actor.volume, first, end, connection.node)

    async def _append(self, plan: GossipPlan, data: Data) -> Lsn:
        def append(actor: SegmentActor) -> Lsn | None:
            # An error here would close the files. They are well: they only take no more now.
            if actor.journal is None or not actor.journal.files.has_room(len(data.data)):
                return None
            actor.apply(actor.core.gossip_append(plan, data))
            return actor.core.end

        return _stored(await asyncio.wrap_future(self._actor.call(append)))

    async def _repair(self, connection: NodeConnection, peer: StatusReply) -> None:
        """Fetches what is damaged here and whole on the peer."""
        own = await self._own()
        for start, end in _pieces(own.corrupt):
            wanted = repair_range(own, peer, start, end)
            if wanted is None:
                continue
            request = Read(*wanted, 0, peer.history.newest_term)
            data = cast(Data, await connection.request(request, timeout=ASK_SECONDS_MAX))
            if data.data and data.log_term == peer.history.newest_term:
                await asyncio.wrap_future(self._actor.call(_repair_with(peer, data)))


def _has_room_for_state(actor: SegmentActor) -> bool:
    journal = actor.journal
    return journal is not None and journal.has_room_for_state()


def _stored(end: Lsn | None) -> Lsn:
    """Raises StorageFull when nothing was stored for want of room."""
    if end is None:
        raise StorageFull("no room for what gossip has brought")
    return end


def _pieces(ranges: Iterable[tuple[Lsn, Lsn]]) -> Iterable[tuple[Lsn, Lsn]]:
    for start, end in ranges:
        at = start
        while at < end:
            until = piece_end(at, end, PIECE_BYTES)
            yield at, until
            at = until


def _repair_with(peer: StatusReply, data: Data) -> Callable[[SegmentActor], None]:
    """Work for the segment's thread: put in what was fetched, if the histories still agree up to there."""

    def repair(actor: SegmentActor) -> None:
        journal, end = actor.journal, data.start + len(data.data)
        allowed = repair_range(actor.core, peer, data.start, end)
        if journal is None or allowed != (data.start, end) or not journal.files.has_room(len(data.data)):
            return
        journal.repair(data.start, data.data)

    return repair
