"""What the agent writes down about each process, so that an agent started anew finds all of them again.

Owns the files run/p/<name>.json. A record is written before its process is started and again when its pid is
known: an agent that dies in between finds the process by the token in its environment. Records are replaced
atomically, but not synced: they mean nothing after the machine was restarted.

FORMAT (run/p/<name>.json, version 1, mode 0600)
    {"version": 1, "spec": {…ProcessSpec…}, "token": "…", "wanted": true, "pid": 123, "start_time": 456,
     "boot": "…", "started_at": 1769861520.5, "starts": 1, "status": null}
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import msgspec

from borealis.host.errors import InvalidSpec
from borealis.logs import get_logger

VERSION = 1
NAME_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")

log = get_logger(__name__)


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run. Two equal specs mean the same process."""

    name: str
    """Unique in the region: "control", "n1", "driver-i3", …"""
    argv: tuple[str, ...]
    """The command; the first word is an absolute path or found on PATH. Holds no secrets."""
    env: dict[str, str] | None = None
    """The whole environment; None: a small default one (PATH, HOME, LANG, TZ and what starts with
    BOREALIS_).
    """
    cwd: str | None = None
    """The working directory; None: the region's folder."""
    user: str | None = None
    """The user to run as; None: the agent's own."""
    log: str
    """The file that takes standard output and error, below the region's folder."""
    restart: Literal["always", "never"] = "never"
    """Whether it is started again when it ends by itself."""
    sweep_dir: str | None = None
    """All processes that work in this folder belong to it: engines, whose children outlive them."""
    stop_signal: str = "TERM"
    """The signal that asks for a clean end."""


class ProcessRecord(msgspec.Struct, kw_only=True):
    """A process that was started, whether it still lives or not."""

    version: int = VERSION
    spec: ProcessSpec
    token: str
    """Unique to each start, in the process's environment as BOREALIS_PROCESS."""
    wanted: bool = True
    """False once it was stopped or killed on purpose: it is not started again then."""
    pid: int | None = None
    start_time: int | None = None
    """Clock ticks since boot; with the pid and the boot, the identity of the process."""
    boot: str = ""
    started_at: float = 0.0
    """Unix time, in seconds, of the last start."""
    starts: int = 0
    """How often it was started."""
    status: int | None = None
    """Exit code, or the negative number of the signal that ended it; None while it runs, or when not
    known.
    """


def check_spec(spec: ProcessSpec, root: Path) -> None:
    """Raises InvalidSpec when the spec cannot be right."""
    if not NAME_FORM.fullmatch(spec.name):
        raise InvalidSpec(
            f"process name {spec.name!r}: expected 1 to 80 letters, digits, dots, hyphens or underscores"
        )
    if not spec.argv:
        raise InvalidSpec(f"process {spec.name}: the command is empty")
    if spec.sweep_dir is not None:
        place = Path(os.path.realpath(spec.sweep_dir))
        if Path(os.path.realpath(root)) not in place.parents:
            raise InvalidSpec(f"process {spec.name}: sweep_dir {spec.sweep_dir} must lie below {root}")


class RecordFolder:
    """The folder run/p."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self) -> list[ProcessRecord]:
        """All records; one that cannot be read is reported, set aside and left out."""
        records: list[ProcessRecord] = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                records.append(msgspec.json.decode(path.read_bytes(), type=ProcessRecord))
            except (OSError, msgspec.MsgspecError) as error:
                log.error("process record %s cannot be used and is set aside: %s", path, error)
                path.rename(path.with_suffix(".bad"))
        return records

    def save(self, record: ProcessRecord) -> None:
        """Writes a record; whoever reads sees the old or the new one."""
        path = self._path(record.spec.name)
        fresh = path.with_suffix(".tmp")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(record) + b"\n")
        fresh.rename(path)

    def remove(self, name: str) -> None:
        """Removes a record, if it is there."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"
