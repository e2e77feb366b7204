"""What has happened: DescribeEvents, over the last 14 days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from borealis.api.context import Call, Context
from borealis.api.errors import invalid_combination, invalid_value
from borealis.api.params import Params
from borealis.api.rds.listing import PAGED, page
from borealis.api.rds.service import operations
from borealis.api.registry import EFFECT, Result, all_of
from borealis.control.records import Event

_KEPT = timedelta(days=14)
_MINUTES_DEFAULT = 60
_MINUTES_MAX = 14 * 24 * 60


@operations.operation(
    "DescribeEvents",
    {
        **PAGED,
        **all_of(
            EFFECT, "SourceIdentifier", "SourceType", "StartTime", "EndTime", "Duration", "EventCategories"
        ),
    },
)
async def describe_events(call: Call, params: Params) -> Result:
    """Events by source, time and category, oldest first; of the last hour unless told otherwise."""
    context = call.context
    source, kind = params.string("SourceIdentifier"), params.string("SourceType")
    if source and not kind:
        raise invalid_combination("SourceIdentifier can not be specified without SourceType.")
    since, until = _range(context, params)
    wanted = {category.lower() for category in params.strings("EventCategories") or ()}
    found = context.store.events(
        since=since, until=until, source_type=kind, source_id=source.lower() if source else None
    )
    matching = [e for e in found if not wanted or wanted & {category.lower() for category in e.categories}]
    shown, marker = page(params, matching, lambda event: f"{event.id:020d}")
    return {"Events": [_view(event) for event in shown], "Marker": marker}


def _range(context: Context, params: Params) -> tuple[datetime, datetime]:
    start, end, minutes = (
        params.timestamp("StartTime"),
        params.timestamp("EndTime"),
        params.integer("Duration"),
    )
    now = context.clock().astimezone(UTC)
    if minutes is not None and not 1 <= minutes <= _MINUTES_MAX:
        raise invalid_value(
            f"Invalid value {minutes} for Duration. Must be between 1 and {_MINUTES_MAX} minutes."
        )
    if minutes is not None and start is not None and end is not None:
        raise invalid_combination("StartTime, EndTime and Duration can not be specified together.")
    length = timedelta(minutes=minutes or _MINUTES_DEFAULT)
    if start is None:
        end = end or now
        start = end - length
    elif end is None:
        end = start + length if minutes is not None else now
    if start > end:
        raise invalid_combination("StartTime must be before EndTime.")
    if end < now - _KEPT:
        raise invalid_value("Events are kept for 14 days; EndTime is older than that.")
    return start, end


def _view(event: Event) -> dict[str, Any]:
    return {
        "SourceIdentifier": event.source_id,
        "SourceType": event.source_type,
        "Message": event.message,
        "EventCategories": list(event.categories),
        "Date": event.date,
        "SourceArn": event.source_arn,
    }
