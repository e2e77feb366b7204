"""Kill the helpers, not the engine: control plane, host agent, drivers, proxies. SQL goes on;
operations are taken up again.
"""

from __future__ import annotations

import signal

import pytest

from tests.support import processes
from tests.support.editions import Edition
from tests.support.processes import wait_until
from tests.support.region import Cluster, Region

HARMLESS = ("connection", "lost", "agent", "driver", "control", "lease")


def killed_and_back(region: Region, *needles: str) -> None:
    """kill -9 the one process whose command line holds `needles`, and wait for its successor."""
    before = processes.find(str(region.data), *needles)
    assert before, f"no process: {needles}"
    processes.send(before, signal.SIGKILL)
    wait_until(
        lambda: set(processes.find(str(region.data), *needles)) - set(before), 30, f"{needles} to be back"
    )


def api_answers(region: Region) -> bool:
    try:
        region.rds.describe_db_clusters()
    except Exception:  # any refusal means: not yet
        return False
    return True


@pytest.mark.parametrize("part", ["borealis.control.main", "borealis.host.main"])
def test_sql_does_not_notice(region: Region, cluster: Cluster, part: str) -> None:
    with cluster.load() as load:
        wait_until(lambda: load.count > 100, 30, "the load to run")
        killed_and_back(region, part)
        rows = load.count
        wait_until(lambda: load.count > rows + 200, 30, "writes to go on")
        assert not load.errors
    wait_until(lambda: api_answers(region), 30, "the API to answer again")
    cluster.wait_healthy()


@pytest.mark.parametrize("role", ["writer", "reader"])
def test_driver_killed_under_load(region: Region, cluster: Cluster, role: str) -> None:
    name = cluster.writer if role == "writer" else cluster.readers[0]
    with cluster.load() as load:
        wait_until(lambda: load.count > 100, 30, "the load to run")
        before = cluster.driver_processes(name)
        processes.send(before, signal.SIGKILL)
        rows = load.count
        wait_until(lambda: load.count > rows + 200, 30, "writes to go on after the driver's death")
        if role == "reader":
            assert not load.errors
        load.stop()
        assert not load.lost_on(cluster.endpoint)
    cluster.wait_healthy()

    def complete() -> bool:
        return not load.lost_on(cluster.instance(name))

    wait_until(lambda: cluster.answers(complete), 30, f"all rows on {name}")


def test_control_killed_in_the_middle_of_operations(region: Region, cluster: Cluster) -> None:
    unhurried = f"{cluster.identifier}-unhurried"
    cluster.add_instance(unhurried, wait=False)
    killed_and_back(region, "borealis.control.main")
    wait_until(lambda: api_answers(region), 30, "the API to answer again")
    cluster.wait_instance(unhurried)
    writer = cluster.writer
    region.rds.failover_db_cluster(DBClusterIdentifier=cluster.identifier)
    killed_and_back(region, "borealis.control.main")
    wait_until(lambda: api_answers(region), 30, "the API to answer again")
    wait_until(lambda: cluster.writer != writer, 30, "the failover to be finished")
    cluster.wait_healthy()
    cluster.sql("SELECT 1")


def test_writer_dies_while_the_control_plane_is_away(region: Region, cluster: Cluster) -> None:
    writer = cluster.writer
    engine = cluster.engine_processes(writer)
    control = processes.find(str(region.data), "borealis.control.main")
    processes.send(control, signal.SIGKILL)
    processes.send(engine, signal.SIGKILL)
    wait_until(lambda: api_answers(region), 30, "the API to answer again")
    wait_until(lambda: cluster.writer != writer, 30, "another writer")
    cluster.wait_healthy()
    cluster.sql("CREATE TABLE IF NOT EXISTS after_all (n int)")


def test_a_reader_that_falls_behind_catches_up(cluster: Cluster) -> None:
    late, other = cluster.readers[:2]
    with cluster.load() as load:
        wait_until(lambda: load.count > 100, 30, "the load to run")
        frozen = cluster.engine_processes(late)
        processes.send(frozen, signal.SIGSTOP)
        try:
            rows = load.count
            wait_until(lambda: load.count > rows + 200, 30, "writes to go on while a reader stands still")
            wait_until(lambda: not load.lost_on(cluster.instance(other)), 30, "the other reader to keep up")
        finally:
            processes.send(frozen, signal.SIGCONT)
        load.stop()
        wait_until(lambda: not load.lost_on(cluster.instance(late)), 30, f"all rows on {late}")
    cluster.wait_healthy()


def test_a_whole_zone_is_lost(region: Region, cluster: Cluster) -> None:
    writer = cluster.writer
    zone = cluster.instance_status(writer)["az"]
    with cluster.load() as load:
        wait_until(lambda: load.count > 100, 30, "the load to run")
        region.borealis("chaos", "kill", zone)
        wait_until(lambda: cluster.writer != writer, 30, "another writer")
        rows = load.count
        wait_until(lambda: load.count > rows + 100, 30, "writes to go on without the zone")
        load.stop()
        assert not load.lost_on(cluster.endpoint)
    cluster.wait_healthy()


def test_proxy_killed(region: Region, cluster: Cluster, edition: Edition) -> None:
    before = processes.find("haproxy", str(region.data))
    assert before
    processes.send(before, signal.SIGKILL)

    def reachable() -> bool:
        try:
            return bool(cluster.sql("SELECT 1")) and bool(cluster.reader_endpoint.sql("SELECT 1"))
        except edition.Error:
            return False

    wait_until(reachable, 30, "the endpoints to be back")
    assert not cluster.is_reader(cluster.endpoint)
