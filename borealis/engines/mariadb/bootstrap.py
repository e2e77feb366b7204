"""Making the base image of a new volume, and the few bytes of log that it starts with.

Owns the SQL that every database system gets and the cut: the image has no log, the seed has all of it. The
server runs twice, for a quarter of a second each: in its bootstrap mode, to make the system tables, and once
without any network, to begin a log.
"""

from __future__ import annotations

import re
import uuid
from pathlib import Path

from borealis.engines.base import BootstrapSpec, EngineError, EngineVersion, RunAs, VolumeSeed
from borealis.engines.mariadb.administrator import START_FILE
from borealis.engines.mariadb.binlog import HEADER_BYTES, MAGIC, EventHeader, is_intact, without_in_use
from borealis.engines.mariadb.binlogfiles import file_name
from borealis.engines.mariadb.discover import SERVER, SYSTEM_TABLES, share_dir
from borealis.engines.mariadb.grants import (
    ADMIN_PREFIX,
    SYSTEM_DATABASE,
    master_sql,
    quote_identifier,
    system_tables_sql,
)
from borealis.engines.mariadb.history import LogPoint, TimelineHistory
from borealis.engines.mariadb.image import remove_instance_files, write_image_file
from borealis.engines.mariadb.ownedfiles import write_owned
from borealis.engines.mariadb.passwords import is_verifier
from borealis.engines.mariadb.settings import PROMISED
from borealis.engines.newvolume import volume_directory
from borealis.engines.programs import run_program

START_LSN = 4096
"""Where a new volume's log begins: not at 0, which means nowhere in many places."""
FIRST_TIMELINE = 1
_MORE_TABLES = ("maria_add_gis_sp_bootstrap.sql", "mysql_sys_schema.sql")
_RESERVED_USERS = frozenset({"root", "mariadb.sys", "mysql.sys", "public", "rdsadmin", "none"})
_RESERVED_DATABASES = frozenset({SYSTEM_DATABASE, "sys", "information_schema", "performance_schema"})
_SMALL_SERVER = {
    "skip_name_resolve": "ON",
    "character_set_server": "utf8mb4",
    "innodb_log_file_size": "8M",
    "innodb_buffer_pool_size": "16M",
    "innodb_doublewrite": "OFF",
    "innodb_use_native_aio": "OFF",
    "innodb_flush_log_at_trx_commit": "0",
    "innodb_buffer_pool_dump_at_shutdown": "OFF",
    "aria_pagecache_buffer_size": "1M",
    "max_allowed_packet": "8M",
}


def bootstrap(version: EngineVersion, directory: Path, user: RunAs | None, spec: BootstrapSpec) -> VolumeSeed:
    """See `Engine.bootstrap`."""
    _check_spec(spec)
    with volume_directory(directory, user, "MariaDB"):
        return _make(version, directory, user, spec)


def _make(version: EngineVersion, directory: Path, user: RunAs | None, spec: BootstrapSpec) -> VolumeSeed:
    share = share_dir(version.bin_dir)
    command = [str(version.bin_dir / SERVER), "--no-defaults", f"--datadir={directory}"]
    command += [f"--lc-messages-dir={share}", f"--tmpdir={directory}"]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in _SMALL_SERVER.items()]
    run_program([*command, "--bootstrap"], user, stdin=_tables_sql(share) + _own_sql(spec))
    event = _first_event(command, directory, user)
    remove_instance_files(directory)
    system_id = str(uuid.uuid4())
    write_image_file(directory, system_id, LogPoint(START_LSN, None))
    history = TimelineHistory(0, None, event).to_text()
    return VolumeSeed(system_id, FIRST_TIMELINE, START_LSN, MAGIC + event, history)


def _tables_sql(share: Path) -> str:
    """What the installation itself has for a new database system."""
    more = [name for name in _MORE_TABLES if (share / name).is_file()]
    parts = [(share / name).read_text(errors="replace") for name in (*SYSTEM_TABLES, *more)]
    return "\n".join([f"CREATE DATABASE {SYSTEM_DATABASE};", f"USE {SYSTEM_DATABASE};", *parts, ""])


def _own_sql(spec: BootstrapSpec) -> str:
    statements = [f"USE {SYSTEM_DATABASE}", *system_tables_sql()]
    statements += master_sql(spec.master_username, spec.master_verifier)
    if spec.database_name:
        statements.append(f"CREATE DATABASE {quote_identifier(spec.database_name)} CHARACTER SET utf8mb4")
    return "".join(f"{statement};\n" for statement in statements)


def _first_event(command: list[str], directory: Path, user: RunAs | None) -> bytes:
    """The format description of the logs that this server writes, from one that it has begun."""
    write_owned(directory / START_FILE, "SHUTDOWN;\n")
    names = ("log_bin", "binlog_checksum", "encrypt_binlog")
    promised = {**PROMISED, "log_bin": file_name(1).partition(".")[0]}
    log_options = [f"--{name.replace('_', '-')}={promised[name]}" for name in names]
    quiet = ["--skip-networking", "--socket=bootstrap.sock", "--pid-file=bootstrap.pid", "--server-id=1"]
    run_program([*command, *quiet, *log_options, f"--init-file={directory / START_FILE}"], user)
    data = (directory / file_name(1)).read_bytes()[len(MAGIC) :]
    event = data[: EventHeader.parse(data).length] if len(data) >= HEADER_BYTES else b""
    if not event or not is_intact(event):
        raise EngineError(f"the server in {command[0]} began no log; make the volume again")
    return without_in_use(event)


def _check_spec(spec: BootstrapSpec) -> None:
    name = spec.master_username
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,31}", name):
        raise EngineError(
            f"master user name {name!r} is not valid; expected a letter, then up to 31 letters or digits"
        )
    if name.lower() in _RESERVED_USERS or name.lower().startswith(ADMIN_PREFIX):
        raise EngineError(f"master user name {name!r} is reserved; choose another one")
    if not is_verifier(spec.master_verifier):
        raise EngineError("the master password must be given as a mysql_native_password hash (*HEX)")
    database = spec.database_name
    if database is not None and not re.fullmatch(r"[A-Za-z][A-Za-z0-9_$]{0,63}", database):
        raise EngineError(
            f"database name {database!r} is not valid; expected a letter, then letters or digits"
        )
    if database is not None and database.lower() in _RESERVED_DATABASES:
        raise EngineError(f"database name {database!r} is reserved; choose another one")
