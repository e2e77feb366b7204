"""Errors for requests to services that are not provided here, in the protocol that their clients read.

Owns a guess (query, JSON or CBOR, by the request's headers) and one error body for each. Never parses a
request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from borealis.api.errors import ApiError
from borealis.api.protocol import query
from borealis.api.sigv4 import HttpRequest


def serialize_error(
    request: HttpRequest, error: ApiError, request_id: str
) -> tuple[bytes, str, Mapping[str, str]]:
    """Body, content type and further headers of an error answer."""
    content_type = (request.header("content-type") or "").partition(";")[0].strip().lower()
    fields = {"__type": error.code, "message": error.message}
    if request.header("smithy-protocol") == "rpc-v2-cbor":
        return _cbor(fields), "application/cbor", {"smithy-protocol": "rpc-v2-cbor"}
    if request.header("x-amz-target") or content_type.startswith("application/x-amz-json"):
        return (
            json.dumps(fields).encode(),
            content_type or "application/x-amz-json-1.1",
            {"x-amzn-errortype": error.code},
        )
    if content_type == "application/json":
        return json.dumps(fields).encode(), content_type, {"x-amzn-errortype": error.code}
    return query.serialize_error("", error, request_id), "text/xml; charset=utf-8", {}


def _cbor(fields: Mapping[str, str]) -> bytes:
    """A CBOR map of texts (RFC 8949: major types 5 and 3)."""
    parts = [bytes((0xA0 | len(fields),))]
    for text in (text for item in fields.items() for text in item):
        encoded = text.encode()
        parts += [b"\x79" + len(encoded).to_bytes(2, "big"), encoded]
    return b"".join(parts)
