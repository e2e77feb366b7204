"""DB clusters: create, describe, delete.

Changes of a cluster are in modify_cluster.py, stop, start and failover in cluster_actions.py.
"""

from __future__ import annotations

from borealis.api.context import Call, Context
from borealis.api.errors import ApiError, invalid_combination, invalid_value
from borealis.api.params import Params
from borealis.api.rds import identifiers, master_user, network, parameter_groups, states, windows
from borealis.api.rds.capacity import chosen_capacity
from borealis.api.rds.engine_profiles import find_engine, find_version, option_group
from borealis.api.rds.listing import LISTED, filtered, page
from borealis.api.rds.service import operations
from borealis.api.rds.support import CLUSTER_OFF, NO_SNAPSHOTS
from borealis.api.rds.tagging import given_tags, with_tags
from borealis.api.rds.views import cluster_view
from borealis.api.registry import EFFECT, SHOWN, Result, all_of, only, refused
from borealis.control.records import (
    Cluster,
    SubnetGroup,
    Volume,
    new_cluster_resource_id,
    new_hash12,
    new_volume_id,
    rds_arn,
)
from borealis.control.states import ClusterStatus, InstanceStatus, Want
from borealis.control.store import Put
from borealis.engines.base import EngineVersion

PORT_MIN = 1150
PORT_MAX = 65535
RETENTION_MIN = 1
RETENTION_MAX = 35
_LIFECYCLES = ("open-source-rds-extended-support", "open-source-rds-extended-support-disabled")

_CREATE = {
    **all_of(
        EFFECT,
        "DBClusterIdentifier",
        "Engine",
        "EngineVersion",
        "MasterUsername",
        "MasterUserPassword",
        "DatabaseName",
    ),
    **all_of(
        EFFECT,
        "Port",
        "AvailabilityZones",
        "DBSubnetGroupName",
        "DeletionProtection",
        "PreferredMaintenanceWindow",
        "Tags",
    ),
    **all_of(
        SHOWN,
        "BackupRetentionPeriod",
        "PreferredBackupWindow",
        "CopyTagsToSnapshot",
        "AutoMinorVersionUpgrade",
    ),
    **all_of(SHOWN, "ServerlessV2ScalingConfiguration", "EngineLifecycleSupport", "StorageType"),
    **all_of(SHOWN, "DBClusterParameterGroupName", "VpcSecurityGroupIds", "OptionGroupName"),
    **CLUSTER_OFF,
    "StorageEncrypted": only(False, why="encryption at rest is not there yet"),
    "KmsKeyId": refused("The parameter KmsKeyId is not supported by Borealis yet: encryption is not there."),
    "EngineMode": only("provisioned", why="the other engine modes are not offered"),
    "EnableCloudwatchLogsExports": only([], why="exporting logs is not there yet"),
    "PubliclyAccessible": only(False, why="endpoints have loopback addresses of this machine"),
    "WithExpressConfiguration": only(False, why="the express configuration is not there yet"),
    "EnableLimitlessDatabase": only(False, why="sharding is not there yet"),
    "ClusterScalabilityType": only("standard", why="sharding is not there yet"),
    "ReplicationSourceIdentifier": refused(
        "Replicating from another cluster is not supported by Borealis yet."
    ),
    "GlobalClusterIdentifier": refused("Global clusters are not supported by Borealis yet."),
}


@operations.operation("CreateDBCluster", _CREATE)
async def create_db_cluster(call: Call, params: Params) -> Result:
    """Store a new cluster; the control plane makes its volume. It has no instance yet."""
    context = call.context
    identifier = identifiers.new_identifier(params.text("DBClusterIdentifier"), "DBClusterIdentifier")
    cluster = await _new_cluster(context, params, identifier)
    check_name_free(context, identifier)
    if len(context.store.clusters()) >= context.quotas.clusters:
        raise ApiError(
            "DBClusterQuotaExceededFault",
            f"You have reached the maximum of {context.quotas.clusters} DB clusters in this region.",
        )
    await context.store.commit([Put(cluster)])
    context.control.kick(cluster.key)
    return {"DBCluster": cluster_view(context, cluster)}


def check_name_free(context: Context, identifier: str) -> None:
    """See that no cluster has this identifier, nor will have it once a change that waits is applied.

    Raises ApiError DBClusterAlreadyExistsFault.
    """
    if any(identifier in (c.identifier, c.pending.identifier) for c in context.store.clusters()):
        raise ApiError("DBClusterAlreadyExistsFault", "DB Cluster already exists")


