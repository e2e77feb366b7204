"""Checks that a service's model can make: what is required, and what enumerations and bounds allow.

Pure; raises AWS's un-modelled codes (MissingParameter, InvalidParameterValue). What depends on the state of
the region, or on rules that the model does not hold, is checked by the operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from borealis.api.errors import invalid_value, missing
from borealis.api.protocol.model import Shape


def validate(shape: Shape, values: Mapping[str, Any], prefix: str = "") -> None:
    """Check parameters against their input shape. Raises ApiError."""
    for name in shape.required:
        if values.get(name) in (None, ""):
            raise missing(prefix + name)
    for name, value in values.items():
        _check(shape.members[name], value, prefix + name)


def _check(shape: Shape, value: Any, name: str) -> None:
    if shape.kind == "structure":
        validate(shape, value, f"{name}.")
    elif shape.kind == "list":
        _check_list(shape, value, name)
    elif shape.kind in ("integer", "long", "float", "double"):
        _check_bounds(shape, value, name, "")
    elif shape.kind == "string":
        if shape.enum and value not in shape.enum:
            raise invalid_value(
                f"Invalid value '{value}' for the parameter {name}: valid values are {', '.join(shape.enum)}."
            )
        _check_bounds(shape, len(value), name, " characters")


def _check_list(shape: Shape, values: Sequence[Any], name: str) -> None:
    _check_bounds(shape, len(values), name, " elements")
    assert shape.element is not None
    for index, value in enumerate(values, 1):
        _check(shape.element, value, f"{name}.{index}")


def _check_bounds(shape: Shape, measure: float, name: str, unit: str) -> None:
    if shape.minimum is not None and measure < shape.minimum:
        raise invalid_value(
            f"Invalid value for the parameter {name}: at least {shape.minimum:g}{unit} expected, got "
            f"{measure:g}."
        )
    if shape.maximum is not None and measure > shape.maximum:
        raise invalid_value(
            f"Invalid value for the parameter {name}: at most {shape.maximum:g}{unit} expected, got "
            f"{measure:g}."
        )
