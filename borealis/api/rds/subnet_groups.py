"""DB subnet groups: which availability zones a cluster may use.

The group `default` has all of them and is always there.
"""

from __future__ import annotations

import re

from borealis.api.context import Call, Context
from borealis.api.errors import ApiError, invalid_value
from borealis.api.params import Params
from borealis.api.rds import identifiers, network
from borealis.api.rds.listing import LISTED, filtered, page
from borealis.api.rds.service import operations
from borealis.api.rds.tagging import given_tags, with_tags
from borealis.api.rds.views import subnet_group_view
from borealis.api.registry import EFFECT, SHOWN, Result, all_of
from borealis.control.records import SubnetGroup, rds_arn
from borealis.control.store import Delete, Put

_NAME = re.compile(r"[a-z0-9._ \-]+")


@operations.preparation
async def make_default_group(context: Context) -> None:
    """Store the default group if it is not there."""
    if context.store.subnet_group_named(network.DEFAULT_GROUP) is None:
        await context.store.commit([Put(network.default_subnet_group(context))])


@operations.operation(
    "CreateDBSubnetGroup",
    {**all_of(EFFECT, "DBSubnetGroupName", "SubnetIds", "Tags"), "DBSubnetGroupDescription": SHOWN},
)
async def create_db_subnet_group(call: Call, params: Params) -> Result:
    """Store a new subnet group."""
    context = call.context
    name = _new_name(params.text("DBSubnetGroupName"))
    group = SubnetGroup(
        identifier=name,
        arn=rds_arn(context.region, context.account, "subgrp", name),
        description=params.text("DBSubnetGroupDescription"),
        vpc_id=network.vpc_id(context),
        subnets=network.chosen_subnets(context, params.strings("SubnetIds") or ()),
        tags=with_tags(context, {}, given_tags(params)),
    )
    if context.store.subnet_group_named(name) is not None:
        raise ApiError("DBSubnetGroupAlreadyExists", f"The DB subnet group '{name}' already exists.")
    if len(context.store.subnet_groups()) >= context.quotas.subnet_groups:
        raise ApiError(
            "DBSubnetGroupQuotaExceeded",
            f"You have reached the maximum of {context.quotas.subnet_groups} DB subnet groups.",
        )
    await context.store.commit([Put(group)])
    return {"DBSubnetGroup": subnet_group_view(group)}


def _new_name(text: str) -> str:
    name = text.lower()
    if len(name) > identifiers.SUBNET_GROUP_NAME_MAX or not _NAME.fullmatch(name):
        raise invalid_value(
            "The parameter DBSubnetGroupName is not valid: it must contain no more than "
            f"{identifiers.SUBNET_GROUP_NAME_MAX} letters, numbers, periods, underscores, spaces, or hyphens."
        )
    return name


@operations.operation(
    "ModifyDBSubnetGroup",
    {**all_of(EFFECT, "DBSubnetGroupName", "SubnetIds"), "DBSubnetGroupDescription": SHOWN},
)
async def modify_db_subnet_group(call: Call, params: Params) -> Result:
    """Replace a group's subnets: for the clusters that are created from now on."""
    context = call.context
    group = identifiers.find_subnet_group(context, params.text("DBSubnetGroupName"))
    if group.identifier == network.DEFAULT_GROUP:
        raise ApiError("InvalidDBSubnetGroupStateFault", "The default DB subnet group cannot be modified.")
    chosen = network.chosen_subnets(context, params.strings("SubnetIds") or ())
    _check_still_covered(context, group, {subnet.availability_zone for subnet in chosen})
    changed = group.but(
        subnets=chosen, description=params.string("DBSubnetGroupDescription") or group.description
    )
    await context.store.commit([Put(changed)])
    return {"DBSubnetGroup": subnet_group_view(changed)}


def _check_still_covered(context: Context, group: SubnetGroup, zones: set[str]) -> None:
    """The zones of the group's clusters must stay. Raises ApiError SubnetAlreadyInUse."""
    for cluster in context.store.clusters():
        lost = sorted(set(cluster.availability_zones) - zones)
        if cluster.subnet_group == group.identifier and lost:
            raise ApiError(
                "SubnetAlreadyInUse",
                f"The DB cluster {cluster.identifier} uses the availability zone {lost[0]} of this DB "
                "subnet group.",
            )


@operations.operation("DescribeDBSubnetGroups", {**LISTED, "DBSubnetGroupName": EFFECT})
async def describe_db_subnet_groups(call: Call, params: Params) -> Result:
    """One subnet group, or all."""
    context = call.context
    name = params.string("DBSubnetGroupName")
    groups = [identifiers.find_subnet_group(context, name)] if name else context.store.subnet_groups()
    shown, marker = page(params, filtered(params, groups, {}), lambda group: group.identifier)
    return {"DBSubnetGroups": [subnet_group_view(group) for group in shown], "Marker": marker}


@operations.operation("DeleteDBSubnetGroup", all_of(EFFECT, "DBSubnetGroupName"))
async def delete_db_subnet_group(call: Call, params: Params) -> Result:
    """Remove a subnet group that no cluster uses."""
    context = call.context
    group = identifiers.find_subnet_group(context, params.text("DBSubnetGroupName"))
    users = [c.identifier for c in context.store.clusters() if c.subnet_group == group.identifier]
    if group.identifier == network.DEFAULT_GROUP or users:
        why = f"it is used by the DB cluster {users[0]}" if users else "it is the default one"
        raise ApiError(
            "InvalidDBSubnetGroupStateFault", f"Cannot delete the subnet group '{group.identifier}': {why}."
        )
    await context.store.commit([Delete(group)])
    return {}
