"""What the steps need of the world, as interfaces: instances' processes, drivers, volumes, endpoints.

Owns the data that crosses each border. `control.adapters` implements them with the host agent, driver
sockets, storage nodes and HAProxy; tests implement them in memory. Every method may be called again after a
crash, with the same result. Methods raise BorealisError or OSError when they could not do what was asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from borealis.control.records import Cluster, Image
from borealis.control.topology import EndpointPlan
from borealis.control.view import DriverStatus, VolumeSeen


@dataclass(frozen=True, slots=True)
class InstancePlan:
    """All that is needed to make one life of an instance."""

    incarnation: str
    instance_id: str
    resource_id: str
    cluster_id: str
    volume: str
    system_id: str
    zone: str
    engine: str
    engine_version: str
    instance_class: str
    cluster_classes: tuple[str, ...]
    """The classes of all members: a reader must allow as many connections as any writer it may follow."""
    address: str
    """Where it listens; empty: nowhere but on its Unix socket."""
    port: int
    image: Image
    server_number: int
    """No other life on this volume ever had it or will have it."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A volume that was opened: the term and timeline that the new writer holds, and where it began."""

    term: int
    timeline: int
    vdl: int


@dataclass(frozen=True, slots=True)
class CreatedVolume:
    """A volume that was seeded at term 1."""

    system_id: str
    start_lsn: int
    end_lsn: int
    timeline: int
    term: int
    image: Image


class Instances(Protocol):
    """The processes and directories of instances' lives, by incarnation id."""

    async def prepare(self, plan: InstancePlan) -> None:
        """Make the directory from the image and write all configuration. Begins from nothing each time."""

    async def start(self, plan: InstancePlan) -> None:
        """Start driver and engine, those that do not run."""

    async def stop_engine(self, incarnation: str, seconds: float) -> bool:
        """Shut the engine down; after `seconds` it is killed. True: it ended cleanly."""

    async def kill(self, incarnation: str) -> None:
        """Kill engine and driver and all that works in its directory."""

    async def destroy(self, incarnation: str) -> None:
        """Kill what runs and remove directories and process records."""

    async def lives(self) -> set[str]:
        """The incarnations of which anything (process, directory) is there."""


class Drivers(Protocol):
    """Calls to drivers, by incarnation id. Raise RpcError; RpcConnectionLost when the driver is not there."""

    async def status(self, incarnation: str, seconds: float) -> DriverStatus:
        """What the driver says of itself and its engine."""

    async def open_volume(self, incarnation: str, term1: int, term2: int, seconds: float) -> Opened:
        """Make this reader the writer. Raises RpcError with the code Superseded or NoQuorum, among others."""

    async def renew(self, incarnation: str, term: int, seconds: float) -> None:
        """Let the writer of `term` go on for so long although it cannot reach its quorum."""

    async def set_topology(self, incarnation: str, topology: Mapping[str, Any]) -> None:
        """Say who the members are, and where the writer's driver is."""

    async def set_master_password(self, incarnation: str, username: str, verifier: str) -> None:
        """Give the master user a new verifier."""

    async def checkpoint(self, incarnation: str) -> None:
        """Writer: put a checkpoint into the log. A reader's files can be brought no farther than that."""

    async def prepare_image(self, incarnation: str) -> int:
        """Bring the local files as far forward as they go (restartpoint); the engine is stopped next. Returns
        the timeline that they are on."""

    async def release(self, incarnation: str) -> None:
        """Close the connection to a driver that is no longer of interest."""


class Volumes(Protocol):
    """Volumes on the storage nodes."""

    async def create(self, cluster: Cluster) -> CreatedVolume:
        """Bootstrap the engine and seed the volume `cluster.volume.id`, which no node may know yet."""

    async def look(self, volume: str) -> VolumeSeen:
        """Ask all nodes for their segments. Never raises for nodes that do not answer."""

    async def publish_image(self, plan: InstancePlan, timeline: int) -> Image:
        """Pack the directory of a cleanly stopped hidden instance and put it on the nodes. Raises when it
        needs the log from no later on than the plan's own image: such an image would be of no use."""

    async def delete_image(self, volume: str, image: Image) -> None:
        """Remove an image from nodes and caches."""

    async def trim(self, volume: str, below: int) -> None:
        """Let every node that answers forget log and images below this position, which nobody needs any more.
        A node that does not have all of that log durably yet keeps it. Never raises for nodes that do not
        answer."""

    async def drop(self, volume: str) -> tuple[str, ...]:
        """Remove the volume from all nodes that answer, and from this machine; returns the ids of the nodes
        that did not answer. Never raises for those."""

    async def drop_at(self, node: str, volume: str) -> bool:
        """Remove the volume from the node with this id, if it answers; whether it is gone there."""


class Endpoints(Protocol):
    """Addresses, proxies and names."""

    async def allocate(self, port: int, in_use: set[str]) -> str:
        """A loopback address of the region that no record uses and that can be listened on at `port`."""

    async def apply(self, plan: EndpointPlan) -> None:
        """Make the cluster's proxies and names as planned."""

    async def move_writer(self, plan: EndpointPlan) -> None:
        """Move the writer endpoint, nothing else, as fast as can be; cut sessions to the former writer."""

    async def remove(self, cluster: str) -> None:
        """Remove all endpoints of the cluster with this key."""
