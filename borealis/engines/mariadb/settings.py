"""MariaDB's settings for one instance: those that are locked, those that have our defaults, the user's own.

Owns every setting that Borealis gives. Locked ones go on the server's command line, which no file can
override; at run time nobody but the administrator may change them. Never touches a file (see `prepare`).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from borealis.engines.base import EngineError, InstanceSettings
from borealis.engines.mariadb.administrator import START_FILE
from borealis.engines.mariadb.binlogfiles import BASENAME

MIB = 1 << 20
GIB = 1 << 30
PID_FILE = "engine.pid"
CONFIG_FILE = "my.cnf"
TEMPORARY_DIR = ".tmp"
LEAST_CONNECTIONS = 90
MOST_CONNECTIONS = 16_000

PROMISED: Mapping[str, str] = MappingProxyType(
    {
        # The log is written at each commit, and its sync is a call that the volume library waits in.
        "log_bin": "ON",
        "sync_binlog": "1",
        # What the log holds: whole rows, in a form that readers and recovery know.
        "binlog_format": "ROW",
        "binlog_row_image": "FULL",
        "binlog_row_metadata": "NO_LOG",
        "binlog_checksum": "CRC32",
        "log_bin_compress": "OFF",
        "encrypt_binlog": "OFF",
        "log_slave_updates": "OFF",
        "gtid_strict_mode": "ON",
        "gtid_domain_id": "0",
        # Only tables that the log protects.
        "enforce_storage_engine": "InnoDB",
        # The data directory is a cache: a crashed server's is never used again.
        "innodb_flush_log_at_trx_commit": "0",
        "innodb_doublewrite": "OFF",
        "innodb_use_native_aio": "OFF",
    }
)
"""Settings that durability hangs on, as SHOW VARIABLES shows them; the driver checks them after a start."""

_FOLLOW: Mapping[str, str] = MappingProxyType(
    {
        "read_only": "1",
        "skip_slave_start": "1",
        "event_scheduler": "OFF",
        "replicate_same_server_id": "1",
        "replicate_events_marked_for_skip": "REPLICATE",
        "relay_log": "relay",
        "relay_log_index": "relay.index",
        "relay_log_purge": "ON",
        "sync_relay_log": "0",
        "sync_relay_log_info": "0",
        "sync_master_info": "0",
        "slave_parallel_threads": "4",
        "slave_parallel_mode": "conservative",
        "slave_exec_mode": "STRICT",
        "slave_run_triggers_for_rbr": "NO",
        "slave_type_conversions": "",
        "slave_max_allowed_packet": "1073741824",
        "slave_transaction_retries": "1000",
        "slave_net_timeout": "10",
        "slave_compressed_protocol": "OFF",
        "init_slave": "",
    }
)
_HOUSE: Mapping[str, str] = MappingProxyType(
    {
        "log_bin_index": f"{BASENAME}.index",
        # Old files go when a new one is begun; the volume has all that is in them.
        "max_binlog_size": str(256 * MIB),
        "skip_name_resolve": "ON",
        "skip_external_locking": "ON",
        # No table outside the data directory: DATA DIRECTORY is ignored.
        "symbolic_links": "0",
        "pid_file": PID_FILE,
        "ignore_db_dirs": TEMPORARY_DIR,
        "default_storage_engine": "InnoDB",
        # The volume library makes a sync of these files a no-op, so writes need not wait for a disk either.
        "innodb_flush_method": "fsync",
        "innodb_log_file_buffering": "ON",
        "innodb_fast_shutdown": "1",
        "lower_case_table_names": "0",
        "core_file": "0",
        # Files of these have fixed places in the data directory.
        "general_log_file": "general.log",
        "slow_query_log_file": "slow.log",
    }
)
_PLACES = frozenset(
    {
        "allow_suspicious_udfs", "aria_log_dir_path", "basedir", "bind_address", "bootstrap",
        "character_sets_dir", "chroot", "console", "datadir", "defaults_extra_file", "defaults_file",
        "des_key_file", "extra_port", "gdb", "ignore_builtin_innodb", "init_file", "init_rpl_role",
        "innodb_buffer_pool_filename", "innodb_data_file_path", "innodb_data_home_dir",
        "innodb_force_load_corrupted", "innodb_force_recovery", "innodb_ft_aux_table",
        "innodb_log_group_home_dir", "innodb_page_size", "innodb_read_only", "innodb_temp_data_file_path",
        "innodb_tmpdir", "innodb_undo_directory", "language", "lc_messages_dir", "log_basename", "log_error",
        "log_tc", "log_tc_size", "master_info_file", "master_verify_checksum", "mmap_file", "new",
        "plugin_dir", "plugin_load", "plugin_load_add", "plugin_maturity", "port", "proxy_protocol_networks",
        "relay_log_info_file", "report_host", "report_password", "report_port", "report_user",
        "safe_user_create", "secure_file_priv", "server_id", "show_slave_auth_info", "slave_load_tmpdir",
        "slave_skip_errors", "slave_sql_verify_checksum", "socket", "ssl_ca", "ssl_capath", "ssl_cert",
        "ssl_cipher", "ssl_crl", "ssl_crlpath", "ssl_key", "symbolic_links", "tmpdir",
        "transaction_registry", "user", "version",
    }
)  # fmt: skip
"""Settings of files, places and identity: nobody sets these."""
_FORBIDDEN_STARTS = (
    "aurora_server", "aurora_engine", "binlog_do", "binlog_ignore", "debug", "gtid_", "replicate_",
    "rpl_semi_sync_", "server_", "skip_grant", "skip_networking", "skip_slave", "wsrep",
)  # fmt: skip
_OPTION_PREFIXES = ("loose_", "skip_", "enable_", "disable_", "maximum_")
"""What an option's name may begin with besides; `skip_log_bin` is `log_bin` all the same."""

_DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        "character_set_server": "utf8mb4",
        "collation_server": "utf8mb4_general_ci",
        "default_time_zone": "+00:00",
        # As Aurora does: a table that asks for another engine is made in InnoDB, with a note that says so.
        "sql_mode": "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_AUTO_CREATE_USER",
        "max_allowed_packet": str(64 * MIB),
        "local_infile": "ON",
        # Safe, because the log holds rows.
        "innodb_autoinc_lock_mode": "2",
        # Whoever may create routines and triggers may: rows are in the log, not what made them.
        "log_bin_trust_function_creators": "ON",
        "binlog_expire_logs_seconds": "3600",
        "innodb_buffer_pool_dump_at_shutdown": "OFF",
        "innodb_buffer_pool_load_at_startup": "OFF",
        "innodb_print_all_deadlocks": "OFF",
        "performance_schema": "OFF",
        "table_open_cache": "2000",
    }
)
_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?")


def locked_settings(data_dir: Path, share: Path, settings: InstanceSettings) -> dict[str, str]:
    """What goes on the command line."""
    locked = {**PROMISED, **_FOLLOW, **_HOUSE}
    locked.update(
        {
            "log_bin": BASENAME,
            "datadir": str(data_dir),
            "lc_messages_dir": str(share),
            "tmpdir": str(data_dir / TEMPORARY_DIR),
            "slave_load_tmpdir": str(data_dir / TEMPORARY_DIR),
            "init_file": str(data_dir / START_FILE),
            "socket": str(socket_path(settings)),
            "port": str(settings.port),
            "server_id": str(settings.server_number),
        }
    )
    if settings.listen_address:
        locked["bind_address"] = settings.listen_address
    else:  # Such as one that an image is made with: nobody but its driver may reach it.
        locked["skip_networking"] = "1"
    return locked


def socket_path(settings: InstanceSettings) -> Path:
    """The administrator's way in; its directory guards it."""
    return settings.socket_dir / "mysql.sock"


