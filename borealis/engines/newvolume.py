"""The directory in which an engine makes the base image of a new volume: made, owned, gone after a failure.

Never: what is put into it, which is the engine's own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from borealis.engines.base import EngineError, RunAs


@contextmanager
def volume_directory(directory: Path, user: RunAs | None, server: str) -> Iterator[None]:
    """Make `directory`, 0700 of `user` (when we are root), for the time of the block; what raises in there
    leaves nothing behind. `server`: its name in messages. Raises EngineError, also for a directory in use."""
    if user is None and os.getuid() == 0:
        raise EngineError(f"{server} does not run as root; give an unprivileged user to make the volume as")
    if directory.exists() and any(directory.iterdir()):
        raise EngineError(f"{directory} is not empty; a new volume needs a directory of its own")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    if user is not None and os.getuid() == 0:
        os.chown(directory, user.uid, user.gid)
    try:
        yield
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
