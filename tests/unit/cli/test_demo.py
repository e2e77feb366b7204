"""The demonstration: ready or not, how long the outage was, what is lost; and being played again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from borealis.cli.common import CliError
from borealis.cli.demo.cluster import INSTANCES, DemoCluster, Member, Snapshot, render
from borealis.cli.demo.outage import Books, lost
from borealis.paths import RegionPaths


def snapshot(status: str = "available", **members: str) -> Snapshot:
    listed = tuple(
        Member(
            identifier=name, zone="z", status=state.removesuffix("*"), writer=state.endswith("*"), address=""
        )
        for name, state in members.items()
    )
    return Snapshot(status=status, endpoint="w", reader_endpoint="r", port=5432, members=listed)


@pytest.mark.parametrize(
    ("cluster", "states", "ready"),
    [
        ("available", ("available*", "available", "available"), True),
        ("available", ("available", "available", "available"), False),
        ("available", ("available*", "available", "creating"), False),
        ("available", ("available*", "available"), False),
        ("failing-over", ("available*", "available", "available"), False),
    ],
)
def test_ready(cluster: str, states: tuple[str, ...], ready: bool) -> None:
    seen = snapshot(cluster, **{f"i{n}": state for n, state in enumerate(states)})
    assert seen.ready is ready
    assert render(seen, 1.0)


def test_outage_counts_new_connections_only() -> None:
    books = Books(
        acknowledged={1: 9.0, 2: 10.01, 3: 10.3, 4: 10.25},
        connected={1: 1.0, 2: 1.0, 3: 10.1, 4: 10.2},
    )
    assert books.outage_ms(10.0) == pytest.approx(250.0)
    assert books.outage_ms(11.0) is None


class Connection:
    def __init__(self, *rows: int) -> None:
        self.rows = rows

    def execute(self, statement: str, parameters: tuple[int]) -> list[tuple[int]]:
        return [(row,) for row in self.rows if row >= parameters[0]]


def test_lost_orders_are_found() -> None:
    books = Books(acknowledged={5: 0.0, 6: 0.0, 8: 0.0})
    assert lost(books, Connection(5, 6, 7, 8)) == []
    assert lost(books, Connection(1, 5, 7)) == [6, 8]
    assert lost(Books(), Connection()) == []


class Rds:
    """Remembers what it was asked; answers with one cluster, or none."""

    def __init__(self, cluster: dict[str, Any] | None = None) -> None:
        self.cluster = cluster
        self.calls: list[str] = []

    def describe_db_clusters(self, **_: Any) -> Any:
        if self.cluster is None:
            raise ClientError({"Error": {"Code": "DBClusterNotFoundFault"}}, "DescribeDBClusters")
        return {"DBClusters": [self.cluster]}

    def __getattr__(self, name: str) -> Any:
        return lambda **parameters: self.calls.append(name)


@pytest.fixture
def paths(tmp_path: Path) -> RegionPaths:
    return RegionPaths(tmp_path)


def test_first_time(paths: RegionPaths) -> None:
    rds = Rds()
    assert DemoCluster(rds, paths).ensure() is False
    assert rds.calls == ["create_db_cluster", *["create_db_instance"] * 3]
    assert paths.demo_password.stat().st_mode & 0o777 == 0o600


def found(status: str, engine: str = "aurora-postgresql", members: int = 3) -> dict[str, Any]:
    listed = [{"DBInstanceIdentifier": name, "IsClusterWriter": False} for name in INSTANCES[:members]]
    return {"Engine": engine, "Status": status, "DBClusterMembers": listed, "Port": 5432}


def test_again(paths: RegionPaths) -> None:
    DemoCluster(Rds(), paths).ensure()
    password = paths.demo_password.read_text()
    rds = Rds(found("available"))
    assert DemoCluster(rds, paths).ensure() is True
    assert rds.calls == []
    rds = Rds(found("stopped", members=2))
    DemoCluster(rds, paths).ensure()
    assert rds.calls == ["start_db_cluster", "create_db_instance"]
    assert paths.demo_password.read_text() == password


def test_a_lost_password_is_set_anew(paths: RegionPaths) -> None:
    rds = Rds(found("available"))
    DemoCluster(rds, paths).ensure()
    assert rds.calls == ["modify_db_cluster"]


@pytest.mark.parametrize("cluster", [found("available", "aurora-mysql"), found("deleting")])
def test_a_cluster_that_cannot_be_used(paths: RegionPaths, cluster: dict[str, Any]) -> None:
    with pytest.raises(CliError):
        DemoCluster(Rds(cluster), paths).ensure()
