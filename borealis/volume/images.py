"""Images: copies of an engine's data folder at one log position, from which instances start.

Owns how an image is named and described, how it is stored on the volume's nodes and how it comes back. An
image is never needed for durability (the log has everything) but it must be there to start an instance, so
it is stored on a write quorum of nodes, and it counts only once its manifest is there too. It never decides
when an image is made or removed.

FORMAT (image, version 1; two blobs of the volume's segments)
    image-<lsn, 16 hex digits>.tar.zst   the data folder, see `borealis.volume.archive`
    image-<lsn, 16 hex digits>.json      manifest: the fields of `ImageManifest`; stored last: an image
                                         without one does not exist
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from borealis.errors import BorealisError
from borealis.log.wire import (
    BlobData,
    BlobDelete,
    BlobGet,
    BlobInfo,
    BlobOk,
    BlobPut,
    Purpose,
    Status,
    StatusReply,
)
from borealis.logs import get_logger
from borealis.storage.client import NodeConnection
from borealis.volume.archive import ArchiveInfo, pack_directory, unpack_archive

log = get_logger(__name__)

VERSION = 1
PIECE_BYTES = 1 << 20
"""Size of one transferred piece, in bytes."""

_MANIFEST_NAME = re.compile(r"image-([0-9a-f]{16})\.json")
_BLOB_NAME = re.compile(r"image-([0-9a-f]{16})\.(?:json|tar\.zst)")


class ImageError(BorealisError):
    """An image could not be stored on enough nodes, or not be had from any of them."""

    code = "ImageUnavailable"


class ImageManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an image is. Complete at `lsn`: an engine that starts from it needs the log from there on."""

    version: int = VERSION
    system_id: str
    timeline: int
    lsn: int
    engine: str
    engine_version: str
    size: int
    """Bytes of the archive."""
    sha256: str
    """SHA-256 of the archive, hexadecimal."""

    @property
    def archive_name(self) -> str:
        return f"image-{self.lsn:016x}.tar.zst"

    @property
    def name(self) -> str:
        return manifest_name(self.lsn)


def position_of(blob: str) -> int | None:
    """The log position of the image that this blob is a part of; None: of none."""
    match = _BLOB_NAME.fullmatch(blob)
    return int(match[1], 16) if match else None


def manifest_name(lsn: int) -> str:
    """The name of the manifest of the image at a position."""
    return f"image-{lsn:016x}.json"


def archive_of(manifest: str) -> str:
    """The name of the archive that belongs to a manifest's name."""
    return manifest.removesuffix(".json") + ".tar.zst"


def whole(blobs: Sequence[BlobInfo]) -> frozenset[str]:
    """The names of those manifests among `blobs` whose archives are there, too."""
    names = {blob.name for blob in blobs}
    return frozenset(n for n in names if _MANIFEST_NAME.fullmatch(n) and archive_of(n) in names)


Connect = Callable[[str], Awaitable[NodeConnection]]
"""Opens a connection to the node at an address."""


def connector(volume: str) -> Connect:
    """The usual way to reach the nodes of `volume`."""

    async def connect(address: str) -> NodeConnection:
        return await NodeConnection.connect(address, volume, Purpose.CONTROL)

    return connect


async def pack(
    directory: Path,
    archive: Path,
    *,
    system_id: str,
    timeline: int,
    lsn: int,
    engine: str,
    engine_version: str,
) -> ImageManifest:
    """Packs a clean data folder (see `Engine.clean_image`) into the file `archive`."""
    info: ArchiveInfo = await asyncio.to_thread(pack_directory, directory, archive)
    return ImageManifest(
        system_id=system_id,
        timeline=timeline,
        lsn=lsn,
        engine=engine,
        engine_version=engine_version,
        size=info.size,
        sha256=info.sha256,
    )


# ---------------------------------------------------------------------- storing
async def store(
    connect: Connect, addresses: Sequence[str], archive: Path, manifest: ImageManifest, *, quorum: int = 4
) -> int:
    """Stores the image on every node that can be reached; returns on how many it is now.

    Can be repeated. Raises ImageError when those are fewer than `quorum`.
    """
    results = await asyncio.gather(
        *(_store_on(connect, address, archive, manifest) for address in addresses), return_exceptions=True
    )
    failures: list[BaseException] = []
    for address, result in zip(addresses, results, strict=True):
        if isinstance(result, BaseException):
            if not isinstance(result, BorealisError | OSError):
                raise result
            log.warning("image %s not stored at %s: %s", manifest.name, address, result)
            failures.append(result)
    stored = len(addresses) - len(failures)
    if stored < quorum:
        raise ImageError(
            f"image {manifest.name} is on {stored} nodes, expected at least {quorum}; the first failure was: "
            f"{failures[0]}; try again when more nodes are reachable"
        )
    return stored


async def _store_on(connect: Connect, address: str, archive: Path, manifest: ImageManifest) -> None:
    connection = await connect(address)
    try:
        held = {blob.name: blob for blob in (await _status(connection)).blobs}
        body = msgspec.json.encode(manifest)
        blob = held.get(manifest.archive_name)
        if blob is None or blob.sha256 != manifest.sha256:
            await _put_file(connection, manifest, archive)
        if manifest.name not in held:
            digest = hashlib.sha256(body).hexdigest()
            await _put(connection, BlobPut(manifest.name, 0, len(body), digest, True, body))
    finally:
        await connection.close()


