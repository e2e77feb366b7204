"""Turning a data directory into an image, and telling from where an image needs the log.

Owns what an image must not hold: log, sockets and locks, replication slots, the settings of one instance.
Never packs or moves an image.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from borealis.engines.base import EngineError
from borealis.engines.postgres.controlfile import read_control_file
from borealis.engines.postgres.wal import is_wal_file, segment_start
from borealis.engines.topology import TOPOLOGY_FILE

_INSTANCE_FILES = (
    "postmaster.pid",
    "postmaster.opts",
    "standby.signal",
    "recovery.signal",
    "promote",
    "current_logfiles",
    "backup_label",
    "tablespace_map",
    TOPOLOGY_FILE,
)
_INSTANCE_DIRS = (
    "pg_replslot",
    "pg_stat_tmp",
    "pg_dynshmem",
    "pg_notify",
    "pg_serial",
    "pg_snapshots",
    "pg_subtrans",
)


def clean_image(data_dir: Path) -> None:
    """See `Engine.clean_image`."""
    if (data_dir / "postmaster.pid").exists():
        raise EngineError(f"{data_dir} is (or was) in use by a server; shut it down cleanly first")
    control = read_control_file(data_dir)
    if not control.clean:
        raise EngineError(
            f"{data_dir} was not shut down cleanly (state {control.state.name}); it cannot be an image"
        )
    for name in _INSTANCE_FILES:
        (data_dir / name).unlink(missing_ok=True)
    for name in _INSTANCE_DIRS:
        _empty(data_dir / name)
    remove_wal(data_dir)


def remove_wal(data_dir: Path) -> None:
    """Every byte that an instance replays comes from the volume; no file of the old log may be found."""
    for entry in os.scandir(data_dir / "pg_wal"):
        if is_wal_file(entry.name) or entry.name.startswith("xlogtemp."):
            os.unlink(entry.path)
    _empty(data_dir / "pg_wal" / "archive_status")
    _empty(data_dir / "pg_wal" / "summaries")


def image_position(data_dir: Path) -> int:
    """See `Engine.image_position`."""
    return segment_start(read_control_file(data_dir).redo)


def _empty(directory: Path) -> None:
    if not directory.is_dir():
        return
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
