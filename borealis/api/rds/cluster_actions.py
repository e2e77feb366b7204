"""DB clusters: stop, start, fail over."""

from __future__ import annotations

from borealis.api.context import Call, Context
from borealis.api.errors import ApiError, invalid_value
from borealis.api.params import Params
from borealis.api.rds import identifiers, states
from borealis.api.rds.service import operations
from borealis.api.rds.views import cluster_view
from borealis.api.registry import EFFECT, Result, all_of
from borealis.control.records import Cluster, FailoverRequest, Instance
from borealis.control.states import ClusterStatus, InstanceStatus, Want
from borealis.control.store import Put


async def _store(context: Context, cluster: Cluster) -> Result:
    await context.store.commit([Put(cluster)])
    context.control.kick(cluster.key)
    return {"DBCluster": cluster_view(context, cluster)}


@operations.operation("StopDBCluster", all_of(EFFECT, "DBClusterIdentifier"))
async def stop_db_cluster(call: Call, params: Params) -> Result:
    """Say that a cluster's instances are to stop; its volume stays."""
    cluster = identifiers.find_cluster(call.context, params.text("DBClusterIdentifier"))
    states.check_cluster(cluster, ClusterStatus.AVAILABLE)
    return await _store(call.context, cluster.but(status=ClusterStatus.STOPPING, want=Want.STOPPED))


@operations.operation("StartDBCluster", all_of(EFFECT, "DBClusterIdentifier"))
async def start_db_cluster(call: Call, params: Params) -> Result:
    """Say that a stopped cluster is to run again."""
    cluster = identifiers.find_cluster(call.context, params.text("DBClusterIdentifier"))
    states.check_cluster(cluster, ClusterStatus.STOPPED)
    return await _store(call.context, cluster.but(status=ClusterStatus.STARTING, want=Want.RUNNING))


@operations.operation(
    "FailoverDBCluster", all_of(EFFECT, "DBClusterIdentifier", "TargetDBInstanceIdentifier")
)
async def failover_db_cluster(call: Call, params: Params) -> Result:
    """Ask that a reader becomes the writer: the one named, or the best one."""
    context = call.context
    cluster = identifiers.find_cluster(context, params.text("DBClusterIdentifier"))
    states.check_cluster(cluster, ClusterStatus.AVAILABLE)
    readers = [m for m in context.store.instances(cluster.key) if m.key != cluster.writer]
    name = params.string("TargetDBInstanceIdentifier")
    target = _target(context, cluster, name) if name else None
    if not any(reader.status is InstanceStatus.AVAILABLE for reader in readers):
        raise states.cluster_state(
            f"DB cluster {cluster.identifier} has no reader in the available state to fail over to."
        )
    request = FailoverRequest(target=target.key if target else None, requested_at=context.clock())
    return await _store(context, cluster.but(status=ClusterStatus.FAILING_OVER, failover=request))


def _target(context: Context, cluster: Cluster, name: str) -> Instance:
    target = identifiers.find_instance(context, name)
    if target.cluster != cluster.key:
        raise ApiError(
            "DBInstanceNotFound", f"DBInstance {name} is not a member of the DB cluster {cluster.identifier}."
        )
    if target.key == cluster.writer:
        raise invalid_value(
            f"DBInstance {name} is already the writer of the DB cluster {cluster.identifier}."
        )
    states.check_instance(target, InstanceStatus.AVAILABLE)
    return target
