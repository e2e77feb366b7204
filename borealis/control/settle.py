"""Which records must change given what was seen: status moves, lives given up, requests taken up. Pure.

`settle(view)` returns the operations of one commit, or nothing when the records say what is so. No work is
done in the world: that is the planner's and the steps' part. It never touches a lost writer that somebody
can replace: that commit belongs to the failover itself, so that a failover costs one commit and not two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from borealis.control.events import ClusterEvent, InstanceEvent, cluster_event, instance_event
from borealis.control.failover import candidates, choose_writer, planned_target, writer_hung, writer_needed
from borealis.control.placement import choose_zone
from borealis.control.records import (
    Cluster,
    ClusterPending,
    CustomEndpoint,
    FailoverRequest,
    Incarnation,
    Instance,
    InstancePending,
    RebootRequest,
    now_utc,
)
from borealis.control.states import (
    INSTANCE_MOVES,
    ClusterStatus,
    EndpointStatus,
    InstanceStatus,
    Want,
    check_cluster_move,
    check_instance_move,
)
from borealis.control.storage_notes import settle_storage
from borealis.control.store import Op, Put
from borealis.control.view import View, is_serving

READER_SILENCE_FACTOR = 5
"""A silent reader leaves the endpoints after one lease; after this many it is given up and made anew."""

_COMING_UP = frozenset(
    {
        InstanceStatus.CREATING,
        InstanceStatus.STARTING,
        InstanceStatus.REBOOTING,
        InstanceStatus.MODIFYING,
        InstanceStatus.RENAMING,
        InstanceStatus.FAILED,
    }
)
_CLUSTER_BUSY = frozenset(
    {ClusterStatus.MODIFYING, ClusterStatus.RENAMING, ClusterStatus.RESETTING_CREDENTIALS}
)


def settle(view: View, zones: Sequence[str]) -> list[Op]:
    """The operations of one commit that bring the records up to date; empty when they are."""
    ops: list[Op] = []
    for instance in view.instances:
        ops += _settle_instance(view, instance, zones)
    ops += _settle_cluster(view)
    ops += _settle_endpoints(view, _new_names(view, ops))
    return ops or settle_storage(view)  # by itself: it changes the cluster's record, too


def retire(instance: Instance, status: InstanceStatus | None = None) -> Instance:
    """The record with its present life given up. Killing and removing it is the sweep's part.

    `status` is shown where the table allows it: an instance that is only just starting goes on starting.
    """
    if instance.incarnation is None:
        return instance
    changed = instance.but(retired=(*instance.retired, instance.incarnation.id), incarnation=None)
    return changed if status is None else _show(changed, status)


def _show(instance: Instance, status: InstanceStatus) -> Instance:
    return move_instance(instance, status) if status in INSTANCE_MOVES[instance.status] else instance


def move_instance(instance: Instance, status: InstanceStatus, reason: str = "") -> Instance:
    """The record in a new status. Raises IllegalMove when the table does not allow it."""
    check_instance_move(instance.status, status)
    return instance.but(status=status, status_reason=reason)


def move_cluster(cluster: Cluster, status: ClusterStatus, reason: str = "") -> Cluster:
    """The record in a new status. Raises IllegalMove when the table does not allow it."""
    check_cluster_move(cluster.status, status)
    return cluster.but(status=status, status_reason=reason)


# instances


def _settle_instance(view: View, old: Instance, zones: Sequence[str]) -> list[Op]:
    if old.want is Want.DELETED:
        if old.status is InstanceStatus.DELETING:
            return []
        return [Put(move_instance(old, InstanceStatus.DELETING))]
    wanted = _follow_cluster(view, old)
    if wanted is not None:
        return [Put(wanted)]
    if not old.availability_zone:
        return [Put(old.but(availability_zone=choose_zone(view.cluster, view.instances, zones)))]
    if view.cluster.want is not Want.RUNNING or _opening_involves(view, old):
        return []
    return (
        _take_up_pending(view, old)
        or _take_up_reboot(view, old)
        or _give_up(view, old)
        or _arrived(view, old)
    )


def _follow_cluster(view: View, instance: Instance) -> Instance | None:
    """Stopping and starting go through the cluster: its instances follow."""
    cluster_want, status = view.cluster.want, instance.status
    if cluster_want is Want.STOPPED and status not in (InstanceStatus.STOPPING, InstanceStatus.STOPPED):
        return move_instance(instance, InstanceStatus.STOPPING)
    if cluster_want is Want.RUNNING and status is InstanceStatus.STOPPED:
        return move_instance(instance, InstanceStatus.STARTING)
    if cluster_want is Want.RUNNING and status is InstanceStatus.STOPPING and instance.incarnation is None:
        return move_instance(instance, InstanceStatus.STOPPED)
    return None


def _opening_involves(view: View, instance: Instance) -> bool:
    return view.cluster.opening is not None and view.cluster.opening.instance == instance.key


def _take_up_pending(view: View, instance: Instance) -> list[Op]:
    """Put pending values into effect when it is time; a restart follows from what then differs."""
    pending = instance.pending
    if not pending or not (instance.apply_pending or instance.key in view.instances_in_window):
        return []
    events: list[Op] = []
    status = instance.status
    if pending.instance_class not in (None, instance.instance_class):
        events.append(instance_event(InstanceEvent.APPLYING_CLASS, instance))
        status = InstanceStatus.MODIFYING
    new = instance.but(
        instance_class=pending.instance_class or instance.instance_class,
        engine_version=pending.engine_version or instance.engine_version,
        ca_certificate_identifier=pending.ca_certificate_identifier or instance.ca_certificate_identifier,
        identifier=pending.identifier or instance.identifier,
        arn=_renamed(instance.arn, pending.identifier),
        pending=InstancePending(),
        apply_pending=False,
    )
    return [Put(_show(new, status)), *events]


def _take_up_reboot(view: View, instance: Instance) -> list[Op]:
    """A reboot, or a life that was started with other settings: give the life up, a new one follows."""
    if not is_serving(instance.incarnation) or instance.incarnation is None:
        return []
    life, is_writer = instance.incarnation, instance is view.live_writer
    asked = instance.reboot is not None and instance.reboot.requested_at > life.created_at
    if asked and is_writer and instance.reboot is not None and instance.reboot.force_failover:
        return _reboot_with_failover(view, instance)
    if not asked and not _outdated(view, instance, life):
        return []
    if instance.reboot is None and is_writer:
        # The request also says that the writer is to come back as writer.
        instance = instance.but(reboot=_request())
    # Other reasons than a new class (a new port, a new version) are a restart to whoever looks on.
    resized = life.instance_class != instance.instance_class
    status = InstanceStatus.MODIFYING if resized and not asked else InstanceStatus.REBOOTING
    return [Put(retire(instance, status)), instance_event(InstanceEvent.SHUT_DOWN, instance)]


def _reboot_with_failover(view: View, instance: Instance) -> list[Op]:
    """The failover retires the writer's life; without a reader it is a plain reboot."""
    cluster = view.cluster
    if cluster.failover is not None:
        return []
    plain = instance.reboot.but(force_failover=False) if instance.reboot else None
    if not candidates(view):
        return [Put(instance.but(reboot=plain))]
    request = FailoverRequest(target=None, requested_at=now_utc())
    return [Put(instance.but(reboot=None)), Put(cluster.but(failover=request))]