async def _new_cluster(context: Context, params: Params, identifier: str) -> Cluster:
    engine = find_engine(context, params.text("Engine"))
    version = find_version(context, engine.name, params.string("EngineVersion"))
    username = master_user.check_username(engine.name, _login(params, "MasterUsername"))
    password = _login(params, "MasterUserPassword")
    database = params.string("DatabaseName")
    group = identifiers.find_subnet_group(
        context, params.string("DBSubnetGroupName") or network.DEFAULT_GROUP
    )
    backup, maintenance = chosen_windows(
        params, windows.default_backup_window(), windows.default_maintenance_window()
    )
    capacity = params.structure("ServerlessV2ScalingConfiguration")
    check_option_group(context, version, params)
    return Cluster(
        resource_id=new_cluster_resource_id(),
        identifier=identifier,
        arn=rds_arn(context.region, context.account, "cluster", identifier),
        engine=engine.name,
        engine_version=version.version,
        port=chosen_port(params.integer("Port"), engine.default_port),
        master_username=username,
        database_name=master_user.check_database_name(engine.name, database) if database else "",
        created_at=context.clock(),
        subnet_group=group.identifier,
        availability_zones=_zones(context, group, params.strings("AvailabilityZones") or ()),
        backup_retention_period=chosen_retention(params, RETENTION_MIN),
        preferred_backup_window=backup,
        preferred_maintenance_window=maintenance,
        deletion_protection=params.boolean("DeletionProtection"),
        copy_tags_to_snapshot=params.boolean("CopyTagsToSnapshot"),
        auto_minor_version_upgrade=params.boolean("AutoMinorVersionUpgrade", True),
        storage_type=chosen_storage_type(params.string("StorageType")),
        serverless_v2=chosen_capacity(capacity, None) if capacity else None,
        parameter_group=parameter_groups.chosen_cluster_group(
            version, params.string("DBClusterParameterGroupName")
        ),
        vpc_security_groups=network.check_security_groups(
            context, params.strings("VpcSecurityGroupIds") or ()
        ),
        engine_lifecycle_support=_lifecycle(params.string("EngineLifecycleSupport")),
        tags=with_tags(context, {}, given_tags(params)),
        hash12=_hash12(context),
        volume=Volume(id=new_volume_id()),
        # Last, because it takes a moment: everything else is known to be right by now.
        master_verifier=await master_user.verifier(context, engine.name, username, password),
    )


def _login(params: Params, name: str) -> str:
    value = params.string(name)
    if not value:
        raise invalid_value(f"The parameter {name} must be provided and must not be blank.")
    return value


def _hash12(context: Context) -> str:
    """The part that a region's endpoint names share, as in AWS: any other cluster's, or a fresh one."""
    present = (cluster.hash12 for cluster in context.store.clusters() if cluster.hash12)
    return next(present, None) or new_hash12()


def _zones(context: Context, group: SubnetGroup, given: tuple[str, ...]) -> tuple[str, ...]:
    """Three availability zones (fewer if the subnet group has fewer): those asked for first.

    Raises ApiError.
    """
    offered = [
        zone for zone in context.zones if zone in {subnet.availability_zone for subnet in group.subnets}
    ]
    for zone in given:
        if zone not in context.zones:
            raise invalid_value(
                f"Invalid availability zone: {zone}. Zones of this region: {', '.join(context.zones)}."
            )
        if zone not in offered:
            raise ApiError(
                "InvalidVPCNetworkStateFault",
                f"The DB subnet group {group.identifier} has no subnet in {zone}.",
            )
    wanted = list(dict.fromkeys([*given, *offered]))
    return tuple(sorted(wanted[: max(3, len(set(given)))]))


def chosen_port(given: int | None, default: int) -> int:
    """A cluster's port. Raises ApiError InvalidParameterValue."""
    port = default if given is None else given
    if not PORT_MIN <= port <= PORT_MAX:
        raise invalid_value(
            f"Invalid database port number {port}. Must be between {PORT_MIN} and {PORT_MAX}."
        )
    return port


def chosen_retention(params: Params, default: int) -> int:
    """Days that backups are kept. Raises ApiError InvalidParameterValue."""
    days = params.integer("BackupRetentionPeriod")
    days = default if days is None else days
    if not RETENTION_MIN <= days <= RETENTION_MAX:
        raise invalid_value(
            f"Invalid backup retention period: {days}. Must be between {RETENTION_MIN} and {RETENTION_MAX}."
        )
    return days


