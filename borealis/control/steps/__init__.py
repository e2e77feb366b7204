"""The steps that actions stand for, one module per lifecycle.

Each step reads the records anew, does its work through the ports and commits what has become so. Each may
be run again after it was cut off at any point. `run` is the one table from action to step.
"""

from __future__ import annotations

from borealis.control.actions import (
    AbandonOpening,
    Action,
    BringUp,
    CreateVolume,
    DropGarbage,
    DropImageJob,
    FinishOpening,
    MakeImage,
    OpenWriter,
    PushTopology,
    RemoveCluster,
    RemoveInstance,
    RenewLease,
    SetPassword,
    StopInstance,
    Sweep,
    SyncEndpoints,
    TrimLog,
)
from borealis.control.context import ControlContext
from borealis.control.steps import (
    cluster_create,
    delete,
    endpoints,
    failover,
    images,
    instance_create,
    stop_start,
    upkeep,
)


async def run(context: ControlContext, cluster: str, action: Action) -> None:  # noqa: PLR0912
    """Do what `action` says for the cluster with this key."""
    match action:
        case OpenWriter():
            await failover.open_writer(context, cluster, action)
        case FinishOpening():
            await failover.finish_opening(context, cluster)
        case AbandonOpening(reason=reason):
            await failover.abandon_opening(context, cluster, reason)
        case BringUp(instance=instance):
            await instance_create.bring_up(context, instance)
        case Sweep(instance=instance):
            await delete.sweep(context, instance)
        case StopInstance(instance=instance):
            await stop_start.stop_instance(context, instance)
        case RemoveInstance(instance=instance):
            await delete.remove_instance(context, instance)
        case CreateVolume():
            await cluster_create.create_volume(context, cluster)
        case RemoveCluster():
            await delete.remove_cluster(context, cluster)
        case DropGarbage():
            await delete.drop_garbage(context, cluster)
        case SyncEndpoints():
            await endpoints.sync_endpoints(context, cluster)
        case RenewLease(incarnation=incarnation, term=term):
            await upkeep.renew_lease(context, incarnation, term)
        case SetPassword():
            await upkeep.set_password(context, cluster)
        case PushTopology():
            await upkeep.push_topology(context, cluster)
        case MakeImage():
            await images.make_image(context, cluster)
        case DropImageJob():
            await images.drop_image_job(context, cluster)
        case TrimLog(below=below):
            await upkeep.trim_log(context, cluster, below)
        case _:
            raise TypeError(f"there is no step for {action!r}")
