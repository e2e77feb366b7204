"""CPU time of processes with all that they have started, from one look at /proc.

Owns the reading of it. An engine's sessions may be processes of their own, in sessions and groups of their
own: only the parent tells to whom they belong. It keeps no state.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from borealis.host.proc import PROC, pids

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(roots: Iterable[int]) -> dict[int, float]:
    """CPU seconds of each root that lives: its own, its descendants', and of those that have ended.

    A process that ends between two looks may be missed in one of them: a sum can go back a little.
    """
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for pid in pids():
        try:
            text = (PROC / str(pid) / "stat").read_bytes()
        except OSError:
            continue
        fields = text.rpartition(b")")[2].split()
        parents[pid] = int(fields[1])
        ticks[pid] = sum(map(int, fields[11:15]))  # utime, stime, and those of children that have ended
    totals = {root: 0 for root in roots if root in parents}
    for pid, own in ticks.items():
        ancestor = pid
        while ancestor not in totals and ancestor in parents:
            ancestor = parents[ancestor]
        if ancestor in totals:
            totals[ancestor] += own
    return {root: total / _TICKS_PER_SECOND for root, total in totals.items()}
