"""Names of parameter groups: there are the default ones only, one for each family, for clusters and for
instances alike.
"""

from __future__ import annotations

from borealis.api.errors import ApiError, invalid_combination
from borealis.engines.base import EngineVersion


def default_group(version: EngineVersion) -> str:
    """The default group's name for a version, e.g. "default.aurora-postgresql15"."""
    return f"default.{version.family}"


def chosen_cluster_group(version: EngineVersion, name: str | None) -> str:
    """The cluster parameter group of a request.

    Raises ApiError DBClusterParameterGroupNotFound, InvalidParameterCombination.
    """
    return _chosen(version, name, "DBClusterParameterGroup", "DBClusterParameterGroupNotFound")


def chosen_instance_group(version: EngineVersion, name: str | None) -> str:
    """The instance parameter group of a request.

    Raises ApiError DBParameterGroupNotFound, InvalidParameterCombination.
    """
    return _chosen(version, name, "DBParameterGroup", "DBParameterGroupNotFound")


def _chosen(version: EngineVersion, name: str | None, kind: str, code: str) -> str:
    wanted = default_group(version)
    if name is None or name.lower() == wanted:
        return wanted
    if name.lower().startswith(f"default.{version.engine}"):
        family = name.lower().removeprefix("default.")
        raise invalid_combination(
            f"The parameter group {name.lower()} with DBParameterGroupFamily {family} can't be used for "
            "this instance. "
            f"Use a parameter group with DBParameterGroupFamily {version.family}."
        )
    raise ApiError(
        code, f"{kind} not found: {name}. Only the default groups are there yet, such as {wanted}."
    )
