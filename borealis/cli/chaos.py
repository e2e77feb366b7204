"""`borealis chaos`: kills, freezes and thaws parts of a region on purpose.

Owns the translation of what the user names (instance, storage node, zone, control, host) into processes.
Signals go through the host agent, which hits exactly these; the agent itself is signalled by its pid.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from borealis.cli.common import CliError, out
from borealis.cli.link import ControlAway, call_control, explain, with_agent
from borealis.host.client import HostClient, ProcessInfo, agent_pid
from borealis.paths import RegionPaths
from borealis.region import load_region
from borealis.rpc import RpcError

SIGNALS = {"kill": "KILL", "stop": "STOP", "cont": "CONT"}
DONE = {"kill": "killed", "stop": "frozen", "cont": "goes on"}
AGENT = "host"


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance as far as chaos needs it."""

    identifier: str
    zone: str
    incarnation: str


def strike(paths: RegionPaths, action: str, victims: list[str], storage_only: bool) -> None:
    """Does `action` ("kill", "stop", "cont") to every victim. Raises CliError before anything is hit."""
    load_region(paths)
    others = [victim for victim in victims if victim != AGENT]
    agent_too = len(others) < len(victims)
    # The agent carries out the rest, so it is thawed first, but killed or frozen last.
    if agent_too and action == "cont":
        _strike_agent(paths, action)
    if others:
        _strike_others(paths, action, others, storage_only)
    if agent_too and action != "cont":
        _strike_agent(paths, action)


def _strike_others(paths: RegionPaths, action: str, victims: list[str], storage_only: bool) -> None:
    try:
        processes = with_agent(paths, _list)
        instances = _instances(paths)
        names = [name for victim in victims for name in resolve(victim, processes, instances, storage_only)]

        async def hit(agent: HostClient) -> None:
            for name in dict.fromkeys(names):
                _say(name, action, await agent.signal(name, SIGNALS[action], tree=True))

        with_agent(paths, hit)
    except RpcError as error:
        raise explain(error) from error


def _strike_agent(paths: RegionPaths, action: str) -> None:
    # Not asked of the agent: a frozen one could not answer.
    pid = agent_pid(paths)
    if pid is not None:
        os.kill(pid, getattr(signal, f"SIG{SIGNALS[action]}"))
    _say(AGENT, action, [] if pid is None else [pid])


def _say(name: str, action: str, pids: list[int]) -> None:
    if pids:
        rest = f" and {len(pids) - 1} more" if len(pids) > 1 else ""
        out.print(f"{name} {DONE[action]} (pid {pids[0]}{rest})")
    else:
        out.print(f"{name} does not run")


def engine_pid(paths: RegionPaths, identifier: str) -> int:
    """The pid of an instance's engine. Raises CliError."""
    processes = with_agent(paths, _list)
    name = resolve(identifier, processes, _instances(paths), storage_only=False)[0]
    pid = next((process.pid for process in processes if process.name == name and process.alive), None)
    if pid is None:
        raise CliError(f"{name}, the engine of {identifier}, does not run")
    return pid


async def _list(agent: HostClient) -> tuple[ProcessInfo, ...]:
    return await agent.list()


def _instances(paths: RegionPaths) -> list[Instance]:
    """The instances that the control plane knows; none while it is away."""
    try:
        status = call_control(paths, "status")
    except (ControlAway, RpcError):
        return []
    return [
        Instance(str(found["identifier"]), str(found["az"]), str(found["incarnation"]))
        for cluster in status.get("clusters", [])
        for found in cluster.get("instances", [])
        if found.get("incarnation")
    ]


def resolve(
    victim: str, processes: Iterable[ProcessInfo], instances: Iterable[Instance], storage_only: bool
) -> list[str]:
    """The names of the processes that the user means. Raises CliError."""
    listed, known = list(processes), list(instances)
    part, _, rest = victim.rpartition(":")
    names = {process.name for process in listed}
    if not part and (victim in names):
        return [victim]
    if part in ("", "driver", "engine"):
        of_instance = [found for found in known if found.identifier == rest]
        if of_instance:
            return _life(of_instance[0], part or "engine", listed)
    in_zone = [process.name for process in listed if _option(process.argv, "--az") == victim]
    if in_zone:
        if not storage_only:
            for found in known:
                if found.zone == victim:
                    in_zone += _life(found, "engine", listed) + _life(found, "driver", listed)
        return in_zone
    zones = sorted({zone for process in listed if (zone := _option(process.argv, "--az"))})
    choices = [*(found.identifier for found in known), *sorted(names), *zones, AGENT]
    raise CliError(f"there is no {victim!r} here; there are: {', '.join(choices)}")


def _life(instance: Instance, part: str, processes: Iterable[ProcessInfo]) -> list[str]:
    """The process of one part of an instance's present life."""
    found = [
        process.name
        for process in processes
        if process.name.startswith(part) and process.name.split("-")[-1] == instance.incarnation
    ]
    if not found:
        raise CliError(f"the {part} of {instance.identifier} ({instance.incarnation}) does not run")
    return found


def _option(argv: tuple[str, ...], name: str) -> Any:
    for word, value in itertools.pairwise(argv):
        if word == name:
            return value
    return None
