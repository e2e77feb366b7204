"""Puts records and observations together into the `View` of one cluster. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from borealis.control.context import ControlContext
from borealis.control.maintenance import in_window
from borealis.control.records import Cluster, now_utc
from borealis.control.view import View

TOPOLOGY_SECONDS = 2.0
"""How old the members' list in the engines may be, in seconds."""
TRIM_PAUSE_SECONDS = 5.0
"""How long after a trim the next one may be at the earliest: what the nodes hold must be seen first."""


def look(
    context: ControlContext, cluster: Cluster, now: float, failures: Mapping[str, int] | None = None
) -> View:
    """The cluster as it is known now; `now` is the event loop's time."""
    instances = tuple(context.store.instances(cluster.key))
    memory = context.memory(cluster.key)
    time = now_utc()
    seen = {
        instance.incarnation.id: context.observer.seen(instance.incarnation.id)
        for instance in instances
        if instance.incarnation is not None
    }
    return View(
        cluster=cluster,
        instances=instances,
        endpoints=tuple(context.custom_endpoints(cluster.key)),
        seen=seen,
        volume=context.observer.volume(cluster.volume.id),
        boot_id=context.boot_id,
        lease_seconds=context.settings.lease_seconds,
        in_window=in_window(cluster.preferred_maintenance_window, time),
        instances_in_window=frozenset(
            i.key for i in instances if in_window(i.preferred_maintenance_window, time)
        ),
        failover_age=_age(cluster, time),
        failures=failures or {},
        avoid=frozenset(memory.avoid),
        endpoints_applied=memory.endpoints_applied,
        trim_pausing=now - memory.trimmed_at < TRIM_PAUSE_SECONDS,
        topology_due=now - memory.topology_pushed_at >= TOPOLOGY_SECONDS,
        topology_told=memory.topology_told,
    )


def _age(cluster: Cluster, now: datetime) -> float:
    asked = cluster.failover
    return (now - asked.requested_at).total_seconds() if asked is not None else 0.0
