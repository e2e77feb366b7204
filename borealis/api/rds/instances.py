"""DB instances: create, describe, reboot, delete. Changes of an instance are in modify_instance.py.

Every DB instance is a member of a DB cluster: what AWS keeps for the cluster (master user, backups, port, …)
is refused here with a word on where to set it.
"""

from __future__ import annotations

from borealis.api.context import Call, Context
from borealis.api.errors import ApiError, invalid_combination, invalid_value
from borealis.api.params import Params
from borealis.api.rds import identifiers, parameter_groups, states, windows
from borealis.api.rds.engine_profiles import find_engine, find_version, profile
from borealis.api.rds.listing import LISTED, filtered, page
from borealis.api.rds.service import operations
from borealis.api.rds.support import INSTANCE_OFF, of_the_cluster
from borealis.api.rds.tagging import given_tags, with_tags
from borealis.api.rds.views import instance_view
from borealis.api.registry import EFFECT, SHOWN, Result, all_of, only, refused
from borealis.control.records import Cluster, Instance, RebootRequest, new_instance_resource_id, rds_arn
from borealis.control.states import ClusterStatus, InstanceStatus, Want
from borealis.control.store import Op, Put
from borealis.engines.classes import InstanceClass

TIER_MAX = 15
CERTIFICATES = ("rds-ca-rsa2048-g1", "rds-ca-rsa4096-g1", "rds-ca-ecc384-g1")
#: In these states of its cluster a new instance would not come up.
_NO_NEW_MEMBERS = frozenset(
    {
        ClusterStatus.STOPPING,
        ClusterStatus.STOPPED,
        ClusterStatus.STARTING,
        ClusterStatus.DELETING,
        ClusterStatus.FAILED,
    }
)

#: What belongs to the cluster, in CreateDBInstance and ModifyDBInstance alike.
OF_THE_CLUSTER = {
    "AllocatedStorage": refused(
        "AllocatedStorage cannot be given: the storage of a DB cluster grows by itself."
    ),
    "BackupRetentionPeriod": of_the_cluster("BackupRetentionPeriod", "the backup retention period"),
    "MasterUserPassword": of_the_cluster("MasterUserPassword", "the master user password"),
    "PreferredBackupWindow": of_the_cluster("PreferredBackupWindow", "the backup window"),
    "VpcSecurityGroupIds": of_the_cluster("VpcSecurityGroupIds", "security groups"),
}

_CREATE = {
    **all_of(
        EFFECT, "DBInstanceIdentifier", "DBInstanceClass", "Engine", "EngineVersion", "DBClusterIdentifier"
    ),
    **all_of(
        EFFECT, "AvailabilityZone", "PromotionTier", "PreferredMaintenanceWindow", "DBSubnetGroupName", "Tags"
    ),
    **all_of(
        SHOWN, "AutoMinorVersionUpgrade", "CopyTagsToSnapshot", "CACertificateIdentifier", "LicenseModel"
    ),
    **all_of(SHOWN, "DBParameterGroupName"),
    **INSTANCE_OFF,
    **OF_THE_CLUSTER,
    "DBName": of_the_cluster("DBName", "the database name"),
    "MasterUsername": of_the_cluster("MasterUsername", "the master user name"),
    "Port": of_the_cluster("Port", "the port"),
    "StorageEncrypted": of_the_cluster("StorageEncrypted", "encryption"),
    "StorageType": only("aurora", why="in a DB cluster it is set for the cluster"),
    "EnableCloudwatchLogsExports": only([], why="exporting logs is not there yet"),
    "BackupTarget": only("region", why="there is no other place"),
    "MultiTenant": only(False, why="it belongs to another engine"),
}


@operations.operation("CreateDBInstance", _CREATE)
async def create_db_instance(call: Call, params: Params) -> Result:
    """Store a new instance of a cluster; the control plane starts it. The first one becomes the writer."""
    context = call.context
    identifier = identifiers.new_identifier(params.text("DBInstanceIdentifier"), "DBInstanceIdentifier")
    find_engine(context, params.text("Engine"))
    if not params.string("DBClusterIdentifier"):
        raise invalid_combination(
            "The parameter DBClusterIdentifier must be given: Borealis has no DB instances outside of "
            "DB clusters."
        )
    cluster = identifiers.find_cluster(context, params.text("DBClusterIdentifier"))
    instance = _new_instance(context, cluster, params, identifier)
    if name_taken(context, identifier):
        raise ApiError("DBInstanceAlreadyExists", "DB instance already exists")
    _check_cluster_takes_members(context, cluster)
    await context.store.commit([Put(instance)])
    context.control.kick(cluster.key)
    return {"DBInstance": instance_view(context, cluster, instance)}


