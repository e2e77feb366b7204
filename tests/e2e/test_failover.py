"""Ten failovers under load, by every cause: not one acknowledged row is lost, readers keep their sessions."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.support import processes
from tests.support.editions import Edition
from tests.support.load import Load
from tests.support.processes import wait_until
from tests.support.region import Cluster, Region

HARMLESS = ("fenced", "engine", "lease", "superseded")
CAUSES = [
    "kill engine", "kill main process", "planned", "hang", "kill engine",
    "kill engine and driver", "planned", "kill main process", "hang", "kill engine",
]  # fmt: skip


@pytest.fixture(scope="module")
def load(cluster: Cluster) -> Iterator[Load]:
    with cluster.load() as running:
        yield running


def provoke(cluster: Cluster, cause: str, writer: str) -> None:
    """Make the writer go in the way that `cause` names."""
    if cause == "planned":
        cluster.region.rds.failover_db_cluster(DBClusterIdentifier=cluster.identifier)
    elif cause == "kill main process":
        processes.send([cluster.main_process(writer)], signal.SIGKILL)
    elif cause == "hang":
        processes.send(cluster.driver_processes(writer) + cluster.engine_processes(writer), signal.SIGSTOP)
    else:
        drivers = cluster.driver_processes(writer) if "driver" in cause else []
        processes.send(drivers + cluster.engine_processes(writer), signal.SIGKILL)


@pytest.mark.parametrize("turn", range(len(CAUSES)))
def test_failover_loses_nothing(cluster: Cluster, load: Load, turn: int) -> None:
    cause, writer = CAUSES[turn], cluster.writer
    rows = load.count
    wait_until(lambda: load.count > rows + 50, 30, "the load to run")
    survivors = [cluster.instance(name).connect() for name in cluster.readers]
    provoke(cluster, cause, writer)
    wait_until(lambda: cluster.writer != writer, 30, f"another writer after: {cause}")
    rows = load.count
    wait_until(lambda: load.count > rows + 50, 30, f"writes to go on after: {cause}")
    assert not load.lost_on(cluster.endpoint)
    for session in survivors:
        assert session.execute("SELECT 1") == [(1,)], "a reader's session was cut by a failover"
        session.close()
    cluster.wait_healthy()
    assert writer in cluster.readers, "the old writer must come back as a reader"


def test_readers_have_every_row_too(cluster: Cluster, load: Load) -> None:
    load.stop()
    for name in cluster.members():
        target = cluster.instance(name)
        wait_until(lambda target=target: not load.lost_on(target), 20, f"all rows on {name}")


def test_failover_to_a_chosen_reader_and_its_events(region: Region, cluster: Cluster) -> None:
    target = cluster.readers[-1]
    region.rds.failover_db_cluster(DBClusterIdentifier=cluster.identifier, TargetDBInstanceIdentifier=target)
    wait_until(lambda: cluster.writer == target, 30, "the chosen reader to be the writer")
    cluster.wait_healthy()
    found = region.rds.describe_events(
        SourceType="db-cluster", SourceIdentifier=cluster.identifier, Duration=60
    )
    assert any(f"Completed failover to DB instance: {target}" in e["Message"] for e in found["Events"])


def test_a_cluster_without_readers_recovers_too(region: Region, edition: Edition) -> None:
    alone = region.create_cluster(readers=0, edition=edition)
    with alone.load(clients=2) as load:
        wait_until(lambda: load.count > 50, 30, "the load to run")
        processes.send(alone.engine_processes(alone.writer), signal.SIGKILL)
        rows = load.count
        wait_until(lambda: load.count > rows + 20, 60, "writes to go on")
        load.stop()
        assert not load.lost_on(alone.endpoint)
