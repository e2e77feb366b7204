"""DB clusters: ModifyDBCluster.

What only is stored and shown changes at once. What the control plane has to carry out waits as a pending
value: for the maintenance window, or, with ApplyImmediately, for as long as it takes. A password is always
applied at once, as in AWS.
"""

from __future__ import annotations

from borealis.api.context import Call, Context
from borealis.api.errors import invalid_combination
from borealis.api.params import Params
from borealis.api.rds import identifiers, master_user, network, parameter_groups, states
from borealis.api.rds.capacity import chosen_capacity
from borealis.api.rds.clusters import (
    check_name_free,
    check_option_group,
    chosen_port,
    chosen_retention,
    chosen_storage_type,
    chosen_windows,
)
from borealis.api.rds.engine_profiles import find_version
from borealis.api.rds.service import operations
from borealis.api.rds.support import CLUSTER_OFF
from borealis.api.rds.views import cluster_view
from borealis.api.registry import EFFECT, SHOWN, Result, all_of, only
from borealis.control.records import Cluster, ClusterPending
from borealis.control.states import ClusterStatus
from borealis.control.store import Put
from borealis.engines.base import EngineVersion

_MODIFY = {
    **all_of(
        EFFECT,
        "DBClusterIdentifier",
        "NewDBClusterIdentifier",
        "ApplyImmediately",
        "MasterUserPassword",
        "Port",
    ),
    **all_of(EFFECT, "EngineVersion", "DeletionProtection", "PreferredMaintenanceWindow"),
    **all_of(
        SHOWN,
        "BackupRetentionPeriod",
        "PreferredBackupWindow",
        "CopyTagsToSnapshot",
        "AutoMinorVersionUpgrade",
    ),
    **all_of(SHOWN, "ServerlessV2ScalingConfiguration", "StorageType"),
    **all_of(SHOWN, "DBClusterParameterGroupName", "VpcSecurityGroupIds", "OptionGroupName"),
    **CLUSTER_OFF,
    "AllowMajorVersionUpgrade": only(False, why="upgrades to another major version are not there yet"),
    "EngineMode": only("provisioned", why="the other engine modes are not offered"),
    "EnableLimitlessDatabase": only(False, why="sharding is not there yet"),
    "RotateMasterUserPassword": only(
        False, why="managing the master password in Secrets Manager is not there yet"
    ),
    "CloudwatchLogsExportConfiguration": only({}, why="exporting logs is not there yet"),
}


@operations.operation("ModifyDBCluster", _MODIFY)
async def modify_db_cluster(call: Call, params: Params) -> Result:
    """Change a cluster's settings, now or in its next maintenance window."""
    context = call.context
    cluster = identifiers.find_cluster(context, params.text("DBClusterIdentifier"))
    states.check_cluster(cluster, *states.CLUSTER_AT_REST)
    changed = _shown_changes(context, cluster, params)
    changed = _pending_changes(context, changed, params)
    changed = await _password_change(context, changed, params)
    if changed.status is not cluster.status:
        states.check_cluster(cluster, ClusterStatus.AVAILABLE)
    if changed != cluster:
        await context.store.commit([Put(changed)])
        context.control.kick(cluster.key)
    return {"DBCluster": cluster_view(context, changed)}


def _shown_changes(context: Context, cluster: Cluster, params: Params) -> Cluster:
    backup, maintenance = chosen_windows(
        params, cluster.preferred_backup_window, cluster.preferred_maintenance_window
    )
    changed = cluster.but(
        preferred_backup_window=backup,
        preferred_maintenance_window=maintenance,
        backup_retention_period=chosen_retention(params, cluster.backup_retention_period),
        deletion_protection=params.boolean("DeletionProtection", cluster.deletion_protection),
        copy_tags_to_snapshot=params.boolean("CopyTagsToSnapshot", cluster.copy_tags_to_snapshot),
        auto_minor_version_upgrade=params.boolean(
            "AutoMinorVersionUpgrade", cluster.auto_minor_version_upgrade
        ),
    )
    capacity = params.structure("ServerlessV2ScalingConfiguration")
    if capacity is not None:
        changed = changed.but(serverless_v2=chosen_capacity(capacity, cluster.serverless_v2))
    groups = params.strings("VpcSecurityGroupIds")
    if groups is not None:
        changed = changed.but(vpc_security_groups=network.check_security_groups(context, groups))
    if "DBClusterParameterGroupName" in params or "OptionGroupName" in params:
        version = find_version(context, cluster.engine, cluster.engine_version)
        check_option_group(context, version, params)
        group = parameter_groups.chosen_cluster_group(version, params.string("DBClusterParameterGroupName"))
        changed = changed.but(parameter_group=group)
    if params.string("StorageType"):
        changed = changed.but(storage_type=chosen_storage_type(params.string("StorageType")))
    return changed


def _pending_changes(context: Context, cluster: Cluster, params: Params) -> Cluster:
    """The cluster with the changes that have to be carried out, and its new status if they are to be carried
    out now.
    """
    pending = cluster.pending.but(
        identifier=_new_identifier(context, cluster, params) or cluster.pending.identifier,
        port=_new_port(cluster, params) or cluster.pending.port,
        engine_version=_new_version(context, cluster, params) or cluster.pending.engine_version,
    )
    changed = cluster.but(pending=pending)
    if not pending or not params.boolean("ApplyImmediately"):
        return changed
    return changed.but(apply_pending=True, status=_status_while(pending))


def _status_while(pending: ClusterPending) -> ClusterStatus:
    only_renamed = pending.identifier is not None and pending.port is None and pending.engine_version is None
    return ClusterStatus.RENAMING if only_renamed else ClusterStatus.MODIFYING


def _new_identifier(context: Context, cluster: Cluster, params: Params) -> str | None:
    wanted = params.string("NewDBClusterIdentifier")
    if not wanted:
        return None
    name = identifiers.new_identifier(wanted, "NewDBClusterIdentifier")
    if name in (cluster.identifier, cluster.pending.identifier):
        return None
    check_name_free(context, name)
    return name


def _new_port(cluster: Cluster, params: Params) -> int | None:
    port = chosen_port(params.integer("Port"), cluster.port)
    return port if port != cluster.port else None


def _new_version(context: Context, cluster: Cluster, params: Params) -> str | None:
    wanted = params.string("EngineVersion")
    if not wanted or wanted == cluster.engine_version:
        return None
    present = find_version(context, cluster.engine, cluster.engine_version)
    target = find_version(context, cluster.engine, wanted)
    _check_upgrade(context, present, target)
    return target.version if target.version != present.version else None


def _check_upgrade(context: Context, present: EngineVersion, target: EngineVersion) -> None:
    if target.major != present.major:
        raise invalid_combination(
            f"Cannot upgrade {present.engine} from {present.version} to {target.version}: "
            "upgrades to another major version are not supported by Borealis yet."
        )
    versions = [version.version for version in context.versions() if version.engine == present.engine]
    if versions.index(target.version) < versions.index(present.version):
        raise invalid_combination(
            f"Cannot upgrade {present.engine} from {present.version} to {target.version}: it is older."
        )


async def _password_change(context: Context, cluster: Cluster, params: Params) -> Cluster:
    password = params.string("MasterUserPassword")
    if password is None:
        return cluster
    verifier = await master_user.verifier(context, cluster.engine, cluster.master_username, password)
    return cluster.but(master_verifier=verifier, status=ClusterStatus.RESETTING_CREDENTIALS)
