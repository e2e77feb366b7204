"""Serverless v2 capacity: AWS's rules for the range of a cluster, and its form in answers."""

from __future__ import annotations

from borealis.api.errors import invalid_combination, invalid_value
from borealis.api.params import Params
from borealis.control.records import ServerlessV2
from borealis.engines.classes import MAX_ACU, MIN_ACU

_LARGEST_MIN = 1.0
_PAUSE_MIN = 300
_PAUSE_MAX = 86_400


def chosen_capacity(given: Params, present: ServerlessV2 | None) -> ServerlessV2:
    """The capacity range of a request; what it does not say stays as it is. Raises ApiError."""
    least, most = given.number("MinCapacity"), given.number("MaxCapacity")
    least = least if least is not None else present.min_capacity if present else None
    most = most if most is not None else present.max_capacity if present else None
    if least is None or most is None:
        absent = given.full_name("MinCapacity" if least is None else "MaxCapacity")
        raise invalid_combination(f"The Serverless v2 scaling configuration needs the parameter {absent}.")
    _check_step(least, given.full_name("MinCapacity"), MIN_ACU)
    _check_step(most, given.full_name("MaxCapacity"), _LARGEST_MIN)
    if least > most:
        raise invalid_combination(
            f"The minimum capacity {least:g} must not be larger than the maximum capacity {most:g}."
        )
    pause = given.integer("SecondsUntilAutoPause")
    if pause is None and present is not None:
        pause = present.seconds_until_auto_pause
    return ServerlessV2(
        min_capacity=least, max_capacity=most, seconds_until_auto_pause=_pause(given, least, pause)
    )


def _check_step(value: float, name: str, lowest: float) -> None:
    if not lowest <= value <= MAX_ACU or (value * 2) % 1:
        raise invalid_value(
            f"Serverless v2 capacity {value:g} isn't valid for {name}. It must be {lowest:g} to "
            f"{MAX_ACU:g} in steps of 0.5."
        )


def _pause(given: Params, least: float, pause: int | None) -> int | None:
    name = "SecondsUntilAutoPause"
    if least > 0:
        if name in given:
            raise invalid_combination(f"The parameter {name} can be given only with a minimum capacity of 0.")
        return None
    seconds = _PAUSE_MIN if pause is None else pause
    if not _PAUSE_MIN <= seconds <= _PAUSE_MAX:
        raise invalid_value(
            f"Invalid value {seconds} for {name}. Must be between {_PAUSE_MIN} and {_PAUSE_MAX}."
        )
    return seconds


def capacity_view(capacity: ServerlessV2 | None) -> dict[str, object] | None:
    """A capacity range as answers show it."""
    if capacity is None:
        return None
    return {
        "MinCapacity": capacity.min_capacity,
        "MaxCapacity": capacity.max_capacity,
        "SecondsUntilAutoPause": capacity.seconds_until_auto_pause,
    }
