"""Opening the volume for a new writer: at the first instance, after a loss, and when a user asks for it.

The order is what counts: one commit that takes the terms and deposes the former writer; its kill and the
opening at the same time; the endpoint moves; only then the record says that it is done. After a crash at
any point `finish_opening` finds out from the candidate's driver what became of it. Safety hangs on the
terms alone.
"""

from __future__ import annotations

import asyncio
import contextlib

from borealis.control.actions import OpenWriter
from borealis.control.context import ControlContext, StepFailed
from borealis.control.endpoint_plan import endpoint_plan
from borealis.control.events import ClusterEvent, cluster_event
from borealis.control.look import look
from borealis.control.ports import Opened
from borealis.control.records import Cluster, Instance, Opening, now_utc
from borealis.control.settings import PROMOTION_TRIES_BY_TIER
from borealis.control.settle import move_cluster, retire
from borealis.control.states import ClusterStatus, InstanceStatus, Want
from borealis.control.store import Conflict, Op, Put
from borealis.errors import BorealisError
from borealis.logs import get_logger
from borealis.rpc import RpcError

log = get_logger(__name__)

LOOK_SECONDS = 0.05
KILL_SECONDS = 5.0

_FAILING_OVER_FROM = frozenset(
    {
        ClusterStatus.AVAILABLE,
        ClusterStatus.MODIFYING,
        ClusterStatus.RENAMING,
        ClusterStatus.RESETTING_CREDENTIALS,
    }
)


async def open_writer(context: ControlContext, key: str, action: OpenWriter) -> None:
    """Make `action.target` the writer. Raises StepFailed when it did not become one."""
    if action.planned:
        await _catch_up(context, key, action.target)
    opening = await _begin(context, key, action)
    kill = asyncio.create_task(_kill_former(context, key), name=f"kill former writer of {key}")
    try:
        opened = await context.drivers.open_volume(
            opening.incarnation, opening.term1, opening.term2, context.settings.open_seconds
        )
        await _done(context, key, opening, opened)
    except Conflict:
        raise
    except (BorealisError, OSError) as error:
        await _failed(context, key, opening, str(error), spoilt=_spoilt(error))
        raise StepFailed(f"The volume could not be opened by life {opening.incarnation}: {error}") from error
    finally:
        await _settled(kill)


async def finish_opening(context: ControlContext, key: str) -> None:
    """Find out what became of the opening in the record, and finish it or give it up."""
    opening = context.cluster(key).opening
    if opening is None:
        return
    await _kill_former(context, key)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + context.settings.open_seconds
    reason = "the candidate's driver does not answer"
    while loop.time() < deadline:
        with contextlib.suppress(BorealisError, OSError):
            status = await context.observer.ask(opening.incarnation)
            if status.role == "writer" and status.term == opening.term2:
                await _done(
                    context,
                    key,
                    opening,
                    Opened(term=status.term, timeline=status.timeline, vdl=status.vdl),
                )
                return
            reason = f"the candidate is a {status.role} at term {status.term}"
            if status.role != "opening":
                break
        await asyncio.sleep(LOOK_SECONDS)
    await _failed(context, key, opening, reason)


async def abandon_opening(context: ControlContext, key: str, reason: str) -> None:
    """Give up the opening in the record: its candidate is lost."""
    opening = context.cluster(key).opening
    if opening is not None:
        await _failed(context, key, opening, reason)


