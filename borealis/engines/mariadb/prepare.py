"""Configuring a copy of an image as one instance, and the command that starts it.

Owns the configuration files of an instance's data directory and its administrator's. Never starts anything.
"""

from __future__ import annotations

from pathlib import Path

from borealis.engines.base import Command, EngineError, EngineVersion, InstanceSettings
from borealis.engines.mariadb import settings as my
from borealis.engines.mariadb.administrator import Administrator
from borealis.engines.mariadb.binlogfiles import BASENAME
from borealis.engines.mariadb.discover import SERVER, share_dir
from borealis.engines.mariadb.history import ATTACHED_NAME
from borealis.engines.mariadb.image import read_image_file
from borealis.engines.mariadb.ownedfiles import own_like_parent, write_owned
from borealis.engines.mariadb.plugin import plugin_settings

LOG_DEVICE_KIND = f"binlog:{BASENAME}"


def prepare(version: EngineVersion, data_dir: Path, settings: InstanceSettings) -> None:
    """See `Engine.prepare`."""
    system_id, point = read_image_file(data_dir)
    if settings.system_id and system_id != settings.system_id:
        raise EngineError(
            f"{data_dir} is an image of database system {system_id}; expected {settings.system_id}"
        )
    if settings.server_number <= 0:
        raise EngineError("an instance needs a server number above 0 that its volume never gave before")
    tunable = my.tunable_settings(settings)
    # Beside the volume library there is a copy that the engine's user can read.
    beside = (settings.lib_path.parent,) if settings.lib_path is not None else ()
    tunable |= plugin_settings(settings.instance_id, version.version, *beside)
    administrator = Administrator.load(data_dir) or Administrator.make()
    administrator.save(data_dir)
    write_owned(data_dir / my.CONFIG_FILE, my.render_conf(tunable))
    for directory in (data_dir / my.TEMPORARY_DIR, settings.upstream_dir):
        if not directory.is_dir():
            directory.mkdir(mode=0o700, parents=True)
            own_like_parent(directory)
    write_owned(settings.upstream_dir / ATTACHED_NAME, point.to_text())
    (data_dir / my.PID_FILE).unlink(missing_ok=True)
    data_dir.chmod(0o700)


def start_command(version: EngineVersion, data_dir: Path, settings: InstanceSettings) -> Command:
    """See `Engine.start_command`."""
    argv = [str(version.bin_dir / SERVER), f"--defaults-file={data_dir / my.CONFIG_FILE}"]
    for name, value in my.locked_settings(data_dir, share_dir(version.bin_dir), settings).items():
        argv.append(f"--{name.replace('_', '-')}={value}")
    env = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC"}
    if settings.lib_path is not None:
        env["LD_PRELOAD"] = str(settings.lib_path)
        env["BOREALIS_LOG_DEVICE"] = str(settings.shm)
        env["BOREALIS_LOG_KIND"] = LOG_DEVICE_KIND
    return Command(tuple(argv), env)
