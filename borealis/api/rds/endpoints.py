"""Cluster endpoints: the writer and reader endpoints that every cluster has, and custom ones."""

from __future__ import annotations

from typing import Any

from borealis.api.context import Call, Context
from borealis.api.errors import ApiError, invalid_combination, invalid_value
from borealis.api.params import Params
from borealis.api.rds import identifiers, states
from borealis.api.rds.listing import LISTED, filtered, page
from borealis.api.rds.service import operations
from borealis.api.rds.tagging import given_tags, with_tags
from borealis.api.rds.views import custom_endpoint_view
from borealis.api.registry import EFFECT, Result, all_of
from borealis.control.records import Cluster, CustomEndpoint, new_endpoint_resource_id, rds_arn
from borealis.control.states import ClusterStatus, EndpointStatus, Want
from borealis.control.store import Put

_TYPES = ("READER", "ANY")
#: A cluster in these states keeps its endpoints as they are.
_CLUSTER_STATES = (ClusterStatus.AVAILABLE, ClusterStatus.FAILING_OVER, ClusterStatus.MODIFYING)


@operations.operation(
    "CreateDBClusterEndpoint",
    all_of(
        EFFECT,
        "DBClusterIdentifier",
        "DBClusterEndpointIdentifier",
        "EndpointType",
        "StaticMembers",
        "ExcludedMembers",
        "Tags",
    ),
)
async def create_db_cluster_endpoint(call: Call, params: Params) -> Result:
    """Store a new custom endpoint; the control plane makes it reachable."""
    context = call.context
    cluster = identifiers.find_cluster(context, params.text("DBClusterIdentifier"))
    name = identifiers.new_identifier(
        params.text("DBClusterEndpointIdentifier"), "DBClusterEndpointIdentifier"
    )
    kind = _type(params.text("EndpointType"))
    static, excluded = _members(context, cluster, params)
    tags = with_tags(context, {}, given_tags(params))
    states.check_cluster(cluster, *_CLUSTER_STATES)
    if context.store.endpoint_named(name) is not None:
        raise ApiError("DBClusterEndpointAlreadyExistsFault", "DB Cluster Endpoint already exists")
    most = context.quotas.custom_endpoints_per_cluster
    if len(context.store.endpoints(cluster.key)) >= most:
        raise ApiError(
            "DBClusterEndpointQuotaExceededFault", f"A DB cluster can have at most {most} custom endpoints."
        )
    endpoint = CustomEndpoint(
        resource_id=new_endpoint_resource_id(),
        identifier=name,
        arn=rds_arn(context.region, context.account, "cluster-endpoint", name),
        cluster=cluster.key,
        endpoint_type=kind,
        static_members=static,
        excluded_members=excluded,
        tags=tags,
        created_at=context.clock(),
    )
    return await _store(context, cluster, endpoint)


@operations.operation(
    "ModifyDBClusterEndpoint",
    all_of(EFFECT, "DBClusterEndpointIdentifier", "EndpointType", "StaticMembers", "ExcludedMembers"),
)
async def modify_db_cluster_endpoint(call: Call, params: Params) -> Result:
    """Change the type or the members of a custom endpoint."""
    context = call.context
    endpoint = identifiers.find_endpoint(context, params.text("DBClusterEndpointIdentifier"))
    cluster = _cluster(context, endpoint)
    _check_state(endpoint, EndpointStatus.AVAILABLE, EndpointStatus.INACTIVE)
    kind = params.string("EndpointType")
    changed = endpoint.but(endpoint_type=_type(kind) if kind else endpoint.endpoint_type)
    if "StaticMembers" in params or "ExcludedMembers" in params:
        # The two lists exclude each other: giving one replaces both.
        static, excluded = _members(context, cluster, params)
        changed = changed.but(static_members=static, excluded_members=excluded)
    if changed == endpoint:
        return custom_endpoint_view(context, cluster, endpoint)
    return await _store(context, cluster, changed.but(status=EndpointStatus.MODIFYING))


@operations.operation("DeleteDBClusterEndpoint", all_of(EFFECT, "DBClusterEndpointIdentifier"))
async def delete_db_cluster_endpoint(call: Call, params: Params) -> Result:
    """Say that a custom endpoint is to go."""
    context = call.context
    endpoint = identifiers.find_endpoint(context, params.text("DBClusterEndpointIdentifier"))
    _check_state(endpoint, *(status for status in EndpointStatus if status is not EndpointStatus.DELETING))
    gone = endpoint.but(status=EndpointStatus.DELETING, want=Want.DELETED)
    return await _store(context, _cluster(context, endpoint), gone)


