"""The typed way to call a host agent.

Owns the names and parameters of the agent's calls and the way to start an agent that is not there. It holds
no state beyond one connection and repeats nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import subprocess
import sys
from typing import Any

import msgspec

from borealis.host.files import PRIVATE
from borealis.host.records import ProcessSpec
from borealis.paths import RegionPaths
from borealis.rpc import EventHandler, RpcClient, RpcConnectionLost

START_SECONDS = 15.0
"""How long an agent may take until it answers, in seconds."""


class ProcessInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A process as the agent describes it."""

    name: str
    pid: int | None
    alive: bool
    wanted: bool
    status: int | None
    started_at: float
    starts: int
    restart: str
    user: str | None
    argv: tuple[str, ...]
    cwd: str | None
    log: str
    sweep_dir: str | None


class CpuTimes(msgspec.Struct, frozen=True):
    """CPU time of the processes that run, by name, each with all that it has started."""

    at: float
    """When it was read; seconds on the agent's clock, which never goes back."""
    seconds: dict[str, float]


class HostClient:
    """A connection to the agent of one region."""

    def __init__(self, rpc: RpcClient) -> None:
        self.rpc = rpc

    @classmethod
    async def connect(
        cls, paths: RegionPaths, on_event: EventHandler | None = None, timeout: float = 5
    ) -> HostClient:
        """Connects. `on_event` hears "exited" {name, pid, status}, "started", "restarted" {name, pid,
        starts}.

        Raises RpcConnectionLost when no agent answers within `timeout` seconds.
        """
        return cls(await RpcClient.connect(paths.host_socket, on_event, timeout))

    @property
    def closed(self) -> asyncio.Event:
        """Set when the connection is gone."""
        return self.rpc.closed

    async def close(self) -> None:
        """Ends the connection."""
        await self.rpc.close()

    async def ping(self) -> dict[str, Any]:
        """The agent's pid, version and folder."""
        return dict(await self.rpc.call("ping"))

    async def spawn(self, spec: ProcessSpec, stdin: str | None = None) -> int:
        """Starts a process, or finds it running; returns its pid."""
        params = msgspec.to_builtins(spec)
        return int((await self.rpc.call("spawn", stdin=stdin, **params))["pid"])

    async def stop(self, name: str, signal: str | None = None, wait: float = 10.0) -> int | None:
        """Asks a process to end, kills it after `wait` seconds; returns its status, None when not
        known.
        """
        answer = await self.rpc.call("stop", timeout=wait + 15, name=name, signal=signal, wait=wait)
        return _status(answer)

    async def kill(self, name: str) -> int | None:
        """Kills a process and everything that works in its sweep_dir; it is not started again."""
        return _status(await self.rpc.call("kill", name=name))

    async def signal(self, name: str, sig: str, tree: bool = False) -> list[int]:
        """Sends a signal; returns the pids that it reached."""
        return list((await self.rpc.call("signal", name=name, sig=sig, tree=tree))["pids"])

    async def list(self) -> tuple[ProcessInfo, ...]:
        """All processes that the agent knows, running or not."""
        return msgspec.convert(await self.rpc.call("list"), tuple[ProcessInfo, ...])

    async def cpu_times(self) -> CpuTimes:
        """How much CPU time each process has used."""
        return msgspec.convert(await self.rpc.call("cpu_times"), CpuTimes)

    async def forget(self, name: str) -> None:
        """Removes the record of a process that has ended."""
        await self.rpc.call("forget", name=name)

    async def make_dir(self, path: str, mode: int = PRIVATE, user: str | None = None) -> None:
        """Makes a folder below the region's."""
        await self.rpc.call("make_dir", path=path, mode=mode, user=user)

    async def remove_tree(self, path: str) -> None:
        """Removes a folder below the region's."""
        await self.rpc.call("remove_tree", timeout=None, path=path)

    async def copy_tree(self, source: str, target: str, user: str | None = None) -> None:
        """Copies a folder; a target that is there is left alone."""
        await self.rpc.call("copy_tree", timeout=None, source=source, target=target, user=user)

    async def chown(self, path: str, user: str | None) -> None:
        """Gives a folder and all below it to a user."""
        await self.rpc.call("chown", timeout=None, path=path, user=user)

    async def shutdown(self) -> None:
        """Ends the agent; the processes run on."""
        with contextlib.suppress(RpcConnectionLost):
            await self.rpc.call("shutdown")


def start_agent(paths: RegionPaths, hold: bool = False) -> subprocess.Popen[bytes]:
    """Starts an agent that outlives the caller; connect to it with a time-out of START_SECONDS.

    When another one serves the region already, the new one ends by itself. Blocks for some milliseconds.
    """
    paths.log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = [sys.executable, "-m", "borealis.host.main", "--data", str(paths.root)]
    log_file = paths.log_file("host")
    log_file.touch(mode=0o600)
    with log_file.open("ab") as output:
        return subprocess.Popen(
            command + (["--hold"] if hold else []),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=paths.root,
            start_new_session=True,
            umask=0o077,
        )


def agent_pid(paths: RegionPaths) -> int | None:
    """The pid of the living agent, whether it answers or not; None when there is none."""
    try:
        descriptor = os.open(paths.agent_lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(descriptor, 32).strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(descriptor)
    return None  # Nobody holds the lock: what it says is of the past.


def _status(answer: Any) -> int | None:
    status = answer["status"]
    return None if status is None else int(status)
