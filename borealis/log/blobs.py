"""The wire messages of blobs: named files next to a segment's log, such as images that instances start from.

Owns their byte format only (the whole is in `wire`); who may put or delete one is decided elsewhere.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, ClassVar

from borealis.log.frames import Buffer, Kind, frame

_BLOB = struct.Struct(">H")


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A whole, verified blob on a segment: size in bytes, SHA-256 of its content in hexadecimal."""

    name: str
    size: int
    sha256: str


def _split_blob(payload: Buffer) -> tuple[dict[str, Any], bytes]:
    (length,) = _BLOB.unpack_from(payload)
    head = json.loads(bytes(payload[_BLOB.size : _BLOB.size + length]))
    return head, bytes(payload[_BLOB.size + length :])


def _join_blob(kind: Kind, head: dict[str, Any], data: bytes) -> bytes:
    encoded = json.dumps(head, separators=(",", ":")).encode()
    return frame(kind, _BLOB.pack(len(encoded)), encoded, data)


@dataclass(frozen=True, slots=True)
class BlobPut:
    """A piece of a blob at `offset`. `size`, `sha256`: of the whole; `last` asks to verify and publish."""

    KIND: ClassVar[Kind] = Kind.BLOB_PUT
    name: str
    offset: int
    size: int
    sha256: str
    last: bool
    data: bytes

    def encode(self) -> bytes:
        head = {
            "name": self.name,
            "offset": self.offset,
            "size": self.size,
            "sha256": self.sha256,
            "last": self.last,
        }
        return _join_blob(self.KIND, head, self.data)

    @classmethod
    def decode_payload(cls, payload: Buffer) -> BlobPut:
        head, data = _split_blob(payload)
        return cls(
            str(head["name"]),
            int(head["offset"]),
            int(head["size"]),
            str(head["sha256"]),
            bool(head["last"]),
            data,
        )


@dataclass(frozen=True, slots=True)
class BlobData:
    """A piece of a blob; `size` and `sha256` are those of the whole."""

    KIND: ClassVar[Kind] = Kind.BLOB_DATA
    name: str
    offset: int
    size: int
    sha256: str
    data: bytes

    def encode(self) -> bytes:
        head = {"name": self.name, "offset": self.offset, "size": self.size, "sha256": self.sha256}
        return _join_blob(self.KIND, head, self.data)

    @classmethod
    def decode_payload(cls, payload: Buffer) -> BlobData:
        head, data = _split_blob(payload)
        return cls(str(head["name"]), int(head["offset"]), int(head["size"]), str(head["sha256"]), data)