async def _catch_up(context: ControlContext, key: str, target: str) -> None:
    """Wait, while the present writer goes on, until the target has nearly all of its log."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + context.settings.planned_wait_seconds
    while loop.time() < deadline:
        incarnation = context.instance(target).incarnation
        if incarnation is None:
            return
        with contextlib.suppress(BorealisError, OSError):
            status = await context.observer.ask(incarnation.id)
            if status.vdl - (status.engine.replay_lsn or 0) <= context.settings.caught_up_bytes:
                return
        await asyncio.sleep(LOOK_SECONDS)
    log.warning("%s: the failover begins although its target is still behind", key)


async def _begin(context: ControlContext, key: str, action: OpenWriter) -> Opening:
    """The commit that takes the terms and deposes the former writer."""
    cluster, target = context.cluster(key), context.instance(action.target)
    if target.incarnation is None or cluster.opening is not None or cluster.want is not Want.RUNNING:
        raise Conflict(f"The cluster {cluster.identifier} was changed meanwhile.")
    opening = Opening(
        instance=target.key,
        incarnation=target.incarnation.id,
        term1=cluster.volume.term + 1,
        term2=cluster.volume.term + 2,
        started_at=now_utc(),
        previous_writer=cluster.writer,
    )
    new = cluster.but(opening=opening, volume=cluster.volume.but(term=opening.term2, writer_incarnation=""))
    if cluster.writer is not None and cluster.status in _FAILING_OVER_FROM:
        new = move_cluster(new, ClusterStatus.FAILING_OVER)
    ops: list[Op] = [Put(new)]
    former = context.store.instance(cluster.writer) if cluster.writer else None
    if former is not None:
        # Only the life that held the term: a new one, on its way to be a reader, goes on.
        if former.key != target.key and _is_life(former, cluster.volume.writer_incarnation):
            rebooting = former.status is InstanceStatus.AVAILABLE
            ops.append(Put(retire(former, InstanceStatus.REBOOTING if rebooting else None)))
        if new.status is ClusterStatus.FAILING_OVER:
            ops.append(_started_event(new, former, target))
    await context.store.commit(ops)
    log.info("%s: %s is to be writer, %s", cluster.identifier, target.identifier, action.reason)
    return opening


def _started_event(cluster: Cluster, former: Instance, target: Instance) -> Op:
    if former.key == target.key:
        kind = ClusterEvent.PROMOTING_AGAIN
    elif former.availability_zone == target.availability_zone:
        kind = ClusterEvent.FAILOVER_SAME_AZ
    else:
        kind = ClusterEvent.FAILOVER_CROSS_AZ
    return cluster_event(kind, cluster, name=target.identifier)


async def _kill_former(context: ControlContext, key: str) -> None:
    """Not needed for safety, but its sessions end sooner, and its address becomes free."""
    opening = context.cluster(key).opening
    former = context.store.instance(opening.previous_writer) if opening and opening.previous_writer else None
    if former is None:
        return
    try:
        async with asyncio.timeout(KILL_SECONDS):
            await asyncio.gather(*(context.instances.kill(life) for life in former.retired))
    except (BorealisError, OSError, TimeoutError) as error:
        log.warning("the former writer %s could not be killed yet: %s", former.identifier, error)


async def _settled(task: asyncio.Task[None]) -> None:
    """Wait for a helper task, also while this one is being cancelled."""
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        raise


async def _done(context: ControlContext, key: str, opening: Opening, opened: Opened) -> None:
    """The term is open: move the endpoint first, then say so."""
    target = context.instance(opening.instance)
    opened_at = _opened(context.cluster(key), opening, opened)
    now = asyncio.get_running_loop().time()
    plan = endpoint_plan(look(context, opened_at, now))
    try:
        await context.endpoints.move_writer(plan)
    except (BorealisError, OSError) as error:
        # The writer is open all the same; the endpoints are put right by the next synchronisation.
        log.error("%s: the writer endpoint did not move: %s", key, error)
    context.memory(key).endpoints_applied = None
    context.memory(key).avoid.clear()
    ops: list[Op] = []
    cluster = context.cluster(key)
    if cluster.opening != opening:
        raise Conflict(f"The opening of {cluster.identifier} was given up meanwhile.")
    new = _opened(cluster, opening, opened)
    if cluster.status is ClusterStatus.FAILING_OVER:
        ops.append(cluster_event(ClusterEvent.FAILOVER_DONE, new, name=target.identifier))
    await context.store.commit([Put(new), *ops])


def _opened(cluster: Cluster, opening: Opening, opened: Opened) -> Cluster:
    volume = cluster.volume.but(
        writer_term=opened.term, writer_incarnation=opening.incarnation, timeline=opened.timeline
    )
    new = cluster.but(writer=opening.instance, opening=None, failover=None, failed_attempts=0, volume=volume)
    if cluster.status is ClusterStatus.FAILING_OVER and cluster.want is Want.RUNNING:
        new = move_cluster(new, ClusterStatus.AVAILABLE)
    return new


def _is_life(instance: Instance, incarnation: str) -> bool:
    return instance.incarnation is not None and instance.incarnation.id == incarnation


async def _is_reader_still(context: ControlContext, incarnation: str) -> bool:
    try:
        status = await context.observer.ask(incarnation)
    except (BorealisError, OSError):
        return False
    return status.role == "reader" and status.engine.up


def _spoilt(error: Exception) -> bool:
    """Whether nobody knows what the candidate is doing now: it may become writer later, or never answer."""
    return isinstance(error, RpcError) and error.code in ("Timeout", "ConnectionLost", "WrongRole")


async def _failed(
    context: ControlContext, key: str, opening: Opening, reason: str, *, spoilt: bool = False
) -> None:
    """Give the try up. A candidate that is not plainly a reader as before is given up with it."""
    context.memory(key).avoid.add(opening.incarnation)
    intact = not spoilt and await _is_reader_still(context, opening.incarnation)
    cluster = context.cluster(key)
    if cluster.opening != opening:
        return
    log.warning("%s: opening at term %d failed: %s", cluster.identifier, opening.term2, reason)
    attempts = cluster.failed_attempts + 1
    ops: list[Op] = [Put(cluster.but(opening=None, failover=None, failed_attempts=attempts))]
    candidate = context.store.instance(opening.instance)
    if candidate is not None and not intact and _is_life(candidate, opening.incarnation):
        available = candidate.status is InstanceStatus.AVAILABLE
        ops.append(Put(retire(candidate, InstanceStatus.REBOOTING if available else None)))
    if attempts == PROMOTION_TRIES_BY_TIER:
        ops.append(cluster_event(ClusterEvent.FAILOVER_FAILED, cluster, reason=reason))
    await context.store.commit(ops)
