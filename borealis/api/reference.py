"""The reference of operations and parameters, written from the tables that the server itself goes by.

`python -m borealis.api.reference docs/api.md` renews the part of the document between its two markers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from borealis.api.protocol.model import Service
from borealis.api.registry import Operation, Operations, Support
from borealis.api.server import default_services

BEGIN = "<!-- operations: begin -->"
END = "<!-- operations: end -->"


def reference(services: Iterable[Operations] | None = None) -> str:
    """Every service's operations, as Markdown."""
    listed = default_services() if services is None else services
    return "\n".join(line for operations in listed for line in _service(operations))


def renewed(document: str) -> str:
    """A document with the part between the markers written anew.

    Raises ValueError when a marker is missing.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document must hold the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


def _service(operations: Operations) -> Iterable[str]:
    model = Service(operations.service)
    present, total = len(operations.table), len(model.operation_names)
    yield f"### `{operations.service}`: {present} of AWS's {total} operations"
    yield ""
    for name in sorted(operations.table):
        yield from _operation(model, operations.table[name])


def _operation(model: Service, operation: Operation) -> Iterable[str]:
    yield f"#### {operation.name}"
    yield ""
    yield " ".join((operation.handler.__doc__ or "").split())
    yield ""
    for kind, title in (("effect", "Has its effect"), ("shown", "Stored and shown")):
        names = [name for name, support in operation.parameters.items() if support.kind == kind]
        if names:
            yield f"- {title}: {_listed(names)}."
    limited = {name: s for name, s in operation.parameters.items() if s.kind in ("only", "refused")}
    for name, support in sorted(limited.items()):
        yield f"- {_limit(name, support)}"
    absent = sorted(set(model.operation(operation.name).input.members) - set(operation.parameters))
    if absent:
        yield f"- Not supported yet, refused: {_listed(absent)}."
    yield ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _limit(name: str, support: Support) -> str:
    if support.kind == "refused":
        return f"`{name}` is refused: {support.why}"
    values = " or ".join(f"`{_value(value)}`" for value in support.values)
    return f"`{name}` only as {values}: {support.why}."


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def main() -> None:
    """Renew the document that is named on the command line."""
    path = Path(sys.argv[1])
    path.write_text(renewed(path.read_text()))


if __name__ == "__main__":
    main()
