"""Tags of any rds resource, by its ARN."""

from __future__ import annotations

from collections.abc import Callable

from borealis.api.context import Call, Context
from borealis.api.errors import ApiError, invalid_value
from borealis.api.params import Params
from borealis.api.rds import identifiers
from borealis.api.rds.listing import filtered
from borealis.api.rds.service import operations
from borealis.api.rds.tagging import given_tags, tag_list, with_tags
from borealis.api.registry import EFFECT, Result, all_of
from borealis.control.records import Cluster, CustomEndpoint, Instance, SubnetGroup
from borealis.control.store import Put

Tagged = Cluster | Instance | CustomEndpoint | SubnetGroup

#: Kinds of ARN, the way to the record, and AWS's code when there is none.
_FINDERS: dict[str, Callable[[Context, str], Tagged]] = {
    "cluster": identifiers.find_cluster,
    "db": identifiers.find_instance,
    "cluster-endpoint": identifiers.find_endpoint,
    "subgrp": identifiers.find_subnet_group,
}


def _find(context: Context, params: Params) -> Tagged:
    """The resource of an ARN. Raises ApiError: InvalidParameterValue, or the kind's own not-found code."""
    text = params.text("ResourceName")
    arn = identifiers.parse_arn(text)
    if arn is None:
        raise invalid_value(
            f"Invalid resource name: {text}. An ARN is expected, such as "
            "arn:aws:rds:REGION:ACCOUNT:cluster:NAME."
        )
    if (arn.region, arn.account) != (context.region, context.account):
        raise invalid_value(
            f"The resource {text} is not of this region ({context.region}) and account ({context.account})."
        )
    finder = _FINDERS.get(arn.kind)
    if finder is None:
        raise invalid_value(
            f"Invalid resource name: {text}. Kinds that can be tagged: {', '.join(_FINDERS)}."
        )
    return finder(context, text)


async def _store(context: Context, resource: Tagged, tags: dict[str, str]) -> Result:
    if tags != resource.tags:
        await context.store.commit([Put(resource.but(tags=tags))])
    return {}


@operations.operation("AddTagsToResource", all_of(EFFECT, "ResourceName", "Tags"))
async def add_tags_to_resource(call: Call, params: Params) -> Result:
    """Add tags, or give those with the same keys new values."""
    resource = _find(call.context, params)
    return await _store(call.context, resource, with_tags(call.context, resource.tags, given_tags(params)))


@operations.operation("RemoveTagsFromResource", all_of(EFFECT, "ResourceName", "TagKeys"))
async def remove_tags_from_resource(call: Call, params: Params) -> Result:
    """Remove tags by their keys; a key that is not there is no error."""
    resource = _find(call.context, params)
    gone = set(params.strings("TagKeys") or ())
    return await _store(call.context, resource, {k: v for k, v in resource.tags.items() if k not in gone})


@operations.operation("ListTagsForResource", all_of(EFFECT, "ResourceName", "Filters"))
async def list_tags_for_resource(call: Call, params: Params) -> Result:
    """All tags of a resource."""
    try:
        resource = _find(call.context, params)
    except ApiError as error:
        # This operation's model has no error for custom endpoints; AWS answers the general one.
        if error.code == "DBClusterEndpointNotFoundFault":
            raise ApiError("DBClusterNotFoundFault", error.message) from None
        raise
    filtered(params, (), {})
    return {"TagList": tag_list(resource.tags)}
