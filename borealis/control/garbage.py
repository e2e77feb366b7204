"""What is left of volumes on storage nodes that did not answer when the volumes were dropped.

Owns the memory of it, in the nodes' own records, and the task that drops it when a node is back. It decides
nothing about volumes: whoever drops one names the nodes that did not answer, in the commit that forgets it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from borealis.control.ports import Volumes
from borealis.control.records import Node
from borealis.control.store import Op, Put, Store
from borealis.errors import BorealisError
from borealis.logs import get_logger

log = get_logger(__name__)

COLLECT_SECONDS = 2.0
"""How often nodes with something left on them are tried."""


def left_on_nodes(store: Store, left: Mapping[str, Sequence[str]]) -> list[Op]:
    """The operations that remember volumes by the ids of the nodes that they are left on."""
    return [
        Put(node.but(garbage=tuple(dict.fromkeys((*node.garbage, *left[node.id])))))
        for node in store.nodes()
        if left.get(node.id)
    ]


async def collect(store: Store, volumes: Volumes) -> None:
    """Drop what is left on nodes that answer now."""
    await asyncio.gather(*(_collect_at(store, volumes, node) for node in store.nodes() if node.garbage))


async def _collect_at(store: Store, volumes: Volumes, node: Node) -> None:
    for volume in node.garbage:
        if not await volumes.drop_at(node.id, volume):
            return

        def without(record: Node, volume: str = volume) -> Node:
            return record.but(garbage=tuple(other for other in record.garbage if other != volume))

        await store.update(Node, node.key, without)
        log.info("node %s is back: volume %s is gone from it, too", node.id, volume)


async def collect_for_ever(store: Store, volumes: Volumes) -> None:
    """`collect` now and then, until cancelled."""
    while True:
        try:
            await collect(store, volumes)
        except (BorealisError, OSError) as error:
            log.warning("what is left on storage nodes could not be dropped: %s", error)
        await asyncio.sleep(COLLECT_SECONDS)
