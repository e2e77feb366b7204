"""The parameters of one call, read with their types.

Owns typed getters over what the protocol parsed, so that operation modules stay free of casts. The parsed
values are already of their model's types; a getter of the wrong type is a defect and raises TypeError.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

from borealis.api.errors import missing

T = TypeVar("T")


class Params:
    """Parameters of an operation, or of a structure in it. `name` is the structure's own, for messages."""

    def __init__(self, values: Mapping[str, Any], name: str = "") -> None:
        self._values = values
        self._name = name

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def full_name(self, name: str) -> str:
        """The parameter's name as the client wrote it."""
        return f"{self._name}.{name}" if self._name else name

    def string(self, name: str) -> str | None:
        """A string, or None when not given."""
        return self._get(name, str)

    def text(self, name: str) -> str:
        """A string that must be given and not be blank. Raises ApiError MissingParameter."""
        value = self.string(name)
        if value is None or not value.strip():
            raise missing(self.full_name(name))
        return value

    def integer(self, name: str) -> int | None:
        """An integer, or None when not given."""
        return self._get(name, int)

    def number(self, name: str) -> float | None:
        """A floating-point number, or None when not given."""
        return self._get(name, float)

    def boolean(self, name: str, default: bool = False) -> bool:
        """A boolean, or the default when not given."""
        value = self._get(name, bool)
        return default if value is None else value

    def flag(self, name: str) -> bool | None:
        """A boolean, or None when not given."""
        return self._get(name, bool)

    def timestamp(self, name: str) -> datetime | None:
        """A time (UTC), or None when not given."""
        return self._get(name, datetime)

    def strings(self, name: str) -> tuple[str, ...] | None:
        """A list of strings, or None when not given."""
        value = self._get(name, list)
        return None if value is None else tuple(str(item) for item in value)

    def structure(self, name: str) -> Params | None:
        """A structure, or None when not given."""
        value = self._get(name, dict)
        return None if value is None else Params(value, self.full_name(name))

    def structures(self, name: str) -> list[Params]:
        """A list of structures; empty when not given."""
        value = self._get(name, list) or []
        return [Params(item, f"{self.full_name(name)}.{index}") for index, item in enumerate(value, 1)]

    def _get(self, name: str, kind: type[T]) -> T | None:
        value = self._values.get(name)
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{self.full_name(name)} is {type(value).__name__}, read as {kind.__name__}")
        return value
