"""Making a cluster's volume: addresses, the engine's first files, six seeded segments, the first image."""

from __future__ import annotations

from borealis.control.context import ControlContext
from borealis.control.events import ClusterEvent, cluster_event
from borealis.control.records import Cluster, EndpointAddresses, Volume, new_volume_id
from borealis.control.settle import move_cluster
from borealis.control.states import ClusterStatus
from borealis.control.store import Put
from borealis.engines.base import EngineError
from borealis.engines.classes import UnknownInstanceClass


async def create_volume(context: ControlContext, key: str) -> None:
    """Seed the volume. Each try has a volume id of its own: segments of a failed one cannot be mistaken."""
    await _addresses(context, key)
    cluster = await context.store.update(Cluster, key, _next_try)
    try:
        created = await context.volumes.create(cluster)
    except (EngineError, UnknownInstanceClass) as error:
        await _give_up(context, key, error.message)
        return

    def seeded(record: Cluster) -> Cluster:
        volume = record.volume.but(
            system_id=created.system_id,
            seeded=True,
            start_lsn=created.start_lsn,
            timeline=created.timeline,
            term=created.term,
            images=(created.image,),
        )
        # The bootstrap has stored the verifier of the record as it was when the try began.
        return record.but(volume=volume, applied_verifier=cluster.master_verifier)

    await context.store.update(Cluster, key, seeded)


async def _addresses(context: ControlContext, key: str) -> None:
    async with context.address_lock:
        cluster = context.cluster(key)
        held = cluster.addresses
        in_use = context.addresses_in_use()
        writer = held.writer or await context.endpoints.allocate(cluster.port, in_use)
        reader = held.reader or await context.endpoints.allocate(cluster.port, in_use | {writer})
        addresses = EndpointAddresses(writer=writer, reader=reader)
        await context.store.update(Cluster, key, lambda c: c.but(addresses=addresses))


def _next_try(cluster: Cluster) -> Cluster:
    volume = cluster.volume
    if not volume.tried:
        return cluster.but(volume=volume.but(tried=True))
    fresh = Volume(id=new_volume_id(), tried=True, garbage=(*volume.garbage, volume.id))
    return cluster.but(volume=fresh)


async def _give_up(context: ControlContext, key: str, reason: str) -> None:
    """What the engine cannot do it will not do later either: say so, and let the user delete the cluster."""
    failed = move_cluster(context.cluster(key), ClusterStatus.FAILED, reason)
    await context.store.commit([Put(failed), cluster_event(ClusterEvent.NOT_CREATED, failed, reason=reason)])
