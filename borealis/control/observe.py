"""What control sees of lives and volumes: polls drivers and nodes, takes in events, answers `Seen`.

Owns the observations and the tasks that make them. It judges nothing and changes nothing; when something that
matters has changed it wakes the cluster. A lost event is made up for by the next poll.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from borealis.control.ports import Drivers, Volumes
from borealis.control.settings import ControlSettings
from borealis.control.view import DriverStatus, EngineLife, Seen, VolumeSeen
from borealis.errors import BorealisError
from borealis.logs import get_logger

log = get_logger(__name__)

POLL_FAILED = (BorealisError, OSError, msgspec.MsgspecError)


@dataclass(slots=True)
class _Watch:
    """One life under observation. Times are of the event loop's clock."""

    cluster: str
    since: float
    heard_at: float
    engine: EngineLife = EngineLife.UNKNOWN
    driver_gone: bool = False
    status: DriverStatus | None = None
    cpu_cores: float = 0.0
    polled: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _VolumeWatch:
    cluster: str
    seen: VolumeSeen
    task: asyncio.Task[None] | None = None


class Observer:
    """Watches the lives and volumes that the reconciler names. `close` ends all polling."""

    def __init__(
        self, drivers: Drivers, volumes: Volumes, settings: ControlSettings, wake: Callable[[str], None]
    ) -> None:
        self._drivers = drivers
        self._volumes = volumes
        self._settings = settings
        self._wake = wake
        self._watches: dict[str, _Watch] = {}
        self._volume_watches: dict[str, _VolumeWatch] = {}
        # The agent's word on processes, kept also for lives that are not watched yet.
        self._engines: dict[str, EngineLife] = {}

    async def close(self) -> None:
        """End all polling."""
        tasks = [w.task for w in self._watches.values()] + [w.task for w in self._volume_watches.values()]
        self._watches.clear()
        self._volume_watches.clear()
        await _cancel(t for t in tasks if t is not None)

    # lives

    def watch(self, incarnation: str, cluster: str) -> None:
        """Begin to observe a life; no effect when it is observed already."""
        if incarnation in self._watches:
            return
        now = asyncio.get_running_loop().time()
        watch = _Watch(cluster=cluster, since=now, heard_at=now)
        watch.engine = self._engines.get(incarnation, EngineLife.UNKNOWN)
        self._watches[incarnation] = watch
        watch.task = asyncio.create_task(self._poll(incarnation, watch), name=f"poll {incarnation}")

    async def unwatch(self, incarnation: str) -> None:
        """End the observation of a life."""
        self._engines.pop(incarnation, None)
        watch = self._watches.pop(incarnation, None)
        if watch is not None and watch.task is not None:
            await _cancel([watch.task])
        with contextlib.suppress(BorealisError, OSError):
            await self._drivers.release(incarnation)

    def watched(self, cluster: str) -> list[str]:
        """The incarnations of the cluster that are observed."""
        return [name for name, watch in self._watches.items() if watch.cluster == cluster]

    def seen(self, incarnation: str) -> Seen:
        """All that is known of a life now."""
        watch = self._watches.get(incarnation)
        if watch is None:
            return Seen(engine=self._engines.get(incarnation, EngineLife.UNKNOWN))
        return Seen(
            engine=watch.engine,
            driver_gone=watch.driver_gone,
            status=watch.status,
            silent_for=max(0.0, asyncio.get_running_loop().time() - watch.heard_at),
            cpu_cores=watch.cpu_cores,
        )

    async def polled(self, incarnations: Iterable[str], seconds: float) -> None:
        """Wait until each was asked once, at most so long: a fresh control must know before it judges."""
        waits = [self._watches[name].polled.wait() for name in incarnations if name in self._watches]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*waits)

    async def ask(self, incarnation: str) -> DriverStatus:
        """Ask the driver now, and take its answer in. Raises what the call raises."""
        status = await self._drivers.status(incarnation, self._settings.lease_seconds)
        watch = self._watches.get(incarnation)
        if watch is not None:
            self._take(watch, status)
        return status

    def engine_life(self, incarnation: str, life: EngineLife) -> None:
        """The agent's word: this engine runs, or has ended."""
        self._engines[incarnation] = life
        watch = self._watches.get(incarnation)
        if watch is not None and watch.engine is not life:
            watch.engine = life
            self._wake(watch.cluster)

    def engine_cpu(self, incarnation: str, cores: float) -> None:
        """The agent's word: this engine has used so many cores lately."""
        watch = self._watches.get(incarnation)
        if watch is not None:
            watch.cpu_cores = cores

    def driver_started(self, incarnation: str) -> None:
        """The agent's word: this driver was started."""
        watch = self._watches.get(incarnation)
        if watch is not None and watch.driver_gone:
            watch.driver_gone = False
            self._wake(watch.cluster)

    def processes(
        self, engines: Mapping[str, EngineLife], drivers: Iterable[str], newer: Collection[str] = ()
    ) -> None:
        """The agent's whole list: life of each engine, and which drivers it keeps running. Of the lives in
        `newer` something newer than the list is known."""
        kept = set(drivers)
        for name, watch in self._watches.items():
            if name in newer:
                continue
            gone = name not in kept
            if watch.driver_gone is not gone:
                watch.driver_gone = gone
                self._wake(watch.cluster)
        for name in (set(engines) | set(self._watches)) - set(newer):
            self.engine_life(name, engines.get(name, EngineLife.GONE))

    def driver_spoke(self, incarnation: str, event: str, data: Mapping[str, Any]) -> None:
        """An event of a driver: look at once instead of at the next poll."""
        watch = self._watches.get(incarnation)
        if watch is None or watch.task is None:
            return
        log.info("driver %s: %s %s", incarnation, event, dict(data))
        if event == "fenced" and watch.status is not None:
            watch.status = msgspec.structs.replace(watch.status, role="fenced")
            self._wake(watch.cluster)
            return
        watch.task.cancel()
        watch.task = asyncio.create_task(self._poll(incarnation, watch), name=f"poll {incarnation}")

    async def _poll(self, incarnation: str, watch: _Watch) -> None:
        while True:
            try:
                status = await self._drivers.status(incarnation, self._settings.lease_seconds)
                self._take(watch, status)
            except POLL_FAILED as error:
                log.debug("driver %s does not answer: %s", incarnation, error)
            watch.polled.set()
            await asyncio.sleep(self._settings.poll_seconds)

    def _take(self, watch: _Watch, status: DriverStatus) -> None:
        before, watch.status = watch.status, status
        if status.engine.up:
            # A hung engine is up until its probe has timed out; how long it is silent is known sooner.
            heard_at = asyncio.get_running_loop().time() - status.engine.silent_seconds
            watch.heard_at = max(watch.heard_at, heard_at)
        if before is None or _changed(before, status):
            self._wake(watch.cluster)

    # volumes

    def watch_volume(self, volume: str, cluster: str) -> None:
        """Begin to observe a volume's segments."""
        if volume not in self._volume_watches:
            watch = _VolumeWatch(cluster=cluster, seen=VolumeSeen())
            self._volume_watches[volume] = watch
            watch.task = asyncio.create_task(self._poll_volume(volume, watch), name=f"poll {volume}")

    async def unwatch_volume(self, volume: str) -> None:
        """End the observation of a volume."""
        watch = self._volume_watches.pop(volume, None)
        if watch is not None and watch.task is not None:
            await _cancel([watch.task])

    def volume(self, volume: str) -> VolumeSeen:
        """The volume's segments as last seen."""
        watch = self._volume_watches.get(volume)
        return watch.seen if watch else VolumeSeen()

    async def _poll_volume(self, volume: str, watch: _VolumeWatch) -> None:
        while True:
            before = watch.seen
            try:
                watch.seen = await self._volumes.look(volume)
            except POLL_FAILED as error:
                log.warning("the segments of %s cannot be looked at: %s", volume, error)
            if before.writable is not watch.seen.writable:
                self._wake(watch.cluster)
            await asyncio.sleep(self._settings.node_poll_seconds)


def _changed(old: DriverStatus, new: DriverStatus) -> bool:
    """Whether anything is different that a decision hangs on."""
    return (
        old.role != new.role
        or old.term != new.term
        or old.engine.up != new.engine.up
        or old.engine.replay_paused != new.engine.replay_paused
        or old.incarnation != new.incarnation
    )


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    pending = list(tasks)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
