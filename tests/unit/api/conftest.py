"""Fixtures: a region, its rds client, and a cluster in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api.fake_region import ENGINE, PASSWORD, FakeRegion


@pytest.fixture
def region(tmp_path: Path) -> Iterator[FakeRegion]:
    with FakeRegion(tmp_path) as running:
        yield running


@pytest.fixture
def rds(region: FakeRegion) -> Any:
    return region.client("rds")


class Maker:
    """Makes clusters and instances and waits for them."""

    def __init__(self, rds: Any) -> None:
        self.rds = rds

    def cluster(self, name: str = "c1", **more: Any) -> dict[str, Any]:
        asked = {"Engine": ENGINE, "MasterUsername": "postgres", "MasterUserPassword": PASSWORD, **more}
        created = self.rds.create_db_cluster(DBClusterIdentifier=name, **asked)["DBCluster"]
        self.wait("db_cluster_available", DBClusterIdentifier=name)
        return dict(created)

    def instance(self, name: str, cluster: str = "c1", **more: Any) -> dict[str, Any]:
        asked = {"Engine": ENGINE, "DBInstanceClass": "db.r6g.large", "DBClusterIdentifier": cluster, **more}
        created = self.rds.create_db_instance(DBInstanceIdentifier=name, **asked)["DBInstance"]
        self.wait("db_instance_available", DBInstanceIdentifier=name)
        return dict(created)

    def wait(self, waiter: str, **which: str) -> None:
        self.rds.get_waiter(waiter).wait(**which, WaiterConfig={"Delay": 0.02, "MaxAttempts": 500})

    def appears(self, name: str) -> None:
        """Wait until a cluster or an instance has this name."""
        clusters, instances = self.rds.describe_db_clusters, self.rds.describe_db_instances
        self.until(
            lambda: (
                name in [c["DBClusterIdentifier"] for c in clusters()["DBClusters"]]
                or name in [i["DBInstanceIdentifier"] for i in instances()["DBInstances"]]
            )
        )

    def until(self, condition: Callable[[], bool]) -> None:
        """Look again and again until the condition holds."""
        for _ in range(1000):
            if condition():
                return
            time.sleep(0.01)
        pytest.fail("the condition did not come true")

    def describe(self, name: str = "c1") -> dict[str, Any]:
        return dict(self.rds.describe_db_clusters(DBClusterIdentifier=name)["DBClusters"][0])

    def describe_instance(self, name: str) -> dict[str, Any]:
        return dict(self.rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0])


@pytest.fixture
def make(rds: Any) -> Maker:
    return Maker(rds)
