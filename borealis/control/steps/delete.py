"""Removing things: former lives, instances, clusters, volumes of failed tries.

The record goes last: as long as it is there, removal is tried again.
"""

from __future__ import annotations

from borealis.control.context import ControlContext
from borealis.control.events import ClusterEvent, InstanceEvent, cluster_event, instance_event
from borealis.control.records import Cluster, Instance
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
    for volume in (*cluster.volume.garbage, cluster.volume.id):
        await context.volumes.drop(volume)
    cluster = context.cluster(key)
    customs = [Delete(endpoint) for endpoint in context.custom_endpoints(key)]
    await context.store.commit([*customs, Delete(cluster), cluster_event(ClusterEvent.DELETED, cluster)])


async def drop_garbage(context: ControlContext, key: str) -> None:
    """Drop volumes of tries that came to nothing."""
    for volume in context.cluster(key).volume.garbage:
        await context.volumes.drop(volume)

        def dropped(record: Cluster, volume: str = volume) -> Cluster:
            left = tuple(g for g in record.volume.garbage if g != volume)
            return record.but(volume=record.volume.but(garbage=left))

        await context.store.update(Cluster, key, dropped)
