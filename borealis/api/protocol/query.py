"""AWS's query protocol: form fields in, XML out.

Owns both directions and nothing else: fields become parameters by the operation's input shape, results become
XML by its output shape. A field that the shape does not have, or a value that is not of its type, is an error
that names it; a result that the output shape does not have is a fault of ours and raises KeyError.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from borealis.api.errors import ApiError
from borealis.api.protocol.model import OperationShape, Shape

#: Most form fields of one request. AWS's largest requests have a few hundred.
FIELDS_MAX = 10_000
#: Deepest nesting of a field's name. The models stay below 10.
DEPTH_MAX = 24

_ENVELOPE = frozenset({"Action", "Version"})
#: Query-string fields of a presigned request; they are the signature's, not the operation's.
_SIGNATURE_PREFIX = "X-Amz-"

#: A field tree: either the value of a field or the fields below its name.
_Tree = dict[str, "str | _Tree"]


def action(fields: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """The (Action, Version) that a request asks for; Version may be empty.

    Raises ApiError when there is no Action.
    """
    found = {name: value for name, value in fields if name in _ENVELOPE}
    if not found.get("Action"):
        raise ApiError("MissingAction", "The request must contain the parameter Action.")
    return found["Action"], found.get("Version", "")


def parse(operation: OperationShape, fields: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Form fields as the operation's parameters.

    Raises ApiError (MalformedQueryString, InvalidParameterValue, UnknownParameter).
    """
    tree = _tree(fields)
    return _structure(operation.input, tree, "")


def _tree(fields: Iterable[tuple[str, str]]) -> _Tree:
    root: _Tree = {}
    for count, (name, value) in enumerate(fields, 1):
        if count > FIELDS_MAX:
            raise ApiError("MalformedQueryString", f"The request has more than {FIELDS_MAX} parameters.")
        if name in _ENVELOPE or name.startswith(_SIGNATURE_PREFIX):
            continue
        _plant(root, name, value)
    return root


def _plant(root: _Tree, name: str, value: str) -> None:
    parts = name.split(".")
    if len(parts) > DEPTH_MAX or not all(parts):
        raise ApiError("MalformedQueryString", f"The parameter name {_shown(name)} is malformed.")
    if not _XML_SAFE.fullmatch(value):
        raise ApiError(
            "InvalidParameterValue", f"The value of the parameter {_shown(name)} contains control characters."
        )
    node = root
    for part in parts[:-1]:
        below = node.setdefault(part, {})
        if not isinstance(below, dict):
            raise ApiError(
                "MalformedQueryString", f"The parameter {_shown(name)} is both a value and a structure."
            )
        node = below
    if parts[-1] in node:
        raise ApiError("MalformedQueryString", f"The parameter {_shown(name)} is given more than once.")
    node[parts[-1]] = value


def _shown(name: str) -> str:
    return name if len(name) <= 200 else name[:200] + "…"


def _value(shape: Shape, tree: str | _Tree, name: str) -> Any:
    if shape.kind == "structure":
        return _structure(shape, _fields(tree, name), name)
    if shape.kind == "list":
        return _list(shape, tree, name)
    if shape.kind == "map":
        return _map(shape, _fields(tree, name), name)
    if not isinstance(tree, str):
        raise ApiError(
            "MalformedQueryString",
            f"The parameter {_shown(name)} takes one value, but fields below it were given.",
        )
    return _scalar(shape, tree, name)


def _fields(tree: str | _Tree, name: str) -> _Tree:
    if isinstance(tree, dict):
        return tree
    if tree == "":
        return {}
    raise ApiError(
        "MalformedQueryString",
        f"The parameter {_shown(name)} is a structure or a map; a plain value was given.",
    )


def _structure(shape: Shape, tree: _Tree, name: str) -> dict[str, Any]:
    known = {shape.wire_name(member): member for member in shape.members}
    unknown = [field for field in tree if field not in known]
    if unknown:
        full = _below(name, unknown[0])
        raise ApiError(
            "UnknownParameter", f"The parameter {_shown(full)} is not one that this operation has."
        )
    return {
        known[field]: _value(shape.members[known[field]], below, _below(name, field))
        for field, below in tree.items()
    }


