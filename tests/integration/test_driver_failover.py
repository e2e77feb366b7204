"""Losing the writer: what was acknowledged is there, readers go on, and the old writer can do nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress

import pytest

from borealis.rpc import RpcError
from tests.support.load import Load
from tests.support.minicluster import ZONES, Instance, MiniCluster, engine_pids


async def started(cluster: MiniCluster, readers: int) -> tuple[Instance, list[Instance]]:
    """A writer and its readers."""
    writer = await cluster.add_instance("writer")
    await cluster.open_volume(writer)
    return writer, [await cluster.add_instance(f"reader-{n}", ZONES[n % 3]) for n in range(readers)]


async def rows_of(instance: Instance, wanted: int) -> int:
    """How many rows of the ledger the instance shows, once it shows `wanted`."""
    count = -1
    for _ in range(2000):
        with suppress(instance.edition.Error):  # Perhaps the table is not there yet.
            ((count,),) = await asyncio.to_thread(instance.sql, "SELECT count(*) FROM ledger")
            if count >= wanted:
                break
        await asyncio.sleep(0.01)
    return count


async def acknowledged(load: Load, more: int) -> None:
    """Waits for some more acknowledged rows."""
    goal = load.count + more
    for _ in range(12_000):
        if load.count >= goal:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{load.count} rows are acknowledged, expected {goal}; errors: {load.errors[-3:]}")


async def test_readers_see_what_the_writer_commits(cluster: MiniCluster) -> None:
    writer, readers = await started(cluster, 2)
    with Load(writer.target, clients=2) as load:
        await acknowledged(load, 200)
    assert load.errors == []
    for reader in readers:
        assert await rows_of(reader, load.count) >= load.count
        status = await cluster.status(reader)
        assert status["role"] == "reader"
        assert status["term"] == (await cluster.status(writer))["term"]
        with pytest.raises(cluster.edition.Error) as refused:
            reader.target.sql("DELETE FROM ledger")
        assert cluster.edition.refused_as_read_only(refused.value)


async def test_promotion_after_the_writers_engine_was_killed(cluster: MiniCluster) -> None:
    writer, (candidate, bystander) = await started(cluster, 2)
    pids = engine_pids(bystander)[:1]
    with Load(writer.target, clients=4) as load:
        await acknowledged(load, 500)
        cluster.kill_engine(writer)
        opened = await cluster.open_volume(candidate)
    assert opened["timeline"] == 3
    assert load.lost_on(candidate.target) == set()
    with Load(candidate.target, clients=2) as more:
        await acknowledged(more, 100)
    assert more.errors == []
    total = load.count + more.count
    # The other reader has followed the change without a restart.
    assert await rows_of(bystander, total) >= total
    assert engine_pids(bystander)[:1] == pids
    assert load.lost_on(bystander.target) == set()
    assert (await cluster.status(bystander))["timeline"] == 3


async def test_promotion_of_one_after_the_other(cluster: MiniCluster) -> None:
    writer, readers = await started(cluster, 2)
    books = []
    for candidate in [*readers, await cluster.add_instance("last")]:
        with Load(writer.target, clients=2) as load:
            await acknowledged(load, 100)
            cluster.kill_engine(writer)
            cluster.kill_driver(writer)
            await cluster.open_volume(candidate)
        books.append(load)
        writer = candidate
    for load in books:
        assert load.lost_on(writer.target) == set()
    assert (await cluster.status(writer))["timeline"] == 5


async def test_a_living_writer_is_fenced_by_its_successor(cluster: MiniCluster) -> None:
    writer, (candidate,) = await started(cluster, 1)
    with Load(writer.target, clients=4) as load:
        await acknowledged(load, 200)
        # Nobody told the old one, and it goes on writing.
        await cluster.open_volume(candidate)
        assert writer.engine is not None
        assert writer.driver is not None
        assert await asyncio.to_thread(writer.engine.wait) == -signal.SIGKILL
        assert await asyncio.to_thread(writer.driver.wait) == 3
    assert load.lost_on(candidate.target) == set()
    # Started again, it knows that it is over.
    cluster.start_driver(writer)
    status = await cluster.status(writer)
    assert status["role"] == "fenced"
    with pytest.raises(RpcError, match="only a reader"):
        await cluster.open_volume(writer)


async def test_a_stopped_writer_that_wakes_up_acknowledges_nothing(cluster: MiniCluster) -> None:
    writer, (candidate,) = await started(cluster, 1)
    assert writer.driver is not None
    assert writer.engine is not None
    with Load(writer.target, clients=4) as load:
        await acknowledged(load, 200)
        cluster.signal_engine(writer, signal.SIGSTOP)
        os.kill(writer.driver.pid, signal.SIGSTOP)
        await cluster.open_volume(candidate)
        before = candidate.sql("SELECT count(*) FROM ledger")
        os.kill(writer.driver.pid, signal.SIGCONT)
        cluster.signal_engine(writer, signal.SIGCONT)
        assert await asyncio.to_thread(writer.engine.wait) == -signal.SIGKILL
        assert await asyncio.to_thread(writer.driver.wait) == 3
    assert load.lost_on(candidate.target) == set()
    assert candidate.sql("SELECT count(*) FROM ledger") == before


async def test_too_few_nodes_to_open_leave_the_writer_alone(cluster: MiniCluster) -> None:
    writer, (candidate,) = await started(cluster, 1)
    for node in cluster.nodes[:3]:
        cluster.kill_node(node)
    with pytest.raises(RpcError) as caught:
        await cluster.open_volume(candidate)
    assert caught.value.code == "NoQuorum"
    assert (await cluster.status(candidate))["role"] == "reader"
    for node in cluster.nodes[:3]:
        cluster.start_node(node)
    with Load(writer.target, clients=1) as load:
        await acknowledged(load, 20)
    assert load.errors == []
    assert await rows_of(candidate, load.count) >= load.count
    # The same instance can be promoted later.
    await cluster.open_volume(candidate)
    assert load.lost_on(candidate.target) == set()
