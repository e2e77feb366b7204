"""Removing things: former lives, instances, clusters, volumes of failed tries.

The record goes last: as long as it is there, removal is tried again. Nobody waits for storage nodes that do
not answer: what is left on them is remembered with them (`control.garbage`).
"""

from __future__ import annotations

from borealis.control.context import ControlContext
from borealis.control.events import ClusterEvent, InstanceEvent, cluster_event, instance_event
from borealis.control.garbage import left_on_nodes
from borealis.control.records import Instance
from borealis.control.store import Delete, Op, Put


async def sweep(context: ControlContext, key: str) -> None:
    """Kill and remove the instance's former lives."""
    for life in context.instance(key).retired:
        await _destroy(context, life)

        def swept(record: Instance, life: str = life) -> Instance:
            return record.but(retired=tuple(r for r in record.retired if r != life))

        await context.store.update(Instance, key, swept)


async def _destroy(context: ControlContext, life: str) -> None:
    await context.instances.destroy(life)
    await context.observer.unwatch(life)


async def remove_instance(context: ControlContext, key: str) -> None:
    """Remove the instance for good."""
    instance = context.instance(key)
    if instance.incarnation is not None:
        await _destroy(context, instance.incarnation.id)
    for life in instance.retired:
        await _destroy(context, life)
    instance = context.instance(key)
    ops: list[Op] = [Delete(instance), instance_event(InstanceEvent.DELETED, instance)]
    cluster = context.store.cluster(instance.cluster)
    if cluster is not None and cluster.writer == key:
        ops.append(Put(cluster.but(writer=None, volume=cluster.volume.but(writer_incarnation=""))))
    await context.store.commit(ops)


async def remove_cluster(context: ControlContext, key: str) -> None:
    """Remove endpoints, volume and record of a cluster without instances."""
    cluster = context.cluster(key)
    await context.endpoints.remove(key)
    await context.observer.unwatch_volume(cluster.volume.id)
    left: dict[str, list[str]] = {}
    for volume in (*cluster.volume.garbage, cluster.volume.id):
        for node in await context.volumes.drop(volume):
            left.setdefault(node, []).append(volume)
    cluster = context.cluster(key)
    customs = [Delete(endpoint) for endpoint in context.custom_endpoints(key)]
    event = cluster_event(ClusterEvent.DELETED, cluster)
    await context.store.commit([*customs, Delete(cluster), event, *left_on_nodes(context.store, left)])


async def drop_garbage(context: ControlContext, key: str) -> None:
    """Drop volumes of tries that came to nothing."""
    for volume in context.cluster(key).volume.garbage:
        nodes = await context.volumes.drop(volume)
        cluster = context.cluster(key)
        rest = tuple(other for other in cluster.volume.garbage if other != volume)
        without = cluster.but(volume=cluster.volume.but(garbage=rest))
        left = {node: [volume] for node in nodes}
        await context.store.commit([Put(without), *left_on_nodes(context.store, left)])
