"""Tags of resources: their rules and their form in requests and answers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from borealis.api.context import Context
from borealis.api.errors import invalid_value
from borealis.api.params import Params

_KEY_MAX = 128
_VALUE_MAX = 256
_ALLOWED = re.compile(r"[\w\s.:/=+\-@]*")


def given_tags(params: Params, name: str = "Tags") -> dict[str, str]:
    """The tags of a request. Raises ApiError InvalidParameterValue."""
    tags: dict[str, str] = {}
    for given in params.structures(name):
        key, value = given.string("Key") or "", given.string("Value") or ""
        _check(key, value)
        if key in tags:
            raise invalid_value(f"Duplicate tag key: {key}")
        tags[key] = value
    return tags


def with_tags(context: Context, present: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """The tags of a resource after adding some.

    Raises ApiError InvalidParameterValue when they are too many.
    """
    merged = {**present, **added}
    most = context.quotas.tags_per_resource
    if len(merged) > most:
        raise invalid_value(f"A resource can have at most {most} tags; this one would have {len(merged)}.")
    return merged


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as answers show them."""
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def _check(key: str, value: str) -> None:
    if not 1 <= len(key) <= _KEY_MAX or len(value) > _VALUE_MAX:
        raise invalid_value(
            f"A tag's key must have 1 to {_KEY_MAX} characters and its value at most {_VALUE_MAX}; the "
            f"key '{key[:40]}' does not fit."
        )
    if key.lower().startswith(("aws:", "rds:")):
        raise invalid_value(
            f"The tag key '{key}' begins with a prefix that is reserved for AWS: 'aws:' or 'rds:'."
        )
    if not _ALLOWED.fullmatch(key) or not _ALLOWED.fullmatch(value):
        raise invalid_value(
            f"The tag '{key}' contains characters other than letters, digits, spaces and . : / = + - @ _"
        )
