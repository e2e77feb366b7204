"""The tables of parameters agree with AWS's model, and the document with the tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from borealis.api.protocol.model import Service
from borealis.api.reference import renewed
from borealis.api.registry import Operations
from borealis.api.server import default_services

DOCUMENT = Path(__file__).parents[3] / "docs" / "api.md"


@pytest.mark.parametrize("operations", default_services(), ids=lambda o: o.service)
def test_every_name_is_in_the_model(operations: Operations) -> None:
    operations.check(Service(operations.service))
    for operation in operations.table.values():
        assert operation.handler.__doc__, operation.name


def test_required_parameters_are_supported() -> None:
    for operations in default_services():
        model = Service(operations.service)
        for operation in operations.table.values():
            assert set(model.operation(operation.name).input.required) <= set(operation.parameters)


def test_the_document_is_up_to_date() -> None:
    document = DOCUMENT.read_text()
    assert renewed(document) == document, "run: python -m borealis.api.reference docs/api.md"
