"""Which engines there are: API engine name to `Engine`.

Owns the one table; the only place outside an engine's package that names engines.
Never: engine behaviour.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from borealis.engines.base import Engine, EngineNotFound, EngineVersion


@lru_cache(maxsize=1)
def engines() -> Mapping[str, Engine]:
    """All engines by API name."""
    from borealis.engines.mariadb.engine import MariadbEngine
    from borealis.engines.postgres.engine import PostgresEngine

    listed: list[Engine] = [PostgresEngine(), MariadbEngine()]
    return {engine.name: engine for engine in listed}


def get_engine(name: str) -> Engine:
    """The engine of that API name. Raises EngineNotFound."""
    try:
        return engines()[name]
    except KeyError:
        known = ", ".join(sorted(engines()))
        raise EngineNotFound(f"unknown engine {name!r}; known engines: {known}") from None


@lru_cache(maxsize=1)
def installed_versions() -> tuple[EngineVersion, ...]:
    """Every installed version of every engine, found once per process. Blocking the first time."""
    return tuple(version for engine in engines().values() for version in engine.discover())


def find_version(engine: str, version: str | None = None) -> EngineVersion:
    """The installed version asked for: exact ("15.20"), or the newest of a major ("15"), or the newest of
    all.

    Raises EngineNotFound, naming what is there.
    """
    get_engine(engine)
    installed = [found for found in installed_versions() if found.engine == engine]
    wanted = [found for found in installed if version is None or version in (found.version, found.major)]
    if not wanted:
        have = ", ".join(found.version for found in installed) or "none"
        raise EngineNotFound(f"{engine} {version or ''} is not installed; installed versions: {have}")
    return wanted[-1]
