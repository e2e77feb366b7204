"""What all Describe operations share: filters, and answers in pages.

Owns Filters, Marker and MaxRecords with AWS's bounds and messages. A marker holds the key of the last record
shown, so that a page neither repeats nor skips a record when others come and go between two calls.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from borealis.api.errors import invalid_value
from borealis.api.params import Params
from borealis.api.registry import EFFECT, Support

T = TypeVar("T")

RECORDS_DEFAULT = 100
RECORDS_MIN = 20
RECORDS_MAX = 100

#: The parameters that `page` and `filtered` take care of.
PAGED: Mapping[str, Support] = {"MaxRecords": EFFECT, "Marker": EFFECT}
LISTED: Mapping[str, Support] = {**PAGED, "Filters": EFFECT}

#: Values of a record that a filter may match, by the filter's name.
FilterValues = Callable[[T], Iterable[str]]


def filtered(params: Params, records: Iterable[T], known: Mapping[str, FilterValues[T]]) -> list[T]:
    """The records that match every filter of a request.

    Raises ApiError InvalidParameterValue for a filter that is not `known`.
    """
    result = list(records)
    for given in params.structures("Filters"):
        name = given.text("Name")
        values_of = known.get(name)
        if values_of is None:
            listed = ", ".join(sorted(known)) or "none"
            raise invalid_value(f"Unrecognized filter name: {name}. Filters of this operation: {listed}.")
        wanted = {_plain(value) for value in given.strings("Values") or ()}
        if not wanted:
            raise invalid_value(f"The filter {name} needs at least one value.")
        result = [record for record in result if wanted & {_plain(value) for value in values_of(record)}]
    return result


def _plain(value: str) -> str:
    return value.lower()


def page(
    params: Params, records: Sequence[T], key: Callable[[T], str], most: int = RECORDS_MAX
) -> tuple[list[T], str | None]:
    """The records of the page that a request asks for, by ascending key, and the marker of the next page, if
    there is one.
    """
    size = params.integer("MaxRecords")
    size = RECORDS_DEFAULT if size is None else size
    if not RECORDS_MIN <= size <= most:
        raise invalid_value(f"Invalid value {size} for MaxRecords. Must be between {RECORDS_MIN} and {most}")
    after = _after(params.string("Marker"))
    waiting = sorted((r for r in records if after is None or key(r) > after), key=key)
    shown = waiting[:size]
    return shown, _marker(key(shown[-1])) if len(waiting) > size else None


def _marker(key: str) -> str:
    return base64.urlsafe_b64encode(b"1:" + key.encode()).decode()


def _after(marker: str | None) -> str | None:
    if not marker:
        return None
    try:
        decoded = base64.b64decode(marker.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        decoded = ""
    if not decoded.startswith("1:"):
        raise invalid_value("The parameter Marker is not one that an earlier answer gave.")
    return decoded[2:]
