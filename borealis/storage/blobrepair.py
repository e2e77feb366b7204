"""Fetching blobs anew that turned out to be damaged, from the same segments on other nodes.

Owns what is known to be missing, and the talking to the peers. A damaged blob is removed at once: nobody may
be given it, and a node that says what it holds must not count it. It never fetches what was not damaged here:
a blob that is missing for another reason was removed.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from typing import cast

from borealis.errors import BorealisError
from borealis.log.wire import BlobData, BlobGet, BlobInfo, BlobPut, Purpose, Status, StatusReply
from borealis.logs import get_logger
from borealis.storage.actor import SegmentActor
from borealis.storage.client import NodeConnection
from borealis.storage.errors import BlobError
from borealis.storage.peers import Peer, PeerBook

log = get_logger(__name__)

ASK_SECONDS_MAX = 5.0
PIECE_BYTES = 1 << 20


class BlobRepair:
    """Of one node. Used on its event loop; work on files goes to the pool."""

    def __init__(self, book: PeerBook, pool: Executor) -> None:
        self._book = book
        self._pool = pool
        self._missing: set[tuple[str, BlobInfo]] = set()

    async def damaged(self, actor: SegmentActor, info: BlobInfo) -> None:
        """That blob does not match its checksum: removes it and tries to get it back. Raises StorageError."""
        log.error("volume %s: blob %s is damaged: fetching it anew", actor.volume, info.name)
        self._missing.add((actor.volume, info))
        await asyncio.get_running_loop().run_in_executor(self._pool, actor.blobs.discard, info)
        await self.mend(actor)

    async def mend(self, actor: SegmentActor) -> None:
        """Tries to get back what is missing of one segment."""
        for volume, info in sorted(self._missing, key=lambda missing: missing[1].name):
            if volume == actor.volume and await self._fetch(actor, info):
                self._missing.discard((volume, info))

    async def _fetch(self, actor: SegmentActor, info: BlobInfo) -> bool:
        """True: it is here again, or no node has it any more."""
        unsure = False
        for peer in self._book.peers():
            try:
                if await self._fetch_from(peer, actor, info):
                    actor.condition.repaired += 1
                    actor.condition.changed()
                    log.info("volume %s: blob %s is back, from node %s", actor.volume, info.name, peer.node)
                    return True
            except BorealisError as error:
                log.debug("volume %s: blob %s from %s: %s", actor.volume, info.name, peer.node, error)
                unsure = True
        return not unsure

    async def _fetch_from(self, peer: Peer, actor: SegmentActor, info: BlobInfo) -> bool:
        connection = await NodeConnection.connect(
            peer.address, actor.volume, Purpose.GOSSIP, timeout=ASK_SECONDS_MAX
        )
        try:
            status = cast(StatusReply, await connection.request(Status(), timeout=ASK_SECONDS_MAX))
            # Its size is the peer's to say: the damaged one may have been cut short.
            whole = next((b for b in status.blobs if (b.name, b.sha256) == (info.name, info.sha256)), None)
            if whole is None:
                return False
            offset = 0
            while True:
                piece = await self._piece(connection, whole, offset)
                await asyncio.get_running_loop().run_in_executor(self._pool, actor.blobs.put, piece)
                offset += len(piece.data)
                if piece.last:
                    return True
        finally:
            await connection.close()

    async def _piece(self, connection: NodeConnection, info: BlobInfo, offset: int) -> BlobPut:
        request = BlobGet(info.name, offset, PIECE_BYTES)
        reply = cast(BlobData, await connection.request(request, timeout=ASK_SECONDS_MAX))
        if reply.sha256 != info.sha256 or not (reply.data or info.size == 0):
            raise BlobError(f"node {connection.node} has another blob {info.name} now")
        last = offset + len(reply.data) >= info.size
        return BlobPut(info.name, offset, info.size, info.sha256, last, reply.data)
