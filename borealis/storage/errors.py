"""Typed failures of the storage node and of its client."""

from __future__ import annotations

import errno

from borealis.errors import BorealisError


class StorageError(BorealisError):
    """Any foreseen failure of a storage node."""

    code = "StorageFailure"


class StorageFull(StorageError):
    """There is no room to prepare another log file or to store a blob. Nothing was accepted."""

    code = "StorageFull"


class StorageReadOnly(StorageError):
    """The file system is read-only. Nothing was accepted."""

    code = "ReadOnly"


class StorageBroken(StorageError):
    """A write or a sync failed: what is on disk must be read again before anything is acknowledged."""

    code = "StorageBroken"


class SegmentDamaged(StorageError):
    """Promises or history were lost on this segment: it must not vote or acknowledge; replace it."""

    code = "SegmentDamaged"


class CorruptRange(StorageError):
    """Bytes of [start, end) do not match their checksum (or are gone): they are never served."""

    code = "CorruptRange"

    def __init__(self, start: int, end: int) -> None:
        super().__init__(f"log bytes [{start}, {end}) are damaged on this node: read them from another one")
        self.start = start
        self.end = end


class LogTrimmed(StorageError):
    """The wanted LSN lies below the segment's base: start from a newer image."""

    code = "LogTrimmed"


class NoSuchVolume(StorageError):
    """This node has no segment of the volume."""

    code = "NoSuchVolume"


class BlobError(StorageError):
    """A blob was refused: bad name, wrong checksum, pieces out of order, or it does not exist."""

    code = "BlobError"


class NodeUnreachable(StorageError):
    """The node does not answer, or the connection was lost."""

    code = "NodeUnreachable"


class NodeRefused(StorageError):
    """The node answered with an error; `code` is the node's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def disk_error(error: OSError, doing: str) -> StorageError:
    """The typed form of an OSError met while `doing` something ("writing /path")."""
    text = f"{doing}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageFull(f"{text}: free some space; the segment goes on by itself")
    if error.errno == errno.EROFS:
        return StorageReadOnly(f"{text}: remount the file system writable; the segment goes on by itself")
    return StorageBroken(f"{text}: the disk may be failing")
