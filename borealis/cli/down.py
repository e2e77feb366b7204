"""`borealis down`: stops all processes of a region, in an order in which nothing is missed. The data stays.

Owns that order: the control plane first (else it would mend what is taken down), then engines with a clean
shutdown, while drivers and storage nodes still serve them, then the rest, the host agent last. It works
whatever of the region is dead already.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Iterable

from borealis.cli.common import CliError, err, out
from borealis.endpoints.errors import EndpointError
from borealis.endpoints.names import HostsFile
from borealis.host import proc
from borealis.host.client import HostClient, ProcessInfo, agent_pid
from borealis.paths import RegionPaths
from borealis.region import load_region
from borealis.rpc import RpcError

ENGINE_SECONDS = 20.0
OTHER_SECONDS = 10.0
AGENT_SECONDS = 10.0

ORDER = ("control", "engine", "driver", "haproxy", "other", "node")


def stop_region(paths: RegionPaths, quietly: bool = False) -> None:
    """Stops the region. One that does not run is no error; NoRegion is raised when there is none at all."""
    config = load_region(paths)
    if not _anything_left(paths):
        if not quietly:
            out.print(f"The region in {paths.root} does not run.")
        return
    with err.status("stopping the region …"):
        asyncio.run(_stop(paths))
    if not quietly:
        out.print(f"The region {config.region} is down; its data stays in {paths.root}.")


def _anything_left(paths: RegionPaths) -> bool:
    return paths.host_socket.exists() or any(paths.process_dir.glob("*.json"))


async def _stop(paths: RegionPaths) -> None:
    from borealis.cli.up import connect_agent

    pid = agent_pid(paths)
    if pid is not None:
        os.kill(pid, signal.SIGCONT)  # A frozen one could not do its last work.
    # An agent that had died is started to find the processes again; held, so that it starts none of them.
    agent = await connect_agent(paths, hold=True)
    try:
        processes = await agent.list()
        for group in stop_order(processes):
            seconds = ENGINE_SECONDS if kind_of(group[0].name) == "engine" else OTHER_SECONDS
            await asyncio.gather(*(_stop_one(agent, process, seconds) for process in group))
        for process in processes:
            await agent.forget(process.name)
        pid = (await agent.ping())["pid"]
        descriptor = proc.open_process(int(pid))
        await agent.shutdown()
        if not await asyncio.to_thread(_wait_end, descriptor):
            raise CliError(f"the host agent (pid {pid}) does not end: see {paths.log_file('host')}")
    except RpcError as error:
        raise CliError(f"the region could not be stopped: {error.message}") from error
    finally:
        await agent.close()
    await asyncio.to_thread(_tidy, paths)


async def _stop_one(agent: HostClient, process: ProcessInfo, seconds: float) -> None:
    # Called for dead ones too: children may have outlived them.
    await agent.stop(process.name, wait=seconds)


def kind_of(name: str) -> str:
    """What a process is, by its name."""
    if name == "control":
        return "control"
    head = name.split("-", maxsplit=1)[0]
    if head in ("engine", "driver", "haproxy"):
        return head
    if head == "proxy":
        return "haproxy"
    return "node" if head in ("node",) or (head[:1] == "n" and head[1:].isdigit()) else "other"


def stop_order(processes: Iterable[ProcessInfo]) -> list[list[ProcessInfo]]:
    """The processes in groups, each to be stopped before the next."""
    groups: dict[str, list[ProcessInfo]] = {kind: [] for kind in ORDER}
    for process in processes:
        groups[kind_of(process.name)].append(process)
    return [group for group in groups.values() if group]


def _tidy(paths: RegionPaths) -> None:
    """Removes what is worthless now: sockets, and the region's lines in the hosts file."""
    for path in [paths.control_socket, paths.host_socket, *paths.run_dir.glob("**/*.sock")]:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    hosts = HostsFile(paths.root)
    if hosts.writable():
        with contextlib.suppress(EndpointError):
            hosts.remove()


def _wait_end(descriptor: int | None) -> bool:
    """Waits for the end of the process of a pidfd, which is closed; False when it does not end in time."""
    if descriptor is None:
        return True
    waiter = select.poll()
    waiter.register(descriptor, select.POLLIN)
    ended = bool(waiter.poll(AGENT_SECONDS * 1000))
    os.close(descriptor)
    return ended