def tunable_settings(settings: InstanceSettings) -> dict[str, str]:
    """What goes into my.cnf: our defaults by the instance's size, then the user's own.

    Raises EngineError for a parameter that is locked or is not a setting's name.
    """
    chosen = {**_DEFAULTS, **_by_size(settings)}
    for name, value in settings.parameters.items():
        key = _accepted(name)
        chosen.pop(key, None)
        if key == "event_scheduler":
            _on_or_off(name, value)  # Given to a writer when it is one (see `event_scheduler`).
        else:
            # A parameter that this server does not know costs a line in its log, not its start.
            chosen[f"loose_{key}"] = _accepted_value(name, value)
    return chosen


def event_scheduler(settings: InstanceSettings) -> str:
    """Whether a writer runs its events: "ON" or "OFF"."""
    given = {name.lower().replace("-", "_"): value for name, value in settings.parameters.items()}
    return _on_or_off("event_scheduler", given.get("event_scheduler", "ON"))


def _by_size(settings: InstanceSettings) -> dict[str, str]:
    memory = settings.memory_bytes
    connections = settings.max_connections or default_max_connections(memory)
    return {
        "max_connections": str(connections),
        "innodb_buffer_pool_size": str(buffer_pool_bytes(memory, _machine_memory()) // MIB * MIB),
        # Part of every image, as large as it is.
        "innodb_log_file_size": str(min(max(memory // 16, 96 * MIB), 256 * MIB) // MIB * MIB),
    }


def default_max_connections(memory_bytes: int) -> int:
    """Aurora MySQL's own rule, GREATEST(log2(memory / 1 GiB) * 45, log2(memory / 8 GiB) * 1000), within
    bounds."""
    if memory_bytes <= GIB:
        return LEAST_CONNECTIONS
    small, large = math.log2(memory_bytes / GIB) * 45, math.log2(memory_bytes / (8 * GIB)) * 1000
    return int(max(LEAST_CONNECTIONS, min(MOST_CONNECTIONS, max(small, large))))


def buffer_pool_bytes(memory_bytes: int, machine_bytes: int) -> int:
    """Three quarters of the instance's memory, but never more than a sixteenth of the machine's, which its
    page cache completes; at least 128 MiB."""
    return max(128 * MIB, min(memory_bytes * 3 // 4, machine_bytes // 16))


def locked_names() -> frozenset[str]:
    """All settings that a user's parameters must not name."""
    return (frozenset(PROMISED) | frozenset(_FOLLOW) | frozenset(_HOUSE) | _PLACES) - {"event_scheduler"}


def _accepted(name: str) -> str:
    plain = name.lower().replace("-", "_")
    if not _NAME.fullmatch(plain):
        raise EngineError(f"{name!r} is not the name of a setting")
    bare = plain
    while prefix := next((one for one in _OPTION_PREFIXES if bare.startswith(one)), ""):
        bare = bare.removeprefix(prefix)
    locked = locked_names()
    if (
        {plain, bare, f"skip_{bare}"} & locked
        or plain.startswith(_FORBIDDEN_STARTS)
        or bare.startswith(_FORBIDDEN_STARTS)
    ):
        raise EngineError(f"setting {name!r} belongs to Borealis and cannot be changed; leave it out")
    return plain


def _accepted_value(name: str, value: str) -> str:
    if any(char in value for char in "\n\r\0"):
        raise EngineError(f"the value of {name!r} holds a line break or a null byte; expected one line")
    return value


def _on_or_off(name: str, value: str) -> str:
    if value.upper() not in ("ON", "OFF", "1", "0"):
        raise EngineError(f"{name!r} is {value!r}; expected ON or OFF")
    return "ON" if value.upper() in ("ON", "1") else "OFF"


def render_conf(values: Mapping[str, str]) -> str:
    """The text of my.cnf."""
    head = "# Written by Borealis at each start of the instance; changes are lost.\n[mariadbd]\n"
    return head + "".join(f'{name} = "{_escape(value)}"\n' for name, value in values.items())


def _escape(text: str) -> str:
    """Inside double quotes in an option file."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
