"""The `rds` service: one module per resource, one function per operation."""

from borealis.api.rds import (
    cluster_actions,
    clusters,
    endpoints,
    engine_versions,
    events,
    global_clusters,
    instances,
    modify_cluster,
    modify_instance,
    orderable,
    subnet_groups,
    tags,
)
from borealis.api.rds.service import operations

__all__ = [
    "cluster_actions",
    "clusters",
    "endpoints",
    "engine_versions",
    "events",
    "global_clusters",
    "instances",
    "modify_cluster",
    "modify_instance",
    "operations",
    "orderable",
    "subnet_groups",
    "tags",
]