def _outdated(view: View, instance: Instance, incarnation: Incarnation) -> bool:
    return (
        incarnation.instance_class != instance.instance_class
        or incarnation.engine_version != view.cluster.engine_version
        or incarnation.port != view.cluster.port
    )


def _give_up(view: View, instance: Instance) -> list[Op]:
    """A life at its end. The writer's is left to the failover when there is somebody to fail over to."""
    reason = _reason_to_give_up(view, instance)
    if not reason:
        return []
    is_writer = view.cluster.writer == instance.key and instance.incarnation is not None
    if is_writer and choose_writer(view) is not None:
        return []
    if instance.status is not InstanceStatus.AVAILABLE:
        return [Put(retire(instance))]
    event = instance_event(InstanceEvent.RECOVERING, instance, reason=reason)
    return [Put(retire(instance, InstanceStatus.REBOOTING)), event]


def _reason_to_give_up(view: View, instance: Instance) -> str:
    incarnation = instance.incarnation
    if incarnation is None:
        return ""
    if incarnation.boot_id and view.boot_id and incarnation.boot_id != view.boot_id:
        return "The machine was started again."
    if not is_serving(incarnation):
        return ""
    seen = view.of(instance)
    if seen.lost:
        return "The engine has ended."
    if instance is view.live_writer:
        return "The writer did not answer within its lease." if writer_hung(view) else ""
    if seen.silent_for > view.lease_seconds * READER_SILENCE_FACTOR:
        return "The instance did not answer."
    if seen.role == "writer":
        return "The instance is no longer the writer."
    if view.replay_paused(instance):
        return "The writer allows more connections than this reader was started with."
    return ""


