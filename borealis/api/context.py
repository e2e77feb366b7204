"""What the API stands on: the few things it needs of the rest of the region.

Owns the `Context` (store, control, engines, classes, names, clock) and the `Call` (a context and who is
calling). The protocols in here are all that the API knows of the control plane: it reads and writes records,
and says which cluster to look at. It never starts a process, opens a socket to one, or waits for a state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from borealis.control.records import Cluster, CustomEndpoint, Instance, now_utc
from borealis.control.store import Store
from borealis.engines.base import Engine, EngineVersion
from borealis.engines.classes import InstanceClass


class Control(Protocol):
    """The reconciler, as the API sees it."""

    def kick(self, cluster: str) -> None:
        """Look at the cluster with this key soon: its records have changed. Returns at once."""


class EndpointNames(Protocol):
    """Where clients connect.

    Each answers a host that is connectable on this machine as it is, or None while there is none.
    """

    def writer(self, cluster: Cluster) -> str | None:
        """The cluster endpoint."""

    def reader(self, cluster: Cluster) -> str | None:
        """The reader endpoint."""

    def custom(self, cluster: Cluster, endpoint: CustomEndpoint) -> str | None:
        """A custom endpoint."""

    def instance(self, cluster: Cluster, instance: Instance) -> str | None:
        """An instance endpoint."""


@dataclass(frozen=True)
class Quotas:
    """How many of each a region may have. AWS's defaults."""

    clusters: int = 40
    instances: int = 40
    #: One writer and 15 readers.
    instances_per_cluster: int = 16
    custom_endpoints_per_cluster: int = 5
    subnet_groups: int = 50
    tags_per_resource: int = 50


@dataclass(frozen=True)
class Context:
    """A region, for the operations to work on."""

    region: str
    #: Account id, twelve digits.
    account: str
    #: Availability zones, in order, e.g. ("us-east-1a", "us-east-1b", "us-east-1c").
    zones: tuple[str, ...]
    store: Store
    control: Control
    names: EndpointNames
    engines: Mapping[str, Engine]
    #: Installed versions of all engines, oldest first in each engine. Called often: must be quick.
    versions: Callable[[], Sequence[EngineVersion]]
    #: Instance classes by name, in the order to list them.
    classes: Mapping[str, InstanceClass]
    clock: Callable[[], datetime] = now_utc
    quotas: Quotas = field(default_factory=Quotas)


@dataclass(frozen=True)
class Caller:
    """Who signed the request."""

    access_key_id: str
    user_arn: str
    user_id: str


@dataclass(frozen=True)
class Call:
    """One call: the region that it is for and its caller."""

    context: Context
    caller: Caller