def chosen_windows(params: Params, backup: str, maintenance: str) -> tuple[str, str]:
    """Backup and maintenance window: what was asked for, else what was. Raises ApiError."""
    asked_backup, asked_maintenance = (
        params.string("PreferredBackupWindow"),
        params.string("PreferredMaintenanceWindow"),
    )
    if asked_backup:
        backup = windows.backup_window(asked_backup)
    if asked_maintenance:
        maintenance = windows.maintenance_window(asked_maintenance)
    windows.check_apart(backup, maintenance)
    return backup, maintenance


def chosen_storage_type(given: str | None) -> str:
    """A storage type as stored. Raises ApiError StorageTypeNotSupported."""
    if given not in (None, "", "aurora", "aurora-iopt1"):
        raise ApiError(
            "StorageTypeNotSupported", f"Invalid storage type: {given}. It must be aurora or aurora-iopt1."
        )
    return given if given == "aurora-iopt1" else ""


def _lifecycle(given: str | None) -> str:
    if given is not None and given not in _LIFECYCLES:
        raise invalid_value(
            f"Invalid EngineLifecycleSupport: {given}. It must be {' or '.join(_LIFECYCLES)}."
        )
    return given or _LIFECYCLES[0]


def check_option_group(context: Context, version: EngineVersion, params: Params) -> None:
    """Each version has its one default option group. Raises ApiError OptionGroupNotFoundFault."""
    name, there = params.string("OptionGroupName"), option_group(context, version.engine, version.version)
    if name and name.lower() != there:
        message = f"Specified OptionGroupName: {name} not found. The only one for this version is {there}."
        raise ApiError("OptionGroupNotFoundFault", message)


@operations.operation(
    "DescribeDBClusters",
    # No cluster is shared between accounts, so that IncludeShared adds none.
    {**LISTED, "DBClusterIdentifier": EFFECT, "IncludeShared": EFFECT},
)
async def describe_db_clusters(call: Call, params: Params) -> Result:
    """One cluster, or all that match the filters."""
    context = call.context
    name = params.string("DBClusterIdentifier")
    clusters = [identifiers.find_cluster(context, name)] if name else context.store.clusters()
    matching = filtered(
        params,
        clusters,
        {
            "db-cluster-id": lambda cluster: (cluster.identifier, cluster.arn),
            "db-cluster-resource-id": lambda cluster: (cluster.resource_id,),
            "engine": lambda cluster: (cluster.engine,),
            "clone-group-id": lambda cluster: (),
            "domain": lambda cluster: (),
        },
    )
    shown, marker = page(params, matching, lambda cluster: cluster.identifier)
    return {"DBClusters": [cluster_view(context, cluster) for cluster in shown], "Marker": marker}


@operations.operation(
    "DeleteDBCluster",
    {
        **all_of(EFFECT, "DBClusterIdentifier", "SkipFinalSnapshot", "FinalDBSnapshotIdentifier"),
        "DeleteAutomatedBackups": only(True, why="keeping the backups of a deleted cluster is not there yet"),
    },
)
async def delete_db_cluster(call: Call, params: Params) -> Result:
    """Say that a cluster is to go; it must have no instances that stay."""
    context = call.context
    cluster = identifiers.find_cluster(context, params.text("DBClusterIdentifier"))
    _check_final_snapshot(params)
    states.check_cluster(
        cluster, *(status for status in ClusterStatus if status is not ClusterStatus.DELETING)
    )
    if cluster.deletion_protection:
        raise invalid_combination(
            "Cannot delete protected Cluster, please disable deletion protection and try again."
        )
    members = context.store.instances(cluster.key)
    if any(member.status is not InstanceStatus.DELETING for member in members):
        raise states.cluster_state(
            "Cluster cannot be deleted, it still contains DB instances in non-deleting state."
        )
    gone = cluster.but(status=ClusterStatus.DELETING, want=Want.DELETED)
    await context.store.commit([Put(gone)])
    context.control.kick(cluster.key)
    return {"DBCluster": cluster_view(context, gone)}


def _check_final_snapshot(params: Params) -> None:
    """There are no snapshots yet, so only SkipFinalSnapshot=true will do.

    Raises ApiError InvalidParameterCombination.
    """
    skip, name = params.boolean("SkipFinalSnapshot"), params.string("FinalDBSnapshotIdentifier")
    if skip and name:
        raise invalid_combination(
            "FinalDBSnapshotIdentifier can not be specified when SkipFinalSnapshot is true."
        )
    if not skip and not name:
        raise invalid_combination(
            f"FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified. {NO_SNAPSHOTS}"
        )
    if not skip:
        raise invalid_combination(
            f"The parameter FinalDBSnapshotIdentifier is not supported by Borealis yet. {NO_SNAPSHOTS}"
        )
