"""The host agent's process: `python -m borealis.host.main --data DIR`.

Owns the lock that keeps a second agent of the same region away, the event loop and the signals. On SIGTERM it
ends and leaves every other process running: whoever wants the region to stop says so to `borealis down`.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import resource
import signal
import sys
from pathlib import Path

import uvloop

from borealis.host.agent import Agent
from borealis.logs import get_logger, setup_logging
from borealis.paths import RegionPaths

ALREADY_RUNNING = 3
"""Exit code when another agent serves this region."""

log = get_logger(__name__)


def main() -> int:
    """Runs the agent. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m borealis.host.main", description="The host agent of a region."
    )
    parser.add_argument("--data", required=True, type=Path, help="the region's folder")
    parser.add_argument(
        "--hold", action="store_true", help="start nothing again by itself (used by `borealis down`)"
    )
    arguments = parser.parse_args()
    paths = RegionPaths(arguments.data)
    setup_logging("host")
    paths.check()
    lock = _lock(paths)
    if lock is None:
        log.info("another agent serves %s already", paths.root)
        return ALREADY_RUNNING
    _raise_limits()
    uvloop.run(_run(Agent(paths, hold=arguments.hold)))
    os.close(lock)
    return 0


async def _run(agent: Agent) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, agent.end)
    await agent.run()


def _lock(paths: RegionPaths) -> int | None:
    paths.run_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    # Not inherited by children (O_CLOEXEC), so it is free as soon as the agent is gone.
    descriptor = os.open(paths.agent_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _raise_limits() -> None:
    """Lets the children have as many files open as this machine allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
