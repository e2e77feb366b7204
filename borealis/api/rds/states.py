"""Which states an operation may start from, and AWS's words when it may not.

The states themselves, and the moves between them, are borealis.control's.
"""

from __future__ import annotations

from borealis.api.errors import ApiError
from borealis.control.records import Cluster, Instance
from borealis.control.states import ClusterStatus, InstanceStatus

#: At rest: nothing is being done to the cluster, so that what only is stored and shown may change.
CLUSTER_AT_REST = frozenset({ClusterStatus.AVAILABLE, ClusterStatus.STOPPED, ClusterStatus.FAILED})
INSTANCE_AT_REST = frozenset({InstanceStatus.AVAILABLE, InstanceStatus.STOPPED, InstanceStatus.FAILED})


def check_cluster(cluster: Cluster, *allowed: ClusterStatus) -> None:
    """Raises ApiError InvalidDBClusterStateFault unless the cluster is in one of the states."""
    if cluster.status in allowed:
        return
    if cluster.status is ClusterStatus.DELETING:
        raise cluster_state(f"DB cluster {cluster.identifier} is already being deleted.")
    if ClusterStatus.AVAILABLE in allowed:
        raise cluster_state(
            f"DB cluster {cluster.identifier} is not currently in the available state: it is "
            f"{cluster.status}."
        )
    raise cluster_state(
        f"DB cluster {cluster.identifier} is {cluster.status}; it must be {' or '.join(sorted(allowed))}."
    )


def check_instance(instance: Instance, *allowed: InstanceStatus) -> None:
    """Raises ApiError InvalidDBInstanceState unless the instance is in one of the states."""
    if instance.status in allowed:
        return
    if instance.status is InstanceStatus.DELETING:
        raise instance_state(f"Instance {instance.identifier} is already being deleted.")
    if InstanceStatus.AVAILABLE in allowed:
        raise instance_state(
            f"Database instance is not in available state: DB instance {instance.identifier} is "
            f"{instance.status}."
        )
    raise instance_state(
        f"DB instance {instance.identifier} is {instance.status}; it must be {' or '.join(sorted(allowed))}."
    )


def cluster_state(message: str) -> ApiError:
    """InvalidDBClusterStateFault."""
    return ApiError("InvalidDBClusterStateFault", message)


def instance_state(message: str) -> ApiError:
    """InvalidDBInstanceState."""
    return ApiError("InvalidDBInstanceState", message)
