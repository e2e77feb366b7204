"""Storage failures: one AZ lost costs nothing; one AZ and one more node make commits wait, and nothing
else.
"""

from __future__ import annotations

import signal
import threading
import time

import pytest

from tests.support import processes
from tests.support.editions import Edition
from tests.support.processes import wait_until
from tests.support.region import Cluster, Region

HARMLESS = ("connection", "timed out", "lost", "lease", "peer", "n1", "n2", "n3")


@pytest.fixture(scope="module")
def cluster(region: Region, edition: Edition) -> Cluster:
    made = region.create_cluster(edition=edition)
    made.sql("CREATE TABLE stalled (n int PRIMARY KEY)")
    return made


def caught_up(cluster: Cluster) -> bool:
    """Whether every segment is connected and within a mebibyte of the writer."""
    segments = cluster.status()["volume"]["segments"]
    return all(s["connected"] and s["behind_bytes"] < 1 << 20 for s in segments)


def test_losing_one_az_of_storage_costs_no_commit(region: Region, cluster: Cluster) -> None:
    with cluster.load() as load:
        wait_until(lambda: load.count > 100, 30, "the load to run")
        region.signal_nodes(signal.SIGSTOP, "n1", "n2")
        rows = load.count
        wait_until(lambda: load.count > rows + 500, 30, "writes to go on without an AZ")
        region.signal_nodes(signal.SIGCONT, "n1", "n2")
        wait_until(lambda: caught_up(cluster), 60, "the AZ to catch up by itself", 0.2)
        assert not load.errors
        load.stop()
        assert not load.lost_on(cluster.endpoint)


def test_a_killed_node_comes_back_and_catches_up(region: Region, cluster: Cluster) -> None:
    with cluster.load() as load:
        wait_until(lambda: load.count > 100, 30, "the load to run")
        before = region.node_processes("n3")
        processes.send(before, signal.SIGKILL)
        wait_until(lambda: set(region.node_processes("n3")) - set(before), 20, "the node to be started again")
        rows = load.count
        wait_until(lambda: load.count > rows + 200, 30, "writes to go on")
        wait_until(lambda: caught_up(cluster), 60, "the node to catch up", 0.2)
        assert not load.errors


class Stall:
    """Three nodes frozen, and an insert that waits for them."""

    def __init__(self, region: Region, cluster: Cluster, value: int) -> None:
        self.region, self.cluster, self.value = region, cluster, value
        self.outcome: list[object] = []
        self.session = cluster.endpoint.connect()
        self.thread = threading.Thread(target=self._insert, daemon=True)

    def _insert(self) -> None:
        try:
            self.session.execute("INSERT INTO stalled VALUES (%s)", (self.value,))
            self.outcome.append("acknowledged")
        except self.cluster.edition.Error as error:
            self.outcome.append(error)

    def __enter__(self) -> Stall:
        self.region.signal_nodes(signal.SIGSTOP, "n1", "n2", "n3")
        self.thread.start()
        time.sleep(1.0)  # the commit must be shown to wait: there is no event to wait for
        assert not self.outcome, "a commit was acknowledged by three of six copies"
        return self

    def __exit__(self, *_: object) -> None:
        self.region.signal_nodes(signal.SIGCONT, "n1", "n2", "n3")

    def visible_on(self, name: str) -> bool:
        found = self.cluster.instance(name).sql("SELECT 1 FROM stalled WHERE n = %s", (self.value,))
        return bool(found)


def test_az_and_one_more_node_make_commits_wait(region: Region, cluster: Cluster) -> None:
    with Stall(region, cluster, 1) as stall:
        for name in cluster.members():
            assert not stall.visible_on(name), "a row that is not durable was shown"
    wait_until(lambda: stall.outcome, 30, "the commit to go through")
    assert stall.outcome == ["acknowledged"]
    for name in cluster.members():
        wait_until(lambda name=name: stall.visible_on(name), 20, f"the row on {name}")


@pytest.mark.parametrize("value", [101, 102], ids=["cancel", "terminate"])
def test_breaking_off_during_a_stall_shows_nothing_that_is_not_durable(
    region: Region, cluster: Cluster, edition: Edition, value: int
) -> None:
    with Stall(region, cluster, value) as stall:
        break_off = edition.cancel if value == 101 else edition.terminate
        cluster.sql(break_off(stall.session.id))
        time.sleep(0.5)  # again nothing must happen
        for name in cluster.members():
            assert not stall.visible_on(name), "a row that is not durable was shown"
        assert not stall.outcome or stall.outcome != ["acknowledged"]
    wait_until(lambda: stall.outcome, 30, "the session to end its wait")
    if stall.outcome == ["acknowledged"]:
        wait_until(lambda: stall.visible_on(cluster.writer), 10, "the acknowledged row")
