"""Finding MariaDB installations on this machine.

Owns the places that are searched: BOREALIS_MARIADB_BIN, Debian's and Red Hat's layouts, /usr/local and /opt.
Never installs anything. MySQL and Percona Server are looked at too, to say why they are not offered: what
Borealis knows of a log's format, of accounts and of replication is MariaDB's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from borealis.engines.base import EngineError, EngineVersion
from borealis.engines.programs import run_program
from borealis.logs import get_logger

log = get_logger(__name__)

ENGINE_NAME = "aurora-mysql"
BIN_PATH_VARIABLE = "BOREALIS_MARIADB_BIN"
KNOWN_SERIES = frozenset({"10.11"})
"""Release series whose log and system tables are known here."""
SERVER = "mariadbd"
SYSTEM_TABLES = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")
_SERVERS = (SERVER, "mysqld")
_PATTERNS = (
    "/usr/sbin",
    "/usr/libexec",
    "/usr/local/mysql/bin",
    "/usr/local/mariadb*/bin",
    "/opt/mariadb*/bin",
)
_SHARES = ("../share/mysql", "../share/mariadb", "../share", "../../share/mysql")
_VERSION = re.compile(r"Ver (\d+\.\d+)(\.\d+)+(\S*)")


def discover(patterns: tuple[str, ...] = _PATTERNS) -> list[EngineVersion]:
    """All usable installations, oldest version first; of equal versions the first place counts. Blocking."""
    found: dict[str, EngineVersion] = {}
    for bin_dir in _candidates(patterns):
        installed = _inspect(bin_dir)
        if installed is not None:
            found.setdefault(installed.version, installed)
    return sorted(found.values(), key=lambda one: [int(part) for part in one.version.split(".")])


def share_dir(bin_dir: Path) -> Path:
    """Where an installation keeps its messages and the SQL of its system tables. Raises EngineError."""
    for relative in _SHARES:
        path = bin_dir / relative
        if all((path / name).is_file() for name in SYSTEM_TABLES):
            return path.resolve()
    raise EngineError(
        f"no system tables' SQL ({SYSTEM_TABLES[0]}) was found for the server in {bin_dir}; "
        "install the server's whole package"
    )


def _candidates(patterns: tuple[str, ...]) -> Iterator[Path]:
    """BOREALIS_MARIADB_BIN is a list of directories, separated like PATH."""
    yield from (Path(part) for part in os.environ.get(BIN_PATH_VARIABLE, "").split(os.pathsep) if part)
    for pattern in patterns:
        yield from sorted(Path("/").glob(pattern.lstrip("/")))


def _inspect(bin_dir: Path) -> EngineVersion | None:
    programs = [bin_dir / name for name in _SERVERS if os.access(bin_dir / name, os.X_OK)]
    if not programs:
        return None
    try:
        said = run_program([str(programs[0]), "--no-defaults", "--version"])
        match = _VERSION.search(said)
        if match is None:
            return None
        version, series = match[0].split()[1].split("-")[0], match[1]
        if "MariaDB" not in said or series not in KNOWN_SERIES or programs[0].name != SERVER:
            known = ", ".join(f"MariaDB {one}" for one in sorted(KNOWN_SERIES))
            log.info("%s (%s) is not offered: %s is supported", programs[0], said.strip(), known)
            return None
        share_dir(bin_dir)
    except EngineError as error:
        log.info("%s is not offered: %s", programs[0], error)
        return None
    return EngineVersion(ENGINE_NAME, version, series, bin_dir.resolve(), f"{ENGINE_NAME}{series}")
