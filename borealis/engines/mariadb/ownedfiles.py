"""Small files that belong to an instance's engine, wherever they are written from.

Owns how such a file is replaced: as a whole, readable by its owner only, owned like the directory it is in.
"""

from __future__ import annotations

import os
from pathlib import Path


def write_owned(path: Path, text: str) -> None:
    """Replace a file atomically. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    own_like_parent(temporary)
    temporary.replace(path)


def own_like_parent(path: Path) -> None:
    """Give a file or directory that root has made to the owner of the directory it is in."""
    if os.getuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
