"""The engine's process, from the driver's side: is it there, has it ended, end it.

Owns a process descriptor of the engine's main process, so that a pid that was given to another process is
never signalled. It never starts an engine: the host agent does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

from borealis.logs import get_logger

log = get_logger(__name__)


class EngineProcess:
    """One engine's main process. `on_end` is called once, on the event loop, when it has ended."""

    def __init__(self, pid: int, data_dir: Path, on_end: Callable[[int], None]) -> None:
        """Raises ProcessLookupError when there is no such process."""
        self.pid = pid
        self._data_dir = data_dir
        self._on_end = on_end
        self._handle = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._handle, self._ended)

    def _ended(self) -> None:
        self.close()
        self._on_end(self.pid)

    def close(self) -> None:
        """Stop watching; the engine goes on."""
        if self._handle >= 0:
            asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1

    @property
    def running(self) -> bool:
        return self._handle >= 0

    def kill(self) -> None:
        """SIGKILL to the main process and to all that work in its data folder."""
        if self._handle >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        kill_workers(self._data_dir)


def kill_workers(data_dir: Path) -> None:
    """SIGKILL to every process whose working directory is the engine's data folder."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(int(entry.name))
            try:
                if os.readlink(f"{entry.path}/cwd") == str(data_dir):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)
