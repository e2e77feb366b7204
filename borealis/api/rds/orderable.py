"""Which instance classes there are for which engine version."""

from __future__ import annotations

from typing import Any

from borealis.api.context import Call, Context
from borealis.api.params import Params
from borealis.api.rds.engine_profiles import find_engine, installed, profile
from borealis.api.rds.engine_versions import MODE, version_key
from borealis.api.rds.listing import PAGED, page
from borealis.api.rds.service import operations
from borealis.api.registry import EFFECT, Result, all_of
from borealis.engines.base import EngineVersion
from borealis.engines.classes import InstanceClass

_RECORDS_MAX = 1000


@operations.operation(
    "DescribeOrderableDBInstanceOptions",
    {
        **PAGED,
        **all_of(
            EFFECT,
            "Engine",
            "EngineVersion",
            "DBInstanceClass",
            "LicenseModel",
            "Vpc",
            "AvailabilityZoneGroup",
        ),
    },
)
async def describe_orderable_db_instance_options(call: Call, params: Params) -> Result:
    """All pairs of an installed version and a class that match."""
    context = call.context
    engine = find_engine(context, params.text("Engine"))
    wanted, class_name = params.string("EngineVersion"), params.string("DBInstanceClass")
    offered = (
        params.boolean("Vpc", True)
        and params.string("LicenseModel") in (None, "", profile(engine.name).licence)
        and params.string("AvailabilityZoneGroup") in (None, "", context.region)
    )
    order = {name: index for index, name in enumerate(context.classes)}
    pairs = [
        (version, found)
        for version in installed(context, engine.name)
        if offered and (not wanted or wanted in (version.version, version.major))
        for found in context.classes.values()
        if class_name in (None, "", found.name)
    ]
    shown, marker = page(params, pairs, lambda p: f"{version_key(p[0])}/{order[p[1].name]:06d}", _RECORDS_MAX)
    return {"OrderableDBInstanceOptions": [_view(context, *pair) for pair in shown], "Marker": marker}


def _view(context: Context, version: EngineVersion, found: InstanceClass) -> dict[str, Any]:
    return {
        "Engine": version.engine,
        "EngineVersion": version.version,
        "DBInstanceClass": found.name,
        "LicenseModel": profile(version.engine).licence,
        "AvailabilityZones": [{"Name": zone} for zone in context.zones],
        "MultiAZCapable": False,
        "ReadReplicaCapable": False,
        "Vpc": True,
        "SupportsStorageEncryption": False,
        "StorageType": "aurora",
        "SupportsIops": False,
        "SupportsStorageThroughput": False,
        "SupportsEnhancedMonitoring": False,
        "SupportsIAMDatabaseAuthentication": False,
        "SupportsPerformanceInsights": False,
        "AvailableProcessorFeatures": [],
        "SupportedEngineModes": [MODE],
        "SupportsStorageAutoscaling": False,
        "SupportsKerberosAuthentication": False,
        "OutpostCapable": False,
        "SupportedActivityStreamModes": [],
        "SupportsGlobalDatabases": False,
        "SupportedNetworkTypes": ["IPV4"],
        "SupportsClusters": True,
        "SupportsDedicatedLogVolume": False,
        "SupportsHttpEndpoint": False,
    }
