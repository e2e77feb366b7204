"""The service models of botocore as small typed shapes.

Owns the only contact with botocore on the server's side: a service's JSON model is read once, its shapes are
compiled when an operation first needs them. Never interprets a request: protocol modules do, with these
shapes in hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast

from botocore.loaders import Loader
from botocore.model import ServiceModel

Kind = Literal[
    "structure",
    "list",
    "map",
    "string",
    "boolean",
    "integer",
    "long",
    "float",
    "double",
    "timestamp",
    "blob",
    "character",
]

#: Members that botocore's clients take but never send.
_CLIENT_ONLY = {"SourceRegion"}


@dataclass
class Shape:
    """One type of a service model.

    Compiled once; members may be recursive, so it is filled in after it is made.
    """

    name: str
    kind: Kind
    #: Structure members, by their names in the model, in the model's order.
    members: dict[str, Shape] = field(default_factory=dict)
    #: Wire names of structure members where they differ from the model's.
    wire_names: dict[str, str] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    #: Element of a list; value of a map.
    element: Shape | None = None
    #: Key of a map.
    key: Shape | None = None
    #: Name of a list's elements on the wire ("member" unless the model names it).
    element_name: str = "member"
    key_name: str = "key"
    value_name: str = "value"
    flattened: bool = False
    #: Members written as attributes of the XML element.
    attributes: tuple[str, ...] = ()
    timestamp_format: str | None = None
    enum: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    sensitive: bool = False

    def wire_name(self, member: str) -> str:
        """Name of a structure member on the wire."""
        return self.wire_names.get(member, member)


@dataclass(frozen=True)
class ErrorShape:
    """One modelled error: its code on the wire and its HTTP status."""

    code: str
    status: int


@dataclass(frozen=True)
class OperationShape:
    """One operation of a service model."""

    name: str
    input: Shape
    #: None: the operation answers nothing but its request id.
    output: Shape | None
    #: Element around the output in the query protocol, e.g. "CreateDBClusterResult".
    result_wrapper: str | None


class Service:
    """A service's model, e.g. `Service("rds")`.

    Raises botocore's UnknownServiceError for a name that AWS does not have.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        document = Loader().load_service_model(name, "service-2")
        self._model: Any = ServiceModel(document, service_name=name)
        self._shapes: dict[str, Shape] = {}
        self._operations: dict[str, OperationShape] = {}

    @property
    def api_version(self) -> str:
        """Date that names the API's version, e.g. "2014-10-31"."""
        return cast(str, self._model.api_version)

    @property
    def xml_namespace(self) -> str:
        """Namespace of the answers in XML."""
        return cast(str, self._model.metadata["xmlNamespace"])

    @cached_property
    def operation_names(self) -> frozenset[str]:
        """Every operation that AWS has, whether provided here or not."""
        return frozenset(self._model.operation_names)

    @cached_property
    def errors(self) -> Mapping[str, ErrorShape]:
        """Modelled errors by their code on the wire."""
        shapes = (s for s in self._model.error_shapes)
        return {
            s.error_code: ErrorShape(
                s.error_code, int(s.metadata.get("error", {}).get("httpStatusCode", 400))
            )
            for s in shapes
        }

    def operation(self, name: str) -> OperationShape:
        """The shapes of an operation. Raises KeyError when AWS has none of that name."""
        if name not in self._operations:
            if name not in self.operation_names:
                raise KeyError(name)
            self._operations[name] = self._compile_operation(name)
        return self._operations[name]

    def _compile_operation(self, name: str) -> OperationShape:
        model = self._model.operation_model(name)
        output = model.output_shape
        return OperationShape(
            name=name,
            input=self._compile(model.input_shape)
            if model.input_shape
            else Shape(f"{name}Request", "structure"),
            output=self._compile(output) if output is not None else None,
            result_wrapper=output.serialization.get("resultWrapper") if output is not None else None,
        )

    def _compile(self, source: Any) -> Shape:
        """Compile a shape and what it refers to.

        Shapes are shared by name, together with how this use serialises them.
        """
        identity = f"{source.name}|{sorted(source.serialization.items(), key=str)}"
        if identity in self._shapes:
            return self._shapes[identity]
        shape = self._shapes[identity] = Shape(source.name, source.type_name)
        shape.sensitive = bool(source.metadata.get("sensitive"))
        shape.minimum, shape.maximum = source.metadata.get("min"), source.metadata.get("max")
        shape.flattened = bool(source.serialization.get("flattened"))
        shape.timestamp_format = source.serialization.get("timestampFormat")
        if source.type_name == "structure":
            self._compile_members(shape, source)
        elif source.type_name == "list":
            shape.element = self._compile(source.member)
            shape.element_name = source.member.serialization.get("name", "member")
        elif source.type_name == "map":
            shape.key, shape.element = self._compile(source.key), self._compile(source.value)
            shape.key_name = source.key.serialization.get("name", "key")
            shape.value_name = source.value.serialization.get("name", "value")
        elif source.type_name == "string":
            shape.enum = tuple(source.enum)
        return shape

    def _compile_members(self, shape: Shape, source: Any) -> None:
        shape.required = tuple(source.required_members)
        for name, member in source.members.items():
            if name in _CLIENT_ONLY:
                continue
            shape.members[name] = self._compile(member)
            wire = member.serialization.get("name", name)
            if shape.members[name].kind == "list" and shape.members[name].flattened:
                # The elements of a flattened list stand in the list's own place, under their own name if they
                # have one.
                wire = member.member.serialization.get("name", wire)
            if wire != name:
                shape.wire_names[name] = wire
        shape.attributes = tuple(n for n, m in source.members.items() if m.serialization.get("xmlAttribute"))


def walk(shape: Shape) -> Iterator[Shape]:
    """Every shape below one, once each."""
    seen: set[int] = set()
    waiting = [shape]
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting.extend(current.members.values())
        waiting.extend(s for s in (current.element, current.key) if s is not None)
