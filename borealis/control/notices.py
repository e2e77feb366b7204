"""Events about processes that had ended on their own and were started again by the host agent.

Owns the wording, and a memory of what was told lately: a process that ends again and again is told of now
and then, not each time. Engines are not its business: the end of one is the end of an instance's life.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from borealis.control.adapters.host import DRIVER, PROXY
from borealis.control.events import ClusterEvent, InstanceEvent, cluster_event, instance_event
from borealis.control.records import Event
from borealis.control.store import Store
from borealis.errors import BorealisError
from borealis.logs import get_logger

log = get_logger(__name__)

AGAIN_SECONDS = 60.0


class Notices:
    """Hears of restarts, stores events. `close` waits for those on their way."""

    def __init__(self, store: Store, clock: Callable[[], float] | None = None) -> None:
        """`clock`: seconds that never go back; the event loop's, unless a test gives its own."""
        self._store = store
        self._clock = clock or asyncio.get_running_loop().time
        self._told: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        await asyncio.gather(*self._tasks)

    def restarted(self, process: str) -> None:
        """A process of this name had ended and runs again."""
        now = self._clock()
        if now - self._told.get(process, float("-inf")) < AGAIN_SECONDS:
            return
        self._told[process] = now
        events = self._events(process)
        if events:
            task = asyncio.create_task(self._commit(events), name=f"notice {process}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _events(self, process: str) -> list[Event]:
        if process.startswith(DRIVER):
            return self._of_driver(process.removeprefix(DRIVER))
        if process.startswith(PROXY):
            return self._of_proxy(process.removeprefix(PROXY))
        node = next((known for known in self._store.nodes() if known.id == process), None)
        if node is None:
            return []
        text = f"Storage node {node.id} in {node.availability_zone} had ended and was started again."
        return [cluster_event(ClusterEvent.NOTE, c, reason=text) for c in self._store.clusters()]

    def _of_driver(self, life: str) -> list[Event]:
        text = "The storage driver of the DB instance had ended and was started again."
        return [
            instance_event(InstanceEvent.NOTE, instance, reason=text)
            for instance in self._store.instances()
            if instance.incarnation is not None and instance.incarnation.id == life
        ]

    def _of_proxy(self, name: str) -> list[Event]:
        custom = next((endpoint for endpoint in self._store.endpoints() if endpoint.key == name), None)
        cluster = self._store.cluster(custom.cluster if custom is not None else name)
        text = "The proxy of an endpoint had ended and was started again; connections through it were cut."
        return [] if cluster is None else [cluster_event(ClusterEvent.NOTE, cluster, reason=text)]

    async def _commit(self, events: list[Event]) -> None:
        try:
            await self._store.commit(events)
        except BorealisError as error:
            log.warning("events could not be stored: %s", error)