def _below(name: str, field: str) -> str:
    return f"{name}.{field}" if name else field


def _list(shape: Shape, tree: str | _Tree, name: str) -> list[Any]:
    fields = _fields(tree, name)
    if not shape.flattened:
        # The model names the elements; old and third-party clients say "member" all the same.
        names = [n for n in (shape.element_name, "member") if n in fields]
        unknown = [field for field in fields if field not in names]
        if unknown or (len(names) > 1 and names[0] != names[1]):
            given = unknown[0] if unknown else names[1]
            raise ApiError(
                "UnknownParameter",
                f"The parameter {_shown(_below(name, given))} is not one that this operation has.",
            )
        if not names:
            return []
        name = _below(name, names[0])
        fields = _fields(fields[names[0]], name)
    assert shape.element is not None
    return [_value(shape.element, fields[index], _below(name, index)) for index in _indices(fields, name)]


def _map(shape: Shape, tree: _Tree, name: str) -> dict[str, Any]:
    if not shape.flattened and "entry" in tree and len(tree) == 1:
        name = _below(name, "entry")
        tree = _fields(tree["entry"], name)
    assert shape.key is not None
    assert shape.element is not None
    result: dict[str, Any] = {}
    for index in _indices(tree, name):
        entry = _fields(tree[index], _below(name, index))
        if set(entry) != {shape.key_name, shape.value_name}:
            wanted = f"{shape.key_name} and {shape.value_name}"
            raise ApiError(
                "MalformedQueryString", f"The parameter {_shown(_below(name, index))} needs {wanted}."
            )
        key = _value(shape.key, entry[shape.key_name], _below(name, index))
        result[key] = _value(shape.element, entry[shape.value_name], _below(name, index))
    return result


def _indices(fields: Mapping[str, object], name: str) -> list[str]:
    """The fields of a list in the order of their numbers; gaps are allowed, as AWS does."""
    for field in fields:
        if not re.fullmatch("[0-9]{1,9}", field):
            raise ApiError(
                "MalformedQueryString",
                f"The parameter {_shown(_below(name, field))}: a number was expected after {_shown(name)}.",
            )
    return sorted(fields, key=int)


_TIMES = "an ISO 8601 time such as 2026-01-02T03:04:05Z"


def _scalar(shape: Shape, text: str, name: str) -> Any:
    kind = shape.kind
    if kind in ("string", "character"):
        return text
    try:
        if kind == "boolean":
            return {"true": True, "false": False}[text.lower()]
        if kind in ("integer", "long"):
            return _integer(text, 32 if kind == "integer" else 64)
        if kind in ("float", "double"):
            return _double(text)
        if kind == "timestamp":
            return parse_timestamp(text)
        return base64.b64decode(text, validate=True)
    except (ValueError, KeyError, OverflowError, binascii.Error):
        wanted = {"boolean": "true or false", "timestamp": _TIMES, "blob": "base64"}.get(
            kind, f"a number ({kind})"
        )
        shown = "" if shape.sensitive else f" {_shown(text)!r}"
        raise ApiError(
            "InvalidParameterValue",
            f"Invalid value{shown} for the parameter {_shown(name)}: expected {wanted}.",
        ) from None


def _integer(text: str, bits: int) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,20}", text):
        raise ValueError(text)
    value = int(text)
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise ValueError(text)
    return value


def _double(text: str) -> float:
    if not re.fullmatch(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", text):
        raise ValueError(text)
    return float(text)


def parse_timestamp(text: str) -> datetime:
    """An ISO 8601 or epoch-seconds timestamp as UTC. Raises ValueError, OverflowError."""
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text) and not re.fullmatch(r"[0-9]{8}", text):
        return datetime.fromtimestamp(float(text), UTC)
    value = datetime.fromisoformat(text)
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def format_timestamp(value: datetime) -> str:
    """A time as AWS writes it: UTC, ISO 8601, milliseconds."""
    utc = value.astimezone(UTC) if value.tzinfo else value
    return utc.strftime("%Y-%m-%dT%H:%M:%S.") + f"{utc.microsecond // 1000:03d}Z"


