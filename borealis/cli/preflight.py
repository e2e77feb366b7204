"""Looks before the leap: what a region needs of the machine, checked before anything is started.

Owns the checks and the words in which they fail. It changes nothing but for a probe file that it removes
again and the copy of the preload library in lib/.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from borealis import _native
from borealis.cli.common import CliError
from borealis.paths import RegionPaths

FREE_BYTES_MIN = 512 * 1024 * 1024
"""A region is not started with less free disk than this."""

VOLUME_LIBRARY = "libborealis_volume.so"
PLUGIN = "libborealis_mariadb.so"
"""What engines load besides the volume library, those that know it."""
ENGINE_USERS = ("postgres", "mysql")
"""Who runs the engines of a region that root starts: the first of these that there is."""
PACKAGES = {
    "aurora-postgresql": "postgresql-15",
    "aurora-mysql": "mariadb-server-core mariadb-client",
}
"""Debian packages by the API's engine name."""


class Unfit(CliError):
    """The machine lacks something that a region needs."""

    code = "MachineUnfit"


def prepare_folders(paths: RegionPaths, engine_user: str | None) -> None:
    """Makes the region's folders. Other users pass through those that lead to the engines' own folders."""
    passable = (paths.root, paths.run_dir, paths.run_dir / "i", paths.instances_dir, paths.lib_dir)
    private = (paths.log_dir, paths.process_dir, paths.run_dir / "n", paths.nodes_dir, paths.volumes_dir)
    try:
        for folder in passable:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o711 if engine_user else 0o700)
        for folder in private:
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)
    except OSError as error:
        raise Unfit(_folder_message(paths.root, error)) from error


def check_disk(paths: RegionPaths) -> None:
    """Raises Unfit when the folder's disk cannot be written and synced, or is nearly full."""
    probe = paths.root / f".probe.{os.getpid()}"
    try:
        with probe.open("wb") as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise Unfit(_folder_message(paths.root, error)) from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    free = shutil.disk_usage(paths.root).free
    if free < FREE_BYTES_MIN:
        raise Unfit(
            f"the disk of {paths.root} has only {free // 2**20} MiB free; a region needs "
            f"{FREE_BYTES_MIN // 2**20} MiB to start: make room, or choose another folder with --data"
        )


def _folder_message(root: Path, error: OSError) -> str:
    reason = {
        errno.EROFS: "its disk is mounted read-only",
        errno.ENOSPC: "its disk is full",
        errno.EDQUOT: "your disk quota is used up",
        errno.EACCES: "you may not write there",
        errno.EPERM: "you may not write there",
        errno.ENOTDIR: f"{error.filename} is not a folder",
        errno.EEXIST: f"{error.filename} is not a folder",
    }.get(error.errno or 0, str(error))
    return (
        f"the data folder {root} cannot be used: {reason}. Choose another one with --data or BOREALIS_DATA."
    )


def choose_engine_user(wanted: str | None) -> str | None:
    """The user that engines run as: None when it is the caller. Engines never run as root."""
    if os.geteuid() != 0:
        if wanted is not None and wanted != pwd.getpwuid(os.geteuid()).pw_name:
            raise Unfit("only root can run engines as another user: leave out --engine-user")
        return None
    name = wanted or next((user for user in ENGINE_USERS if _uid(user) is not None), ENGINE_USERS[0])
    uid = _uid(name)
    if uid is None:
        raise Unfit(
            f"user {name!r} does not exist: engines refuse to run as root. Name an unprivileged user with "
            "--engine-user, or install the Debian package postgresql-common, which brings the user postgres."
        )
    if uid == 0:
        raise Unfit("engines refuse to run as root: name an unprivileged user with --engine-user")
    return name


