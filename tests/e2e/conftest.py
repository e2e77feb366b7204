"""Fixtures of the end-to-end tests: one region per test module, clusters of each edition in it, and the rule
that logs stay quiet.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.editions import MYSQL, POSTGRESQL, Edition
from tests.support.region import Cluster, Region

HARMLESS: tuple[str, ...] = ()
"""Texts of error lines that a module's tests provoke on purpose; a module sets its own `HARMLESS`."""

EDITIONS: tuple[Edition, ...] = (POSTGRESQL, MYSQL)
"""The editions that the shared tests are run with."""


@pytest.fixture(scope="module", params=EDITIONS, ids=lambda edition: edition.name)
def edition(request: pytest.FixtureRequest) -> Edition:
    """Each edition in turn: `-k mysql` and `-k postgresql` choose one."""
    chosen: Edition = request.param
    return chosen


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of one module, which share a region, in one worker and in their order.

    First of all such hooks: pytest-xdist reads the marks in one of its own.
    """
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="module")
def region(request: pytest.FixtureRequest) -> Iterator[Region]:
    """A running region of this module's own; at the end nothing of it may be left."""
    made = Region(**getattr(request.module, "ENVIRONMENT", {}))
    try:
        made.up(*getattr(request.module, "OPTIONS", ()))
        yield made
        allowed = getattr(request.module, "HARMLESS", HARMLESS)
        loud = made.unexpected_log_lines(allowed)
        assert not loud, "unexpected errors in the logs:\n" + "\n".join(loud[:40])
        made.down()
    finally:
        made.destroy()


@pytest.fixture(scope="module")
def cluster(region: Region, edition: Edition) -> Cluster:
    """A writer and two readers in three availability zones, shared by the module's tests of one edition."""
    return region.create_cluster(edition=edition)
