"""What every step works with: the store, the world's interfaces, the settings, and what was observed.

Owns nothing; it is made once by `control.main` (or a test) and handed down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from borealis.control.observe import Observer
from borealis.control.ports import Drivers, Endpoints, Instances, Volumes
from borealis.control.records import Cluster, CustomEndpoint, Instance
from borealis.control.settings import ControlSettings
from borealis.control.store import Conflict, Store
from borealis.control.topology import EndpointPlan
from borealis.control.view import Membership
from borealis.errors import BorealisError


class StepFailed(BorealisError):
    """A step could not be finished now; it is tried again later."""

    code = "StepFailed"


@dataclass(slots=True)
class Memory:
    """What one cluster's loop remembers between rounds; losing it costs work, never correctness."""

    endpoints_applied: EndpointPlan | None = None
    avoid: set[str] = field(default_factory=set)  # incarnations that failed to open since the last success
    topology_pushed_at: float = float("-inf")
    topology_told: Membership = ()
    trimmed_at: float = float("-inf")


@dataclass(frozen=True, slots=True)
class ControlContext:
    """The region, as the steps see it."""

    store: Store
    settings: ControlSettings
    zones: Sequence[str]
    instances: Instances
    drivers: Drivers
    volumes: Volumes
    endpoints: Endpoints
    observer: Observer
    boot_id: str
    wake: Callable[[str], None]  # look at the cluster with this key soon
    memories: dict[str, Memory] = field(default_factory=dict)
    address_lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # held from choosing to recording one

    def memory(self, cluster: str) -> Memory:
        """What is remembered of the cluster with this key."""
        return self.memories.setdefault(cluster, Memory())

    def cluster(self, key: str) -> Cluster:
        """The cluster with this key. Raises Conflict when it is gone."""
        found = self.store.cluster(key)
        if found is None:
            raise Conflict(f"The cluster {key} does not exist any more.")
        return found

    def instance(self, key: str) -> Instance:
        """The instance with this key. Raises Conflict when it is gone."""
        found = self.store.instance(key)
        if found is None:
            raise Conflict(f"The instance {key} does not exist any more.")
        return found

    def addresses_in_use(self) -> set[str]:
        """Every loopback address that a record holds."""
        held: set[str] = {i.address for i in self.store.instances()}
        held |= {e.address for e in self.store.endpoints()}
        for cluster in self.store.clusters():
            held |= {cluster.addresses.writer, cluster.addresses.reader}
        return held - {""}

    def custom_endpoints(self, cluster: str) -> list[CustomEndpoint]:
        """The custom endpoints of the cluster with this key."""
        return self.store.endpoints(cluster)
