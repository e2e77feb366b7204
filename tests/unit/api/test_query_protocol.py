"""The query protocol, both ways, with botocore as the counterpart."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

import botocore.session
import pytest
from botocore.model import ServiceModel
from botocore.parsers import QueryParser
from botocore.serialize import QuerySerializer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from borealis.api.errors import ApiError
from borealis.api.protocol import query
from borealis.api.protocol.model import OperationShape, Service, Shape, walk

RDS = Service("rds")
MODEL: Any = botocore.session.get_session().get_service_model("rds")
NAMES = sorted(RDS.operation_names)
NAMESPACE = RDS.xml_namespace

_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), max_size=12)
_SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": _TEXT,
    "boolean": st.booleans(),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False, allow_infinity=False, width=32).map(lambda x: round(x, 3)),
    "timestamp": st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)).map(
        lambda t: t.replace(microsecond=0, tzinfo=UTC)
    ),
}


def values(shape: Shape, depth: int = 3) -> st.SearchStrategy[Any]:
    """Values of a shape, no deeper than `depth`."""
    if shape.kind == "structure":
        inner = {n: values(s, depth - 1) for n, s in shape.members.items() if depth > 0 or s.kind in _SCALARS}
        return st.fixed_dictionaries({}, optional=inner)
    if shape.kind == "list":
        assert shape.element is not None
        return st.lists(values(shape.element, depth - 1), min_size=0, max_size=2)
    if shape.kind == "map":
        assert shape.element is not None
        return st.dictionaries(_TEXT.filter(bool), values(shape.element, depth - 1), max_size=2)
    return _SCALARS[shape.kind]


def without_empty(value: Any) -> Any:
    """Empty structures and maps have no form in the query protocol: what cannot be sent is not compared."""
    if isinstance(value, dict):
        cleaned = {k: without_empty(v) for k, v in value.items()}
        return {k: v for k, v in cleaned.items() if v != {}}
    if isinstance(value, list):
        return [v for v in (without_empty(v) for v in value) if v not in ({}, [])]
    return value


def fields(body: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in body.items()]


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_requests_that_botocore_serialises_are_parsed_back(data: st.DataObject, name: str) -> None:
    operation = RDS.operation(name)
    params = without_empty(data.draw(values(operation.input)))
    body = QuerySerializer().serialize_to_request(params, MODEL.operation_model(name))["body"]
    assert query.action(fields(body)) == (name, "2014-10-31")
    assert query.parse(operation, fields(body)) == params


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(data=st.data(), name=st.sampled_from([n for n in NAMES if RDS.operation(n).output]))
def test_answers_are_what_botocore_reads(data: st.DataObject, name: str) -> None:
    operation = RDS.operation(name)
    assert operation.output is not None
    result = data.draw(values(operation.output))
    body = query.serialize(operation, NAMESPACE, result, "request-1")
    read = _read(name, 200, body)
    assert read.pop("ResponseMetadata")["RequestId"] == "request-1"
    assert read == result


def _read(name: str, status: int, body: bytes) -> dict[str, Any]:
    response = {"status_code": status, "headers": {}, "body": body}
    read = QueryParser().parse(response, MODEL.operation_model(name).output_shape)
    return dict(read)


def test_operations_without_output() -> None:
    operation = RDS.operation("AddTagsToResource")
    assert operation.output is None
    body = query.serialize(operation, NAMESPACE, {}, "r-1")
    assert body == (
        b'<AddTagsToResourceResponse xmlns="http://rds.amazonaws.com/doc/2014-10-31/">'
        b"<ResponseMetadata><RequestId>r-1</RequestId></ResponseMetadata></AddTagsToResourceResponse>"
    )
    with pytest.raises(KeyError):
        query.serialize(operation, NAMESPACE, {"x": 1}, "r-1")


def test_errors_are_what_botocore_reads() -> None:
    error = ApiError("DBClusterNotFoundFault", 'DBCluster <x> & "y"\r\n not found.\x00')
    read = _read("DescribeDBClusters", 404, query.serialize_error(NAMESPACE, error, "r-1"))
    assert read["Error"]["Code"] == "DBClusterNotFoundFault"
    assert read["Error"]["Message"] == 'DBCluster <x> & "y"\r\n not found.\ufffd'
    assert read["Error"]["Type"] == "Sender"
    assert read["ResponseMetadata"]["RequestId"] == "r-1"


def test_a_result_of_a_wrong_shape_is_our_fault() -> None:
    with pytest.raises(KeyError):
        query.serialize(RDS.operation("CreateDBCluster"), NAMESPACE, {"DBCluster": {"Colour": "red"}}, "r")


CREATE = RDS.operation("CreateDBCluster")
DESCRIBE = RDS.operation("DescribeDBClusters")


@pytest.mark.parametrize(
    ("given_fields", "params"),
    [
        ([("AvailabilityZones.AvailabilityZone.1", "a")], {"AvailabilityZones": ["a"]}),
        ([("AvailabilityZones.member.1", "a")], {"AvailabilityZones": ["a"]}),
        ([("AvailabilityZones", "")], {"AvailabilityZones": []}),
        (
            [
                ("VpcSecurityGroupIds.VpcSecurityGroupId.10", "b"),
                ("VpcSecurityGroupIds.VpcSecurityGroupId.9", "a"),
            ],
            {"VpcSecurityGroupIds": ["a", "b"]},
        ),
        ([("Tags.Tag.1.Key", "k"), ("Tags.Tag.1.Value", "")], {"Tags": [{"Key": "k", "Value": ""}]}),
        ([("Port", "5433"), ("DeletionProtection", "TRUE")], {"Port": 5433, "DeletionProtection": True}),
        ([("Action", "x"), ("Version", "y"), ("X-Amz-Date", "z")], {}),
    ],
)
def test_forms_of_requests(given_fields: list[tuple[str, str]], params: dict[str, Any]) -> None:
    assert query.parse(CREATE, given_fields) == params


@pytest.mark.parametrize(
    ("given_fields", "code", "word"),
    [
        ([("Colour", "red")], "UnknownParameter", "Colour"),
        ([("Tags.Tag.1.Colour", "red")], "UnknownParameter", "Tags.Tag.1.Colour"),
        ([("Tags.Thing.1.Key", "red")], "UnknownParameter", "Tags.Thing"),
        ([("Tags.Tag.1.Key", "a"), ("Tags.member.1.Key", "b")], "UnknownParameter", "Tags.member"),
        ([("Tags.Tag.x.Key", "a")], "MalformedQueryString", "Tags.Tag.x"),
        ([("Tags", "a")], "MalformedQueryString", "Tags"),
        ([("Port.x", "1")], "MalformedQueryString", "Port"),
        ([("Port", "1"), ("Port", "2")], "MalformedQueryString", "more than once"),
        ([("Port", "1"), ("Port.x", "2")], "MalformedQueryString", "Port.x"),
        ([("Port.x", "1"), ("Port", "2")], "MalformedQueryString", "Port"),
        ([("Tags..Key", "2")], "MalformedQueryString", "Tags..Key"),
        ([(".".join("a" * 30), "2")], "MalformedQueryString", "malformed"),
        ([("Port", "abc")], "InvalidParameterValue", "Port"),
        ([("Port", "1.5")], "InvalidParameterValue", "Port"),
        ([("Port", "99999999999")], "InvalidParameterValue", "Port"),
        ([("Port", "")], "InvalidParameterValue", "Port"),
        ([("DeletionProtection", "yes")], "InvalidParameterValue", "true or false"),
        ([("ServerlessV2ScalingConfiguration.MinCapacity", "nan")], "InvalidParameterValue", "MinCapacity"),
        ([("DatabaseName", "a\x00b")], "InvalidParameterValue", "control characters"),
        ([(f"Tags.Tag.{i}.Key", "x") for i in range(10_001)], "MalformedQueryString", "10000"),
    ],
)
def test_malformed_requests(given_fields: list[tuple[str, str]], code: str, word: str) -> None:
    with pytest.raises(ApiError) as caught:
        query.parse(CREATE, given_fields)
    assert caught.value.code == code
    assert word in caught.value.message


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=8))
def test_garbage_is_an_api_error_or_nothing(pairs: list[tuple[str, str]]) -> None:
    for operation in (CREATE, DESCRIBE):
        with contextlib.suppress(ApiError):
            query.parse(operation, pairs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04Z", datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        ("2026-01-02T03:04:05.678Z", datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)),
        ("2026-01-02T05:04:05+02:00", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
        ("1767323045", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ],
)
def test_timestamps(text: str, expected: datetime) -> None:
    assert query.parse_timestamp(text) == expected
    assert (
        query.format_timestamp(datetime(2026, 1, 2, 3, 4, 5, 678999, tzinfo=UTC))
        == "2026-01-02T03:04:05.678Z"
    )


_OLD_MODEL = {
    "metadata": {"apiVersion": "2020-01-01", "protocol": "query", "xmlNamespace": "urn:x", "serviceId": "x"},
    "operations": {
        "Op": {"name": "Op", "http": {"method": "POST"}, "input": {"shape": "In"}, "output": {"shape": "In"}}
    },
    "shapes": {
        "In": {
            "type": "structure",
            "members": {
                "Flat": {"shape": "Flat"},
                "Named": {"shape": "Named"},
                "Map": {"shape": "Map"},
                "Raw": {"shape": "Raw"},
            },
        },
        "Flat": {"type": "list", "flattened": True, "member": {"shape": "S"}},
        "Named": {"type": "list", "flattened": True, "member": {"shape": "S", "locationName": "Item"}},
        "Map": {"type": "map", "key": {"shape": "S"}, "value": {"shape": "S"}},
        "S": {"type": "string"},
        "Raw": {"type": "blob"},
    },
}


def test_forms_that_rds_does_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("borealis.api.protocol.model.Loader.load_service_model", lambda *_: _OLD_MODEL)
    operation: OperationShape = Service("old").operation("Op")
    model: Any = ServiceModel(_OLD_MODEL, "old")
    params = {"Flat": ["a", "b"], "Named": ["c"], "Map": {"k": "v", "l": "w"}, "Raw": b"\x00\xff"}
    body = QuerySerializer().serialize_to_request(params, model.operation_model("Op"))["body"]
    assert query.parse(operation, fields(body)) == params
    xml = query.serialize(operation, "urn:x", params, "r")
    response = {"status_code": 200, "headers": {}, "body": xml}
    read = QueryParser().parse(response, model.operation_model("Op").output_shape)
    read.pop("ResponseMetadata")
    assert read == params


def test_recursive_shapes_end() -> None:
    for name in NAMES:
        assert len(list(walk(RDS.operation(name).input))) < 400
