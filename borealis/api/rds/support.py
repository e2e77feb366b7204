"""Parameters that several operations treat alike: features that are not there yet, accepted only when they
are turned off.
"""

from __future__ import annotations

from borealis.api.registry import Support, only, refused

NO_SNAPSHOTS = "Cluster snapshots are not there yet: use SkipFinalSnapshot=true."

#: Of clusters and instances.
_OFF = {
    "EnableIAMDatabaseAuthentication": only(False, why="IAM database authentication is not there yet"),
    "EnablePerformanceInsights": only(False, why="Performance Insights is not there yet"),
    "DatabaseInsightsMode": only("standard", why="Database Insights is not there yet"),
    "MonitoringInterval": only(0, why="enhanced monitoring is not there yet"),
    "NetworkType": only("IPV4", why="endpoints have IPv4 addresses"),
    "MasterUserAuthenticationType": only("password", why="IAM database authentication is not there yet"),
    "ManageMasterUserPassword": only(
        False, why="managing the master password in Secrets Manager is not there yet; give MasterUserPassword"
    ),
}

CLUSTER_OFF: dict[str, Support] = {
    **_OFF,
    "BacktrackWindow": only(0, why="backtracking is not there yet"),
    "EnableHttpEndpoint": only(False, why="the RDS Data API is not there yet"),
    "EnableGlobalWriteForwarding": only(False, why="global clusters are not there yet"),
    "EnableLocalWriteForwarding": only(False, why="write forwarding is not there yet"),
}

INSTANCE_OFF: dict[str, Support] = {
    **_OFF,
    "PubliclyAccessible": only(False, why="endpoints have loopback addresses of this machine"),
    "MultiAZ": only(False, why="in a DB cluster, further instances in other zones are the standby"),
    "EnableCustomerOwnedIp": only(False, why="it belongs to AWS Outposts"),
    "DedicatedLogVolume": only(False, why="instances of a DB cluster have no storage of their own"),
    "DeletionProtection": only(False, why="in a DB cluster it is set for the cluster"),
}


def of_the_cluster(parameter: str, what: str) -> Support:
    """A parameter of instances that a DB cluster's instances take from their cluster."""
    return refused(
        f"The DB instance is a member of a DB cluster: {parameter} cannot be given. Set {what} for the "
        "DB cluster."
    )
