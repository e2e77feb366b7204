"""Records as the API shows them: DBCluster, DBInstance, DBClusterEndpoint, DBSubnetGroup.

Owns the mapping from records to the members of AWS's output shapes, and nothing else: it changes nothing and
asks nobody.
"""

from __future__ import annotations

from typing import Any

from borealis.api.context import Context
from borealis.api.rds import network
from borealis.api.rds.capacity import capacity_view
from borealis.api.rds.engine_profiles import option_group
from borealis.api.rds.tagging import tag_list
from borealis.control.records import (
    Cluster,
    ClusterPending,
    CustomEndpoint,
    Instance,
    InstancePending,
    SubnetGroup,
)

#: What AWS shows instead of a password.
_HIDDEN = "****"


def cluster_view(context: Context, cluster: Cluster) -> dict[str, Any]:
    """A DBCluster."""
    members = context.store.instances(cluster.key)
    zones = {member.availability_zone for member in members if member.availability_zone}
    names = context.names
    custom = [names.custom(cluster, endpoint) for endpoint in context.store.endpoints(cluster.key)]
    return {
        "AllocatedStorage": 1,
        "AvailabilityZones": list(cluster.availability_zones),
        "BackupRetentionPeriod": cluster.backup_retention_period,
        "DatabaseName": cluster.database_name or None,
        "DBClusterIdentifier": cluster.identifier,
        "DBClusterParameterGroup": cluster.parameter_group,
        "DBSubnetGroup": cluster.subnet_group,
        "Status": str(cluster.status),
        "Endpoint": names.writer(cluster),
        "ReaderEndpoint": names.reader(cluster),
        "CustomEndpoints": [name for name in custom if name],
        "MultiAZ": len(zones) > 1,
        "Engine": cluster.engine,
        "EngineVersion": cluster.engine_version,
        "Port": cluster.port,
        "MasterUsername": cluster.master_username,
        "PreferredBackupWindow": cluster.preferred_backup_window,
        "PreferredMaintenanceWindow": cluster.preferred_maintenance_window,
        "ReadReplicaIdentifiers": [],
        "DBClusterMembers": [_member_view(cluster, member) for member in members],
        "VpcSecurityGroups": _security_groups_view(cluster),
        "HostedZoneId": network.hosted_zone_id(context),
        "StorageEncrypted": cluster.storage_encrypted,
        "KmsKeyId": cluster.kms_key_id or None,
        "DbClusterResourceId": cluster.resource_id,
        "DBClusterArn": cluster.arn,
        "AssociatedRoles": [],
        "IAMDatabaseAuthenticationEnabled": cluster.iam_auth,
        "ClusterCreateTime": cluster.created_at,
        "EnabledCloudwatchLogsExports": list(cluster.enabled_log_exports) or None,
        "PendingModifiedValues": _cluster_pending_view(cluster.pending),
        "EngineMode": cluster.engine_mode,
        "StorageType": cluster.storage_type or "aurora",
        "AutoMinorVersionUpgrade": cluster.auto_minor_version_upgrade,
        "DeletionProtection": cluster.deletion_protection,
        "HttpEndpointEnabled": cluster.http_endpoint,
        "ActivityStreamStatus": "stopped",
        "CopyTagsToSnapshot": cluster.copy_tags_to_snapshot,
        "CrossAccountClone": False,
        "DomainMemberships": [],
        "TagList": tag_list(cluster.tags),
        "NetworkType": cluster.network_type,
        "ServerlessV2ScalingConfiguration": capacity_view(cluster.serverless_v2),
        "MonitoringInterval": cluster.monitoring_interval,
        "DatabaseInsightsMode": cluster.database_insights_mode,
        "PerformanceInsightsEnabled": cluster.performance_insights,
        "EngineLifecycleSupport": cluster.engine_lifecycle_support,
    }


def _member_view(cluster: Cluster, member: Instance) -> dict[str, Any]:
    return {
        "DBInstanceIdentifier": member.identifier,
        "IsClusterWriter": member.key == cluster.writer,
        "DBClusterParameterGroupStatus": "in-sync",
        "PromotionTier": member.promotion_tier,
    }


def _security_groups_view(cluster: Cluster) -> list[dict[str, str]]:
    return [{"VpcSecurityGroupId": group, "Status": "active"} for group in cluster.vpc_security_groups]


def _cluster_pending_view(pending: ClusterPending) -> dict[str, Any] | None:
    """Waiting changes, or None: clients wait until the whole element is gone.

    A waiting port has no member in AWS's model.
    """
    shown = {
        "DBClusterIdentifier": pending.identifier,
        "MasterUserPassword": _HIDDEN if pending.master_verifier is not None else None,
        "EngineVersion": pending.engine_version,
    }
    return shown if any(shown.values()) else None