def _uid(user: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def check_traversable(paths: RegionPaths, engine_user: str | None) -> None:
    """Raises Unfit naming the folder above the data folder that the engines' user may not pass."""
    if engine_user is None:
        return
    for folder in [*reversed(paths.root.parents), paths.root]:
        if not _may_pass(folder, engine_user):
            raise Unfit(
                f"user {engine_user!r}, who runs the engines, may not pass through {folder} on the way to "
                f"{paths.root}: allow it (chmod o+x {folder}), or choose another folder with --data"
            )


def _may_pass(folder: Path, user: str) -> bool:
    entry = pwd.getpwnam(user)
    groups = os.getgrouplist(user, entry.pw_gid)
    # Asked of the kernel as that user: access lists and security modules have their say too.
    done = subprocess.run(
        ["/usr/bin/test", "-x", str(folder)],
        user=entry.pw_uid,
        group=entry.pw_gid,
        extra_groups=groups,
        cwd="/",
        check=False,
    )
    return done.returncode == 0


def check_port(host: str, port: int) -> None:
    """Raises Unfit when the API could not listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = {
                errno.EADDRINUSE: "another process listens there already",
                errno.EACCES: "ports below 1024 need root rights",
            }.get(error.errno or 0, error.strerror)
            raise Unfit(
                f"the API cannot listen on {host}:{port}: {reason}. Choose another port with --port."
            ) from error


@dataclass(frozen=True, slots=True)
class FoundEngines:
    """What this machine can serve."""

    versions: Mapping[str, tuple[str, ...]]
    """Installed versions by the API's engine name, oldest first; none of an engine that is missing."""

    @property
    def present(self) -> str:
        """In words: the engines that are there, with their versions."""
        return "  ".join(f"{name} {' '.join(found)}" for name, found in self.versions.items() if found)

    @property
    def missing(self) -> tuple[str, ...]:
        """In words: an engine that is not there, and how it can be had."""
        return tuple(
            f"{name} is not offered: its programs were not found (Debian: apt-get install {PACKAGES[name]})"
            for name, found in self.versions.items()
            if not found
        )


def find_engines() -> FoundEngines:
    """Looks for the engines. Blocking, runs their programs."""
    from borealis.engines.registry import engines, installed_versions

    installed = installed_versions()
    return FoundEngines(
        {name: tuple(v.version for v in installed if v.engine == name) for name in sorted(engines())}
    )


def check_programs() -> None:
    """Raises Unfit when no engine at all or no HAProxy is installed."""
    if not find_engines().present:
        raise Unfit(
            "no database engine was found: install one (Debian: apt-get install postgresql-15, or "
            "mariadb-server-core), or name the folder of its programs with BOREALIS_PG_BIN or "
            "BOREALIS_MARIADB_BIN"
        )
    if shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin") is None:
        raise Unfit("haproxy was not found: install it (Debian: apt-get install haproxy)")


def install_library(paths: RegionPaths, engine_user: str | None) -> Path:
    """Copies what engines load to where their user can read it, and sees that it can be preloaded."""
    source = Path(_native.__file__).with_name(VOLUME_LIBRARY)
    if not source.exists():
        raise Unfit(
            f"the volume library {source} is not there: it is built with a C compiler when the project is "
            "installed. Run `make setup` (needs gcc and libc6-dev)."
        )
    target = paths.lib_dir / VOLUME_LIBRARY
    _copy(source, target)
    if (plugin := source.with_name(PLUGIN)).exists():
        _copy(plugin, paths.lib_dir / PLUGIN)
    _check_preload(target, engine_user)
    return target


def _copy(source: Path, target: Path) -> None:
    if not target.exists() or target.read_bytes() != source.read_bytes():
        # Never written in place: an engine that runs has the old one mapped.
        fresh = target.with_suffix(".new")
        shutil.copyfile(source, fresh)
        fresh.chmod(0o755)
        fresh.replace(target)
    target.chmod(0o755)


def _check_preload(library: Path, engine_user: str | None) -> None:
    entry = pwd.getpwnam(engine_user) if engine_user else None
    done = subprocess.run(
        ["/bin/true"],
        env={"LD_PRELOAD": str(library)},
        user=entry.pw_uid if entry else None,
        group=entry.pw_gid if entry else None,
        extra_groups=[] if entry else None,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    # The loader only warns, on standard error, when it leaves a library out.
    if done.returncode != 0 or done.stderr.strip():
        raise Unfit(
            f"the volume library {library} cannot be preloaded (LD_PRELOAD): "
            f"{done.stderr.strip() or done.returncode}. Without it no engine may write. Is the disk mounted "
            "noexec, or the C library another one than glibc?"
        )
