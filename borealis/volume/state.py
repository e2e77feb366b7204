"""What the driver must remember over its own death: its role, and as a writer its term.

Owns `driver-state.json`. The rule: a role is written before anything follows from it, so that a driver that
comes back never takes itself for less than it was (a writer for a reader) or for more (a fenced one for a
writer). It survives the driver, not the machine: with the machine the engine dies too, and an incarnation
whose engine was a writer is never started again. So there is no fsync here, on the way of every failover.
It never holds log positions: those are learned again from the nodes and from the engine's own log.

FORMAT: `driver-state.json`, version 1: `{"version": 1, "crc": <CRC-32 of the JSON text of "state">,
"state": {...}}` with the fields of `DriverState`. Replaced by rename.
"""

from __future__ import annotations

import enum
import json
import os
import zlib
from pathlib import Path
from typing import Any

import msgspec

from borealis.errors import BorealisError

VERSION = 1


class DriverStateError(BorealisError):
    """The state file is there but cannot be trusted."""

    code = "DriverStateCorrupt"


class Role(enum.StrEnum):
    """What this driver is to its engine and to the volume."""

    READER = "reader"
    OPENING = "opening"
    """The engine was told to become writer, and nothing was acknowledged yet: not to be resumed."""
    WRITER = "writer"
    FENCED = "fenced"
    """The end: this incarnation's engine is dead and its directory is never used again."""


class DriverState(msgspec.Struct, frozen=True, kw_only=True):
    """The remembered state. `history` is the term history as JSON, own entry last; empty for readers."""

    role: Role = Role.READER
    term: int = 0
    timeline: int = 0
    start: int = 0
    """LSN of the own term's first byte."""
    engine_start: int = 0
    """LSN at which the engine's own new log begins; above `start` only where padding was written."""
    history: list[Any] = msgspec.field(default_factory=list)
    reason: str = ""
    """Why it was fenced, for people."""


def _checksum(state: object) -> int:
    return zlib.crc32(json.dumps(state, sort_keys=True, separators=(",", ":")).encode())


def load_state(path: Path) -> DriverState:
    """The remembered state; a reader's when there is no file. Raises `DriverStateError` for a damaged one."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return DriverState()
    try:
        outer = json.loads(text)
        if outer["version"] != VERSION:
            raise DriverStateError(f"{path}: version {outer['version']}, expected {VERSION}")
        if outer["crc"] != _checksum(outer["state"]):
            raise DriverStateError(f"{path}: the checksum does not match")
        return msgspec.convert(outer["state"], DriverState)
    except (ValueError, KeyError, TypeError, msgspec.ValidationError) as error:
        raise DriverStateError(f"{path}: {error!r}: not a driver's state; replace this instance") from error


def save_state(path: Path, state: DriverState) -> None:
    """Replaces the file; takes a fraction of a millisecond."""
    body = msgspec.to_builtins(state)
    text = json.dumps({"version": VERSION, "crc": _checksum(body), "state": body}, indent=1)
    fresh = path.with_suffix(".new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(text.encode())
    fresh.replace(path)
