"""Engine versions: what is installed on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from borealis.api.context import Call, Context
from borealis.api.errors import invalid_value
from borealis.api.params import Params
from borealis.api.rds.engine_profiles import find_engine, profile
from borealis.api.rds.instances import CERTIFICATES
from borealis.api.rds.listing import LISTED, filtered, page
from borealis.api.rds.service import operations
from borealis.api.registry import EFFECT, Result, all_of
from borealis.control.records import rds_arn
from borealis.engines.base import EngineVersion

MODE = "provisioned"
_STATUS = "available"


@operations.operation(
    "DescribeDBEngineVersions",
    {
        **LISTED,
        **all_of(EFFECT, "Engine", "EngineVersion", "DBParameterGroupFamily", "DefaultOnly"),
        **all_of(EFFECT, "ListSupportedCharacterSets", "ListSupportedTimezones", "IncludeAll"),
    },
)
async def describe_db_engine_versions(call: Call, params: Params) -> Result:
    """The installed versions that match."""
    context = call.context
    engine, wanted, family = (
        params.string("Engine"),
        params.string("EngineVersion"),
        params.string("DBParameterGroupFamily"),
    )
    if engine:
        _check_known(context, engine)
    versions = [
        version
        for version in context.versions()
        if engine in (None, "", version.engine)
        and (not wanted or wanted in (version.version, version.major))
        and family in (None, "", version.family)
    ]
    if params.boolean("DefaultOnly"):
        versions = _newest_of_each_engine(versions)
    matching = filtered(
        params,
        versions,
        {
            "db-parameter-group-family": lambda version: (version.family,),
            "engine": lambda version: (version.engine,),
            "engine-mode": lambda version: (MODE,),
            "engine-version": lambda version: (version.version,),
            "status": lambda version: (_STATUS,),
        },
    )
    shown, marker = page(params, matching, version_key)
    with_sets = params.boolean("ListSupportedCharacterSets")
    return {"DBEngineVersions": [_view(context, version, with_sets) for version in shown], "Marker": marker}


def _check_known(context: Context, engine: str) -> None:
    if engine not in context.engines:
        known = ", ".join(sorted(context.engines))
        raise invalid_value(f"Unrecognized engine name: {engine}. Engines of this region: {known}.")


def _newest_of_each_engine(versions: Sequence[EngineVersion]) -> list[EngineVersion]:
    return list({version.engine: version for version in versions}.values())


def version_key(version: EngineVersion) -> str:
    """A key that sorts versions as numbers."""
    numbers = "".join(
        f"{int(part):06d}." if part.isdigit() else f"{part}." for part in version.version.split(".")
    )
    return f"{version.engine}/{numbers}"


def _view(context: Context, version: EngineVersion, with_sets: bool) -> dict[str, Any]:
    find_engine(context, version.engine)
    about = profile(version.engine)
    character_set = {"CharacterSetName": about.character_set}
    return {
        "Engine": version.engine,
        "MajorEngineVersion": version.major,
        "EngineVersion": version.version,
        "DBParameterGroupFamily": version.family,
        "DBEngineDescription": about.description,
        "DBEngineVersionArn": rds_arn(
            context.region, context.account, "cev", f"{version.engine}/{version.version}"
        ),
        "DBEngineVersionDescription": about.version_description.format(version=version.version),
        "SupportedCharacterSets": [character_set] if with_sets else None,
        "ValidUpgradeTarget": _upgrade_targets(context, version),
        "ExportableLogTypes": list(about.log_types),
        "SupportsLogExportsToCloudwatchLogs": False,
        "SupportsReadReplica": False,
        "SupportedEngineModes": [MODE],
        "SupportedFeatureNames": [],
        "Status": _STATUS,
        "SupportsParallelQuery": False,
        "SupportsGlobalDatabases": False,
        "TagList": [],
        "SupportsBabelfish": False,
        "SupportsLimitlessDatabase": False,
        "SupportsCertificateRotationWithoutRestart": True,
        "SupportedCACertificateIdentifiers": list(CERTIFICATES),
        "SupportsLocalWriteForwarding": False,
        "SupportsIntegrations": False,
    }


def _upgrade_targets(context: Context, version: EngineVersion) -> list[dict[str, Any]]:
    """Newer installed versions of the same major version."""
    same = [v for v in context.versions() if (v.engine, v.major) == (version.engine, version.major)]
    newer = same[same.index(version) + 1 :]
    about = profile(version.engine)
    return [
        {
            "Engine": target.engine,
            "EngineVersion": target.version,
            "Description": about.version_description.format(version=target.version),
            "AutoUpgrade": False,
            "IsMajorVersionUpgrade": False,
            "SupportedEngineModes": [MODE],
        }
        for target in newer
    ]
