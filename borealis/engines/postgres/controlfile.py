"""The parts of `global/pg_control` that Borealis needs, read from the file itself.

Owns the layout of the first fields, which has not changed since PostgreSQL 11. Never writes the file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from borealis.engines.base import EngineError

_HEAD = struct.Struct("<QIIi4xqQQI")
"""system identifier, control version, catalog version, state, time, checkpoint, redo, timeline."""


class ClusterState(IntEnum):
    """PostgreSQL's DBState."""

    STARTUP = 0
    SHUTDOWNED = 1
    SHUTDOWNED_IN_RECOVERY = 2
    SHUTDOWNING = 3
    IN_CRASH_RECOVERY = 4
    IN_ARCHIVE_RECOVERY = 5
    IN_PRODUCTION = 6


@dataclass(frozen=True, slots=True)
class ControlFile:
    """What a data directory says of itself."""

    system_id: str
    state: ClusterState
    checkpoint: int
    """Position of the latest checkpoint record."""
    redo: int
    """Recovery from this directory begins here."""
    timeline: int

    @property
    def clean(self) -> bool:
        """True when the server was shut down cleanly, so that the directory is consistent as it is."""
        return self.state in (ClusterState.SHUTDOWNED, ClusterState.SHUTDOWNED_IN_RECOVERY)


def read_control_file(data_dir: Path) -> ControlFile:
    """Raises EngineError when `data_dir` is not a data directory that we can read."""
    path = data_dir / "global" / "pg_control"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EngineError(f"{data_dir} is not a PostgreSQL data directory: {error}") from error
    if len(data) < _HEAD.size:
        raise EngineError(f"{path} has {len(data)} bytes; expected at least {_HEAD.size}: it is damaged")
    system_id, control_version, _, state, _, checkpoint, redo, timeline = _HEAD.unpack_from(data)
    if not 1100 <= control_version < 10000:
        raise EngineError(
            f"{path} has control version {control_version}; expected one of PostgreSQL 11 or later"
        )
    return ControlFile(str(system_id), ClusterState(state), checkpoint, redo, timeline)
