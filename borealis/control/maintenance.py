"""When a maintenance window is open. Pure.

Windows are AWS's: `ddd:hh:mm-ddd:hh:mm` in UTC, and may go over the end of the week.
"""

from __future__ import annotations

import re
from datetime import datetime

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FORM = re.compile(r"(\w{3}):(\d\d):(\d\d)-(\w{3}):(\d\d):(\d\d)")
_WEEK_MINUTES = 7 * 24 * 60


def in_window(window: str, moment: datetime) -> bool:
    """Whether `moment` (UTC) lies in `window`; a window that cannot be read is never open."""
    match = _FORM.fullmatch(window.lower())
    if match is None or match[1] not in _DAYS or match[4] not in _DAYS:
        return False
    start = _minute(_DAYS.index(match[1]), int(match[2]), int(match[3]))
    end = _minute(_DAYS.index(match[4]), int(match[5]), int(match[6]))
    now = _minute(moment.weekday(), moment.hour, moment.minute)
    return (now - start) % _WEEK_MINUTES < (end - start) % _WEEK_MINUTES


def _minute(day: int, hour: int, minute: int) -> int:
    return (day * 24 + hour) * 60 + minute
