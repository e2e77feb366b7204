"""Turning a data directory into an image, and telling from where an image needs the log.

Owns `borealis-image.json` and what an image must not hold: log, relay log, the settings and secrets of one
instance. Never packs or moves an image.

FORMAT (borealis-image.json, version 1): {"version": 1, "system_id": text, "lsn": int, "gtid": text}: whose
image it is, and a place of the log at or below what it holds, with the last transaction before that place.
While an instance runs, the file tells the newest such place that was noted (`note_position`).
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from borealis.engines.base import EngineError
from borealis.engines.mariadb.administrator import ADMINISTRATOR_FILE, START_FILE
from borealis.engines.mariadb.binlogfiles import BASENAME
from borealis.engines.mariadb.history import LogPoint
from borealis.engines.mariadb.ownedfiles import write_owned
from borealis.engines.mariadb.settings import CONFIG_FILE, PID_FILE, TEMPORARY_DIR
from borealis.engines.topology import TOPOLOGY_FILE

IMAGE_FILE = "borealis-image.json"
_INSTANCE_FILES = frozenset(
    {
        ADMINISTRATOR_FILE,
        CONFIG_FILE,
        START_FILE,
        PID_FILE,
        TOPOLOGY_FILE,
        "master.info",
        "relay-log.info",
        "multi-master.info",
        "general.log",
        "slow.log",
        "ib_buffer_pool",
        "tc.log",
        "gvwstate.dat",
        "mariadb_upgrade_info",
    }
)
_LOG_STARTS = (f"{BASENAME}.", "relay.", "relay-")
_OPEN_INNODB = "ibtmp1"
"""InnoDB removes this file when it is shut down."""


def write_image_file(data_dir: Path, system_id: str, point: LogPoint) -> None:
    """Say what the directory is an image of."""
    write_owned(data_dir / IMAGE_FILE, json.dumps({**json.loads(point.to_text()), "system_id": system_id}))


def read_image_file(data_dir: Path) -> tuple[str, LogPoint]:
    """System id and place. Raises EngineError when the directory is no image and was made from none."""
    try:
        text = (data_dir / IMAGE_FILE).read_text()
        return str(json.loads(text)["system_id"]), LogPoint.parse(text)
    except (OSError, ValueError, KeyError) as error:
        raise EngineError(f"{data_dir} is not the image of a MySQL-compatible volume: {error}") from error


def note_position(data_dir: Path, point: LogPoint) -> None:
    """The engine has applied at least what lies below this place: an image made from now on needs the log
    from there."""
    system_id, before = read_image_file(data_dir)
    if point.lsn > before.lsn:
        write_image_file(data_dir, system_id, point)


def image_position(data_dir: Path) -> int:
    """See `Engine.image_position`."""
    return read_image_file(data_dir)[1].lsn


def clean_image(data_dir: Path) -> None:
    """See `Engine.clean_image`."""
    read_image_file(data_dir)
    for name in (PID_FILE, _OPEN_INNODB):
        if (data_dir / name).exists():
            raise EngineError(
                f"{data_dir} is (or was) in use by a server ({name} is there); shut it down cleanly first"
            )
    remove_instance_files(data_dir)


def remove_instance_files(data_dir: Path) -> None:
    """Every byte of log that an instance applies comes from the volume; nothing of an old one may be
    found."""
    for entry in os.scandir(data_dir):
        if entry.is_file(follow_symlinks=False) and (
            entry.name in _INSTANCE_FILES or entry.name.startswith(_LOG_STARTS)
        ):
            os.unlink(entry.path)
    shutil.rmtree(data_dir / TEMPORARY_DIR, ignore_errors=True)
