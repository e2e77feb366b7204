"""A small cluster for each test: six storage nodes and an empty volume."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.minicluster import MiniCluster


@pytest.fixture
async def cluster() -> AsyncIterator[MiniCluster]:
    async with MiniCluster() as running:
        yield running
