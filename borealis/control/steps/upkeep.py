"""Small steps that keep a running cluster in order: lease, old log, master password, members' list."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from borealis.control.context import ControlContext, StepFailed
from borealis.control.events import ClusterEvent, cluster_event
from borealis.control.look import look
from borealis.control.records import Incarnation, Instance
from borealis.control.store import Put
from borealis.control.view import View
from borealis.engines.classes import UnknownInstanceClass, instance_class
from borealis.errors import BorealisError
from borealis.logs import get_logger

log = get_logger(__name__)


async def renew_lease(context: ControlContext, incarnation: str, term: int) -> None:
    """Vouch for the writer of `term` for one more lease."""
    await context.drivers.renew(incarnation, term, context.settings.lease_seconds)


async def trim_log(context: ControlContext, key: str, below: int) -> None:
    """Let the storage nodes forget the log below a position, and images that would need it."""
    cluster = context.cluster(key)
    context.memory(key).trimmed_at = asyncio.get_running_loop().time()
    await context.volumes.trim(cluster.volume.id, below)
    log.info("%s: the log below %X was let go of", cluster.identifier, below)


async def set_password(context: ControlContext, key: str) -> None:
    """Tell the writer the master user's verifier, then remember that it was told."""
    cluster = context.cluster(key)
    verifier = cluster.master_verifier
    await context.drivers.set_master_password(
        cluster.volume.writer_incarnation, cluster.master_username, verifier
    )
    cluster = context.cluster(key)
    told = cluster.but(applied_verifier=verifier)
    await context.store.commit([Put(told), cluster_event(ClusterEvent.CREDENTIALS_RESET, told)])


async def push_topology(context: ControlContext, key: str) -> None:
    """Tell every driver in service who the members are. Raises StepFailed when one could not be told."""
    now = asyncio.get_running_loop().time()
    view = look(context, context.cluster(key), now)
    told = [
        i for i in view.instances if i.incarnation is not None and view.serving(i) and not view.of(i).lost
    ]
    results = await asyncio.gather(
        *(
            context.drivers.set_topology(i.incarnation.id, topology(view))
            for i in told
            if i.incarnation is not None
        ),
        return_exceptions=True,
    )
    memory = context.memory(key)
    memory.topology_pushed_at, memory.topology_told = now, view.membership
    for instance, result in zip(told, results, strict=True):
        if isinstance(result, BorealisError | OSError):
            log.debug("%s was not told the topology: %s", instance.identifier, result)
        elif isinstance(result, BaseException):
            raise StepFailed(f"{instance.identifier} was not told the topology: {result!r}") from result


def topology(view: View) -> dict[str, Any]:
    """The members as drivers and SQL functions want them."""
    writer = view.live_writer
    members = [_member(view, instance, writer) for instance in view.instances if view.serving(instance)]
    incarnation = writer.incarnation.id if writer is not None and writer.incarnation is not None else None
    return {"cluster_id": view.cluster.identifier, "writer_incarnation": incarnation, "members": members}


def _member(view: View, instance: Instance, writer: Instance | None) -> dict[str, Any]:
    seen = view.of(instance)
    engine = seen.status.engine if seen.status else None
    is_writer = writer is not None and instance.key == writer.key
    return {
        "instance_id": instance.identifier,
        "incarnation": instance.incarnation.id if instance.incarnation else "",
        "role": "writer" if is_writer else "reader",
        "availability_zone": instance.availability_zone,
        "address": instance.address,
        "lag_ms": 0.0 if is_writer or engine is None else engine.lag_ms,
        "replay_lsn": engine.replay_lsn if engine else None,
        "connections": engine.connections if engine else None,
        "cpu": cpu_percent(seen.cpu_cores, instance.incarnation),
        "updated_at": round(time.time() - min(seen.silent_for, 1e6), 3),
    }


def cpu_percent(cores: float, life: Incarnation | None) -> float:
    """How much of the CPU that its class may use an engine uses; 100 is all of it."""
    machine = float(os.cpu_count() or 1)
    try:
        allowed = min(machine, instance_class(life.instance_class).vcpu) if life is not None else machine
    except UnknownInstanceClass:
        allowed = machine
    return round(min(100.0, 100.0 * cores / allowed), 2)
