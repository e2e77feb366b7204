"""Which operations there are, and what each does with each of its parameters.

Owns the `Operations` table of a service and the words that describe a parameter: EFFECT, SHOWN, `only(...)`.
A parameter that an operation's table does not list is refused by name, never silently ignored. To add an
operation: one decorated function.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from borealis.api.context import Call, Context
from borealis.api.errors import invalid_combination
from borealis.api.params import Params
from borealis.api.protocol.model import Service

Result = Mapping[str, Any]
Handler = Callable[[Call, Params], Awaitable[Result]]


@dataclass(frozen=True)
class Support:
    """What an operation does with a parameter.

    effect: it changes what runs or what is answered. shown: it is stored and shown, as AWS does; nothing else
    hangs on it. only: just these values are accepted, because they say what is so anyway; `why` tells what is
    missing. refused: never accepted; `why` tells what to do instead. What is not in the table at all is
    refused too, in general words.
    """

    kind: Literal["effect", "shown", "only", "refused"]
    values: tuple[object, ...] = ()
    why: str = ""


EFFECT = Support("effect")
SHOWN = Support("shown")


def only(*values: object, why: str) -> Support:
    """Accepted only at these values; at any other it is refused because of `why`, a sentence without its full
    stop.
    """
    return Support("only", values, why)


def refused(why: str) -> Support:
    """Never accepted: AWS refuses it as well, or something else is to be done, as `why` says in a whole
    sentence.
    """
    return Support("refused", (), why)


def all_of(support: Support, *names: str) -> dict[str, Support]:
    """The same support for several parameters."""
    return dict.fromkeys(names, support)


@dataclass(frozen=True)
class Operation:
    """One operation as it is provided here."""

    name: str
    handler: Handler
    parameters: Mapping[str, Support]

    def check_supported(self, values: Mapping[str, Any]) -> None:
        """Refuse what would be ignored. Raises ApiError InvalidParameterCombination naming the parameter."""
        for name, value in values.items():
            support = self.parameters.get(name)
            if support is None:
                raise invalid_combination(
                    f"The parameter {name} of {self.name} is not supported by Borealis yet."
                )
            if support.kind == "refused":
                raise invalid_combination(support.why)
            if support.kind == "only" and value not in support.values:
                accepted = ", ".join(_shown(v) for v in support.values)
                raise invalid_combination(
                    f"The parameter {name} of {self.name} is supported by Borealis with the value "
                    f"{accepted} only: {support.why}."
                )


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "(an empty list)" if value == [] else f"'{value}'" if isinstance(value, str) else str(value)


@dataclass
class Operations:
    """The operations of one service."""

    service: str
    table: dict[str, Operation] = field(default_factory=dict)
    #: What the service needs to be there before its first call.
    preparations: list[Callable[[Context], Awaitable[None]]] = field(default_factory=list)

    def preparation(
        self, prepare: Callable[[Context], Awaitable[None]]
    ) -> Callable[[Context], Awaitable[None]]:
        """Run the decorated coroutine function before the server listens. It may run again at every start."""
        self.preparations.append(prepare)
        return prepare

    def operation(
        self, name: str, parameters: Mapping[str, Support] | None = None
    ) -> Callable[[Handler], Handler]:
        """Register the decorated coroutine function as operation `name` with its table of parameters."""

        def register(handler: Handler) -> Handler:
            if name in self.table:
                raise ValueError(f"{self.service}:{name} is registered twice")
            self.table[name] = Operation(name, handler, dict(parameters or {}))
            return handler

        return register

    def check(self, model: Service) -> None:
        """See that every operation and every parameter named here exists in AWS's model.

        Raises ValueError.
        """
        for operation in self.table.values():
            known = model.operation(operation.name).input.members
            unknown = sorted(set(operation.parameters) - set(known))
            if unknown:
                raise ValueError(f"{self.service}:{operation.name} has no parameters named {unknown}")