def _new_instance(context: Context, cluster: Cluster, params: Params, identifier: str) -> Instance:
    _check_engine(cluster, params)
    chosen = chosen_class(context, cluster, params.text("DBInstanceClass"))
    version = find_version(context, cluster.engine, cluster.engine_version)
    window = params.string("PreferredMaintenanceWindow")
    return Instance(
        resource_id=new_instance_resource_id(),
        identifier=identifier,
        arn=rds_arn(context.region, context.account, "db", identifier),
        cluster=cluster.key,
        engine=cluster.engine,
        engine_version=cluster.engine_version,
        instance_class=chosen.name,
        created_at=context.clock(),
        availability_zone=_zone(context, cluster, params.string("AvailabilityZone")),
        promotion_tier=chosen_tier(params, 1),
        auto_minor_version_upgrade=params.boolean("AutoMinorVersionUpgrade", True),
        copy_tags_to_snapshot=params.boolean("CopyTagsToSnapshot"),
        ca_certificate_identifier=chosen_certificate(params, CERTIFICATES[0]),
        parameter_group=parameter_groups.chosen_instance_group(
            version, params.string("DBParameterGroupName")
        ),
        preferred_maintenance_window=windows.maintenance_window(window)
        if window
        else windows.default_maintenance_window(),
        license_model=_licence(cluster, params.string("LicenseModel")),
        tags=with_tags(context, {}, given_tags(params)),
    )


def name_taken(context: Context, identifier: str) -> bool:
    """Whether an instance has this identifier, or will have it once a change that waits is applied."""
    instances = context.store.instances()
    return any(identifier in (instance.identifier, instance.pending.identifier) for instance in instances)


def _check_engine(cluster: Cluster, params: Params) -> None:
    """Engine, version and subnet group must be the cluster's. Raises ApiError."""
    engine, version = params.text("Engine"), params.string("EngineVersion")
    if engine != cluster.engine:
        raise invalid_combination(
            f"The engine name requested for your DB instance ({engine}) doesn't match the engine name "
            f"of your DB cluster ({cluster.engine})."
        )
    if version and version != cluster.engine_version and not cluster.engine_version.startswith(f"{version}."):
        raise invalid_combination(
            f"The engine version that you requested for your DB instance ({version}) does not match the "
            "engine version "
            f"of your DB cluster ({cluster.engine_version})."
        )
    group = params.string("DBSubnetGroupName")
    if group and group.lower() != cluster.subnet_group:
        raise invalid_combination(
            f"The DB subnet group of the DB instance ({group}) must be that of its DB cluster "
            f"({cluster.subnet_group})."
        )


def chosen_class(context: Context, cluster: Cluster, name: str) -> InstanceClass:
    """The class of a request. Raises ApiError."""
    found = context.classes.get(name)
    if found is None:
        raise invalid_combination(
            "RDS does not support creating a DB instance with the following combination: "
            f"DBInstanceClass={name}, Engine={cluster.engine}, EngineVersion={cluster.engine_version}, "
            f"LicenseModel={profile(cluster.engine).licence}. See DescribeOrderableDBInstanceOptions "
            "for the classes that there are."
        )
    if found.serverless and cluster.serverless_v2 is None:
        raise states.cluster_state(
            "Set the Serverless v2 scaling configuration on the parent DB cluster before creating a "
            "Serverless v2 DB instance."
        )
    return found


def chosen_tier(params: Params, default: int) -> int:
    """A promotion tier. Raises ApiError InvalidParameterValue."""
    tier = params.integer("PromotionTier")
    tier = default if tier is None else tier
    if not 0 <= tier <= TIER_MAX:
        raise invalid_value(f"Invalid promotion tier: {tier}. Must be between 0 and {TIER_MAX}.")
    return tier


def chosen_certificate(params: Params, default: str) -> str:
    """A certificate authority. Raises ApiError CertificateNotFound."""
    name = params.string("CACertificateIdentifier") or default
    if name not in CERTIFICATES:
        raise ApiError(
            "CertificateNotFound", f"Certificate not found: {name}. There are: {', '.join(CERTIFICATES)}."
        )
    return name


def _zone(context: Context, cluster: Cluster, given: str | None) -> str:
    """The zone asked for; empty leaves the choice to the control plane.

    Raises ApiError InvalidParameterValue.
    """
    if not given:
        return ""
    if given not in context.zones:
        raise invalid_value(
            f"Invalid availability zone: {given}. Zones of this region: {', '.join(context.zones)}."
        )
    if given not in cluster.availability_zones:
        raise invalid_value(
            f"The DB cluster {cluster.identifier} is not in the availability zone {given}, but in "
            f"{', '.join(cluster.availability_zones)}."
        )
    return given


