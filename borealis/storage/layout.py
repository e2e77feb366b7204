"""Where a node keeps its segments, and how one comes into being and goes.

Owns the names in a node's directory. A segment exists when its segment.json does: it is written last, and a
drop takes the whole directory away in one rename, so a crash leaves a segment or none.

FORMAT (directory of a node, version 1)
    segments/<volume>/segment.json      {"format": 1, "volume": …, "node": …}
    segments/<volume>/log/              see format.py
    segments/<volume>/blobs/            see blobs.py
    segments/.dropped-<volume>-<n>/     a dropped segment, being removed
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from pathlib import Path

from borealis.storage.errors import StorageError
from borealis.storage.prepare import replace_file, sync_directory

_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def segment_directory(node_directory: Path, volume: str) -> Path:
    """Raises StorageError when `volume` is no name for a volume."""
    if not _VOLUME.fullmatch(volume):
        raise StorageError(f"{volume!r} is no volume id: letters, digits, '.', '_', '-', at most 64")
    return node_directory / "segments" / volume


def log_directory(segment: Path) -> Path:
    return segment / "log"


def begin_segment(segment: Path) -> None:
    """Makes the directories of a segment that does not exist yet. Raises OSError."""
    if segment.exists():
        shutil.rmtree(segment)  # Without segment.json it never existed.
    for directory in (segment, log_directory(segment), segment / "blobs"):
        directory.mkdir(mode=0o700)


def publish_segment(segment: Path, volume: str, node: str) -> None:
    """The segment exists from here on, durably. Raises OSError."""
    body = {"format": 1, "volume": volume, "node": node}
    replace_file(segment / "segment.json", json.dumps(body).encode())
    sync_directory(segment.parent)


def drop_segment(segment: Path) -> None:
    """The segment does not exist any more, durably; `remove_dropped` frees its space. Raises OSError."""
    for number in itertools.count():
        target = segment.with_name(f".dropped-{segment.name}-{number}")
        if not target.exists():
            os.rename(segment, target)
            break
    sync_directory(segment.parent)


def existing_segments(node_directory: Path) -> list[str]:
    """The volumes with a segment here. Makes the directory when there is none; removes what was half made.

    Raises OSError; StorageError when a segment is of a later format.
    """
    segments = node_directory / "segments"
    segments.mkdir(mode=0o700, parents=True, exist_ok=True)
    volumes: list[str] = []
    for entry in sorted(segments.iterdir()):
        if entry.name.startswith("."):
            continue
        if not (entry / "segment.json").exists():
            shutil.rmtree(entry, ignore_errors=True)
            continue
        body = json.loads((entry / "segment.json").read_text())
        if body.get("format") != 1:
            raise StorageError(f"{entry} is of format {body.get('format')}; this version knows format 1 only")
        volumes.append(entry.name)
    return volumes


def remove_dropped(node_directory: Path) -> None:
    """Frees the space of dropped segments."""
    for entry in (node_directory / "segments").glob(".dropped-*"):
        shutil.rmtree(entry, ignore_errors=True)