async def _put_file(connection: NodeConnection, manifest: ImageManifest, archive: Path) -> None:
    with archive.open("rb") as file:
        offset = 0
        while True:
            data = await asyncio.to_thread(file.read, PIECE_BYTES)
            last = offset + len(data) >= manifest.size
            await _put(
                connection,
                BlobPut(manifest.archive_name, offset, manifest.size, manifest.sha256, last, data),
            )
            offset += len(data)
            if last:
                return


async def _put(connection: NodeConnection, piece: BlobPut) -> None:
    reply = await connection.request(piece)
    if not isinstance(reply, BlobOk):
        raise ImageError(f"{piece.name}: unexpected answer {type(reply).__name__} to a piece of a blob")


async def _status(connection: NodeConnection) -> StatusReply:
    reply = await connection.request(Status())
    if not isinstance(reply, StatusReply):
        raise ImageError(f"unexpected answer {type(reply).__name__} to a question for the segment's status")
    return reply


async def remove(connect: Connect, addresses: Sequence[str], manifest: ImageManifest) -> int:
    """Removes the image from every node that can be reached, the manifest first; returns from how many.

    Can be repeated.
    """
    removed = 0
    for address in addresses:
        try:
            connection = await connect(address)
        except (BorealisError, OSError) as error:
            log.warning("image %s not removed at %s: %s", manifest.name, address, error)
            continue
        try:
            for name in (manifest.name, manifest.archive_name):
                await connection.request(BlobDelete(name))
            removed += 1
        except (BorealisError, OSError) as error:
            log.warning("image %s not removed at %s: %s", manifest.name, address, error)
        finally:
            await connection.close()
    return removed


# ---------------------------------------------------------------------- fetching
async def find(connect: Connect, addresses: Sequence[str], at_most: int | None = None) -> ImageManifest:
    """The newest image (complete at or below `at_most`, if given) that any reachable node holds.

    Raises ImageError when there is none.
    """
    names: dict[int, list[str]] = {}
    for address, blobs in zip(addresses, await _blobs_of_all(connect, addresses), strict=True):
        for blob in blobs:
            match = _MANIFEST_NAME.fullmatch(blob)
            if match and (at_most is None or int(match[1], 16) <= at_most):
                names.setdefault(int(match[1], 16), []).append(address)
    for lsn in sorted(names, reverse=True):
        for address in names[lsn]:
            with contextlib.suppress(BorealisError, OSError, msgspec.DecodeError):
                return await _manifest(connect, address, manifest_name(lsn))
    raise ImageError(
        f"no node of {len(addresses)} holds a usable image"
        + (f" at or below {at_most:X}" if at_most is not None else "")
        + ": start more storage nodes, or create the volume first"
    )


async def _blobs_of_all(connect: Connect, addresses: Sequence[str]) -> list[tuple[str, ...]]:
    async def names_at(address: str) -> tuple[str, ...]:
        try:
            connection = await connect(address)
        except (BorealisError, OSError):
            return ()
        try:
            return tuple(blob.name for blob in (await _status(connection)).blobs)
        except (BorealisError, OSError):
            return ()
        finally:
            await connection.close()

    return list(await asyncio.gather(*map(names_at, addresses)))


async def _manifest(connect: Connect, address: str, name: str) -> ImageManifest:
    connection = await connect(address)
    try:
        piece = _piece(await connection.request(BlobGet(name, 0, PIECE_BYTES)), name)
    finally:
        await connection.close()
    manifest = msgspec.json.decode(piece.data, type=ImageManifest)
    if manifest.version != VERSION or manifest.name != name:
        raise ImageError(f"{name}: manifest of version {manifest.version}, expected {VERSION}")
    return manifest


async def fetch(connect: Connect, addresses: Sequence[str], manifest: ImageManifest, archive: Path) -> None:
    """Downloads an image's archive, verified, to `archive`. Tries one node after the other.

    Raises ImageError when no node can give it.
    """
    failures: list[str] = []
    for address in addresses:
        try:
            await _download(connect, address, manifest, archive)
            return
        except (BorealisError, OSError) as error:
            failures.append(f"{address}: {error}")
    raise ImageError(f"image {manifest.name} cannot be had from any node: {'; '.join(failures)}")


async def _download(connect: Connect, address: str, manifest: ImageManifest, archive: Path) -> None:
    digest = hashlib.sha256()
    connection = await connect(address)
    try:
        with await asyncio.to_thread(open, archive, "wb", opener=_private) as file:
            while (offset := file.tell()) < manifest.size:
                request = BlobGet(manifest.archive_name, offset, PIECE_BYTES)
                data = _piece(await connection.request(request), request.name).data
                if not data:
                    raise ImageError(f"{request.name} ends at {offset}, expected {manifest.size} bytes")
                digest.update(data)
                await asyncio.to_thread(file.write, data)
    finally:
        await connection.close()
    if digest.hexdigest() != manifest.sha256:
        raise ImageError(f"{manifest.archive_name}: the checksum does not match its manifest")


async def attach(
    connect: Connect,
    addresses: Sequence[str],
    cache: Path,
    manifest: ImageManifest,
    give_to: Callable[[Path], None] | None = None,
) -> Path:
    """The unpacked image at `cache`, fetched first if it is not there yet. Can be repeated."""
    if cache.is_dir():
        return cache
    cache.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    archive = cache.with_name(f".{cache.name}.{os.getpid()}.tar.zst")
    try:
        await fetch(connect, addresses, manifest, archive)
        await asyncio.to_thread(unpack_archive, archive, cache, give_to)
    finally:
        archive.unlink(missing_ok=True)
    return cache


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _piece(reply: object, name: str) -> BlobData:
    if not isinstance(reply, BlobData) or reply.name != name:
        raise ImageError(f"{name}: unexpected answer {type(reply).__name__}, expected a piece of the blob")
    return reply
