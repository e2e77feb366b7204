"""Full disks, taken addresses, killed helpers: clear words in an event, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support import processes
from tests.support.processes import wait_until
from tests.support.region import Cluster, Region, free_port

MIB = 1 << 20
EXPECTED = ("appends are refused", "cannot prepare the next log file", "fenced: ")
"""In error lines that these tests provoke."""


def mount(folder: Path, megabytes: int) -> None:
    """A small disk of its own at `folder`; skips where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0711", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here")


@pytest.fixture(scope="module")
def region() -> Iterator[Region]:
    """One storage node and all instances have small disks of their own."""
    made = Region()
    small = [made.data / "nodes" / "n1", made.data / "instances"]
    try:
        mount(small[0], 100)
        mount(small[1], 1500)
        made.up()
        yield made
        loud = made.unexpected_log_lines(EXPECTED)
        assert not loud, "unexpected errors in the logs:\n" + "\n".join(loud[:40])
        made.down()
    finally:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            made.borealis("down", check=False)
        for folder in small:
            subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)
        made.destroy()


@pytest.fixture(scope="module")
def cluster(region: Region) -> Cluster:
    made = region.create_cluster(readers=1, instance_class="db.t3.medium")
    made.sql("CREATE TABLE filler (n int, text text)")
    return made


def told(region: Region, *words: str) -> bool:
    """Whether an event says all of that."""
    events = region.rds.describe_events(Duration=60)["Events"]
    return any(all(word in event["Message"] for word in words) for event in events)


def write(cluster: Cluster) -> None:
    """About 5 MiB of log."""
    cluster.sql("INSERT INTO filler SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 20000) n")


@pytest.mark.parametrize("part", ["node", "driver", "proxy"])
def test_helper_that_is_killed_is_told_of(region: Region, cluster: Cluster, part: str) -> None:
    words = {"node": "Storage node n3", "driver": "storage driver", "proxy": "proxy of an endpoint"}[part]
    pids = {
        "node": lambda: region.node_processes("n3"),
        "driver": lambda: cluster.driver_processes(cluster.readers[0]),
        "proxy": lambda: processes.find("haproxy", str(region.data)),
    }[part]()
    assert pids
    processes.send(pids, signal.SIGKILL)
    wait_until(
        lambda: told(region, words, "had ended and was started again"), 30, f"the event of {part}", 0.1
    )
    cluster.wait_healthy()


def test_storage_node_with_a_full_disk(region: Region, cluster: Cluster) -> None:
    """Commits go on, and it takes part again when there is room."""

    def full() -> bool:
        write(cluster)
        return told(region, "Storage node n1", "its disk is full", "nothing is lost")

    wait_until(full, 120, "the event of the full disk", 0.1)
    own = next(s for s in cluster.status()["volume"]["segments"] if s["node"] == "n1")
    assert own["trouble"] == "StorageFull"
    rows = cluster.sql("SELECT count(*) FROM filler")
    subprocess.run(["mount", "-o", "remount,size=1500m", str(region.data / "nodes" / "n1")], check=True)

    def again() -> bool:
        cluster.sql("INSERT INTO filler VALUES (0, '')")
        own = next(s for s in cluster.status()["volume"]["segments"] if s["node"] == "n1")
        return bool(own["connected"] and own["behind_bytes"] < MIB and told(region, "n1", "takes log again"))

    wait_until(again, 60, "n1 to have all of the log", 0.1)
    assert cluster.sql("SELECT count(*) FROM filler WHERE n > 0") == rows


def test_full_disk_under_the_engines(region: Region, cluster: Cluster) -> None:
    """Whatever it does to them: what was acknowledged is there when there is room again."""
    ballast = region.data / "instances" / "ballast"
    with cluster.load() as load:
        wait_until(lambda: load.count > 100, 30, "the load to run")
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(MIB))
        with contextlib.suppress(psycopg.Error):
            for _ in range(5):
                write(cluster)
        ballast.unlink()
        rows = load.count
        wait_until(lambda: load.count > rows + 100, 60, "writes to go on")
        load.stop()
        assert not load.lost_on(cluster.endpoint)
    cluster.wait_healthy()
    assert not load.lost_on(cluster.endpoint)


def test_address_that_another_program_has_taken(region: Region, cluster: Cluster) -> None:
    reader, port = cluster.readers[0], free_port()
    address = cluster.instance_status(reader)["address"]
    rows = cluster.sql("SELECT count(*) FROM filler")
    with socket.create_server((address, port)):
        region.rds.modify_db_cluster(DBClusterIdentifier=cluster.identifier, Port=port, ApplyImmediately=True)
        wait_until(lambda: cluster.instance_status(reader)["status"] == "failed", 60, "the failure", 0.1)
        assert told(region, "put into failed", "has ended: see its log")
        wait_until(lambda: cluster.describe()["Port"] == port, 30, "the new port", 0.1)
        wait_until(lambda: cluster.instance_status(cluster.writer)["serving"], 60, "the writer", 0.1)
    cluster.wait_healthy()
    assert cluster.sql("SELECT count(*) FROM filler", cluster.instance_conninfo(reader)) == rows


def test_port_that_another_program_has_taken_everywhere(region: Region) -> None:
    port = free_port()
    with socket.create_server(("0.0.0.0", port)):
        region.rds.create_db_cluster(
            DBClusterIdentifier="waits",
            Engine="aurora-postgresql",
            MasterUsername="postgres",
            MasterUserPassword="Long-Enough-1",
            Port=port,
        )
        wait_until(lambda: told(region, "can be listened on at port", str(port)), 30, "the event", 0.1)
        found = region.rds.describe_db_clusters(DBClusterIdentifier="waits")["DBClusters"]
        assert found[0]["Status"] == "creating"
    waits = Cluster(region, "waits")
    wait_until(lambda: waits.describe()["Status"] == "available", 60, "the cluster", 0.1)
    waits.delete()
