"""Configuring a copy of an image as one instance, and the command that starts it.

Owns the configuration files of an instance's data directory. Never starts anything.
"""

from __future__ import annotations

import os
import pwd
import re
from functools import lru_cache
from pathlib import Path

from borealis.engines.base import Command, EngineError, EngineVersion, InstanceSettings
from borealis.engines.postgres import settings as pg
from borealis.engines.postgres.controlfile import read_control_file
from borealis.engines.programs import run_program

LOG_DEVICE_KIND = "pgwal"
_MINIMUMS = {
    "max_connections setting": "max_connections",
    "max_worker_processes setting": "max_worker_processes",
    "max_wal_senders setting": "max_wal_senders",
    "max_prepared_xacts setting": "max_prepared_transactions",
    "max_locks_per_xact setting": "max_locks_per_transaction",
}
_DRIVER_EXTENSION = "aurora_stat_utils"


def prepare(version: EngineVersion, data_dir: Path, settings: InstanceSettings) -> None:
    """See `Engine.prepare`."""
    control = read_control_file(data_dir)
    if settings.system_id and control.system_id != settings.system_id:
        raise EngineError(
            f"{data_dir} is an image of database system {control.system_id}; expected {settings.system_id}"
        )
    owner = data_dir.stat()
    tunable = pg.tunable_settings(settings, _writer_minimums(version, data_dir))
    files = {
        "postgresql.conf": pg.render_conf(tunable),
        "postgresql.auto.conf": "",
        "pg_hba.conf": pg.render_hba(),
        "pg_ident.conf": pg.render_ident(_administrators(owner.st_uid)),
        "standby.signal": "",
    }
    for name, text in files.items():
        _write(data_dir / name, text, owner)
    for stale in ("postmaster.pid", "postmaster.opts", "promote", "recovery.signal"):
        (data_dir / stale).unlink(missing_ok=True)
    data_dir.chmod(0o700)


def start_command(version: EngineVersion, data_dir: Path, settings: InstanceSettings) -> Command:
    """See `Engine.start_command`."""
    argv = [str(version.bin_dir / "postgres"), "-D", str(data_dir)]
    for name, value in pg.locked_settings(version, settings, extensions(version.bin_dir)).items():
        argv += ["-c", f"{name}={value}"]
    env = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC"}
    if settings.lib_path is not None:
        env["LD_PRELOAD"] = str(settings.lib_path)
        env["BOREALIS_LOG_DEVICE"] = str(settings.shm)
        env["BOREALIS_LOG_KIND"] = LOG_DEVICE_KIND
    return Command(tuple(argv), env)


@lru_cache(maxsize=16)
def extensions(bin_dir: Path) -> str:
    """The value of rds.extensions: what can be created here, and the word by which drivers know Aurora."""
    try:
        share = Path(run_program([str(bin_dir / "pg_config"), "--sharedir"]).strip())
    except EngineError:
        return _DRIVER_EXTENSION
    names = {path.stem for path in (share / "extension").glob("*.control")}
    return ", ".join([_DRIVER_EXTENSION, *sorted(names)])


def _writer_minimums(version: EngineVersion, data_dir: Path) -> dict[str, int]:
    """The settings that the last writer in this image's past had, as recorded in its control file."""
    said = run_program([str(version.bin_dir / "pg_controldata"), "-D", str(data_dir)])
    found = dict(re.findall(r"^([^:\n]+):\s+(\d+)\s*$", said, re.MULTILINE))
    return {name: int(found[label]) for label, name in _MINIMUMS.items() if label in found}


def _administrators(owner_uid: int) -> set[str]:
    """System users that may be the administrator: the engine's, root, and whoever prepares it (the
    driver)."""
    names = {"root"}
    for uid in {owner_uid, os.getuid()}:
        try:
            names.add(pwd.getpwuid(uid).pw_name)
        except KeyError:
            continue
    return names


def _write(path: Path, text: str, owner: os.stat_result) -> None:
    temporary = path.with_name(path.name + ".new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    if os.getuid() == 0:
        os.chown(temporary, owner.st_uid, owner.st_gid)
    temporary.replace(path)
