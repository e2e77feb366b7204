"""What the endpoints of a cluster should be: a pure function of the records and of who is in service.

Owns the rules of the endpoint kinds: the writer endpoint leads to the writer; the reader endpoint to all
healthy readers, or to the writer when there is none; a custom endpoint to its static members, or to all but
its excluded ones, of its type. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A place where connections can be sent."""

    instance: str  # instance identifier
    address: str


@dataclass(frozen=True, slots=True)
class CustomPlan:
    """One custom endpoint."""

    key: str
    identifier: str
    address: str
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class InstanceName:
    """An instance whose name is to be published."""

    identifier: str
    address: str


@dataclass(frozen=True, slots=True)
class EndpointPlan:
    """All endpoints of one cluster as they should be. Equal plans need no work."""

    cluster: str  # cluster key
    identifier: str
    hash12: str
    port: int
    running: bool  # False: the cluster is stopped, nothing listens
    writer_address: str
    reader_address: str
    writer: Target | None
    readers: tuple[Target, ...]
    customs: tuple[CustomPlan, ...] = ()
    instances: tuple[InstanceName, ...] = ()


def reader_targets(writer: Target | None, readers: Iterable[Target]) -> tuple[Target, ...]:
    """Where the reader endpoint leads."""
    able = tuple(readers)
    if able:
        return able
    return (writer,) if writer is not None else ()


def custom_members(
    kind: str,
    static: Iterable[str],
    excluded: Iterable[str],
    writer: Target | None,
    readers: Iterable[Target],
) -> tuple[Target, ...]:
    """Where a custom endpoint leads; `kind` is READER or ANY, members are given by instance identifier."""
    chosen, left_out = {name.lower() for name in static}, {name.lower() for name in excluded}
    able = list(readers)
    if kind != "READER" and writer is not None:
        able.append(writer)
    if chosen:
        return tuple(t for t in able if t.instance.lower() in chosen)
    return tuple(t for t in able if t.instance.lower() not in left_out)
