"""PostgreSQL's settings for one instance: those that are locked, those that have our defaults, the user's
own.

Owns every setting that Borealis gives. Locked ones go on the server's command line, which neither a file nor
ALTER SYSTEM can override. Never touches a file (see `prepare`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from types import MappingProxyType

from borealis.engines.base import EngineError, EngineVersion, InstanceSettings

ADMIN_ROLE = "rdsadmin"
ADMIN_DATABASE = "rdsadmin"
MIB = 1 << 20
GIB = 1 << 30

PROMISED: Mapping[str, str] = MappingProxyType(
    {
        # The log's sync call must be made, and made as a call that the volume library waits in.
        "fsync": "on",
        "wal_sync_method": "fdatasync",
        "synchronous_standby_names": "",
        # A crashed server's directory is never used again, so no restart in place and no torn pages to mend.
        "restart_after_crash": "off",
        "full_page_writes": "off",
        "wal_log_hints": "off",
        # What readers need in the log.
        "wal_level": "replica",
        "archive_mode": "off",
    }
)
"""Settings that durability hangs on, as pg_settings shows them; the driver checks them after each start."""

_FOLLOW: Mapping[str, str] = MappingProxyType(
    {
        "hot_standby": "on",
        "hot_standby_feedback": "on",
        "recovery_target_timeline": "latest",
        "primary_slot_name": "",
        "wal_receiver_create_temp_slot": "off",
        "wal_receiver_status_interval": "1s",
        "wal_receiver_timeout": "20s",
        "wal_retrieve_retry_interval": "100ms",
        "recovery_min_apply_delay": "0",
        "restore_command": "",
    }
)
_HOUSE: Mapping[str, str] = MappingProxyType(
    {
        "max_wal_senders": "10",
        "max_replication_slots": "20",
        "unix_socket_permissions": "0700",
        "logging_collector": "off",
        "log_destination": "stderr",
        # In the data directory, so that a killed server leaves none of it behind on the machine.
        "dynamic_shared_memory_type": "mmap",
        "wal_recycle": "on",
        # A new log file need not be written twice: its sync waits for the volume, not for local blocks.
        "wal_init_zero": "off",
        "allow_system_table_mods": "off",
        "bonjour": "off",
    }
)
_VERSION_LOCKED: Mapping[int, Mapping[str, str]] = MappingProxyType(
    {
        16: {"debug_io_direct": ""},
        17: {"allow_alter_system": "off", "summarize_wal": "off", "sync_replication_slots": "off"},
        18: {"io_method": "worker"},
    }
)
_PLACES = frozenset(
    {
        "archive_cleanup_command", "archive_command", "archive_library", "config_file", "data_directory",
        "event_source", "external_pid_file", "hba_file", "ident_file", "jit_provider", "krb_server_keyfile",
        "local_preload_libraries", "dynamic_library_path", "log_directory", "log_filename", "log_file_mode",
        "promote_trigger_file", "recovery_end_command", "recovery_target", "recovery_target_action",
        "recovery_target_inclusive", "recovery_target_lsn", "recovery_target_name", "recovery_target_time",
        "recovery_target_xid", "ssl", "ssl_ca_file", "ssl_cert_file", "ssl_crl_dir", "ssl_crl_file",
        "ssl_dh_params_file", "ssl_key_file", "ssl_passphrase_command", "stats_temp_directory",
        "unix_socket_group", "data_sync_retry", "recovery_init_sync_method", "include", "include_dir",
        "include_if_exists", "wal_keep_size", "extension_control_path",
    }
)  # fmt: skip
"""Settings of files, commands and recovery: nobody sets these, not even Borealis."""

_DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        "superuser_reserved_connections": "3",
        "max_worker_processes": "32",
        "wal_buffers": "16MB",
        # A wait for the volume costs six nodes and every reader some work. With many transactions under way
        # more of them share one; with few, nobody waits for company. Microseconds.
        "commit_delay": "800",
        "commit_siblings": "20",
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": "0.9",
        "max_standby_streaming_delay": "14s",
        "max_standby_archive_delay": "14s",
        "password_encryption": "scram-sha-256",
        "jit": "off",
        "log_line_prefix": "%m:%r:%u@%d:[%p]:",
        "log_timezone": "UTC",
        "timezone": "UTC",
        "lc_messages": "C.UTF-8",
        "lc_monetary": "C.UTF-8",
        "lc_numeric": "C.UTF-8",
        "lc_time": "C.UTF-8",
        "default_text_search_config": "pg_catalog.simple",
    }
)
_NAME = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_$]*)?")


def locked_settings(version: EngineVersion, settings: InstanceSettings, extensions: str) -> dict[str, str]:
    """What goes on the command line. `extensions`: the comma-separated value of rds.extensions."""
    locked = {**PROMISED, **_FOLLOW, **_HOUSE}
    for since, more in _VERSION_LOCKED.items():
        if int(version.major) >= since:
            locked.update(more)
    locked.update(
        {
            "listen_addresses": settings.listen_address,
            "port": str(settings.port),
            "unix_socket_directories": str(settings.socket_dir),
            "primary_conninfo": primary_conninfo(settings),
            "cluster_name": settings.instance_id,
            "aurora.instance_id": settings.instance_id,
            "aurora.cluster_id": settings.cluster_id,
            "aurora.version": version.version,
            "rds.extensions": extensions,
        }
    )
    return locked


def primary_conninfo(settings: InstanceSettings) -> str:
    """The driver's socket, as the primary to follow. There is no password: the socket's directory guards
    it."""
    parts = {
        "host": str(settings.upstream_dir),
        "port": str(settings.port),
        "user": ADMIN_ROLE,
        "application_name": settings.instance_id,
        "sslmode": "disable",
        "gssencmode": "disable",
        "connect_timeout": "5",
    }
    return " ".join(f"{name}='{_escape(value)}'" for name, value in parts.items())


def tunable_settings(settings: InstanceSettings, minimums: Mapping[str, int]) -> dict[str, str]:
    """What goes into postgresql.conf: our defaults by the instance's size, then the user's own.

    `minimums`: what the volume's writer had last; a reader with less than that cannot follow.
    Raises EngineError for a parameter that is locked or is not a setting's name.
    """
    chosen = {**_DEFAULTS, **_by_size(settings)}
    for name, value in settings.parameters.items():
        chosen[_accepted(name.lower())] = _accepted_value(name, value)
    for name, least in minimums.items():
        value = chosen.get(name, "0")
        if value.isdigit() and int(value) < least:
            chosen[name] = str(least)
    return chosen


def _by_size(settings: InstanceSettings) -> dict[str, str]:
    memory = settings.memory_bytes
    connections = settings.max_connections or default_max_connections(memory)
    return {
        "max_connections": str(connections),
        "shared_buffers": f"{shared_buffers_bytes(memory, _machine_memory()) // MIB}MB",
        "effective_cache_size": f"{max(memory // 2, 256 * MIB) // MIB}MB",
        "maintenance_work_mem": f"{min(max(memory // 64, 64 * MIB), GIB) // MIB}MB",
        "max_wal_size": f"{min(max(memory // 4, GIB), 8 * GIB) // MIB}MB",
        "min_wal_size": "128MB",
    }


def default_max_connections(memory_bytes: int) -> int:
    """Aurora's own rule, LEAST({DBInstanceClassMemory/9531392},5000), and never less than 100."""
    return max(100, min(5000, memory_bytes // 9_531_392))


def shared_buffers_bytes(memory_bytes: int, machine_bytes: int) -> int:
    """A quarter of the instance's memory, but never more than a sixteenth of the machine's; at least 128
    MiB."""
    return max(128 * MIB, min(memory_bytes // 4, machine_bytes // 16))


def locked_names() -> frozenset[str]:
    """All settings that a user's parameters must not name."""
    names = set(PROMISED) | set(_FOLLOW) | set(_HOUSE) | set(_PLACES)
    for more in _VERSION_LOCKED.values():
        names |= set(more)
    names |= {"listen_addresses", "port", "unix_socket_directories", "primary_conninfo", "cluster_name"}
    return frozenset(names)


def _accepted(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise EngineError(f"{name!r} is not the name of a setting")
    if name in locked_names() or name.startswith("aurora.") or name == "rds.extensions":
        raise EngineError(f"setting {name!r} belongs to Borealis and cannot be changed; leave it out")
    return name


def _accepted_value(name: str, value: str) -> str:
    if any(char in value for char in "\n\r\0"):
        raise EngineError(f"the value of {name!r} holds a line break or a null byte; expected one line")
    return value


def render_conf(values: Mapping[str, str]) -> str:
    """The text of postgresql.conf."""
    head = "# Written by Borealis at each start of the instance; changes are lost.\n"
    return head + "".join(f"{name} = '{_escape(value)}'\n" for name, value in values.items())


def render_hba() -> str:
    """pg_hba.conf: the administrator by the local socket only, everyone else by TCP and password only."""
    return (
        "# Written by Borealis. The administrator comes in through the local socket, and nobody else does.\n"
        f"local all {ADMIN_ROLE} peer map=borealis\n"
        f"local replication {ADMIN_ROLE} peer map=borealis\n"
        "local all all reject\n"
        "local replication all reject\n"
        f"host all {ADMIN_ROLE} all reject\n"
        f"host {ADMIN_DATABASE} all all reject\n"
        "host replication all all reject\n"
        "host all all all scram-sha-256\n"
    )


def render_ident(system_users: set[str]) -> str:
    """pg_ident.conf: the operating system users that may be the administrator."""
    return "".join(f'borealis "{user}" {ADMIN_ROLE}\n' for user in sorted(system_users))


def _escape(text: str) -> str:
    """Inside single quotes, in a configuration file or a connection string."""
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
