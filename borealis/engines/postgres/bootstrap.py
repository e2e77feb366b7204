"""Making the base image of a new volume, and the few bytes of log that it starts with.

Owns initdb, the SQL that every database system gets, and the cut: the image has no log, the seed has all of
it. Never starts a server that listens: everything runs in PostgreSQL's single-user mode, without any sync.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from borealis.engines.base import BootstrapSpec, EngineError, EngineVersion, RunAs, VolumeSeed
from borealis.engines.newvolume import volume_directory
from borealis.engines.postgres import scram
from borealis.engines.postgres.controlfile import read_control_file
from borealis.engines.postgres.image import clean_image, remove_wal
from borealis.engines.postgres.settings import ADMIN_DATABASE, ADMIN_ROLE
from borealis.engines.postgres.wal import PAGE_BYTES, read_wal, segment_start
from borealis.engines.postgres.walscan import WalScanner
from borealis.engines.programs import run_program

SUPERUSER_GROUP = "rds_superuser"
_RESERVED_ROLES = frozenset(
    {ADMIN_ROLE, SUPERUSER_GROUP, "rds_iam", "rds_replication", "rds_password", "public", "none"}
)
_RESERVED_DATABASES = frozenset({ADMIN_DATABASE, "template0", "template1"})
_SINGLE_USER_SETTINGS = {
    "exit_on_error": "on",
    "fsync": "off",
    "full_page_writes": "off",
    # Recorded in the log; a reader must have at least as many.
    "wal_level": "replica",
    "max_connections": "10",
    "max_worker_processes": "4",
    "max_wal_senders": "2",
    "shared_buffers": "16MB",
    "log_checkpoints": "off",
}


def bootstrap(version: EngineVersion, directory: Path, user: RunAs | None, spec: BootstrapSpec) -> VolumeSeed:
    """See `Engine.bootstrap`."""
    _check_spec(spec)
    with volume_directory(directory, user, "PostgreSQL"):
        return _make(version, directory, user, spec)


def _make(version: EngineVersion, directory: Path, user: RunAs | None, spec: BootstrapSpec) -> VolumeSeed:
    run_program(_initdb_command(version, directory), user)
    functions = _sql("functions.sql")
    for database in ("template1", "template0"):
        _single_user(version, directory, user, database, functions)
    # The log so far is thrown away: the volume's log begins with what follows.
    run_program([str(version.bin_dir / "pg_resetwal"), "-D", str(directory)], user)
    _single_user(version, directory, user, "postgres", functions + _sql("roles.sql") + _customer_sql(spec))
    seed = _cut_seed(directory)
    remove_wal(directory)
    clean_image(directory)
    return seed


def _initdb_command(version: EngineVersion, directory: Path) -> list[str]:
    command = [str(version.bin_dir / "initdb"), "-D", str(directory), "-U", ADMIN_ROLE, "--no-sync"]
    command += ["--auth=reject", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"]
    if int(version.major) >= 18:
        # Storage checks every byte; checksums of the cache would only add log for hint bits.
        command.append("--no-data-checksums")
    return command


def _sql(name: str) -> str:
    return resources.files("borealis.engines.postgres").joinpath("sql", name).read_text() + "\n\n"


def _single_user(
    version: EngineVersion, directory: Path, user: RunAs | None, database: str, sql: str
) -> None:
    """Run statements, each ended by a semicolon and an empty line; the first error ends it."""
    command = [str(version.bin_dir / "postgres"), "--single", "-j", "-D", str(directory)]
    for name, value in _SINGLE_USER_SETTINGS.items():
        command += ["-c", f"{name}={value}"]
    run_program([*command, database], user, stdin=sql)


def _customer_sql(spec: BootstrapSpec) -> str:
    master = quote_identifier(spec.master_username)
    statements = [
        f"CREATE ROLE {master} LOGIN CREATEDB CREATEROLE PASSWORD {quote_literal(spec.master_verifier)}"
        " VALID UNTIL 'infinity'",
        f"GRANT {SUPERUSER_GROUP} TO {master} WITH ADMIN OPTION",
        f"ALTER DATABASE postgres OWNER TO {master}",
        f"CREATE DATABASE {ADMIN_DATABASE} TEMPLATE template1 STRATEGY file_copy",
        f"REVOKE ALL ON DATABASE {ADMIN_DATABASE} FROM PUBLIC",
    ]
    if spec.database_name and spec.database_name != "postgres":
        name = quote_identifier(spec.database_name)
        statements.append(f"CREATE DATABASE {name} OWNER {master} TEMPLATE template1 STRATEGY file_copy")
    return "".join(f"{statement};\n\n" for statement in statements)


def _cut_seed(directory: Path) -> VolumeSeed:
    """The log from the start of the segment where recovery begins to the end of the shutdown checkpoint."""
    control = read_control_file(directory)
    if not control.clean:
        raise EngineError(
            f"{directory} was not shut down cleanly (state {control.state.name}); make the volume again"
        )
    start = segment_start(control.redo)
    page = control.checkpoint - control.checkpoint % PAGE_BYTES
    tail = read_wal(directory, control.timeline, page, page + 8 * PAGE_BYTES)
    end = WalScanner(control.checkpoint, control.timeline).scan(tail, page, page + len(tail)).record_end
    if end <= control.checkpoint:
        raise EngineError(f"{directory} does not hold its last checkpoint; make the volume again")
    log = read_wal(directory, control.timeline, start, end)
    return VolumeSeed(control.system_id, control.timeline, start, log)


def _check_spec(spec: BootstrapSpec) -> None:
    name = spec.master_username
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]{0,62}", name) or name.lower().startswith("pg_"):
        raise EngineError(
            f"master user name {name!r} is not valid; expected a letter, then up to 62 letters or digits"
        )
    if name.lower() in _RESERVED_ROLES:
        raise EngineError(f"master user name {name!r} is reserved; choose another one")
    if not scram.is_verifier(spec.master_verifier):
        raise EngineError("the master password must be given as a SCRAM-SHA-256 verifier")
    database = spec.database_name
    if database is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]{0,62}", database):
        raise EngineError(
            f"database name {database!r} is not valid; expected a letter, then letters or digits"
        )
    if database is not None and database.lower() in _RESERVED_DATABASES:
        raise EngineError(f"database name {database!r} is reserved; choose another one")


def quote_identifier(name: str) -> str:
    """A name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """A text constant as SQL takes it (standard_conforming_strings)."""
    return "'" + text.replace("'", "''") + "'"
