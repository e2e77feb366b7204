"""Facts about processes, from /proc, and signals that cannot hit the wrong one.

Owns the identity of a process: its pid together with its start time and the boot it lived in, for pids are
reused. Signals go through a pidfd that was checked against that identity. It keeps no state and starts
nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcStat:
    """The fields of /proc/PID/stat that matter here."""

    state: str
    """One letter: R, S, D, T (stopped), Z (ended, not yet waited for), …"""
    tty: int
    """Device number of the controlling terminal, 0 when there is none."""
    start_time: int
    """When it started, in clock ticks since boot."""


@cache
def boot_id() -> str:
    """A name for the time since this machine was started: start times of two boots cannot be compared."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def read_stat(pid: int) -> ProcStat | None:
    """The state of a process, None when there is none."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field is the command's name in parentheses and may itself hold blanks and parentheses.
    fields = text[text.rindex(")") + 2 :].split()
    return ProcStat(state=fields[0], tty=int(fields[4]), start_time=int(fields[19]))


def open_process(pid: int, start_time: int | None = None) -> int | None:
    """A pidfd of a living process, None when it has ended or another process has its pid by now.

    `start_time` None takes whichever process has the pid. The caller closes the descriptor.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    # Read after the descriptor was opened: from here on the pid cannot mean another process unnoticed.
    stat = read_stat(pid)
    if stat is None or stat.state in "ZX" or (start_time is not None and stat.start_time != start_time):
        os.close(descriptor)
        return None
    return descriptor


def send(descriptor: int, number: int) -> bool:
    """Sends a signal to the process of a pidfd; False when it has ended."""
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    return True


def pids() -> Iterator[int]:
    """All processes of the machine."""
    with os.scandir(PROC) as entries:
        for entry in entries:
            if entry.name.isdigit():
                yield int(entry.name)


def _works_in(pid: int, directory: str) -> bool:
    try:
        cwd = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return False
    # The kernel adds " (deleted)" when the folder is gone already.
    cwd = cwd.removesuffix(" (deleted)")
    return cwd == directory or cwd.startswith(directory + "/")


def working_in(directory: Path, uid: int | None = None) -> list[int]:
    """The pids of the processes whose working directory lies in `directory`, of user `uid` if given.

    Engines work in their data directory, and so do all their children, whichever session they are in. Left
    out: this process, and processes with a terminal (an administrator's shell that looks around in there).
    """
    found: list[int] = []
    place = os.path.realpath(directory)
    for pid in pids():
        if pid == os.getpid() or not _works_in(pid, place):
            continue
        with contextlib.suppress(OSError):
            if uid is not None and (PROC / str(pid)).stat().st_uid != uid:
                continue
            stat = read_stat(pid)
            if stat is not None and stat.state not in "ZX" and stat.tty == 0:
                found.append(pid)
    return found


def signal_working_in(directory: Path, number: int, uid: int | None = None) -> list[int]:
    """Signals the processes that `working_in` finds and returns the pids that got it."""
    reached: list[int] = []
    place = os.path.realpath(directory)
    for pid in working_in(directory, uid):
        descriptor = open_process(pid)
        if descriptor is None:
            continue
        try:
            # Looked at again through the open descriptor, so that a reused pid is not hit.
            if _works_in(pid, place) and send(descriptor, number):
                reached.append(pid)
        finally:
            os.close(descriptor)
    return reached


def find_by_environment(variable: str, value: str) -> int | None:
    """The pid of the living process that was started with this environment variable, None when there is
    none.
    """
    needle = f"{variable}={value}".encode()
    for pid in pids():
        try:
            environment = (PROC / str(pid) / "environ").read_bytes()
        except OSError:
            continue
        if needle in environment.split(b"\0"):
            return pid
    return None
