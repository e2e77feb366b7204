"""Real engines: found once, an image made once for each version that is installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from borealis.engines.base import BootstrapSpec, EngineVersion
from borealis.engines.mariadb.engine import MariadbEngine
from borealis.engines.mariadb.passwords import native_verifier
from borealis.engines.postgres.engine import PostgresEngine
from borealis.engines.postgres.scram import scram_verifier
from borealis.engines.registry import installed_versions

from . import mariadb_real
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


@pytest.fixture(scope="session")
def mariadb_images() -> Iterator[mariadb_real.Workshop]:
    """The image and the seed log of a new volume of the MySQL-compatible edition."""
    engine = MariadbEngine()
    found = [version for version in installed_versions() if version.engine == engine.name]
    if not found:
        pytest.skip("no MariaDB is installed on this machine")
    root = short_directory()
    try:
        spec = BootstrapSpec(
            mariadb_real.MASTER, native_verifier(mariadb_real.PASSWORD), mariadb_real.DATABASE
        )
        seed = engine.bootstrap(found[-1], root / "image", engine_user(), spec)
        yield mariadb_real.Workshop(root, found[-1], root / "image", seed)
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def mariadb(mariadb_images: mariadb_real.Workshop) -> Iterator[mariadb_real.Workshop]:
    """Makes instances; ends them after the test."""
    try:
        yield mariadb_images
    finally:
        mariadb_images.stop_all()
