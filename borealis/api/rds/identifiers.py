"""Names and ARNs of rds resources: their rules, and the records that they lead to.

Owns AWS's rules for identifiers and AWS's words when one is wrong or leads nowhere. An operation that takes
an identifier takes the resource's ARN as well wherever AWS does; both are read without regard to case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from borealis.api.context import Context
from borealis.api.errors import ApiError, invalid_value
from borealis.control.records import Cluster, CustomEndpoint, Instance, SubnetGroup

IDENTIFIER_MAX = 63
SUBNET_GROUP_NAME_MAX = 255
_IDENTIFIER = re.compile("[a-z](-?[a-z0-9])*", re.ASCII)


@dataclass(frozen=True)
class Arn:
    """An rds ARN: arn:aws:rds:REGION:ACCOUNT:KIND:NAME."""

    region: str
    account: str
    kind: str
    name: str


def parse_arn(text: str) -> Arn | None:
    """The parts of an rds ARN, or None if it is not one."""
    parts = text.split(":", 6)
    if len(parts) != 7 or parts[:3] != ["arn", "aws", "rds"] or not all(parts):
        return None
    return Arn(parts[3], parts[4], parts[5], parts[6])


def new_identifier(text: str, parameter: str) -> str:
    """An identifier for something new, in lower case. Raises ApiError InvalidParameterValue."""
    name = text.lower()
    if len(name) > IDENTIFIER_MAX:
        raise invalid_value(
            f"The parameter {parameter} is not a valid identifier because it is longer than "
            f"{IDENTIFIER_MAX} characters."
        )
    if not _IDENTIFIER.fullmatch(name):
        raise invalid_value(
            f"The parameter {parameter} is not a valid identifier. Identifiers must begin with a "
            "letter; must contain only "
            "ASCII letters, digits, and hyphens; and must not end with a hyphen or contain two "
            "consecutive hyphens."
        )
    return name


def local_name(context: Context, text: str, kind: str) -> str | None:
    """The name that an identifier or an ARN of this region gives, in lower case; None for an ARN of something
    else.
    """
    if not text.lower().startswith("arn:"):
        return text.lower()
    arn = parse_arn(text)
    if arn is None or (arn.region, arn.account, arn.kind) != (context.region, context.account, kind):
        return None
    return arn.name.lower()


def find_cluster(context: Context, text: str) -> Cluster:
    """The cluster of an identifier or ARN. Raises ApiError DBClusterNotFoundFault."""
    name = local_name(context, text, "cluster")
    found = context.store.cluster_named(name) if name else None
    if found is None:
        raise ApiError("DBClusterNotFoundFault", f"DBCluster {text} not found.")
    return found


def find_instance(context: Context, text: str) -> Instance:
    """The instance of an identifier or ARN. Raises ApiError DBInstanceNotFound."""
    name = local_name(context, text, "db")
    found = context.store.instance_named(name) if name else None
    if found is None:
        raise ApiError("DBInstanceNotFound", f"DBInstance {text} not found.")
    return found


def find_endpoint(context: Context, text: str) -> CustomEndpoint:
    """The custom endpoint of an identifier or ARN. Raises ApiError DBClusterEndpointNotFoundFault."""
    name = local_name(context, text, "cluster-endpoint")
    found = context.store.endpoint_named(name) if name else None
    if found is None:
        raise ApiError("DBClusterEndpointNotFoundFault", f"DBClusterEndpoint {text} not found.")
    return found


def find_subnet_group(context: Context, text: str) -> SubnetGroup:
    """The subnet group of a name or ARN. Raises ApiError DBSubnetGroupNotFoundFault."""
    name = local_name(context, text, "subgrp")
    found = context.store.subnet_group_named(name) if name else None
    if found is None:
        raise ApiError("DBSubnetGroupNotFoundFault", f"DB subnet group '{text}' does not exist.")
    return found


def cluster_of(context: Context, instance: Instance) -> Cluster:
    """The cluster that an instance is a member of. Every instance has one."""
    found = context.store.cluster(instance.cluster)
    if found is None:
        raise ApiError("DBClusterNotFoundFault", f"The DB cluster of {instance.identifier} not found.")
    return found