def instance_view(context: Context, cluster: Cluster, instance: Instance) -> dict[str, Any]:
    """A DBInstance."""
    group = context.store.subnet_group_named(cluster.subnet_group)
    return {
        "DBInstanceIdentifier": instance.identifier,
        "DBInstanceClass": instance.instance_class,
        "Engine": instance.engine,
        "DBInstanceStatus": str(instance.status),
        "MasterUsername": cluster.master_username,
        "DBName": cluster.database_name or None,
        "Endpoint": _instance_endpoint_view(context, cluster, instance),
        "AllocatedStorage": 1,
        "InstanceCreateTime": instance.created_at,
        "PreferredBackupWindow": instance.preferred_backup_window or cluster.preferred_backup_window,
        "BackupRetentionPeriod": cluster.backup_retention_period,
        "DBSecurityGroups": [],
        "VpcSecurityGroups": _security_groups_view(cluster),
        "DBParameterGroups": [
            {"DBParameterGroupName": instance.parameter_group, "ParameterApplyStatus": "in-sync"}
        ],
        "AvailabilityZone": instance.availability_zone or None,
        "DBSubnetGroup": subnet_group_view(group) if group else None,
        "PreferredMaintenanceWindow": instance.preferred_maintenance_window,
        "PendingModifiedValues": _instance_pending_view(instance.pending),
        "MultiAZ": False,
        "EngineVersion": instance.engine_version,
        "AutoMinorVersionUpgrade": instance.auto_minor_version_upgrade,
        "ReadReplicaDBInstanceIdentifiers": [],
        "LicenseModel": instance.license_model,
        "OptionGroupMemberships": [
            {
                "OptionGroupName": option_group(context, instance.engine, instance.engine_version),
                "Status": "in-sync",
            }
        ],
        "PubliclyAccessible": instance.publicly_accessible,
        "StorageType": cluster.storage_type or "aurora",
        "DbInstancePort": 0,
        "DBClusterIdentifier": cluster.identifier,
        "StorageEncrypted": cluster.storage_encrypted,
        "KmsKeyId": cluster.kms_key_id or None,
        "DbiResourceId": instance.resource_id,
        "CACertificateIdentifier": instance.ca_certificate_identifier,
        "DomainMemberships": [],
        "CopyTagsToSnapshot": instance.copy_tags_to_snapshot,
        "MonitoringInterval": instance.monitoring_interval,
        "PromotionTier": instance.promotion_tier,
        "DBInstanceArn": instance.arn,
        "IAMDatabaseAuthenticationEnabled": cluster.iam_auth,
        "DatabaseInsightsMode": instance.database_insights_mode,
        "PerformanceInsightsEnabled": instance.performance_insights,
        "DeletionProtection": False,
        "AssociatedRoles": [],
        "TagList": tag_list(instance.tags),
        "CustomerOwnedIpEnabled": False,
        "NetworkType": cluster.network_type,
        "ActivityStreamStatus": "stopped",
        "BackupTarget": "region",
        "MultiTenant": False,
        "DedicatedLogVolume": False,
        "EngineLifecycleSupport": cluster.engine_lifecycle_support,
    }


def _instance_endpoint_view(context: Context, cluster: Cluster, instance: Instance) -> dict[str, Any] | None:
    host = context.names.instance(cluster, instance)
    if host is None:
        return None
    return {"Address": host, "Port": cluster.port, "HostedZoneId": network.hosted_zone_id(context)}


def _instance_pending_view(pending: InstancePending) -> dict[str, Any]:
    return {
        "DBInstanceClass": pending.instance_class,
        "EngineVersion": pending.engine_version,
        "DBInstanceIdentifier": pending.identifier,
        "CACertificateIdentifier": pending.ca_certificate_identifier,
    }


def custom_endpoint_view(context: Context, cluster: Cluster, endpoint: CustomEndpoint) -> dict[str, Any]:
    """A DBClusterEndpoint that a user made."""
    return {
        "DBClusterEndpointIdentifier": endpoint.identifier,
        "DBClusterIdentifier": cluster.identifier,
        "DBClusterEndpointResourceIdentifier": endpoint.resource_id,
        "Endpoint": context.names.custom(cluster, endpoint),
        "Status": str(endpoint.status),
        "EndpointType": "CUSTOM",
        "CustomEndpointType": endpoint.endpoint_type,
        "StaticMembers": list(endpoint.static_members),
        "ExcludedMembers": list(endpoint.excluded_members),
        "DBClusterEndpointArn": endpoint.arn,
    }


def subnet_group_view(group: SubnetGroup) -> dict[str, Any]:
    """A DBSubnetGroup."""
    return {
        "DBSubnetGroupName": group.identifier,
        "DBSubnetGroupDescription": group.description,
        "VpcId": group.vpc_id,
        "SubnetGroupStatus": "Complete",
        "Subnets": [
            {
                "SubnetIdentifier": subnet.id,
                "SubnetAvailabilityZone": {"Name": subnet.availability_zone},
                "SubnetOutpost": {},
                "SubnetStatus": "Active",
            }
            for subnet in group.subnets
        ],
        "DBSubnetGroupArn": group.arn,
        "SupportedNetworkTypes": ["IPV4"],
    }