@operations.operation(
    "DescribeDBClusterEndpoints",
    {**LISTED, **all_of(EFFECT, "DBClusterIdentifier", "DBClusterEndpointIdentifier")},
)
async def describe_db_cluster_endpoints(call: Call, params: Params) -> Result:
    """Endpoints of one cluster or of all: the built-in ones and the custom ones."""
    context = call.context
    name, wanted = params.string("DBClusterIdentifier"), params.string("DBClusterEndpointIdentifier")
    clusters = [identifiers.find_cluster(context, name)] if name else context.store.clusters()
    views = [view for cluster in clusters for view in _endpoint_views(context, cluster)]
    if wanted:
        views = [v for v in views if v.get("DBClusterEndpointIdentifier") == wanted.lower()]
    matching = filtered(
        params,
        views,
        {
            "db-cluster-endpoint-type": lambda view: (view["EndpointType"],),
            "db-cluster-endpoint-custom-type": lambda view: _given(view, "CustomEndpointType"),
            "db-cluster-endpoint-id": lambda view: _given(view, "DBClusterEndpointIdentifier"),
            "db-cluster-endpoint-status": lambda view: (view["Status"],),
        },
    )
    shown, marker = page(params, matching, _sort_key)
    return {"DBClusterEndpoints": shown, "Marker": marker}


def _given(view: dict[str, Any], member: str) -> tuple[str, ...]:
    return (view[member],) if member in view else ()


def _sort_key(view: dict[str, Any]) -> str:
    order = ("WRITER", "READER", "CUSTOM").index(view["EndpointType"])
    return f"{view['DBClusterIdentifier']}/{order}/{view.get('DBClusterEndpointIdentifier', '')}"


def _endpoint_views(context: Context, cluster: Cluster) -> list[dict[str, Any]]:
    status = str(
        EndpointStatus.CREATING if cluster.status is ClusterStatus.CREATING else EndpointStatus.AVAILABLE
    )
    built_in = {"WRITER": context.names.writer(cluster), "READER": context.names.reader(cluster)}
    views: list[dict[str, Any]] = [
        {"DBClusterIdentifier": cluster.identifier, "Endpoint": host, "Status": status, "EndpointType": kind}
        for kind, host in built_in.items()
    ]
    views += [
        custom_endpoint_view(context, cluster, endpoint) for endpoint in context.store.endpoints(cluster.key)
    ]
    return views


def _type(text: str) -> str:
    if text.upper() not in _TYPES:
        raise invalid_value(
            f"Invalid endpoint type: {text}. A custom endpoint's type is {' or '.join(_TYPES)}."
        )
    return text.upper()


def _members(context: Context, cluster: Cluster, params: Params) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Static and excluded members, by identifier.

    Raises ApiError DBInstanceNotFound, InvalidParameterCombination.
    """
    static, excluded = params.strings("StaticMembers") or (), params.strings("ExcludedMembers") or ()
    if static and excluded:
        raise invalid_combination("StaticMembers and ExcludedMembers can not be specified together.")
    for name in (*static, *excluded):
        found = context.store.instance_named(name)
        if found is None or found.cluster != cluster.key:
            raise ApiError(
                "DBInstanceNotFound",
                f"DBInstance {name} is not a member of the DB cluster {cluster.identifier}.",
            )
    return _distinct(static), _distinct(excluded)


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.lower() for name in names))


def _check_state(endpoint: CustomEndpoint, *allowed: EndpointStatus) -> None:
    if endpoint.status not in allowed:
        raise ApiError(
            "InvalidDBClusterEndpointStateFault",
            f"DB cluster endpoint {endpoint.identifier} is {endpoint.status}; it must be "
            f"{' or '.join(sorted(allowed))}.",
        )


def _cluster(context: Context, endpoint: CustomEndpoint) -> Cluster:
    cluster = context.store.cluster(endpoint.cluster)
    if cluster is None:
        raise ApiError(
            "DBClusterEndpointNotFoundFault", f"DBClusterEndpoint {endpoint.identifier} not found."
        )
    return cluster


async def _store(context: Context, cluster: Cluster, endpoint: CustomEndpoint) -> Result:
    await context.store.commit([Put(endpoint)])
    context.control.kick(cluster.key)
    return custom_endpoint_view(context, cluster, endpoint)
