"""The steps that a plan may ask for, as data.

Owns their names and which of them exclude each other: of the actions with one `key` at most one runs at a
time. What each does is in `control.steps`. Every action may be repeated, and may be cut off at any point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Action:
    """Something to do for one cluster."""

    preempts: ClassVar[bool] = False
    """Whether another action with the same key is cut off in favour of this one."""

    @property
    def key(self) -> str:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class _OfVolume(Action):
    @property
    def key(self) -> str:
        return "volume"


@dataclass(frozen=True, slots=True)
class CreateVolume(_OfVolume):
    """Bootstrap the engine's first files and seed the volume with their log and image."""


@dataclass(frozen=True, slots=True)
class RemoveCluster(_OfVolume):
    """Drop the volume, the endpoints and the record of a cluster without instances."""

    preempts: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class DropGarbage(Action):
    """Drop volumes of attempts that came to nothing."""

    @property
    def key(self) -> str:
        return "garbage"


@dataclass(frozen=True, slots=True)
class _OfInstance(Action):
    instance: str

    @property
    def key(self) -> str:
        return f"instance {self.instance}"


@dataclass(frozen=True, slots=True)
class BringUp(_OfInstance):
    """Give the instance a life: directory, driver, engine, and wait until it follows the volume."""


@dataclass(frozen=True, slots=True)
class Sweep(_OfInstance):
    """Kill and remove the instance's former lives."""


@dataclass(frozen=True, slots=True)
class StopInstance(_OfInstance):
    """Shut the instance's engine down cleanly and let go of this life."""

    preempts: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class RemoveInstance(_OfInstance):
    """Remove the instance for good."""

    preempts: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class _OfWriter(Action):
    @property
    def key(self) -> str:
        return "writer"


@dataclass(frozen=True, slots=True)
class OpenWriter(_OfWriter):
    """Make `target` the writer, with new terms. The former writer's life is at its end."""

    target: str  # instance key
    planned: bool  # the present writer is well: let the target catch up first
    reason: str


@dataclass(frozen=True, slots=True)
class FinishOpening(_OfWriter):
    """Find out what became of an opening that a former control process began, and finish or abandon it."""


@dataclass(frozen=True, slots=True)
class AbandonOpening(_OfWriter):
    """Give up an opening whose candidate is lost."""

    preempts: ClassVar[bool] = True
    reason: str


@dataclass(frozen=True, slots=True)
class RenewLease(Action):
    """Let the writer go on answering reads although it has lost its write quorum."""

    incarnation: str
    term: int

    @property
    def key(self) -> str:
        return "lease"


@dataclass(frozen=True, slots=True)
class SyncEndpoints(Action):
    """Make addresses, proxies and names what the records say."""

    @property
    def key(self) -> str:
        return "endpoints"


@dataclass(frozen=True, slots=True)
class PushTopology(Action):
    """Tell every driver who the members are."""

    @property
    def key(self) -> str:
        return "topology"


@dataclass(frozen=True, slots=True)
class SetPassword(Action):
    """Tell the writer's engine the master user's new verifier."""

    @property
    def key(self) -> str:
        return "password"


@dataclass(frozen=True, slots=True)
class MakeImage(Action):
    """Make and publish a new image with a hidden instance."""

    @property
    def key(self) -> str:
        return "image"


@dataclass(frozen=True, slots=True)
class TrimLog(Action):
    """Let the storage nodes forget the log below a position."""

    below: int

    @property
    def key(self) -> str:
        return "trim"


@dataclass(frozen=True, slots=True)
class DropImageJob(Action):
    """Remove what an unfinished image job left."""

    preempts: ClassVar[bool] = True

    @property
    def key(self) -> str:
        return "image"
