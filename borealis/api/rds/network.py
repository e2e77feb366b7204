"""The network that a region shows: one VPC, a subnet in each availability zone, one security group.

There is no EC2 behind it: the ids are made from the account and the region, always the same ones, so that
AWS's clients find what they expect. A subnet stands for its availability zone and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from borealis.api.context import Context
from borealis.api.errors import ApiError, invalid_value
from borealis.control.records import Subnet, SubnetGroup, rds_arn

DEFAULT_GROUP = "default"


def _identity(context: Context, thing: str) -> str:
    text = f"{context.account}/{context.region}/{thing}"
    return hashlib.sha256(text.encode()).hexdigest()[:17]


def vpc_id(context: Context) -> str:
    """The region's one VPC."""
    return f"vpc-{_identity(context, 'vpc')}"


def default_security_group(context: Context) -> str:
    """The VPC's one security group: everybody who reaches an endpoint's address may connect."""
    return f"sg-{_identity(context, 'security-group')}"


def hosted_zone_id(context: Context) -> str:
    """The DNS zone that endpoint names are in."""
    return "Z" + _identity(context, "zone")[:13].upper()


def subnets(context: Context) -> tuple[Subnet, ...]:
    """The VPC's subnets, one in each availability zone."""
    return tuple(
        Subnet(id=f"subnet-{_identity(context, zone)}", availability_zone=zone) for zone in context.zones
    )


def default_subnet_group(context: Context) -> SubnetGroup:
    """The group that is there from the start."""
    return SubnetGroup(
        identifier=DEFAULT_GROUP,
        arn=rds_arn(context.region, context.account, "subgrp", DEFAULT_GROUP),
        description="default",
        vpc_id=vpc_id(context),
        subnets=subnets(context),
    )


def check_security_groups(context: Context, given: Iterable[str]) -> tuple[str, ...]:
    """The security groups of a request: the default one, or none. Raises ApiError InvalidParameterValue."""
    only = default_security_group(context)
    for group in given:
        if group != only:
            raise invalid_value(
                f"Invalid security group: {group}. The region has no EC2; its only security group is {only}."
            )
    return (only,)


def chosen_subnets(context: Context, ids: Iterable[str]) -> tuple[Subnet, ...]:
    """The subnets of a request, in two zones at least.

    Raises ApiError InvalidSubnet, DBSubnetGroupDoesNotCoverEnoughAZs.
    """
    known = {subnet.id: subnet for subnet in subnets(context)}
    wanted = list(dict.fromkeys(ids))
    unknown = [i for i in wanted if i not in known]
    if unknown:
        listed = ", ".join(f"{s.id} ({s.availability_zone})" for s in known.values())
        raise ApiError(
            "InvalidSubnet",
            f"Some input subnets in :[{', '.join(unknown)}] are invalid. The region's subnets: {listed}.",
        )
    chosen = tuple(known[i] for i in wanted)
    zones = sorted({subnet.availability_zone for subnet in chosen})
    if len(zones) < 2:
        raise ApiError(
            "DBSubnetGroupDoesNotCoverEnoughAZs",
            "The DB subnet group doesn't meet Availability Zone (AZ) coverage requirement. "
            f"Current AZ coverage: {', '.join(zones) or 'none'}. Add subnets to cover at least 2 AZs.",
        )
    return chosen
