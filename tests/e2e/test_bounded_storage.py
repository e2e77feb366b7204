"""The volume's log does not grow for ever: it goes once newer images exist, and nothing is missed."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support import processes
from tests.support.editions import MYSQL, Target
from tests.support.processes import wait_until
from tests.support.region import Cluster, Region

MIB = 1 << 20
COUNT = "SELECT count(*), sum(n) FROM filler"
FILE_BYTES = 64 * MIB
"""A node's log file. The newest and the oldest are used in part, one is made ahead, two are kept spare."""


@pytest.fixture(scope="module")
def region() -> Iterator[Region]:
    """With images and trimming after little log, and checks without a pause."""
    settings = {
        "image_log_bytes": 24 * MIB,
        "trim_log_bytes": 8 * MIB,
        "scrub_bytes_per_second": 100 * MIB,
        "scrub_pass_seconds": 1,
    }
    made = Region()
    try:
        made.up(*(word for name, value in settings.items() for word in ("--set", f"{name}={value}")))
        yield made
        loud = made.unexpected_log_lines(("are damaged on this node",))
        assert not loud, "unexpected errors in the logs:\n" + "\n".join(loud[:40])
        made.down()
    finally:
        made.destroy()


@pytest.fixture(scope="module")
def cluster(region: Region) -> Cluster:
    made = region.create_cluster(readers=1, instance_class="db.t3.medium")
    made.sql("CREATE TABLE filler (n int, text text)")
    return made


def segments(cluster: Cluster) -> list[dict[str, Any]]:
    return list(cluster.status()["volume"]["segments"])


def highest(cluster: Cluster) -> int:
    """The highest position at which a segment's log begins."""
    return max(s["base"] for s in segments(cluster) if s["connected"])


def write_until_trimmed(cluster: Cluster, above: int, nodes: int = 6) -> None:
    """Write until that many segments have let go of the log up to a place above `above`."""

    def done() -> bool:
        cluster.sql("INSERT INTO filler SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 20000) n")
        return sum(1 for s in segments(cluster) if s["connected"] and s["base"] > above) >= nodes

    wait_until(done, 120, f"{nodes} segments trimmed above {above:X}", 0.2)


def test_log_goes_and_new_readers_and_writers_miss_nothing(region: Region, cluster: Cluster) -> None:
    for _ in range(2):
        write_until_trimmed(cluster, above=highest(cluster))
    rows = cluster.sql(COUNT)
    cluster.add_instance("late")
    late = cluster.instance_conninfo("late")
    wait_until(lambda: cluster.sql(COUNT, late) == rows, 60, "all rows on the new reader", 0.1)
    region.rds.failover_db_cluster(DBClusterIdentifier=cluster.identifier, TargetDBInstanceIdentifier="late")
    wait_until(lambda: cluster.writer == "late", 60, "the new writer", 0.1)
    cluster.wait_healthy()
    assert cluster.sql(COUNT) == rows


def test_smaller_readers_were_started_again_for_the_larger_writer(region: Region, cluster: Cluster) -> None:
    def allowed(name: str) -> int:
        return int(cluster.sql("SHOW max_connections", cluster.instance_conninfo(name))[0][0])

    assert cluster.writer == "late"
    assert all(allowed(reader) >= allowed("late") for reader in cluster.readers)
    wait_until(lambda: cluster.instance_status("late")["cpu_percent"] > 0, 60, "CPU of the writer", 0.2)

    def shown() -> bool:
        rows = cluster.sql("SELECT cpu FROM aurora_replica_status() WHERE server_id = 'late'")
        return bool(rows and rows[0][0] > 0)

    wait_until(shown, 60, "CPU in aurora_replica_status", 0.2)


