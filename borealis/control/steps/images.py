"""New images: a hidden instance attaches, follows to the end of the log, stops cleanly, and is packed.

It runs beside the cluster and never on the way of a commit. Nothing is lost when a job is cut off: what it
left is removed, and a later one begins from nothing.
"""

from __future__ import annotations

from borealis.control.context import ControlContext, StepFailed
from borealis.control.ports import InstancePlan
from borealis.control.records import Cluster, Image, ImageJob, Volume, now_utc
from borealis.control.steps.instance_create import (
    follow,
    member_classes,
    newest_image,
    next_server_number,
)
from borealis.control.store import Conflict
from borealis.control.trimming import IMAGES_MIN
from borealis.control.view import is_serving
from borealis.logs import get_logger

log = get_logger(__name__)


async def make_image(context: ControlContext, key: str) -> None:
    """Make, publish and record one image; older ones than the settings keep are removed."""
    await drop_image_job(context, key)
    number = await context.store.allocate("incarnation")
    server = await next_server_number(context, key)
    job = ImageJob(incarnation=f"i{number}", started_at=now_utc(), server_number=server)

    def begun(record: Cluster) -> Cluster:
        if record.volume.image_job is not None:
            raise Conflict(f"Another image of {record.identifier} is being made.")
        return record.but(volume=record.volume.but(image_job=job))

    cluster = await context.store.update(Cluster, key, begun)
    plan = _hidden_plan(context, cluster, job)
    try:
        image = await _make(context, key, plan)
    except Exception:
        await drop_image_job(context, key)
        raise
    await context.store.update(Cluster, key, lambda c: c.but(volume=_with_image(c, image)))
    await drop_image_job(context, key)
    await _drop_old_images(context, key)
    log.info("%s: image at %X", cluster.identifier, image.lsn)


async def _make(context: ControlContext, key: str, plan: InstancePlan) -> Image:
    await context.instances.prepare(plan)
    await context.instances.start(plan)
    context.observer.watch(plan.incarnation, key)
    # Both, in this order: a reader can bring its files as far as the writer's last checkpoint, no farther.
    writer = context.cluster(key).volume.writer_incarnation
    await context.drivers.checkpoint(writer)
    end = (await context.observer.ask(writer)).vdl
    await follow(context, plan.incarnation, at_least=end)
    timeline = await context.drivers.prepare_image(plan.incarnation)
    if not await context.instances.stop_engine(plan.incarnation, context.settings.stop_seconds):
        raise StepFailed(f"The hidden instance {plan.incarnation} did not shut down cleanly: no image of it.")
    return await context.volumes.publish_image(plan, timeline)


async def drop_image_job(context: ControlContext, key: str) -> None:
    """Remove the hidden instance of a job that is over or was cut off."""
    job = context.cluster(key).volume.image_job
    if job is None:
        return
    await context.instances.destroy(job.incarnation)
    await context.observer.unwatch(job.incarnation)

    def dropped(record: Cluster) -> Cluster:
        return (
            record.but(volume=record.volume.but(image_job=None)) if record.volume.image_job == job else record
        )

    await context.store.update(Cluster, key, dropped)


async def _drop_old_images(context: ControlContext, key: str) -> None:
    """Remove images that nobody starts from any more: first from the record, then from the nodes."""
    cluster = context.cluster(key)
    lives = [i.incarnation for i in context.store.instances(key)]
    in_use = {life.image_lsn for life in lives if life is not None and not is_serving(life)}
    images = sorted(cluster.volume.images, key=lambda i: i.lsn, reverse=True)
    kept = max(IMAGES_MIN, int(context.settings.images_kept))
    old = [image for image in images[kept:] if image.lsn not in in_use]
    if not old:
        return
    left = tuple(image for image in images if image not in old)
    await context.store.update(Cluster, key, lambda c: c.but(volume=c.volume.but(images=left)))
    for image in old:
        await context.volumes.delete_image(cluster.volume.id, image)


def _with_image(cluster: Cluster, image: Image) -> Volume:
    others = tuple(i for i in cluster.volume.images if i.lsn != image.lsn)
    return cluster.volume.but(images=(*others, image))


def _hidden_plan(context: ControlContext, cluster: Cluster, job: ImageJob) -> InstancePlan:
    classes = member_classes(context, cluster)
    return InstancePlan(
        incarnation=job.incarnation,
        instance_id=f"image-{job.incarnation}",
        resource_id="",
        cluster_id=cluster.identifier,
        volume=cluster.volume.id,
        system_id=cluster.volume.system_id,
        zone=context.zones[0],
        engine=cluster.engine,
        engine_version=cluster.engine_version,
        instance_class=classes[0] if classes else "db.t3.medium",
        cluster_classes=classes,
        address="",
        port=cluster.port,
        image=newest_image(cluster),
        server_number=job.server_number,
    )
