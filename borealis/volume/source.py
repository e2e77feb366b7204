"""Reading old log from the storage nodes, one piece at a time.

Owns one connection to each node that was asked, made when it is needed. It reads what a driver has no longer
in memory; it never subscribes, writes or decides what is durable: the caller asks only for ranges that are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from borealis.errors import BorealisError
from borealis.log.types import PAGE_BYTES, piece_end
from borealis.log.wire import Data, Purpose, Read, Status, StatusReply
from borealis.logs import get_logger
from borealis.storage.client import NodeConnection
from borealis.volume.config import NodeAddress

log = get_logger(__name__)

TIMEOUT_SECONDS = 2.0
"""A node that does not answer for so long is passed over."""
PATIENCE_SECONDS = 0.2
"""How long `statuses` waits for the next answer after the last one."""


class LogSource:
    """The nodes of one volume, in the order in which they are asked."""

    def __init__(self, volume: str, nodes: Sequence[NodeAddress]) -> None:
        self.nodes = tuple(nodes)
        self._volume = volume
        self._connections: dict[str, NodeConnection] = {}
        self._dialling: dict[str, asyncio.Lock] = {node.id: asyncio.Lock() for node in nodes}

    async def close(self) -> None:
        """Ends all connections."""
        connections, self._connections = list(self._connections.values()), {}
        for connection in connections:
            connection.abort()
        await asyncio.gather(*(connection.closed.wait() for connection in connections))

    async def read(self, start: int, end: int, *, log_term: int = 0) -> bytes:
        """The log from `start` on, at most one piece of it; empty when no node can give it now.

        `log_term` not 0: only from nodes whose log is that of this term.
        """
        if start >= end:
            return b""
        end = piece_end(start, end)
        for node in self.nodes:
            try:
                connection = await self._connection(node)
                reply = await connection.request(Read(start, end, 0, log_term), timeout=TIMEOUT_SECONDS)
            except (BorealisError, OSError):
                continue
            if isinstance(reply, Data) and reply.start == start and reply.data:
                # A shorter answer may end anywhere in a record: only whole pages of it are given on.
                if start + len(reply.data) == end:
                    return reply.data
                usable = (start + len(reply.data)) // PAGE_BYTES * PAGE_BYTES - start
                if usable > 0:
                    return reply.data[:usable]
        return b""

    async def status(self, node: NodeAddress, timeout: float = TIMEOUT_SECONDS) -> StatusReply | None:
        """How the node stands; None when it does not answer or has no segment of the volume."""
        try:
            async with asyncio.timeout(timeout):
                connection = await self._connection(node)
                reply = await connection.request(Status())
        except (BorealisError, OSError):
            return None
        return reply if isinstance(reply, StatusReply) and len(reply.history) > 0 else None

    async def statuses(self) -> dict[str, StatusReply]:
        """`status` of the nodes that answer soon, by node id. Nobody waits long for one that hangs: once some
        have answered, the others have a moment left."""
        asked = {asyncio.create_task(self.status(node)): node for node in self.nodes}
        waiting = set(asked)
        found: dict[str, StatusReply] = {}
        try:
            while waiting:
                patience = PATIENCE_SECONDS if found else None
                done, waiting = await asyncio.wait(
                    waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                found |= {asked[task].id: reply for task in done if (reply := task.result()) is not None}
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        return found

    async def _connection(self, node: NodeAddress) -> NodeConnection:
        async with self._dialling[node.id]:
            connection = self._connections.get(node.id)
            if connection is None or connection.closed.is_set():
                connection = await NodeConnection.connect(
                    node.address, self._volume, Purpose.READER, timeout=TIMEOUT_SECONDS
                )
                self._connections[node.id] = connection
            return connection
