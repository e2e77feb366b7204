"""A small cluster for each test and edition: six storage nodes and an empty volume."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from borealis.engines.registry import installed_versions
from tests.support.editions import EDITIONS, Edition
from tests.support.minicluster import MiniCluster


@pytest.fixture(params=EDITIONS.values(), ids=EDITIONS)
def edition(request: pytest.FixtureRequest) -> Edition:
    """Each edition whose engine is on this machine."""
    found: Edition = request.param
    if not any(version.engine == found.engine for version in installed_versions()):
        pytest.skip(f"no engine for {found.engine} is installed on this machine")
    return found


@pytest.fixture
async def cluster(edition: Edition) -> AsyncIterator[MiniCluster]:
    async with MiniCluster(edition=edition) as running:
        yield running
