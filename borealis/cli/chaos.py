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
from borealis.host.client import HostClient, ProcessInfo
from borealis.paths import RegionPaths
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
    processes = with_agent(paths, _list)
    instances = _instances(paths)
    names = [name for victim in victims for name in resolve(victim, processes, instances, storage_only)]

    async def hit(agent: HostClient) -> None:
        for name in dict.fromkeys(names):
            if name == AGENT:
                pids = [int((await agent.ping())["pid"])]
                os.kill(pids[0], getattr(signal, f"SIG{SIGNALS[action]}"))
            else:
                pids = await agent.signal(name, SIGNALS[action], tree=True)
            shown = ", ".join(map(str, pids)) or "it does not run"
            out.print(f"{name} {DONE[action] if pids else 'was not hit'} (pid {shown})")

    try:
        with_agent(paths, hit)
    except RpcError as error:
        raise explain(error) from error


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
    if victim == AGENT:
        return [AGENT]
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
