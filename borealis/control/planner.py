"""What to do next for one cluster: (records, observations) → actions. Pure.

The plan is made anew from nothing each time: no action relies on an earlier one having run in this process:
a control plane that was killed at any step goes on where it was. The list is in order of urgency.
"""

from __future__ import annotations

from collections.abc import Iterator

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
from borealis.control.endpoint_plan import endpoint_plan
from borealis.control.failover import (
    candidates,
    choose_writer,
    ready_target,
    writer_hung,
    writer_needed,
)
from borealis.control.records import Instance
from borealis.control.settings import ControlSettings
from borealis.control.states import ClusterStatus, EndpointStatus, InstanceStatus, Want
from borealis.control.trimming import trim_due
from borealis.control.view import View
from borealis.engines.base import EngineNotFound
from borealis.engines.registry import get_engine

OPENING_SILENCE_FACTOR = 3
"""A candidate that was not heard of for this many leases is given up."""


def plan(view: View, settings: ControlSettings) -> list[Action]:
    """All actions that the cluster needs now, the most urgent first."""
    cluster = view.cluster
    if cluster.want is Want.DELETED:
        return list(_removal(view))
    if not cluster.volume.seeded:
        created: list[Action] = [] if cluster.status is ClusterStatus.FAILED else [CreateVolume()]
        return [*created, *_removed_instances(view)]
    return [
        *_writer(view),
        *_instances(view),
        *_lease(view, settings),
        *_endpoints(view),
        *_password(view),
        *_topology(view),
        *_images(view, settings),
        *_trim(view, settings),
        *([DropGarbage()] if cluster.volume.garbage else []),
    ]


def _removal(view: View) -> Iterator[Action]:
    if view.cluster.volume.image_job is not None:
        yield DropImageJob()
    for instance in view.instances:
        yield RemoveInstance(instance.key)
    if not view.instances and view.cluster.volume.image_job is None:
        yield RemoveCluster()


def _removed_instances(view: View) -> Iterator[Action]:
    for instance in view.instances:
        if instance.want is Want.DELETED:
            yield RemoveInstance(instance.key)


def _writer(view: View) -> Iterator[Action]:
    cluster = view.cluster
    if cluster.opening is not None:
        reason = _opening_hopeless(view)
        yield AbandonOpening(reason=reason) if reason else FinishOpening()
        return
    if cluster.want is not Want.RUNNING or cluster.status is ClusterStatus.STOPPED:
        return
    if writer_needed(view):
        target = choose_writer(view)
        if target is not None:
            yield OpenWriter(target=target.key, planned=False, reason=_why(view))
        return
    target = ready_target(view) or _heir_of_a_leaving_writer(view)
    if target is not None:
        yield OpenWriter(target=target.key, planned=True, reason="asked for")


def _why(view: View) -> str:
    if writer_hung(view):
        return "the writer did not answer within its lease"
    return "the writer has ended" if view.cluster.writer else "the cluster has no writer yet"


def _opening_hopeless(view: View) -> str:
    """Why the opening under way cannot succeed; empty while it may."""
    opening = view.cluster.opening
    if opening is None:
        return ""
    candidate = view.instance(opening.instance)
    if candidate is None or candidate.incarnation is None or candidate.incarnation.id != opening.incarnation:
        return "the candidate is gone"
    seen = view.of(candidate)
    if seen.lost and seen.role != "writer":
        return "the candidate has ended"
    if seen.silent_for > view.lease_seconds * OPENING_SILENCE_FACTOR:
        return "the candidate does not answer"
    return ""


def _heir_of_a_leaving_writer(view: View) -> Instance | None:
    """A writer that is deleted hands over first, if there is somebody."""
    live = view.live_writer
    if live is None or live.want is not Want.DELETED:
        return None
    return next(iter(candidates(view)), None)


def _instances(view: View) -> Iterator[Action]:
    for instance in view.instances:
        action = _instance(view, instance)
        if action is not None:
            yield action


def _instance(view: View, instance: Instance) -> Action | None:
    cluster = view.cluster
    if _in_opening(view, instance):
        return None
    if instance.want is Want.DELETED:
        handing_over = instance is view.live_writer and _heir_of_a_leaving_writer(view) is not None
        return None if handing_over else RemoveInstance(instance.key)
    if instance.status is InstanceStatus.STOPPING:
        return StopInstance(instance.key)
    if instance.retired:
        return Sweep(instance.key)
    if cluster.want is not Want.RUNNING or instance.status is InstanceStatus.STOPPED:
        return None
    if view.serving(instance) or not instance.availability_zone:
        return None
    return BringUp(instance.key)


def _in_opening(view: View, instance: Instance) -> bool:
    """The candidate is left alone; the former writer's removal and new life wait until the endpoint moved."""
    opening = view.cluster.opening
    return opening is not None and instance.key in (opening.instance, opening.previous_writer)


def _lease(view: View, settings: ControlSettings) -> Iterator[Action]:
    """Without a write quorum the lease would run out, and reads would stop: control vouches for its writer.

    Only while no one else is being opened, and only for a writer that control hears of.
    """
    live = view.live_writer
    if live is None or live.incarnation is None or view.cluster.opening is not None:
        return
    status = view.of(live).status
    if status is None or status.lease_remaining is None or view.of(live).silent_for > view.lease_seconds:
        return
    if status.lease_remaining < settings.lease_seconds * 0.6:
        yield RenewLease(incarnation=live.incarnation.id, term=view.cluster.volume.writer_term)


def _endpoints(view: View) -> Iterator[Action]:
    cluster = view.cluster
    if cluster.opening is not None:
        return  # the failover moves the writer endpoint itself; a plan made now would undo that
    unfinished = any(
        endpoint.want is Want.DELETED
        or endpoint.status in (EndpointStatus.CREATING, EndpointStatus.MODIFYING)
        for endpoint in view.endpoints
    )
    if unfinished or view.endpoints_applied != endpoint_plan(view):
        yield SyncEndpoints()


def _password(view: View) -> Iterator[Action]:
    cluster = view.cluster
    live = view.live_writer
    if live is not None and view.healthy(live) and cluster.applied_verifier != cluster.master_verifier:
        yield SetPassword()


def _topology(view: View) -> Iterator[Action]:
    """Regularly, for the figures in it; at once, when somebody joined, left or changed roles."""
    if view.instances and (view.topology_due or view.topology_told != view.membership):
        yield PushTopology()


def _images(view: View, settings: ControlSettings) -> Iterator[Action]:
    volume = view.cluster.volume
    available = view.cluster.want is Want.RUNNING and view.cluster.status is ClusterStatus.AVAILABLE
    if volume.image_job is not None:
        yield MakeImage() if available else DropImageJob()
        return
    live = view.live_writer
    if settings.image_log_bytes <= 0 or not available or live is None or not view.healthy(live):
        return
    status = view.of(live).status
    newest = max((image.lsn for image in volume.images), default=volume.start_lsn)
    if status is not None and status.vdl - newest >= settings.image_log_bytes:
        yield MakeImage()


def _trim(view: View, settings: ControlSettings) -> Iterator[Action]:
    if view.trim_pausing:
        return
    try:
        log_file_bytes = get_engine(view.cluster.engine).log_file_bytes
    except EngineNotFound:
        return  # this version of Borealis does not know it; all else goes on
    below = trim_due(view, log_file_bytes, settings.trim_log_bytes)
    if below is not None:
        yield TrimLog(below)
