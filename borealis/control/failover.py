"""Who becomes writer, and when the present writer is given up. Pure decisions, no I/O.

Invariant: nothing here makes anybody a writer. Safety hangs on the terms alone; a wrong decision costs
availability, never data. The rules:
 - a writer at its end (engine gone, driver fenced) is replaced at once;
 - a silent one after the lease, and only while a write quorum of nodes is reachable: without one nobody else
   could be opened either, and its sessions only wait;
 - the reader with the best promotion tier, then with the most log; after five failed tries tiers do not
   count; never one whose replay has stopped for want of larger settings: its engine would end;
 - a writer that a user reboots stays the writer, unless it does not come back;
 - the first writer is the instance that was created first, unless it cannot be started.
"""

from __future__ import annotations

from collections.abc import Collection

from borealis.control.records import Instance
from borealis.control.settings import PROMOTION_TRIES_BY_TIER
from borealis.control.states import ClusterStatus, Want
from borealis.control.view import View

CAUGHT_UP_MS = 200.0
"""A reader that is so close behind replays the rest in less time than the change of roles takes."""
CATCH_UP_SECONDS_MAX = 10.0
"""A failover that a user asked for waits so long for a reader that is further behind; the writer goes on."""
REBOOT_TRIES = 2
"""After this many failed starts of a rebooting writer any reader may take over."""


def writer_hung(view: View) -> bool:
    """The writer lives, but was not heard of for longer than its lease, and another one could be opened."""
    writer = view.live_writer
    return writer is not None and view.of(writer).silent_for > view.lease_seconds and view.volume.writable


def writer_needed(view: View) -> bool:
    """There is no writer that could be kept."""
    return view.live_writer is None or writer_hung(view)


def candidates(view: View) -> list[Instance]:
    """Instances that could be opened as writer now, best first. The live writer is not among them."""
    live = view.live_writer
    found = [
        instance
        for instance in view.instances
        if instance.want is Want.RUNNING
        and view.healthy(instance)
        and instance is not live
        and not view.replay_paused(instance)
    ]
    by_tier = view.cluster.failed_attempts < PROMOTION_TRIES_BY_TIER

    def rank(instance: Instance) -> tuple[bool, int, int, str]:
        incarnation = instance.incarnation.id if instance.incarnation else ""
        return (
            incarnation in view.avoid,
            instance.promotion_tier if by_tier else 0,
            -view.of(instance).log_position,
            instance.identifier,
        )

    return sorted(found, key=rank)


def choose_writer(view: View) -> Instance | None:
    """The instance to open now in place of a lost writer; None: nobody, or the writer is on its way back."""
    expected = writer_rebooting(view) or _writer_to_come(view)
    able = candidates(view)
    if expected is not None:
        able = [instance for instance in able if instance.key == expected.key]
    return able[0] if able else None


def _writer_to_come(view: View) -> Instance | None:
    """Who begins as writer, whoever is ready first: the instance that was created first, or, in a cluster
    that is started again, the writer of before. None once it has failed to start."""
    if view.cluster.writer is None:
        running = [instance for instance in view.instances if instance.want is Want.RUNNING]
        first = min(running, key=lambda instance: (instance.created_at, instance.identifier), default=None)
    elif view.cluster.status is ClusterStatus.STARTING:
        first = view.writer
    else:
        return None
    if first is None or first.want is not Want.RUNNING or view.of(first).lost:
        return None
    return first if not view.failures.get(f"instance {first.key}", 0) else None


def writer_rebooting(view: View) -> Instance | None:
    """The writer, while a user's reboot (or change of class) is to bring it back as writer."""
    writer = view.writer
    if writer is None or writer.reboot is None or writer.want is not Want.RUNNING:
        return None
    return writer if view.failures.get(f"instance {writer.key}", 0) < REBOOT_TRIES else None


def planned_target(view: View) -> Instance | None:
    """Who takes over in a failover that a user asked for; None: nobody who was asked for is able."""
    request = view.cluster.failover
    if request is None:
        return None
    able: Collection[Instance] = candidates(view)
    if request.target is not None:
        able = [instance for instance in able if instance.key == request.target]
    return next(iter(able), None)


def ready_target(view: View) -> Instance | None:
    """The planned target once it has caught up, or another one of its tier that has; None: it is waited for,
    because no write succeeds between the old writer's last one and the end of the new one's replay."""
    best = planned_target(view)
    request = view.cluster.failover
    if best is None or request is None or view.failover_age > CATCH_UP_SECONDS_MAX:
        return best
    peers = [best] if request.target is not None else candidates(view)
    caught_up = (
        instance
        for instance in peers
        if instance.promotion_tier == best.promotion_tier and _lag_ms(view, instance) < CAUGHT_UP_MS
    )
    return next(caught_up, None)


def _lag_ms(view: View, instance: Instance) -> float:
    status = view.of(instance).status
    return (status.engine.lag_ms or 0.0) if status is not None else 0.0
