"""What control has seen of the world, as immutable data: the input of the planner beside the records.

Owns the shapes of observations and the judgements that follow from one observation alone (alive, silent,
lost). No I/O, no clock: ages are given in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from borealis.control.records import Cluster, CustomEndpoint, Incarnation, IncarnationPhase, Instance
from borealis.control.topology import EndpointPlan

Membership = tuple[tuple[str, str, bool], ...]
"""Identifier, incarnation, and whether it is the writer, of every instance in service."""


class EngineLife(StrEnum):
    """What the host agent says of an engine's process."""

    UNKNOWN = "unknown"
    ALIVE = "alive"
    GONE = "gone"


class DriverNode(msgspec.Struct, frozen=True):
    """A storage node as a driver sees it."""

    connected: bool = False
    acked: int = 0
    behind_bytes: int = 0


class DriverEngine(msgspec.Struct, frozen=True):
    """An engine as its driver last found it."""

    up: bool = False
    in_recovery: bool | None = None
    receive_lsn: int | None = None
    replay_lsn: int | None = None
    lag_ms: float | None = None
    connections: int | None = None
    replay_paused: bool = False
    silent_seconds: float = 0.0  # since a new connection was last answered
    error: str | None = None


class DriverStatus(msgspec.Struct, frozen=True):
    """The answer of a driver to `status`. What it does not say has the default."""

    role: str = "reader"  # reader, opening, writer or fenced
    instance_id: str = ""
    incarnation: str = ""
    term: int = 0
    timeline: int = 0
    vdl: int = 0
    shipped: int = 0
    nodes: dict[str, DriverNode] = {}
    engine: DriverEngine = DriverEngine()
    lease_remaining: float | None = None
    feed: str | None = None
    started_at: float | None = None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> DriverStatus:
        """Decode an answer; unknown fields are skipped. Raises msgspec.ValidationError."""
        return msgspec.convert({k: v for k, v in answer.items() if v is not None}, cls)


@dataclass(frozen=True, slots=True)
class Seen:
    """All that is known of one incarnation now. Ages are in seconds; infinite: never."""

    engine: EngineLife = EngineLife.UNKNOWN
    driver_gone: bool = False  # the agent knows no such process (any more)
    status: DriverStatus | None = None
    silent_for: float = 0.0  # since the driver last said that its engine answers (or since we began to look)
    cpu_cores: float = 0.0  # CPU seconds that its engine has used per second, lately

    @property
    def role(self) -> str:
        return self.status.role if self.status else ""

    @property
    def engine_up(self) -> bool:
        return self.engine is not EngineLife.GONE and self.status is not None and self.status.engine.up

    @property
    def lost(self) -> bool:
        """This incarnation is at its end: nothing can bring it back."""
        return self.engine is EngineLife.GONE or self.driver_gone or self.role == "fenced"

    @property
    def log_position(self) -> int:
        """How much log its engine has: what decides between readers of one promotion tier."""
        if self.status is None:
            return 0
        return max(self.status.engine.receive_lsn or 0, self.status.engine.replay_lsn or 0)


NOTHING_SEEN = Seen(silent_for=0.0)


@dataclass(frozen=True, slots=True)
class SegmentSeen:
    """One segment of a volume, as its node states it."""

    node: str
    zone: str
    connected: bool
    scl: int = 0
    vdl: int = 0
    base: int = 0  # the first byte of the log that it holds
    bytes_on_disk: int = 0
    images: frozenset[str] = frozenset()  # names of the images that are whole on it
    damaged: int = 0  # damages that its node has found since its start
    repaired: int = 0  # how many of them were mended
    checked_bytes: int = 0
    trouble: str = ""  # the code of the error with which it refuses log, or everything


@dataclass(frozen=True, slots=True)
class VolumeSeen:
    """The segments of a volume. Before the first look `known` is False."""

    segments: tuple[SegmentSeen, ...] = ()
    known: bool = False
    write_quorum: int = 4

    @property
    def reachable(self) -> int:
        return sum(1 for s in self.segments if s.connected)

    @property
    def writable(self) -> bool:
        """Whether a term could be opened now. Not known counts as yes: the opening itself will tell."""
        return not self.known or self.reachable >= self.write_quorum

    @property
    def vdl(self) -> int:
        return max((s.vdl for s in self.segments), default=0)


@dataclass(frozen=True, slots=True)
class View:
    """Everything that a decision about one cluster may depend on."""

    cluster: Cluster
    instances: tuple[Instance, ...]
    endpoints: tuple[CustomEndpoint, ...] = ()
    seen: Mapping[str, Seen] = field(default_factory=dict)  # by incarnation id
    volume: VolumeSeen = field(default_factory=VolumeSeen)
    boot_id: str = ""
    lease_seconds: float = 3.0
    in_window: bool = False  # the cluster's maintenance window is open
    instances_in_window: frozenset[str] = frozenset()  # keys of those whose own window is open
    failover_age: float = 0.0  # seconds since a user asked for the failover that is to come
    failures: Mapping[str, int] = field(default_factory=dict)  # failed tries in a row, by action key
    avoid: frozenset[str] = frozenset()  # incarnations that failed to open since the last success
    endpoints_applied: EndpointPlan | None = None  # what the endpoints were last made to be
    trim_pausing: bool = False  # the nodes were told to trim a moment ago
    topology_due: bool = False
    topology_told: Membership = ()  # the membership that the drivers were last told

    def of(self, instance: Instance) -> Seen:
        """What was seen of the instance's present incarnation."""
        if instance.incarnation is None:
            return NOTHING_SEEN
        return self.seen.get(instance.incarnation.id, NOTHING_SEEN)

    def instance(self, key: str | None) -> Instance | None:
        """The cluster's instance with this key."""
        return next((i for i in self.instances if i.key == key), None)

    @property
    def writer(self) -> Instance | None:
        """The instance that last became writer, whether it still lives or not."""
        return self.instance(self.cluster.writer)

    @property
    def live_writer(self) -> Instance | None:
        """The writer, if the life that holds the term is still its present one and not at its end."""
        writer = self.writer
        if writer is None or writer.incarnation is None or self.of(writer).lost:
            return None
        return writer if writer.incarnation.id == self.cluster.volume.writer_incarnation else None

    @property
    def membership(self) -> Membership:
        """Who is in service, and who of them is the writer."""
        live = self.live_writer
        return tuple(
            (i.identifier, i.incarnation.id, i is live)
            for i in self.instances
            if i.incarnation is not None and self.serving(i) and not self.of(i).lost
        )

    def serving(self, instance: Instance) -> bool:
        """Whether the instance's present life is in service, as far as the records say."""
        return is_serving(instance.incarnation)

    def replay_paused(self, instance: Instance) -> bool:
        """Whether the instance cannot go on: the writer allows more connections than it was started with."""
        status = self.of(instance).status
        return status is not None and status.engine.replay_paused

    def healthy(self, instance: Instance) -> bool:
        """In service, not at its end, and heard of within the lease."""
        seen = self.of(instance)
        return (
            self.serving(instance)
            and not seen.lost
            and seen.engine_up
            and seen.silent_for < self.lease_seconds
        )


def is_serving(incarnation: Incarnation | None) -> bool:
    """Whether this life has come as far as service."""
    return incarnation is not None and incarnation.phase is IncarnationPhase.SERVING
