"""The states of clusters, instances and custom endpoints, and the one table of the moves between them.

The strings are AWS's own, because waiters and Terraform compare them. Nothing else spells a status out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum

from borealis.errors import BorealisError


class ClusterStatus(StrEnum):
    """The `Status` of a DB cluster."""

    CREATING = "creating"
    AVAILABLE = "available"
    MODIFYING = "modifying"
    RENAMING = "renaming"
    RESETTING_CREDENTIALS = "resetting-master-credentials"
    FAILING_OVER = "failing-over"
    STOPPING = "stopping"
    STOPPED = "stopped"
    STARTING = "starting"
    DELETING = "deleting"
    # The volume could not be made (no engine binaries, no room): the cluster can only be deleted.
    FAILED = "failed"


class InstanceStatus(StrEnum):
    """The `DBInstanceStatus` of a DB instance."""

    CREATING = "creating"
    AVAILABLE = "available"
    MODIFYING = "modifying"
    RENAMING = "renaming"
    REBOOTING = "rebooting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    STARTING = "starting"
    DELETING = "deleting"
    FAILED = "failed"


class EndpointStatus(StrEnum):
    """The `Status` of a custom cluster endpoint."""

    CREATING = "creating"
    AVAILABLE = "available"
    MODIFYING = "modifying"
    INACTIVE = "inactive"
    DELETING = "deleting"


class Want(StrEnum):
    """What the user wants of a cluster or an instance; the reconciler works until it is so."""

    RUNNING = "running"
    STOPPED = "stopped"
    DELETED = "deleted"


class IllegalMove(BorealisError):
    """A status change that the table does not allow: a defect of the caller, refused before it is stored."""

    code = "InternalFailure"


_C = ClusterStatus
_I = InstanceStatus
_E = EndpointStatus

# From every state a record may also stay where it is.
CLUSTER_MOVES: Mapping[ClusterStatus, frozenset[ClusterStatus]] = {
    _C.CREATING: frozenset({_C.AVAILABLE, _C.FAILED, _C.DELETING}),
    _C.AVAILABLE: frozenset(
        {_C.MODIFYING, _C.RENAMING, _C.RESETTING_CREDENTIALS, _C.FAILING_OVER, _C.STOPPING, _C.DELETING}
    ),
    _C.MODIFYING: frozenset({_C.AVAILABLE, _C.FAILING_OVER, _C.RESETTING_CREDENTIALS, _C.DELETING}),
    _C.RENAMING: frozenset({_C.AVAILABLE, _C.FAILING_OVER, _C.RESETTING_CREDENTIALS, _C.DELETING}),
    _C.RESETTING_CREDENTIALS: frozenset({_C.AVAILABLE, _C.FAILING_OVER, _C.MODIFYING, _C.DELETING}),
    _C.FAILING_OVER: frozenset(
        {_C.AVAILABLE, _C.MODIFYING, _C.RESETTING_CREDENTIALS, _C.STOPPING, _C.DELETING}
    ),
    _C.STOPPING: frozenset({_C.STOPPED, _C.STARTING, _C.DELETING}),
    _C.STOPPED: frozenset({_C.STARTING, _C.DELETING}),
    _C.STARTING: frozenset({_C.AVAILABLE, _C.STOPPING, _C.FAILING_OVER, _C.DELETING}),
    _C.DELETING: frozenset(),
    _C.FAILED: frozenset({_C.CREATING, _C.DELETING}),
}

INSTANCE_MOVES: Mapping[InstanceStatus, frozenset[InstanceStatus]] = {
    _I.CREATING: frozenset({_I.AVAILABLE, _I.FAILED, _I.STOPPING, _I.DELETING}),
    _I.AVAILABLE: frozenset(
        {_I.MODIFYING, _I.RENAMING, _I.REBOOTING, _I.STOPPING, _I.STARTING, _I.FAILED, _I.DELETING}
    ),
    _I.MODIFYING: frozenset({_I.AVAILABLE, _I.REBOOTING, _I.STOPPING, _I.FAILED, _I.DELETING}),
    _I.RENAMING: frozenset({_I.AVAILABLE, _I.REBOOTING, _I.MODIFYING, _I.STOPPING, _I.FAILED, _I.DELETING}),
    _I.REBOOTING: frozenset({_I.AVAILABLE, _I.STOPPING, _I.FAILED, _I.DELETING}),
    _I.STOPPING: frozenset({_I.STOPPED, _I.DELETING}),
    _I.STOPPED: frozenset({_I.STARTING, _I.DELETING}),
    _I.STARTING: frozenset({_I.AVAILABLE, _I.STOPPING, _I.FAILED, _I.DELETING}),
    _I.DELETING: frozenset(),
    _I.FAILED: frozenset({_I.STARTING, _I.AVAILABLE, _I.REBOOTING, _I.MODIFYING, _I.STOPPING, _I.DELETING}),
}

ENDPOINT_MOVES: Mapping[EndpointStatus, frozenset[EndpointStatus]] = {
    _E.CREATING: frozenset({_E.AVAILABLE, _E.INACTIVE, _E.DELETING}),
    _E.AVAILABLE: frozenset({_E.MODIFYING, _E.INACTIVE, _E.DELETING}),
    _E.MODIFYING: frozenset({_E.AVAILABLE, _E.INACTIVE, _E.DELETING}),
    _E.INACTIVE: frozenset({_E.AVAILABLE, _E.MODIFYING, _E.DELETING}),
    _E.DELETING: frozenset(),
}


def check_cluster_move(old: ClusterStatus, new: ClusterStatus) -> None:
    """Raise IllegalMove unless a cluster in `old` may become `new`."""
    _check("DB cluster", old, new, CLUSTER_MOVES[old])


def check_instance_move(old: InstanceStatus, new: InstanceStatus) -> None:
    """Raise IllegalMove unless an instance in `old` may become `new`."""
    _check("DB instance", old, new, INSTANCE_MOVES[old])


def check_endpoint_move(old: EndpointStatus, new: EndpointStatus) -> None:
    """Raise IllegalMove unless a custom endpoint in `old` may become `new`."""
    _check("custom endpoint", old, new, ENDPOINT_MOVES[old])


def _check(what: str, old: StrEnum, new: StrEnum, allowed: Collection[StrEnum]) -> None:
    if old != new and new not in allowed:
        moves = ", ".join(sorted(allowed)) or "nothing"
        raise IllegalMove(f"A {what} cannot go from {old} to {new}; from {old} it may go to: {moves}.")
