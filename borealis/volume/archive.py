"""Packs a directory into one compressed file, and back.

Owns the archive format of images. It knows nothing of volumes, nodes or engines; it blocks, so callers run
it in a thread.

FORMAT (image archive): a POSIX (pax) tar of directories, regular files and relative symbolic links, without
owners and times, compressed as one zstd frame with a content checksum. Files come back with mode 0600,
directories with 0700, owned by who unpacks.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

import zstandard

from borealis.errors import BorealisError

LEVEL = 3
_COPY_BYTES = 1 << 20


class ArchiveError(BorealisError):
    """An archive is damaged, or holds what an image never holds."""

    code = "ImageCorrupt"


@dataclass(frozen=True)
class ArchiveInfo:
    """A written archive: its size in bytes, and the SHA-256 of the whole file in hex."""

    size: int
    sha256: str


class _HashingWriter:
    """A file that is hashed while it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def info(self) -> ArchiveInfo:
        return ArchiveInfo(self.size, self._hash.hexdigest())


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """The member without what differs from machine to machine; sockets, devices and pipes are left out."""
    if not (member.isreg() or member.isdir() or member.issym()):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    member.mode = 0o700 if member.isdir() else 0o600
    return member


def pack_directory(directory: Path, target: Path) -> ArchiveInfo:
    """Writes the archive of `directory` to `target` (replaced, synced). Raises OSError."""
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        hashing = _HashingWriter(file)
        compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        with (
            compressor.stream_writer(cast(IO[bytes], hashing), closefd=False) as packed,
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
        ):
            for path in sorted(directory.iterdir()):
                archive.add(path, arcname=path.name, filter=_plain)
        file.flush()
        os.fsync(file.fileno())
    return hashing.info()


def _destination(root: Path, name: str) -> Path:
    """Where a member goes; raises ArchiveError for a name that leads out of `root`."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise ArchiveError(
            f"the archive holds {name!r}: expected paths below its root; get it from another node"
        )
    return root.joinpath(*relative.parts)


def _extract(member: tarfile.TarInfo, source: IO[bytes] | None, path: Path) -> None:
    if member.isdir():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    elif member.issym():
        _destination(path.parent, member.linkname)
        path.symlink_to(member.linkname)
    elif member.isreg() and source is not None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(source, file, _COPY_BYTES)
    else:
        raise ArchiveError(f"the archive holds {member.name!r}, which is neither a file, a folder nor a link")


def unpack_archive(source: Path, directory: Path, give_to: Callable[[Path], None] | None = None) -> None:
    """Unpacks into `directory`, which must not exist yet and appears only when it is complete.

    `give_to`: called with each path that was made, for example to change its owner. Raises ArchiveError for
    a damaged archive, OSError when the file system refuses; leaves nothing behind then.
    """
    fresh = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700, parents=True)
    try:
        with (
            source.open("rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file) as plain,
            tarfile.open(fileobj=plain, mode="r|") as archive,
        ):
            for member in archive:
                path = _destination(fresh, member.name)
                _extract(member, archive.extractfile(member) if member.isreg() else None, path)
                if give_to is not None:
                    give_to(path)
        if give_to is not None:
            give_to(fresh)
        fresh.rename(directory)
    except (tarfile.TarError, zstandard.ZstdError, EOFError) as error:
        raise ArchiveError(f"{source}: {error}: the archive is damaged; get it from another node") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
