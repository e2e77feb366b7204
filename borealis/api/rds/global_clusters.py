"""Global clusters: there are none yet, and clients that look for them (Terraform does) are told so."""

from __future__ import annotations

from borealis.api.context import Call
from borealis.api.errors import ApiError
from borealis.api.params import Params
from borealis.api.rds.listing import LISTED
from borealis.api.rds.service import operations
from borealis.api.registry import EFFECT, Result


@operations.operation("DescribeGlobalClusters", {**LISTED, "GlobalClusterIdentifier": EFFECT})
async def describe_global_clusters(call: Call, params: Params) -> Result:
    """No global cluster."""
    name = params.string("GlobalClusterIdentifier")
    if name:
        raise ApiError("GlobalClusterNotFoundFault", f"Global cluster {name} not found.")
    return {"GlobalClusters": []}
