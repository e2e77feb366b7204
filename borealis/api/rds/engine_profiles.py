"""How AWS's API presents each engine: licence, descriptions, names that are reserved, bounds of passwords.

Owns one table of data, by API engine name. Nothing in here starts or asks an engine: that is
borealis.engines'.
"""

from __future__ import annotations

from dataclasses import dataclass

from borealis.api.context import Context
from borealis.api.errors import invalid_combination, invalid_value
from borealis.engines.base import Engine, EngineVersion


@dataclass(frozen=True)
class EngineProfile:
    """What the API says of an engine."""

    description: str
    version_description: str
    licence: str
    #: Longest master password, characters.
    password_max: int
    #: Longest master user name and database name, characters.
    name_max: int
    #: Names, and beginnings of names, that neither a master user nor a database may have.
    reserved_names: frozenset[str]
    reserved_prefixes: tuple[str, ...]
    character_set: str
    log_types: tuple[str, ...]


_POSTGRESQL_RESERVED = frozenset(
    [
        "admin",
        "all",
        "analyse",
        "analyze",
        "and",
        "any",
        "array",
        "as",
        "asc",
        "asymmetric",
        "authorization",
        "between",
        "binary",
        "both",
        "case",
        "cast",
        "check",
        "collate",
        "collation",
        "column",
        "concurrently",
        "constraint",
        "create",
        "cross",
        "current_catalog",
        "current_date",
        "current_role",
        "current_schema",
        "current_time",
        "current_timestamp",
        "current_user",
        "default",
        "deferrable",
        "desc",
        "distinct",
        "do",
        "else",
        "end",
        "except",
        "false",
        "fetch",
        "for",
        "foreign",
        "freeze",
        "from",
        "full",
        "grant",
        "group",
        "having",
        "ilike",
        "in",
        "initially",
        "inner",
        "intersect",
        "into",
        "is",
        "isnull",
        "join",
        "lateral",
        "leading",
        "left",
        "like",
        "limit",
        "localtime",
        "localtimestamp",
        "natural",
        "none",
        "not",
        "notnull",
        "null",
        "offset",
        "on",
        "only",
        "or",
        "order",
        "outer",
        "overlaps",
        "placing",
        "primary",
        "public",
        "references",
        "returning",
        "right",
        "select",
        "session_user",
        "similar",
        "some",
        "symmetric",
        "table",
        "tablesample",
        "template0",
        "template1",
        "then",
        "to",
        "trailing",
        "true",
        "union",
        "unique",
        "user",
        "using",
        "variadic",
        "verbose",
        "when",
        "where",
        "window",
        "with",
    ]
)

_PROFILES = {
    "aurora-postgresql": EngineProfile(
        description="Aurora PostgreSQL",
        version_description="Aurora PostgreSQL (compatible with PostgreSQL {version})",
        licence="postgresql-license",
        password_max=99,
        name_max=63,
        reserved_names=_POSTGRESQL_RESERVED,
        reserved_prefixes=("pg_", "rds", "aws_"),
        character_set="UTF8",
        log_types=("postgresql",),
    ),
}


def profile(engine: str) -> EngineProfile:
    """The profile of an engine that the region has."""
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
