"""DB instances: ModifyDBInstance.

A new class or a new name waits for the maintenance window, or, with ApplyImmediately, is carried out now. The
control plane carries it out, and lets custom endpoints follow a new name.
"""

from __future__ import annotations

from borealis.api.context import Call, Context
from borealis.api.errors import ApiError
from borealis.api.params import Params
from borealis.api.rds import identifiers, parameter_groups, states, windows
from borealis.api.rds.engine_profiles import find_version
from borealis.api.rds.instances import (
    OF_THE_CLUSTER,
    chosen_certificate,
    chosen_class,
    chosen_tier,
    name_taken,
    store,
)
from borealis.api.rds.service import operations
from borealis.api.rds.support import INSTANCE_OFF, of_the_cluster
from borealis.api.rds.views import instance_view
from borealis.api.registry import EFFECT, SHOWN, Result, all_of, only
from borealis.control.records import Cluster, Instance, InstancePending
from borealis.control.states import InstanceStatus

_MODIFY = {
    **all_of(
        EFFECT,
        "DBInstanceIdentifier",
        "DBInstanceClass",
        "NewDBInstanceIdentifier",
        "ApplyImmediately",
        "PromotionTier",
    ),
    **all_of(EFFECT, "PreferredMaintenanceWindow"),
    **all_of(
        SHOWN,
        "AutoMinorVersionUpgrade",
        "CopyTagsToSnapshot",
        "CACertificateIdentifier",
        "DBParameterGroupName",
    ),
    **INSTANCE_OFF,
    **OF_THE_CLUSTER,
    "EngineVersion": of_the_cluster("EngineVersion", "the engine version"),
    "DBPortNumber": of_the_cluster("DBPortNumber", "the port"),
    "AllowMajorVersionUpgrade": only(False, why="upgrades to another major version are not there yet"),
    "CloudwatchLogsExportConfiguration": only({}, why="exporting logs is not there yet"),
    "RotateMasterUserPassword": only(
        False, why="managing the master password in Secrets Manager is not there yet"
    ),
}


@operations.operation("ModifyDBInstance", _MODIFY)
async def modify_db_instance(call: Call, params: Params) -> Result:
    """Change an instance's settings, now or in its next maintenance window."""
    context = call.context
    instance = identifiers.find_instance(context, params.text("DBInstanceIdentifier"))
    cluster = identifiers.cluster_of(context, instance)
    states.check_instance(instance, *states.INSTANCE_AT_REST)
    changed = _shown_changes(context, cluster, instance, params)
    changed = _pending_changes(context, cluster, changed, params)
    if changed.status is not instance.status:
        states.check_instance(instance, InstanceStatus.AVAILABLE)
    if changed == instance:
        return {"DBInstance": instance_view(context, cluster, instance)}
    return await store(context, changed)


def _shown_changes(context: Context, cluster: Cluster, instance: Instance, params: Params) -> Instance:
    window = params.string("PreferredMaintenanceWindow")
    group = params.string("DBParameterGroupName")
    changed = instance.but(
        promotion_tier=chosen_tier(params, instance.promotion_tier),
        auto_minor_version_upgrade=params.boolean(
            "AutoMinorVersionUpgrade", instance.auto_minor_version_upgrade
        ),
        copy_tags_to_snapshot=params.boolean("CopyTagsToSnapshot", instance.copy_tags_to_snapshot),
        ca_certificate_identifier=chosen_certificate(params, instance.ca_certificate_identifier),
        preferred_maintenance_window=windows.maintenance_window(window)
        if window
        else instance.preferred_maintenance_window,
    )
    if group:
        version = find_version(context, cluster.engine, cluster.engine_version)
        changed = changed.but(parameter_group=parameter_groups.chosen_instance_group(version, group))
    return changed


def _pending_changes(context: Context, cluster: Cluster, instance: Instance, params: Params) -> Instance:
    """The instance with the changes that have to be carried out, and its new status if they are to be carried
    out now.
    """
    pending = instance.pending.but(
        identifier=_new_identifier(context, instance, params) or instance.pending.identifier,
        instance_class=_new_class(context, cluster, instance, params),
    )
    changed = instance.but(pending=pending)
    if not pending or not params.boolean("ApplyImmediately"):
        return changed
    return changed.but(apply_pending=True, status=_status_while(pending))


def _status_while(pending: InstancePending) -> InstanceStatus:
    return InstanceStatus.RENAMING if pending.instance_class is None else InstanceStatus.MODIFYING


def _new_identifier(context: Context, instance: Instance, params: Params) -> str | None:
    wanted = params.string("NewDBInstanceIdentifier")
    if not wanted:
        return None
    name = identifiers.new_identifier(wanted, "NewDBInstanceIdentifier")
    if name in (instance.identifier, instance.pending.identifier):
        return None
    if name_taken(context, name):
        raise ApiError("DBInstanceAlreadyExists", "DB instance already exists")
    return name


def _new_class(context: Context, cluster: Cluster, instance: Instance, params: Params) -> str | None:
    """The class that waits. Asking for the present class takes back a change that waits."""
    wanted = params.string("DBInstanceClass")
    if not wanted:
        return instance.pending.instance_class
    name = chosen_class(context, cluster, wanted).name
    return name if name != instance.instance_class else None
