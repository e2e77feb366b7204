"""The driver may die at any time: commits wait and then go on, readers catch up, nobody sees an error."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from tests.integration.test_driver_failover import acknowledged, rows_of, started
from tests.support.load import Load
from tests.support.minicluster import MiniCluster, engine_pids


def serving(status: dict[str, Any]) -> bool:
    return bool(status["engine"]["up"]) and bool(status["vdl"])


async def test_the_writers_driver_is_killed_under_load(cluster: MiniCluster) -> None:
    writer, (reader,) = await started(cluster, 1)
    pids = engine_pids(writer)[:1]
    with Load(writer.target, clients=4) as load:
        for _ in range(3):
            await acknowledged(load, 100)
            cluster.kill_driver(writer)
            cluster.start_driver(writer)
            status = await cluster.wait_status(writer, serving)
            assert status["role"] == "writer"
        await acknowledged(load, 100)
    assert load.errors == []
    assert engine_pids(writer)[:1] == pids
    assert await rows_of(reader, load.count) >= load.count
    assert load.lost_on(reader.target) == set()
    # And it can still be replaced.
    cluster.kill_engine(writer)
    await cluster.open_volume(reader)
    assert load.lost_on(reader.target) == set()


async def test_nothing_is_acknowledged_while_the_driver_is_away(cluster: MiniCluster) -> None:
    writer, _ = await started(cluster, 0)
    with Load(writer.target, clients=2) as load:
        await acknowledged(load, 50)
        cluster.kill_driver(writer)
        # What was released before the kill may still be on its way to the clients.
        await asyncio.sleep(0.2)
        before = load.count
        await asyncio.sleep(0.5)
        assert load.count == before
        cluster.start_driver(writer)
        await acknowledged(load, 50)
    assert load.errors == []


async def test_a_readers_driver_is_killed(cluster: MiniCluster) -> None:
    writer, (reader,) = await started(cluster, 1)
    pids = engine_pids(reader)[:1]
    with Load(writer.target, clients=2) as load:
        await acknowledged(load, 100)
        cluster.kill_driver(reader)
        await acknowledged(load, 200)
        cluster.start_driver(reader)
        await acknowledged(load, 100)
    assert await rows_of(reader, load.count) >= load.count
    assert engine_pids(reader)[:1] == pids
    status = await cluster.status(reader)
    assert status["role"] == "reader"


async def test_a_writer_that_was_replaced_while_its_driver_was_away(cluster: MiniCluster) -> None:
    writer, (candidate,) = await started(cluster, 1)
    assert writer.engine is not None
    with Load(writer.target, clients=2) as load:
        await acknowledged(load, 50)
        cluster.kill_driver(writer)
        await cluster.open_volume(candidate)
        cluster.start_driver(writer)
        assert writer.driver is not None
        assert await asyncio.to_thread(writer.driver.wait) == 3
        assert await asyncio.to_thread(writer.engine.wait) == -signal.SIGKILL
    assert load.lost_on(candidate.target) == set()


async def test_commits_go_on_without_two_nodes_and_wait_without_three(cluster: MiniCluster) -> None:
    writer, (reader,) = await started(cluster, 1)
    with Load(writer.target, clients=4) as load:
        await acknowledged(load, 100)
        for node in cluster.nodes[:2]:
            cluster.kill_node(node)
        await acknowledged(load, 300)
        cluster.kill_node(cluster.nodes[2])
        await asyncio.sleep(0.3)
        before = load.count
        await asyncio.sleep(1)
        assert load.count == before
        status = await cluster.status(writer)
        assert sum(node["connected"] for node in status["nodes"].values()) == 3
        seen = await rows_of(reader, 0)
        assert seen <= before + 4  # what waits is on no reader; four clients may not have heard of theirs
        cluster.start_node(cluster.nodes[2])
        await acknowledged(load, 300)
        for node in cluster.nodes[:2]:
            cluster.start_node(node)
        await cluster.wait_status(
            writer, lambda s: all(n["connected"] and n["behind_bytes"] < 1 << 20 for n in s["nodes"].values())
        )
    assert load.errors == []
    assert await rows_of(reader, load.count) >= load.count


async def test_a_stopped_node_holds_up_nobody(cluster: MiniCluster) -> None:
    writer, (reader,) = await started(cluster, 1)
    followed = (await cluster.wait_status(reader, lambda s: bool(s["feed_node"])))["feed_node"]
    stopped = [node for node in cluster.nodes if node.id == followed]
    stopped += [node for node in cluster.nodes if node.id != followed][:1]
    with Load(writer.target, clients=2) as load:
        await acknowledged(load, 50)
        for node in stopped:
            assert node.process is not None
            os.kill(node.process.pid, signal.SIGSTOP)
        await acknowledged(load, 500)
        # The reader has gone to another node.
        await cluster.wait_status(reader, lambda s: s["feed_node"] not in ("", followed))
        for node in stopped:
            assert node.process is not None
            os.kill(node.process.pid, signal.SIGCONT)
        await acknowledged(load, 50)
        await cluster.wait_status(writer, lambda s: all(n["connected"] for n in s["nodes"].values()))
    assert load.errors == []
    assert await rows_of(reader, load.count) >= load.count


BULK = {
    "postgresql": "CREATE TABLE bulk AS SELECT n, repeat('x', 200) AS pad FROM generate_series(1, 300000) n",
    "mysql": "CREATE TABLE bulk AS SELECT seq AS n, REPEAT('x', 200) AS pad FROM seq_1_to_300000",
}


async def test_bulk_writes_are_shipped_before_their_commit(cluster: MiniCluster) -> None:
    writer, (reader,) = await started(cluster, 1)
    await asyncio.to_thread(writer.target.sql, BULK[cluster.edition.name])
    status = await cluster.status(writer)
    assert status["vdl"] > 60 << 20
    goal = status["vdl"]
    await cluster.wait_status(reader, lambda s: (s["engine"]["replay_lsn"] or 0) >= goal, timeout=120)
    assert reader.sql("SELECT count(*) FROM bulk") == [(300000,)]
