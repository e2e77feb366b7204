"""A writer's driver that comes back while its engine lives: where does shipping go on?

Owns that one question. The engine's commits wait in the volume library meanwhile, so nothing is lost and
nothing passes; the answer comes from the nodes alone. It never changes anything on them.
"""

from __future__ import annotations

import asyncio

from borealis.log.quorum import Quorum
from borealis.log.types import Superseded
from borealis.logs import get_logger
from borealis.volume.source import LogSource

log = get_logger(__name__)

RETRY_SECONDS = 0.05


async def durable_position(source: LogSource, quorum: Quorum, term: int, start: int) -> int:
    """Up to where the log of `term`, which began at `start`, is on a write quorum.

    Waits as long as fewer nodes answer. Raises Superseded when one of them has promised a higher term.
    """
    told = False
    while True:
        statuses = await source.statuses()
        for node, status in statuses.items():
            if status.promised > term:
                raise Superseded(term, status.promised, f"segment {node}")
        ends = {node: s.end for node, s in statuses.items() if s.history.newest_term == term}
        point = quorum.durable_point(ends)
        if point >= start:
            return point
        if not told:
            log.warning("term %d is on %d nodes that answer; waiting for a write quorum", term, len(ends))
            told = True
        await asyncio.sleep(RETRY_SECONDS)
