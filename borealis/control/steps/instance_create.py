"""Giving an instance a life: directory from the newest image, driver, engine, following the volume.

A life that fails on the way is given up whole, and the next try is a new one: no half-made directory is
ever used.
"""

from __future__ import annotations

import asyncio

from borealis.control.context import ControlContext, StepFailed
from borealis.control.ports import InstancePlan
from borealis.control.records import Cluster, Image, Incarnation, IncarnationPhase, Instance
from borealis.control.settle import retire
from borealis.control.states import Want
from borealis.control.store import Conflict
from borealis.control.view import DriverStatus, EngineLife
from borealis.errors import BorealisError
from borealis.logs import get_logger

log = get_logger(__name__)

LOOK_SECONDS = 0.05


async def bring_up(context: ControlContext, key: str) -> None:
    """Bring the instance into service as a reader. Raises when this life came to nothing; it is given up."""
    incarnation = await _begin(context, key)
    instance = context.instance(key)
    cluster = context.cluster(instance.cluster)
    plan = plan_instance(context, cluster, instance, incarnation)
    try:
        if incarnation.phase is IncarnationPhase.PREPARING:
            await context.instances.prepare(plan)
            await _advance(context, key, incarnation.id, IncarnationPhase.STARTING)
        await context.instances.start(plan)
        context.observer.watch(incarnation.id, cluster.key)
        await follow(context, incarnation.id)
        await _advance(context, key, incarnation.id, IncarnationPhase.SERVING)
    except Conflict:
        raise
    except (BorealisError, OSError) as error:
        log.warning("%s: life %s came to nothing: %s", instance.identifier, incarnation.id, error)
        await _give_up(context, key, incarnation.id)
        raise


async def _begin(context: ControlContext, key: str) -> Incarnation:
    """The present life, or a new one with an id that was never used."""
    instance = context.instance(key)
    if instance.incarnation is not None:
        return instance.incarnation
    await _address(context, key)
    number = await context.store.allocate("incarnation")
    server = await next_server_number(context, instance.cluster)

    def begun(record: Instance) -> Instance:
        cluster = context.cluster(record.cluster)
        if record.incarnation is not None or record.retired or record.want is not Want.RUNNING:
            raise Conflict(f"The instance {record.identifier} was changed meanwhile.")
        incarnation = Incarnation(
            id=f"i{number}",
            image_lsn=newest_image(cluster).lsn,
            instance_class=record.instance_class,
            cluster_classes=member_classes(context, cluster),
            engine_version=cluster.engine_version,
            port=cluster.port,
            server_number=server,
            boot_id=context.boot_id,
        )
        return record.but(incarnation=incarnation, engine_version=cluster.engine_version)

    instance = await context.store.update(Instance, key, begun)
    assert instance.incarnation is not None
    return instance.incarnation


async def next_server_number(context: ControlContext, key: str) -> int:
    """A number that no life on the volume of the cluster `key` was ever given, nor will be."""

    def counted(record: Cluster) -> Cluster:
        return record.but(volume=record.volume.but(servers=record.volume.servers + 1))

    return (await context.store.update(Cluster, key, counted)).volume.servers


async def _address(context: ControlContext, key: str) -> None:
    async with context.address_lock:
        instance = context.instance(key)
        if instance.address:
            return
        port = context.cluster(instance.cluster).port
        address = await context.endpoints.allocate(port, context.addresses_in_use())
        await context.store.update(Instance, key, lambda i: i.but(address=address))


async def _advance(context: ControlContext, key: str, incarnation: str, phase: IncarnationPhase) -> None:
    def advanced(record: Instance) -> Instance:
        present = record.incarnation
        if present is None or present.id != incarnation:
            raise Conflict(f"Life {incarnation} of {record.identifier} was given up meanwhile.")
        return record.but(incarnation=present.but(phase=phase))

    await context.store.update(Instance, key, advanced)


async def _give_up(context: ControlContext, key: str, incarnation: str) -> None:
    def given_up(record: Instance) -> Instance:
        present = record.incarnation
        return retire(record) if present is not None and present.id == incarnation else record

    await context.store.update(Instance, key, given_up)


async def follow(context: ControlContext, incarnation: str, at_least: int = 0) -> DriverStatus:
    """Wait until the engine answers, is close to the end of the log, and has replayed it up to `at_least`.

    Raises StepFailed.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + context.settings.start_seconds
    reason = "its driver does not answer"
    while loop.time() < deadline:
        try:
            status = await context.observer.ask(incarnation)
            replayed = (status.engine.replay_lsn or 0) >= at_least
            if status.engine.up and replayed and _close(status, context.settings.caught_up_bytes):
                return status
            reason = status.engine.error or f"it is at {status.engine.replay_lsn} of {status.vdl}"
        except (BorealisError, OSError) as error:
            reason = str(error)
        if context.observer.seen(incarnation).engine is EngineLife.GONE:
            raise StepFailed(f"The engine of life {incarnation} has ended: see its log ({reason}).")
        await asyncio.sleep(LOOK_SECONDS)
    raise StepFailed(
        f"Life {incarnation} does not follow the volume after {context.settings.start_seconds:g} s: {reason}."
    )


def _close(status: DriverStatus, within_bytes: float) -> bool:
    return status.vdl == 0 or status.vdl - (status.engine.replay_lsn or 0) <= within_bytes


def plan_instance(
    context: ControlContext, cluster: Cluster, instance: Instance, incarnation: Incarnation
) -> InstancePlan:
    """Everything that this life is to be."""
    return InstancePlan(
        incarnation=incarnation.id,
        instance_id=instance.identifier,
        resource_id=instance.resource_id,
        cluster_id=cluster.identifier,
        volume=cluster.volume.id,
        system_id=cluster.volume.system_id,
        zone=instance.availability_zone,
        engine=cluster.engine,
        engine_version=incarnation.engine_version,
        instance_class=incarnation.instance_class,
        cluster_classes=incarnation.cluster_classes or member_classes(context, cluster),
        address=instance.address,
        port=incarnation.port,
        image=image_at(cluster, incarnation.image_lsn),
        server_number=incarnation.server_number,
    )


def member_classes(context: ControlContext, cluster: Cluster) -> tuple[str, ...]:
    """The classes that an instance's settings must do for: those of all members, and those that the settings
    of the present writer were made for, although the member that needed them may be gone by now."""
    instances = context.store.instances(cluster.key)
    classes = {instance.instance_class for instance in instances}
    for life in (i.incarnation for i in instances if i.key == cluster.writer):
        if life is not None:
            classes |= {life.instance_class, *life.cluster_classes}
    return tuple(sorted(classes - {""}))


def newest_image(cluster: Cluster) -> Image:
    """The image to start from. Raises StepFailed while the volume has none."""
    if not cluster.volume.images:
        raise StepFailed(f"The volume of cluster {cluster.identifier} has no image to start from.")
    return max(cluster.volume.images, key=lambda image: image.lsn)


def image_at(cluster: Cluster, lsn: int) -> Image:
    """The image of that position, or the newest one if it was replaced meanwhile."""
    return next((i for i in cluster.volume.images if i.lsn == lsn), None) or newest_image(cluster)
