"""A real host agent on a folder of its own; whatever it started is ended with the test."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from borealis.host import proc
from borealis.host.client import HostClient
from borealis.host.records import ProcessSpec
from borealis.paths import RegionPaths


class AgentUnderTest:
    """An agent process, what it told, and a client."""

    def __init__(self, root: Path) -> None:
        self.paths = RegionPaths(root)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.client: HostClient
        self._heard = asyncio.Event()

    async def start(self, *arguments: str) -> None:
        """Starts the agent and connects."""
        command = [sys.executable, "-m", "borealis.host.main", "--data", str(self.paths.root), *arguments]
        with (self.paths.root / "agent.log").open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)
        self.client = await HostClient.connect(self.paths, self._on_event, timeout=15)

    async def crash(self) -> None:
        """kill -9 of the agent."""
        assert self.process is not None
        self.process.kill()
        await asyncio.to_thread(self.process.wait)
        await self.client.closed.wait()
        await self.client.close()

    async def restart(self, *arguments: str) -> None:
        """kill -9, and a new agent."""
        await self.crash()
        await self.start(*arguments)

    def spec(self, name: str, *argv: str, **more: Any) -> ProcessSpec:
        """A spec with a log file below the region's folder."""
        return ProcessSpec(name=name, argv=argv, log=str(self.paths.log_file(name)), **more)

    def log_of(self, name: str) -> str:
        """What the process wrote."""
        return self.paths.log_file(name).read_text()

    async def event(self, kind: str, name: str, count: int = 1) -> dict[str, Any]:
        """Waits until the agent told this of a process `count` times, returns the last one."""
        async with asyncio.timeout(20):
            while True:
                found = [data for event, data in self.events if event == kind and data["name"] == name]
                if len(found) >= count:
                    return found[-1]
                self._heard.clear()
                await self._heard.wait()

    def _on_event(self, event: str, data: dict[str, Any]) -> None:
        self.events.append((event, data))
        self._heard.set()

    async def end(self) -> None:
        """Ends everything."""
        if self.process is not None and self.process.poll() is None:
            await self.client.close()
            self.process.kill()
            self.process.wait()
        for pid in processes_of(self.paths.root):
            os.kill(pid, signal.SIGKILL)
        await until(lambda: not processes_of(self.paths.root))


def processes_of(root: Path) -> list[int]:
    """The pids of the living processes that work below `root`."""
    return proc.working_in(root)


async def until(condition: Any, timeout: float = 20) -> None:
    """Waits until a condition holds."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def agent() -> AsyncIterator[AgentUnderTest]:
    """A running agent."""
    root = Path(tempfile.mkdtemp(prefix="bor-host-"))
    root.chmod(0o711)
    made = AgentUnderTest(root)
    try:
        await made.start()
        yield made
    finally:
        await made.end()
        shutil.rmtree(root, ignore_errors=True)
