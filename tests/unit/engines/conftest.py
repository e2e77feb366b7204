"""Real engines: found once, an image made once for each version that is installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from borealis.engines.base import BootstrapSpec, EngineVersion
from borealis.engines.postgres.engine import PostgresEngine
from borealis.engines.postgres.scram import scram_verifier
from borealis.engines.registry import installed_versions

from .real import DATABASE, MASTER, PASSWORD, Workshop, engine_user, short_directory


def _versions() -> list[EngineVersion | None]:
    return [version for version in installed_versions() if version.engine == PostgresEngine.name] or [None]


@pytest.fixture(scope="session", params=_versions(), ids=lambda v: f"pg{v.major}" if v else "none")
def version(request: pytest.FixtureRequest) -> EngineVersion:
    """Each PostgreSQL on this machine."""
    if request.param is None:
        pytest.skip("no PostgreSQL is installed on this machine")
    found: EngineVersion = request.param
    return found


@pytest.fixture(scope="session")
def images(version: EngineVersion) -> Iterator[Workshop]:
    """The image and the seed log of a new volume."""
    root = short_directory()
    try:
        spec = BootstrapSpec(MASTER, scram_verifier(PASSWORD), DATABASE)
        seed = PostgresEngine().bootstrap(version, root / "image", engine_user(), spec)
        yield Workshop(root, version, root / "image", seed)
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def workshop(images: Workshop) -> Iterator[Workshop]:
    """Makes instances; ends them after the test."""
    try:
        yield images
    finally:
        images.stop_all()
