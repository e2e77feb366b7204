"""Moves the world to the records: one loop per cluster, woken by events, planning anew each time.

Owns the loops and the tasks of running steps. A round is: look → settle (at most one commit) → plan → start
what is planned and not running yet. A step that fails is tried again after a pause that doubles; a step
that must give way is cancelled, which every step survives, because it must survive a kill of the process
too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from borealis.control import steps
from borealis.control.actions import Action, BringUp, CreateVolume, MakeImage, Sweep
from borealis.control.context import ControlContext
from borealis.control.events import ClusterEvent, InstanceEvent, cluster_event, instance_event
from borealis.control.look import look
from borealis.control.planner import plan
from borealis.control.records import Cluster, CustomEndpoint, Instance
from borealis.control.settle import move_instance, settle
from borealis.control.states import InstanceStatus
from borealis.control.store import Conflict, Delete, Op, Put
from borealis.control.view import is_serving
from borealis.errors import BorealisError
from borealis.logs import get_logger

log = get_logger(__name__)

FAILED_AFTER_TRIES = 3
"""An instance that could not be brought up so often in a row is shown as failed; it is still tried."""

CONFLICTS_AT_ONCE = 3
CONFLICT_PAUSE_MAX_SECONDS = 1.0
FIRST_LOOK_SECONDS = 1.0
WRITER_RETRY_MAX_SECONDS = 1.0
"""A cluster without a writer does not wait longer than this between tries."""
IMAGE_RETRY_MIN_SECONDS = 60.0
"""Making an image costs a whole instance: a try that failed is not repeated before this."""


@dataclass(slots=True)
class _Running:
    action: Action
    task: asyncio.Task[None]


class ClusterLoop:
    """The reconciler of one cluster."""

    def __init__(self, context: ControlContext, key: str) -> None:
        self._context = context
        self._key = key
        self._wake = asyncio.Event()
        self._wake.set()
        self._running: dict[str, _Running] = {}
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._conflicts: dict[str, int] = {}
        self._task = asyncio.create_task(self._run(), name=f"cluster {key}")

    def kick(self) -> None:
        """Look again soon."""
        self._wake.set()

    @property
    def over(self) -> bool:
        """The cluster is gone and everything is cleaned up."""
        return self._task.done()

    async def close(self) -> None:
        """End the loop and the steps under way, wherever they are."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            await self._first_look()
            while self._context.store.cluster(self._key) is not None:
                await self._wait()
                await self._round()
        finally:
            await self._end()

    async def _first_look(self) -> None:
        """Judge nothing before every life in service was asked once."""
        observer = self._context.observer
        self._watch()
        lives = [i.incarnation for i in self._context.store.instances(self._key)]
        serving = [life.id for life in lives if life is not None and is_serving(life)]
        await observer.polled(serving, FIRST_LOOK_SECONDS)

    async def _wait(self) -> None:
        """Until somebody wakes us, or a tick is over, or a pause after a failure is."""
        now = asyncio.get_running_loop().time()
        soonest = min((t for t in self._not_before.values() if t > now), default=now + 3600)
        pause = max(0.001, min(self._context.settings.tick_seconds, soonest - now))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._wake.wait()
        self._wake.clear()

    async def _round(self) -> None:
        try:
            await self._settle()
        except Conflict:
            self._wake.set()  # somebody was faster: look again
            return
        except BorealisError as error:
            # A failover must not hang on it: plan with the records as they are.
            log.error("%s: %s", self._key, error)
        cluster = self._context.store.cluster(self._key)
        if cluster is None:
            return
        view = look(self._context, cluster, asyncio.get_running_loop().time(), self._failures)
        for action in plan(view, self._context.settings):
            self._offer(action)

    async def _settle(self) -> None:
        """Bring the records up to date; several times when one move makes the next one due."""
        for _ in range(8):
            cluster = self._context.store.cluster(self._key)
            if cluster is None:
                return
            self._watch()
            view = look(self._context, cluster, asyncio.get_running_loop().time(), self._failures)
            ops = settle(view, self._context.zones)
            if not ops:
                return
            await self._context.store.commit(ops)

    def _watch(self) -> None:
        cluster = self._context.store.cluster(self._key)
        if cluster is None:
            return
        if cluster.volume.seeded:
            self._context.observer.watch_volume(cluster.volume.id, self._key)
        for instance in self._context.store.instances(self._key):
            if instance.incarnation is not None and is_serving(instance.incarnation):
                self._context.observer.watch(instance.incarnation.id, self._key)

    def _offer(self, action: Action) -> None:
        """Start the action unless one of its key runs, or its pause is not over."""
        running = self._running.get(action.key)
        if running is not None:
            if action.preempts and type(running.action) is not type(action):
                running.task.cancel()
            return
        if self._not_before.get(action.key, 0.0) > asyncio.get_running_loop().time():
            return
        task = asyncio.create_task(self._do(action), name=f"{type(action).__name__} {self._key}")
        self._running[action.key] = _Running(action, task)

    async def _do(self, action: Action) -> None:
        try:
            await steps.run(self._context, self._key, action)
            if not isinstance(action, Sweep):  # between two tries to bring an instance up it is swept
                self._failures.pop(action.key, None)
                self._not_before.pop(action.key, None)
            self._conflicts.pop(action.key, None)
        except Conflict as error:
            log.debug("%s %s: %s", self._key, action, error)
            self._conflicted(action)
        except Exception as error:
            await self._failed(action, error)
        finally:
            self._running.pop(action.key, None)
            self._wake.set()

    def _conflicted(self, action: Action) -> None:
        """Somebody else was faster: look again at once, but not for ever, or two could spin."""
        tries = self._conflicts[action.key] = self._conflicts.get(action.key, 0) + 1
        if tries > CONFLICTS_AT_ONCE:
            pause = min(0.01 * 2 ** min(tries - CONFLICTS_AT_ONCE, 20), CONFLICT_PAUSE_MAX_SECONDS)
            self._not_before[action.key] = asyncio.get_running_loop().time() + pause

    async def _failed(self, action: Action, error: Exception) -> None:
        if isinstance(error, BorealisError | OSError):
            log.warning("%s %s failed: %s", self._key, action, error)
        else:
            log.exception("%s %s failed", self._key, action)
        settings = self._context.settings
        tries = self._failures[action.key] = self._failures.get(action.key, 0) + 1
        longest = WRITER_RETRY_MAX_SECONDS if action.key == "writer" else settings.retry_max_seconds
        pause = min(settings.retry_min_seconds * 2 ** min(tries - 1, 20), longest)
        if isinstance(action, MakeImage):
            pause = IMAGE_RETRY_MIN_SECONDS
        self._not_before[action.key] = asyncio.get_running_loop().time() + pause
        if isinstance(action, BringUp) and tries == FAILED_AFTER_TRIES:
            await self._mark_failed(action.instance, str(error))
        if isinstance(action, CreateVolume) and tries == FAILED_AFTER_TRIES:
            await self._say_why(str(error))

    async def _say_why(self, reason: str) -> None:
        """The cluster is still being created, and will be: but whoever waits for it should know."""
        cluster = self._context.store.cluster(self._key)
        if cluster is None:
            return
        with contextlib.suppress(BorealisError):
            waiting = cluster.but(status_reason=reason)
            event = cluster_event(ClusterEvent.NOT_CREATED, waiting, reason=f"It is tried again. {reason}")
            await self._context.store.commit([Put(waiting), event])

    async def _mark_failed(self, key: str, reason: str) -> None:
        instance = self._context.store.instance(key)
        if instance is None or instance.status in (InstanceStatus.FAILED, InstanceStatus.DELETING):
            return
        with contextlib.suppress(BorealisError):
            failed = move_instance(instance, InstanceStatus.FAILED, reason)
            event = instance_event(InstanceEvent.FAILED, failed, reason=reason)
            await self._context.store.commit([Put(failed), event])

    async def _end(self) -> None:
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._context.store.cluster(self._key) is None:
            for life in self._context.observer.watched(self._key):
                await self._context.observer.unwatch(life)
            self._context.memories.pop(self._key, None)