def _arrived(view: View, instance: Instance) -> list[Op]:
    """An instance in service, in a cluster with a writer, is available; the event says what it came from."""
    if instance.status not in _COMING_UP or not is_serving(instance.incarnation) or view.of(instance).lost:
        return []
    if view.live_writer is None or view.cluster.opening is not None:
        return []
    if instance.incarnation is not None and _outdated(view, instance, instance.incarnation):
        return []
    event = {
        InstanceStatus.CREATING: InstanceEvent.CREATED,
        InstanceStatus.STARTING: InstanceEvent.STARTED,
        InstanceStatus.MODIFYING: InstanceEvent.APPLIED_CLASS,
        InstanceStatus.RENAMING: None,
        InstanceStatus.FAILED: InstanceEvent.RECOVERED,
        InstanceStatus.REBOOTING: InstanceEvent.RESTARTED,
    }[instance.status]
    new = move_instance(instance.but(reboot=None), InstanceStatus.AVAILABLE)
    return [Put(new), *([instance_event(event, new)] if event else [])]


# custom endpoints


def _new_names(view: View, ops: Sequence[Op]) -> dict[str, str]:
    """Former → new name of the instances that `ops` rename."""
    names: dict[str, str] = {}
    for op in ops:
        record = op.record if isinstance(op, Put) else None
        old = view.instance(record.key) if isinstance(record, Instance) else None
        if record is not None and old is not None and old.identifier != record.name:
            names[old.identifier] = record.name
    return names


def with_new_names(endpoint: CustomEndpoint, names: Mapping[str, str]) -> CustomEndpoint:
    """The endpoint with its members' new names; `names`: former → new."""
    return endpoint.but(
        static_members=tuple(names.get(member, member) for member in endpoint.static_members),
        excluded_members=tuple(names.get(member, member) for member in endpoint.excluded_members),
    )


def _settle_endpoints(view: View, names: Mapping[str, str]) -> list[Op]:
    """Endpoints know their members by name: they follow a renamed one, in the commit that renames it."""
    ops: list[Op] = []
    for endpoint in view.endpoints:
        new = with_new_names(endpoint, names)
        if endpoint.want is Want.DELETED:
            new = new.but(status=EndpointStatus.DELETING)
        if new != endpoint:
            ops.append(Put(new))
    return ops


# the cluster


def _settle_cluster(view: View) -> list[Op]:
    cluster = view.cluster
    if cluster.want is Want.DELETED:
        if cluster.status is ClusterStatus.DELETING:
            return []
        return [Put(move_cluster(cluster, ClusterStatus.DELETING))]
    if not cluster.volume.seeded:
        return []
    return _cluster_lifecycle(view) or _cluster_requests(view) or _cluster_settled(view)