def serialize(operation: OperationShape, namespace: str, result: Mapping[str, Any], request_id: str) -> bytes:
    """The answer of an operation. Raises KeyError for a result member that the output shape does not have."""
    parts = [f'<{operation.name}Response xmlns="{_attribute(namespace)}">']
    if operation.output is not None:
        body: list[str] = []
        _write_members(body, operation.output, result)
        if operation.result_wrapper:
            parts += [f"<{operation.result_wrapper}>", *body, f"</{operation.result_wrapper}>"]
        else:
            parts += body
    elif result:
        raise KeyError(f"{operation.name} has no output, but a result was given: {sorted(result)}")
    parts.append(f"<ResponseMetadata><RequestId>{_text(request_id)}</RequestId></ResponseMetadata>")
    parts.append(f"</{operation.name}Response>")
    return "".join(parts).encode()


def serialize_error(namespace: str, error: ApiError, request_id: str) -> bytes:
    """An error's answer."""
    kind = "Sender" if error.status < 500 else "Receiver"
    xmlns = f' xmlns="{_attribute(namespace)}"' if namespace else ""
    body = f"<Type>{kind}</Type><Code>{_text(error.code)}</Code><Message>{_text(error.message)}</Message>"
    envelope = f"<Error>{body}</Error><RequestId>{_text(request_id)}</RequestId>"
    return f"<ErrorResponse{xmlns}>{envelope}</ErrorResponse>".encode()


def _write_members(parts: list[str], shape: Shape, values: Mapping[str, Any]) -> None:
    for member, value in values.items():
        if member not in shape.members:
            raise KeyError(f"{shape.name} has no member {member}")
        if value is not None and member not in shape.attributes:
            _write(parts, shape.members[member], value, shape.wire_name(member))


def _write(parts: list[str], shape: Shape, value: Any, name: str) -> None:
    if shape.kind == "list" and shape.flattened:
        assert shape.element is not None
        for item in value:
            _write(parts, shape.element, item, name)
        return
    if shape.kind == "map" and shape.flattened:
        for key, item in value.items():
            _write_entry(parts, shape, key, item, name)
        return
    parts.append(f"<{name}{_attributes(shape, value)}>")
    if shape.kind == "structure":
        _write_members(parts, shape, value)
    elif shape.kind == "list":
        assert shape.element is not None
        for item in value:
            _write(parts, shape.element, item, shape.element_name)
    elif shape.kind == "map":
        for key, item in value.items():
            _write_entry(parts, shape, key, item, "entry")
    else:
        parts.append(_text(_write_scalar(shape, value)))
    parts.append(f"</{name}>")


def _attributes(shape: Shape, value: Any) -> str:
    names = (
        [name for name in shape.attributes if value.get(name) is not None]
        if shape.kind == "structure"
        else []
    )
    return "".join(
        f' {shape.wire_name(name)}="{_attribute(_write_scalar(shape.members[name], value[name]))}"'
        for name in names
    )


def _write_entry(parts: list[str], shape: Shape, key: Any, value: Any, name: str) -> None:
    assert shape.key is not None
    assert shape.element is not None
    parts.append(f"<{name}>")
    _write(parts, shape.key, key, shape.key_name)
    _write(parts, shape.element, value, shape.value_name)
    parts.append(f"</{name}>")


def _write_scalar(shape: Shape, value: Any) -> str:
    kind = shape.kind
    if kind == "boolean":
        return "true" if value else "false"
    if kind == "timestamp":
        return _write_timestamp(shape, value)
    if kind == "blob":
        return base64.b64encode(value).decode()
    if kind in ("integer", "long"):
        return str(int(value))
    if kind in ("float", "double"):
        return repr(float(value))
    return str(value)


def _write_timestamp(shape: Shape, value: datetime) -> str:
    if shape.timestamp_format == "unixTimestamp":
        return str(int(value.timestamp()))
    if shape.timestamp_format == "rfc822":
        return value.astimezone(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    return format_timestamp(value)


#: What XML 1.0 can carry; anything else cannot be answered and is refused when it comes in.
_XML_SAFE = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")
_XML_UNSAFE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _text(value: str) -> str:
    value = _XML_UNSAFE.sub("\ufffd", value)
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#xD;")


def _attribute(value: str) -> str:
    return _text(value).replace('"', "&quot;").replace("\n", "&#xA;").replace("\t", "&#x9;")