def test_node_that_was_away_begins_where_the_others_begin(region: Region, cluster: Cluster) -> None:
    """Its peers have no longer what it misses, and it needs none of it."""
    before = highest(cluster)
    region.signal_nodes(signal.SIGSTOP, "n6")
    try:
        write_until_trimmed(cluster, above=before, nodes=5)
    finally:
        region.signal_nodes(signal.SIGCONT, "n6")

    def back() -> bool:
        own = next(s for s in segments(cluster) if s["node"] == "n6")
        return bool(own["connected"] and own["base"] > before and own["behind_bytes"] < MIB)

    wait_until(back, 60, "n6 has what the others have", 0.2)
    held = {path.name for path in (region.data / "nodes" / "n6").rglob("image-*@*")}
    elsewhere = {path.name for path in (region.data / "nodes" / "n1").rglob("image-*@*")}
    assert held <= elsewhere, "an image that is gone elsewhere is still there"
    wait_until(lambda: _spare_bytes(region, cluster, "n1") < 5 * FILE_BYTES, 30, "the files to go", 0.2)


def test_bytes_that_change_on_a_disk_are_found_told_and_mended(region: Region, cluster: Cluster) -> None:
    marker = secrets.token_hex(16)
    cluster.sql(f"INSERT INTO filler VALUES (0, '{marker}')")
    _flip(region.data / "nodes" / "n2", marker.encode())

    def mended() -> bool:
        own = next(s for s in segments(cluster) if s["node"] == "n2")
        return bool(own["damaged"] and own["repaired"] >= own["damaged"])

    wait_until(mended, 60, "the damage to be mended", 0.2)

    def told() -> bool:
        said = [e["Message"] for e in region.rds.describe_events(SourceType="db-cluster")["Events"]]
        return any(text.startswith("Storage node n2") and "damaged" in text for text in said)

    wait_until(told, 30, "the event", 0.1)
    assert cluster.sql(f"SELECT n FROM filler WHERE text = '{marker}'") == [(0,)]


def _flip(node: Path, marker: bytes) -> None:
    def found() -> tuple[Path, int] | None:
        places = ((path, path.read_bytes().find(marker)) for path in node.rglob("log/*.log"))
        return next(((path, at) for path, at in places if at >= 0), None)

    path, at = cast("tuple[Path, int]", wait_until(found, 30, "the row in the log of n2"))
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([marker[0] ^ 1]))


def test_deletion_does_not_wait_for_a_node_that_is_silent(region: Region, cluster: Cluster) -> None:
    volume = cluster.status()["volume"]["id"]
    segment = region.data / "nodes" / "n6" / "segments" / volume
    region.signal_nodes(signal.SIGSTOP, "n6")
    try:
        cluster.delete()
        left = {node["id"]: node["left_over"] for node in region.status()["nodes"] if node["left_over"]}
        assert left == {"n6": [volume]}
        assert segment.exists()
    finally:
        region.signal_nodes(signal.SIGCONT, "n6")
    wait_until(lambda: not segment.exists(), 30, "the segment to go", 0.1)
    wait_until(lambda: not any(n["left_over"] for n in region.status()["nodes"]), 30, "nothing left", 0.1)


def test_log_of_the_other_edition_goes_too(region: Region) -> None:
    """Its log files have any size, and a reader's driver that is started again asks for old log."""
    cluster = region.create_cluster(readers=1, edition=MYSQL)
    cluster.sql("CREATE TABLE filler (n int, text longtext)")

    def done() -> bool:
        cluster.sql("INSERT INTO filler SELECT seq, repeat(md5(seq), 30) FROM seq_1_to_10000")
        return all(s["connected"] and s["base"] > 128 * MIB for s in segments(cluster))

    wait_until(done, 120, "six segments trimmed", 0.2)
    rows = cluster.sql(COUNT)
    processes.send(cluster.driver_processes(cluster.readers[0]), signal.SIGKILL)
    cluster.add_instance("new")
    for name in cluster.readers:
        place = cluster.instance(name)

        def complete(place: Target = place) -> bool:
            return cluster.sql(COUNT, place) == rows

        wait_until(partial(cluster.answers, complete), 60, f"all rows on {name}", 0.1)
    cluster.delete()


def _spare_bytes(region: Region, cluster: Cluster, node: str) -> int:
    """What a node's log files take beyond the log that is in them."""
    about = cluster.status()["volume"]
    own = next(s for s in about["segments"] if s["node"] == node)
    folder: Path = region.data / "nodes" / node
    sizes = [path.stat().st_size for path in folder.rglob("log/*") if path.is_file()]
    return sum(sizes) - int(own["scl"] - own["base"])
