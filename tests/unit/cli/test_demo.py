"""The demonstration: when it is ready, how long an outage was, what is lost, which engines take part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from borealis.cli.common import CliError
from borealis.cli.demo import orders
from borealis.cli.demo.cluster import DemoCluster, Member, Snapshot, render
from borealis.cli.demo.editions import EDITIONS, MYSQL, POSTGRESQL, Edition
from borealis.cli.demo.outage import Books, lost
from borealis.cli.demo.sessions import Rows, Session
from borealis.cli.demo.story import _clusters
from borealis.paths import RegionPaths


def snapshot(status: str = "available", **members: str) -> Snapshot:
    listed = tuple(
        Member(
            identifier=name, zone="z", status=state.removesuffix("*"), writer=state.endswith("*"), address=""
        )
        for name, state in members.items()
    )
    return Snapshot(
        identifier="c", status=status, endpoint="w", reader_endpoint="r", port=5432, members=listed
    )


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
    assert render([seen, seen], 1.0)


def test_outage_counts_new_connections_only() -> None:
    books = Books(
        acknowledged={1: 9.0, 2: 10.01, 3: 10.3, 4: 10.25},
        connected={1: 1.0, 2: 1.0, 3: 10.1, 4: 10.2},
    )
    assert books.outage_ms(10.0) == pytest.approx(250.0)
    assert books.outage_ms(11.0) is None


class FakeSession(Session):
    """Has orders, and notes what else it is told; questions are answered with a fixed number."""

    def __init__(self, *orders: int, answer: int = 0) -> None:
        self.orders = orders
        self.answer = answer
        self.told: list[str] = []

    def run(self, statement: str, parameters: Any = None) -> Rows:
        if statement.startswith("SELECT count"):
            return Rows(("count",), ((self.answer,),))
        self.told.append(statement)
        return Rows(("order_id",), tuple((row,) for row in self.orders if row >= (parameters or [0])[0]))

    def insert(self, statement: str, parameters: Any) -> int:
        raise AssertionError("nothing is inserted")

    def close(self) -> None:
        pass


def test_lost_orders_are_found() -> None:
    books = Books(acknowledged={5: 0.0, 6: 0.0, 8: 0.0})
    assert lost(books, FakeSession(5, 6, 7, 8)) == []
    assert lost(books, FakeSession(1, 5, 7)) == [6, 8]
    assert lost(Books(), FakeSession()) == []


@pytest.mark.parametrize("edition", EDITIONS.values(), ids=lambda e: e.title)
def test_what_is_there_is_not_made_again(edition: Edition) -> None:
    everything = [step.statement for step in edition.steps]
    assert orders.fill(FakeSession(answer=0), edition) == everything
    assert orders.fill(FakeSession(answer=1), edition) == [
        step.statement for step in edition.steps if step.done is None
    ]


def test_results_are_tables() -> None:
    table = orders.shown(Rows(("order_id", "city"), ((1, "Bengaluru"),)))
    assert [column.header for column in table.columns] == ["order_id", "city"]
    assert table.row_count == 1


class Rds:
    """Remembers what it was asked; answers with one cluster, or none."""

    def __init__(self, cluster: dict[str, Any] | None = None, engines: tuple[str, ...] = ()) -> None:
        self.cluster = cluster
        self.engines = engines
        self.calls: list[str] = []

    def describe_db_engine_versions(self, **_: Any) -> Any:
        return {"DBEngineVersions": [{"Engine": name, "EngineVersion": "1"} for name in self.engines]}

    def describe_db_clusters(self, **_: Any) -> Any:
        if self.cluster is None:
            raise ClientError({"Error": {"Code": "DBClusterNotFoundFault"}}, "DescribeDBClusters")
        return {"DBClusters": [self.cluster]}

    def __getattr__(self, name: str) -> Any:
        return lambda **parameters: self.calls.append(name)


@pytest.fixture
def paths(tmp_path: Path) -> RegionPaths:
    return RegionPaths(tmp_path)


@pytest.mark.parametrize("edition", EDITIONS.values(), ids=lambda e: e.title)
def test_first_time(paths: RegionPaths, edition: Edition) -> None:
    rds = Rds()
    assert DemoCluster(rds, paths, edition).ensure() is False
    assert rds.calls == ["create_db_cluster", *["create_db_instance"] * 3]
    assert paths.demo_password.stat().st_mode & 0o777 == 0o600


def found(status: str, engine: str = "aurora-postgresql", members: int = 3) -> dict[str, Any]:
    names = POSTGRESQL.instances[:members]
    listed = [{"DBInstanceIdentifier": name, "IsClusterWriter": False} for name in names]
    return {"Engine": engine, "Status": status, "DBClusterMembers": listed, "Port": 5432}


def test_again(paths: RegionPaths) -> None:
    DemoCluster(Rds(), paths, POSTGRESQL).ensure()
    password = paths.demo_password.read_text()
    rds = Rds(found("available"))
    assert DemoCluster(rds, paths, POSTGRESQL).ensure() is True
    assert rds.calls == []
    rds = Rds(found("stopped", members=2))
    DemoCluster(rds, paths, POSTGRESQL).ensure()
    assert rds.calls == ["start_db_cluster", "create_db_instance"]
    assert paths.demo_password.read_text() == password


def test_a_lost_password_is_set_anew(paths: RegionPaths) -> None:
    rds = Rds(found("available"))
    DemoCluster(rds, paths, POSTGRESQL).ensure()
    assert rds.calls == ["modify_db_cluster"]


@pytest.mark.parametrize("cluster", [found("available", "aurora-mysql"), found("deleting")])
def test_a_cluster_that_cannot_be_used(paths: RegionPaths, cluster: dict[str, Any]) -> None:
    with pytest.raises(CliError):
        DemoCluster(Rds(cluster), paths, POSTGRESQL).ensure()


def test_what_is_installed_is_played(paths: RegionPaths) -> None:
    def played(*installed: str, only: str | None = None) -> list[Edition]:
        return [cluster.edition for cluster in _clusters(Rds(engines=installed), paths, only)]

    assert played("aurora-mysql", "aurora-postgresql") == [POSTGRESQL, MYSQL]
    assert played("aurora-postgresql") == [POSTGRESQL]
    assert played("aurora-mysql", "aurora-postgresql", only="aurora-mysql") == [MYSQL]
    with pytest.raises(CliError, match="its engines: aurora-postgresql"):
        played("aurora-postgresql", only="aurora-mysql")