class Reconciler:
    """All clusters' loops. `start` begins with what the store holds; `close` ends them."""

    def __init__(self, context: ControlContext) -> None:
        self._context = context
        self._loops: dict[str, ClusterLoop] = {}
        self._unwatch: Callable[[], None] | None = None

    def start(self) -> None:
        """Begin to reconcile."""
        self._unwatch = self._context.store.watch(self._committed)
        for cluster in self._context.store.clusters():
            self.kick(cluster.key)

    async def close(self) -> None:
        """End all loops and steps, wherever they are: the next control process goes on from there."""
        if self._unwatch is not None:
            self._unwatch()
        await asyncio.gather(*(loop.close() for loop in self._loops.values()))
        self._loops.clear()

    def kick(self, cluster: str) -> None:
        """Look at the cluster with this key soon: something about it has changed. Returns at once."""
        loop = self._loops.get(cluster)
        if loop is not None and not loop.over:
            loop.kick()
        elif self._context.store.cluster(cluster) is not None:
            self._loops[cluster] = ClusterLoop(self._context, cluster)
        else:
            self._loops.pop(cluster, None)

    def resync_endpoints(self) -> None:
        """A proxy was started again, perhaps with old targets: go over all endpoints."""
        for cluster in self._context.store.clusters():
            self._context.memory(cluster.key).endpoints_applied = None
            self.kick(cluster.key)

    def _committed(self, ops: Sequence[Op]) -> None:
        touched: set[str] = set()
        for op in ops:
            record = op.record if isinstance(op, Put | Delete) else None
            if isinstance(record, Cluster):
                touched.add(record.key)
            elif isinstance(record, Instance | CustomEndpoint):
                touched.add(record.cluster)
        for key in touched:
            self.kick(key)
