"""Blobs: named files next to a segment's log, such as the images that instances start from.

Owns the directory of one segment's blobs. A blob is either there, whole and verified, or not there. Every
call blocks on the disk; calls may come from several threads. It does not look into a blob.

FORMAT (directory blobs/)
    <name>@<sha256, 64 hex digits>   a whole blob, renamed to this after its checksum was verified and synced
    <name>.part                      one that is being received
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from pathlib import Path

from borealis.log.wire import BlobData, BlobDelete, BlobGet, BlobInfo, BlobOk, BlobPut, Error
from borealis.storage.errors import BlobError, StorageError, disk_error
from borealis.storage.prepare import sync_directory, write_all

PIECE_BYTES_MAX = 4 * 1024 * 1024
"""The most that one BLOB_GET returns, in bytes."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class BlobStore:
    """The blobs of one segment. Raises StorageError (BlobError: the request is wrong)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()

    def open(self) -> None:
        """Makes the directory when it is not there."""
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise disk_error(error, f"creating {self._directory}") from error

    def answer(self, request: BlobPut | BlobGet | BlobDelete) -> BlobOk | BlobData | Error:
        """Does what is asked. Raises nothing: a failure is an answer, too."""
        try:
            match request:
                case BlobPut():
                    return self.put(request)
                case BlobGet():
                    return self.get(request)
                case BlobDelete():
                    return self.delete(request)
        except StorageError as error:
            return Error(error.code, error.message)

    def infos(self) -> tuple[BlobInfo, ...]:
        """All whole blobs, by name."""
        found: list[BlobInfo] = []
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._directory):
                name, at, sha256 = entry.name.partition("@")
                if at and _SHA256.fullmatch(sha256):
                    found.append(BlobInfo(name, entry.stat().st_size, sha256))
        return tuple(sorted(found, key=lambda info: info.name))

    def put(self, piece: BlobPut) -> BlobOk:
        """Takes the next piece. Offset 0 begins anew; repeating a piece is harmless."""
        self._check(piece.name)
        if not _SHA256.fullmatch(piece.sha256):
            raise BlobError(f"blob {piece.name}: {piece.sha256!r} is no SHA-256 in lower case hexadecimal")
        if piece.offset < 0 or piece.offset + len(piece.data) > piece.size:
            raise BlobError(
                f"blob {piece.name}: the piece at {piece.offset} of {len(piece.data)} bytes lies outside of "
                f"its {piece.size} bytes"
            )
        final = self._directory / f"{piece.name}@{piece.sha256}"
        try:
            with self._lock:
                if final.exists():
                    return BlobOk(piece.name, piece.size)
                return BlobOk(piece.name, self._write(piece, final))
        except OSError as error:
            raise disk_error(error, f"writing blob {piece.name}") from error

    def _write(self, piece: BlobPut, final: Path) -> int:
        part = self._directory / f"{piece.name}.part"
        fd = os.open(part, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            have = os.fstat(fd).st_size
            if piece.offset > have:
                raise BlobError(
                    f"blob {piece.name}: the piece at {piece.offset} is out of order: go on from {have}"
                )
            os.ftruncate(fd, piece.offset)
            write_all(fd, piece.data, piece.offset)
            have = piece.offset + len(piece.data)
            if piece.last:
                os.fsync(fd)
        finally:
            os.close(fd)
        if piece.last:
            self._publish(piece, part, final)
        return have

    def _publish(self, piece: BlobPut, part: Path, final: Path) -> None:
        with part.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != piece.sha256 or part.stat().st_size != piece.size:
            part.unlink()
            raise BlobError(
                f"blob {piece.name}: what arrived has SHA-256 {sha256}, not {piece.sha256}: send it again"
            )
        older = self._find(piece.name)
        part.rename(final)
        if older is not None:
            older.unlink()
        sync_directory(self._directory)

    def path(self, info: BlobInfo) -> Path:
        """Where that blob lies. It may be gone by now."""
        return self._directory / f"{info.name}@{info.sha256}"

    def discard(self, info: BlobInfo) -> None:
        """Removes exactly that blob, which turned out to be damaged. Raises StorageError."""
        try:
            with self._lock:
                self.path(info).unlink(missing_ok=True)
                sync_directory(self._directory)
        except OSError as error:
            raise disk_error(error, f"removing blob {info.name}") from error

    def get(self, request: BlobGet) -> BlobData:
        """A piece of a blob; empty at its end."""
        self._check(request.name)
        try:
            path = self._find(request.name)
            if path is None:
                raise BlobError(f"there is no blob {request.name} here")
            with path.open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                length = max(0, min(request.length, PIECE_BYTES_MAX))
                data = os.pread(file.fileno(), length, max(0, request.offset))
        except OSError as error:
            raise disk_error(error, f"reading blob {request.name}") from error
        return BlobData(request.name, request.offset, size, path.name.partition("@")[2], data)

    def delete(self, request: BlobDelete) -> BlobOk:
        """Removes a blob, also a half-received one. One that is not there is no failure."""
        self._check(request.name)
        try:
            with self._lock:
                (self._directory / f"{request.name}.part").unlink(missing_ok=True)
                path = self._find(request.name)
                if path is not None:
                    path.unlink()
                    sync_directory(self._directory)
        except OSError as error:
            raise disk_error(error, f"removing blob {request.name}") from error
        return BlobOk(request.name)

    def _find(self, name: str) -> Path | None:
        for entry in os.scandir(self._directory):
            if entry.name.startswith(f"{name}@") and _SHA256.fullmatch(entry.name[len(name) + 1 :]):
                return Path(entry.path)
        return None

    def _check(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise BlobError(f"{name!r} is no name for a blob: letters, digits, '.', '_', '-', at most 151")
