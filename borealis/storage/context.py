"""What the segments of one node share: its name, its sizes, its helper threads. Owns nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from borealis.storage.logfile import LogConfig


@dataclass(frozen=True)
class NodeContext:
    """What a segment needs from its node."""

    node: str
    az: str
    config: LogConfig
    files: Executor
    """One worker: prepares, removes and summarises files of all segments."""
    pool: Executor
    """Reads and blobs."""
    on_gossip: Callable[[str], None]
    """The segment of this volume lacks bytes. Called in the segment's thread."""
    on_dropped: Callable[[str], None]
    """The segment of this volume is gone. Called in the segment's thread, once, as its last act."""
