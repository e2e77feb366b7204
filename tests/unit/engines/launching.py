"""Real instances of either engine for tests: their folders, and their servers as the agent starts them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from borealis.engines.base import Engine, EngineVersion, InstanceSettings, RunAs


def make_home(home: Path, user: RunAs) -> None:
    """The folder of an instance with that of its upstream, both of the engine's user alone."""
    home.mkdir()
    for part in (home, home / "up"):
        part.mkdir(mode=0o700, exist_ok=True)
        part.chmod(0o700)
        os.chown(part, user.uid, user.gid)


def launch(
    engine: Engine, version: EngineVersion, settings: InstanceSettings, image: Path, user: RunAs
) -> tuple[Path, subprocess.Popen[bytes]]:
    """Start an instance on a copy of `image`; its data directory and its process."""
    data_dir = settings.socket_dir / "data"
    subprocess.run(["cp", "-a", str(image), str(data_dir)], check=True)
    engine.prepare(version, data_dir, settings)
    command = engine.start_command(version, data_dir, settings)
    switched = user if os.getuid() == 0 else None
    with open(settings.socket_dir / "engine.log", "ab") as log:
        process = subprocess.Popen(
            command.argv,
            env=dict(command.env),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            user=switched.uid if switched else None,
            group=switched.gid if switched else None,
            extra_groups=[] if switched else None,
        )
    return data_dir, process
