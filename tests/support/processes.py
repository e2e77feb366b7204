"""Look at the machine's processes from outside: find them by what they run, signal them, wait for them to go.

Owns nothing. Never kills by name: callers get pids and act on those.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path


def command_lines() -> Iterator[tuple[int, str]]:
    """Every process's pid and command line, joined by blanks."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            raw = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if raw:
            yield int(entry.name), raw.replace(b"\0", b" ").decode(errors="replace").strip()


def find(*needles: str) -> list[int]:
    """Pids of the processes whose command line holds every one of `needles`."""
    own = os.getpid()
    return [pid for pid, line in command_lines() if pid != own and all(needle in line for needle in needles)]


def working_in(directory: Path) -> list[int]:
    """Pids of the processes whose working directory is `directory` or lies below it."""
    found = []
    for pid, _ in command_lines():
        try:
            cwd = Path(os.readlink(f"/proc/{pid}/cwd"))
        except OSError:
            continue
        if cwd == directory or directory in cwd.parents:
            found.append(pid)
    return found


def alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    stat = _stat(pid)
    return bool(stat) and stat[0] != "Z"


def parent(pid: int) -> int:
    """Pid of the process's parent; 0 when the process is gone."""
    stat = _stat(pid)
    return int(stat[1]) if stat else 0


def _stat(pid: int) -> list[str]:
    """State, parent and what follows in /proc; empty when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rsplit(")", 1)[1].split()


def send(pids: list[int], sig: signal.Signals) -> None:
    """Send a signal to each pid; those that are gone are skipped."""
    for pid in pids:
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            continue


def wait_until(condition: Callable[[], object], timeout: float, what: str, step: float = 0.02) -> object:
    """Wait for `condition` to give something true and return it; AssertionError names `what` was
    waited for.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {timeout:.0f} s in vain for: {what}"
        time.sleep(step)
