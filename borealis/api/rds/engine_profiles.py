"""How AWS's API presents each engine: licence, descriptions, names that are reserved, bounds of passwords.

Owns one table of data, by API engine name. Nothing in here starts or asks an engine: that is
borealis.engines'.
"""

from __future__ import annotations

from dataclasses import dataclass

from borealis.api.context import Context
from borealis.api.errors import invalid_combination, invalid_value
from borealis.api.rds import reserved_words
from borealis.engines.base import Engine, EngineVersion


@dataclass(frozen=True)
class EngineProfile:
    """What the API says of an engine."""

    description: str
    version_description: str
    licence: str
    #: Longest master password, characters.
    password_max: int
    #: Longest master user name, characters.
    username_max: int
    #: Longest database name, characters.
    database_max: int
    #: Names, and beginnings of names, that neither a master user nor a database may have.
    reserved_names: frozenset[str]
    reserved_prefixes: tuple[str, ...]
    character_set: str
    log_types: tuple[str, ...]


_PROFILES = {
    "aurora-postgresql": EngineProfile(
        description="Aurora PostgreSQL",
        version_description="Aurora PostgreSQL (compatible with PostgreSQL {version})",
        licence="postgresql-license",
        password_max=99,
        username_max=63,
        database_max=63,
        reserved_names=reserved_words.POSTGRESQL,
        reserved_prefixes=("pg_", "rds", "aws_"),
        character_set="UTF8",
        log_types=("postgresql",),
    ),
    "aurora-mysql": EngineProfile(
        description="Aurora MySQL",
        version_description="Aurora MySQL (compatible with MySQL, served by MariaDB {version})",
        licence="general-public-license",
        password_max=41,
        username_max=16,
        database_max=64,
        reserved_names=reserved_words.MYSQL,
        reserved_prefixes=("rds", "aws_", "aurora_", "borealis"),
        character_set="utf8mb4",
        log_types=("audit", "error", "general", "slowquery"),
    ),
}


def profile(engine: str) -> EngineProfile:
    """The profile of an engine that the API knows."""
    return _PROFILES[engine]


def find_engine(context: Context, name: str) -> Engine:
    """The engine of that API name. Raises ApiError InvalidParameterValue."""
    engine = context.engines.get(name)
    if engine is None or name not in _PROFILES:
        known = ", ".join(sorted(set(context.engines) & set(_PROFILES)))
        raise invalid_value(f"Invalid DB engine: {name}. Engines of this region: {known}.")
    return engine


def installed(context: Context, engine: str) -> list[EngineVersion]:
    """The installed versions of an engine, oldest first."""
    return [version for version in context.versions() if version.engine == engine]


def find_version(context: Context, engine: str, wanted: str | None) -> EngineVersion:
    """The version asked for: an exact one, the newest of a major one, or the newest of all.

    Raises ApiError InvalidParameterCombination.
    """
    versions = installed(context, engine)
    fitting = [v for v in versions if wanted in (None, v.version, v.major)]
    if not fitting:
        listed = ", ".join(v.version for v in versions) or "none: install the engine's packages"
        raise invalid_combination(
            f"Cannot find version {wanted or 'any'} for {engine}. Installed versions: {listed}."
        )
    return fitting[-1]


def major_of(context: Context, engine: str, version: str) -> str:
    """The major part of a version, e.g. "15" of "15.20"; also of one that is not installed any more."""
    found = next((v.major for v in installed(context, engine) if v.version == version), None)
    return found or version.rpartition(".")[0]


def option_group(context: Context, engine: str, version: str) -> str:
    """The one option group that instances of a version are in."""
    return f"default:{engine}-{major_of(context, engine, version).replace('.', '-')}"