def _cluster_lifecycle(view: View) -> list[Op]:
    """Creating, stopping, starting."""
    cluster, status = view.cluster, view.cluster.status
    if status is ClusterStatus.CREATING:
        new = move_cluster(cluster, ClusterStatus.AVAILABLE)
        return [Put(new), cluster_event(ClusterEvent.CREATED, new)]
    if cluster.want is Want.STOPPED:
        return _cluster_stopping(view)
    if status in (ClusterStatus.STOPPED, ClusterStatus.STOPPING):
        return [Put(move_cluster(cluster, ClusterStatus.STARTING))]
    if status is ClusterStatus.STARTING and _has_what_it_can(view):
        new = move_cluster(cluster, ClusterStatus.AVAILABLE)
        return [Put(new), cluster_event(ClusterEvent.STARTED, new)]
    return []


def _cluster_stopping(view: View) -> list[Op]:
    cluster = view.cluster
    if cluster.status is ClusterStatus.STOPPED:
        return []
    if cluster.status is not ClusterStatus.STOPPING:
        new = cluster.but(failover=None) if cluster.failover else cluster
        return [Put(new.but(status=ClusterStatus.STOPPING, status_reason=""))]
    if not _all_stopped(view) or cluster.opening is not None or cluster.volume.image_job is not None:
        return []
    new = move_cluster(cluster, ClusterStatus.STOPPED).but(last_stopped_at=now_utc())
    return [Put(new), cluster_event(ClusterEvent.STOPPED, new)]


def _all_stopped(view: View) -> bool:
    return all(i.status in (InstanceStatus.STOPPED, InstanceStatus.DELETING) for i in view.instances)


def _has_what_it_can(view: View) -> bool:
    """A cluster with instances needs a writer; one without has nothing to wait for."""
    running = [i for i in view.instances if i.want is Want.RUNNING]
    return not running or (view.live_writer is not None and view.cluster.opening is None)


def _cluster_requests(view: View) -> list[Op]:
    """Pending values whose time has come, and failovers that cannot be had."""
    cluster = view.cluster
    if cluster.pending and (cluster.apply_pending or view.in_window):
        return _apply_cluster_pending(cluster)
    if cluster.failover is not None and cluster.opening is None and not writer_needed(view):
        if planned_target(view) is None:
            event = cluster_event(
                ClusterEvent.FAILOVER_FAILED, cluster, reason="No reader is able to take over."
            )
            return [Put(_available(cluster.but(failover=None))), event]
        if cluster.status is ClusterStatus.AVAILABLE:
            return [Put(move_cluster(cluster, ClusterStatus.FAILING_OVER))]
    return []


def _apply_cluster_pending(cluster: Cluster) -> list[Op]:
    pending = cluster.pending
    new = cluster.but(
        engine_version=pending.engine_version or cluster.engine_version,
        master_verifier=pending.master_verifier or cluster.master_verifier,
        identifier=pending.identifier or cluster.identifier,
        port=pending.port or cluster.port,
        arn=_renamed(cluster.arn, pending.identifier),
        pending=ClusterPending(),
        apply_pending=False,
    )
    events: list[Op] = []
    if pending.identifier:
        event = cluster_event(ClusterEvent.RENAMED, new, old=cluster.identifier, new=pending.identifier)
        events.append(event)
    return [Put(new), *events]


def _cluster_settled(view: View) -> list[Op]:
    """Back to available when nothing is left to do."""
    cluster = view.cluster
    status = cluster.status
    if cluster.opening is not None or cluster.failover is not None or not _has_what_it_can(view):
        return []
    if status is ClusterStatus.FAILING_OVER:
        return [Put(_available(cluster))]
    if status not in _CLUSTER_BUSY or (cluster.pending and cluster.apply_pending):
        return []
    running = [i for i in view.instances if i.want is Want.RUNNING]
    if running and cluster.applied_verifier != cluster.master_verifier:
        return []
    if any(i.incarnation is None or _outdated(view, i, i.incarnation) for i in running):
        return []
    return [Put(_available(cluster))]


def _available(cluster: Cluster) -> Cluster:
    return move_cluster(cluster, ClusterStatus.AVAILABLE) if cluster.want is Want.RUNNING else cluster


def _renamed(arn: str, identifier: str | None) -> str:
    return arn if identifier is None else arn.rsplit(":", 1)[0] + ":" + identifier


def _request() -> RebootRequest:
    return RebootRequest(requested_at=now_utc())
