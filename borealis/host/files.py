"""Folders below the region's folder, made, copied, given away and removed for processes that may not do it.

Owns one rule: nothing outside the region's folder is touched, whatever path a caller hands in. Each operation
may be repeated after a crash. It blocks: the agent calls it in a thread.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from borealis.host.errors import FileFailed, InvalidSpec, OutsideRegion

PRIVATE = 0o700
PASSABLE = 0o711
"""A folder that another user passes through on the way to its own."""


class RegionFiles:
    """File operations below one region's folder."""

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.realpath(root))

    def make_dir(self, path: str, mode: int = PRIVATE, user: str | None = None) -> None:
        """Makes a folder for `user`; the ones above it that are missing become passable. Exists: only set
        right.
        """
        place = self._inside(path)
        try:
            for parent in reversed(place.parents):
                if self._root in parent.parents and not parent.exists():
                    parent.mkdir(mode=PASSABLE)
                    parent.chmod(PASSABLE)
            place.mkdir(mode=mode, exist_ok=True)
            place.chmod(mode)
            _give(place, user)
        except OSError as error:
            raise FileFailed(f"cannot make the folder {place}: {error.strerror}") from error

    def remove_tree(self, path: str) -> None:
        """Removes a folder and all below it; one that is not there is no error. Links are not followed."""
        place = self._inside(path)
        # Renamed first, so that nobody finds half a folder under the name.
        doomed = place.with_name(f".{place.name}.removed")
        try:
            if doomed.exists():
                shutil.rmtree(doomed)
            if not os.path.lexists(place):
                return
            place.rename(doomed)
            if doomed.is_dir() and not doomed.is_symlink():
                shutil.rmtree(doomed)
            else:
                doomed.unlink()
        except OSError as error:
            raise FileFailed(f"cannot remove {place}: {error}") from error

    def copy_tree(self, source: str, target: str, user: str | None = None) -> None:
        """Makes `target` a copy of the folder `source`, owned by `user`; blocks are shared where the disk
        can.

        A target that is there is complete and left alone.
        """
        origin, place = self._inside(source), self._inside(target)
        if place.exists():
            return
        fresh = place.with_name(f".{place.name}.copying")
        try:
            if fresh.exists():
                shutil.rmtree(fresh)
            done = subprocess.run(
                ["cp", "-a", "--reflink=auto", "--", str(origin), str(fresh)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise FileFailed(f"cannot copy {origin} to {place}: {done.stderr.strip()}")
            self.give_tree(str(fresh), user)
            fresh.rename(place)
        except OSError as error:
            raise FileFailed(f"cannot copy {origin} to {place}: {error}") from error

    def give_tree(self, path: str, user: str | None) -> None:
        """Makes `user` the owner of a folder or file and all below it."""
        place = self._inside(path)
        if user is None:
            return
        try:
            _give(place, user)
            for folder, folders, files in os.walk(place):
                for name in folders + files:
                    _give(Path(folder, name), user)
        except OSError as error:
            raise FileFailed(f"cannot give {place} to {user}: {error}") from error

    def _inside(self, path: str) -> Path:
        given = Path(path)
        if not given.is_absolute():
            raise OutsideRegion(f"{path} is not an absolute path")
        # The folder that holds it is resolved, the last name is not: a link itself may be removed.
        place = Path(os.path.realpath(given.parent)) / given.name
        if given.name in ("", "..") or self._root not in place.parents:
            raise OutsideRegion(f"{path} does not lie below the region's folder {self._root}")
        return place


def _give(place: Path, user: str | None) -> None:
    if user is None:
        return
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise InvalidSpec(f"user {user!r} does not exist on this machine") from None
    if place.lstat().st_uid != entry.pw_uid or place.lstat().st_gid != entry.pw_gid:
        os.chown(place, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