def _licence(cluster: Cluster, given: str | None) -> str:
    licence = profile(cluster.engine).licence
    if given not in (None, licence):
        raise invalid_value(
            f"Invalid license model '{given}' for engine '{cluster.engine}'. Valid license models are: "
            f"{licence}."
        )
    return licence


def _check_cluster_takes_members(context: Context, cluster: Cluster) -> None:
    """Raises ApiError InvalidDBClusterStateFault, InstanceQuotaExceeded."""
    states.check_cluster(cluster, *(status for status in ClusterStatus if status not in _NO_NEW_MEMBERS))
    members, quotas = context.store.instances(cluster.key), context.quotas
    if len(members) >= quotas.instances_per_cluster:
        raise ApiError(
            "InstanceQuotaExceeded",
            f"The DB cluster {cluster.identifier} has {len(members)} DB instances, the most that a DB "
            "cluster can have: "
            f"one writer and {quotas.instances_per_cluster - 1} readers.",
        )
    if len(context.store.instances()) >= quotas.instances:
        raise ApiError(
            "InstanceQuotaExceeded",
            f"You have reached the maximum of {quotas.instances} DB instances in this region.",
        )


@operations.operation("DescribeDBInstances", {**LISTED, "DBInstanceIdentifier": EFFECT})
async def describe_db_instances(call: Call, params: Params) -> Result:
    """One instance, or all that match the filters."""
    context = call.context
    name = params.string("DBInstanceIdentifier")
    found = [identifiers.find_instance(context, name)] if name else context.store.instances()
    pairs = [(identifiers.cluster_of(context, instance), instance) for instance in found]
    matching = filtered(
        params,
        pairs,
        {
            "db-cluster-id": lambda pair: (pair[0].identifier, pair[0].arn),
            "db-instance-id": lambda pair: (pair[1].identifier, pair[1].arn),
            "dbi-resource-id": lambda pair: (pair[1].resource_id,),
            "engine": lambda pair: (pair[1].engine,),
            "domain": lambda pair: (),
        },
    )
    shown, marker = page(params, matching, lambda pair: pair[1].identifier)
    return {"DBInstances": [instance_view(context, *pair) for pair in shown], "Marker": marker}


@operations.operation(
    "RebootDBInstance",
    {
        "DBInstanceIdentifier": EFFECT,
        "ForceFailover": only(
            False, why="it belongs to Multi-AZ instances; FailoverDBCluster moves the writer of a DB cluster"
        ),
    },
)
async def reboot_db_instance(call: Call, params: Params) -> Result:
    """Ask for a restart of an instance. A writer stays the writer."""
    context = call.context
    instance = identifiers.find_instance(context, params.text("DBInstanceIdentifier"))
    states.check_instance(instance, InstanceStatus.AVAILABLE, InstanceStatus.FAILED)
    request = RebootRequest(requested_at=context.clock())
    changed = instance.but(status=InstanceStatus.REBOOTING, reboot=request)
    return await store(context, changed)


@operations.operation(
    "DeleteDBInstance",
    {
        **all_of(EFFECT, "DBInstanceIdentifier", "SkipFinalSnapshot"),
        **all_of(EFFECT, "DeleteAutomatedBackups"),
        "FinalDBSnapshotIdentifier": EFFECT,
    },
)
async def delete_db_instance(call: Call, params: Params) -> Result:
    """Say that an instance is to go.

    The cluster's data stays, with the cluster's other instances or without any.
    """
    context = call.context
    instance = identifiers.find_instance(context, params.text("DBInstanceIdentifier"))
    if params.string("FinalDBSnapshotIdentifier"):
        raise invalid_combination(
            "FinalDBSnapshotIdentifier can not be specified when deleting a cluster instance"
        )
    if instance.status is InstanceStatus.DELETING:
        states.check_instance(instance)
    gone = instance.but(status=InstanceStatus.DELETING, want=Want.DELETED)
    return await store(context, gone, *_without_member(context, instance))


def _without_member(context: Context, instance: Instance) -> list[Op]:
    """The cluster's custom endpoints without a member that goes, so that a later namesake is not one by
    chance.
    """
    changed: list[Op] = []
    for endpoint in context.store.endpoints(instance.cluster):
        static = tuple(name for name in endpoint.static_members if name != instance.identifier)
        excluded = tuple(name for name in endpoint.excluded_members if name != instance.identifier)
        without = endpoint.but(static_members=static, excluded_members=excluded)
        if without != endpoint and (static or not endpoint.static_members):
            changed.append(Put(without))
    return changed


async def store(context: Context, instance: Instance, *more: Op) -> Result:
    """Commit a changed instance, with what changes together with it, and answer it."""
    cluster = identifiers.cluster_of(context, instance)
    await context.store.commit([Put(instance), *more])
    context.control.kick(cluster.key)
    return {"DBInstance": instance_view(context, cluster, instance)}
