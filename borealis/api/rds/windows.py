"""Backup and maintenance windows: their form, their defaults, and that they do not overlap.

All times are UTC. A window is a range of minutes in a week, which may wrap around its end.
"""

from __future__ import annotations

import re
import secrets

from borealis.api.errors import invalid_combination, invalid_value

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES = 24 * 60
_WEEK_MINUTES = 7 * _DAY_MINUTES
_LENGTH_MIN = 30
_CLOCK = r"([01][0-9]|2[0-3]):([0-5][0-9])"
_BACKUP = re.compile(f"{_CLOCK}-{_CLOCK}")
_MAINTENANCE = re.compile(f"({'|'.join(_DAYS)}):{_CLOCK}-({'|'.join(_DAYS)}):{_CLOCK}")

#: The eight hours in which windows are chosen: the first half for backups, the second for maintenance, so
#: that they never meet.
_BACKUP_FROM = 3 * 60
_MAINTENANCE_FROM = 7 * 60
_CHOICES = 4 * 60 // _LENGTH_MIN


def _clock(minute: int) -> str:
    return f"{minute // 60 % 24:02d}:{minute % 60:02d}"


def default_backup_window() -> str:
    """Half an hour, at random."""
    start = _BACKUP_FROM + secrets.randbelow(_CHOICES) * _LENGTH_MIN
    return f"{_clock(start)}-{_clock(start + _LENGTH_MIN)}"


def default_maintenance_window() -> str:
    """Half an hour of a day, at random."""
    day = secrets.choice(_DAYS)
    start = _MAINTENANCE_FROM + secrets.randbelow(_CHOICES) * _LENGTH_MIN
    return f"{day}:{_clock(start)}-{day}:{_clock(start + _LENGTH_MIN)}"


def backup_window(text: str) -> str:
    """A backup window as AWS shows it. Raises ApiError InvalidParameterValue."""
    window = text.strip()
    match = _BACKUP.fullmatch(window)
    if match is None:
        raise invalid_value(
            f"Invalid backup window format: {text}. Should be specified as a range hh24:mi-hh24:mi (24H "
            "Clock UTC)."
        )
    _, length = _backup_range(window)
    if length < _LENGTH_MIN:
        raise invalid_value(f"The backup window must be at least {_LENGTH_MIN} minutes.")
    return window


def maintenance_window(text: str) -> str:
    """A maintenance window as AWS shows it: in lower case. Raises ApiError InvalidParameterValue."""
    window = text.strip().lower()
    if _MAINTENANCE.fullmatch(window) is None:
        raise invalid_value(
            f"Invalid maintenance window format: {text}. Should be specified as a range "
            "ddd:hh24:mi-ddd:hh24:mi (24H Clock UTC)."
        )
    _, length = _maintenance_range(window)
    if not _LENGTH_MIN <= length < _DAY_MINUTES:
        raise invalid_value(
            f"The maintenance window must be at least {_LENGTH_MIN} minutes and less than 24 hours."
        )
    return window


def check_apart(backup: str, maintenance: str) -> None:
    """See that a cluster's two windows do not overlap. Raises ApiError InvalidParameterCombination."""
    start, length = _backup_range(backup)
    other, other_length = _maintenance_range(maintenance)
    for day in range(7):
        one = start + day * _DAY_MINUTES
        if (other - one) % _WEEK_MINUTES < length or (one - other) % _WEEK_MINUTES < other_length:
            raise invalid_combination(
                f"The backup window {backup} and the maintenance window {maintenance} must not overlap."
            )


def _backup_range(window: str) -> tuple[int, int]:
    """First minute of the day, and length in minutes."""
    match = _BACKUP.fullmatch(window)
    assert match is not None
    start, end = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
    return start, (end - start) % _DAY_MINUTES


def _maintenance_range(window: str) -> tuple[int, int]:
    """First minute of the week, and length in minutes."""
    match = _MAINTENANCE.fullmatch(window)
    assert match is not None
    start = _DAYS.index(match[1]) * _DAY_MINUTES + int(match[2]) * 60 + int(match[3])
    end = _DAYS.index(match[4]) * _DAY_MINUTES + int(match[5]) * 60 + int(match[6])
    return start, (end - start) % _WEEK_MINUTES
