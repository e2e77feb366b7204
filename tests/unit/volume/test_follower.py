"""Following the log on real storage nodes: another node takes over when the first is lost or left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from borealis.log.wire import Commit
from borealis.volume.config import NodeAddress
from borealis.volume.feed import VolumeFeed
from borealis.volume.follower import Follower
from borealis.volume.source import LogSource
from tests.unit.storage.support import VOLUME, NodeProcess, Writer, log_bytes, running_nodes, until


@asynccontextmanager
async def following(nodes: list[NodeProcess]) -> AsyncIterator[tuple[Follower, VolumeFeed]]:
    addresses = [NodeAddress(node.node, f"az-{node.node}", node.address) for node in nodes]
    source = LogSource(VOLUME, addresses)
    feed = VolumeFeed("42", source.read)
    follower = Follower(VOLUME, f"az-{nodes[0].node}", addresses, feed, source)
    task = asyncio.create_task(follower.run())
    try:
        yield follower, feed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await source.close()


async def commit(writers: list[Writer], vdl: int) -> None:
    """Writes the log up to `vdl` through all writers, and says that it is durable."""
    for writer in writers:
        await writer.write_log(vdl)
        writer.vdl = vdl
        writer.connection.send(Commit(writer.term, vdl))


async def test_the_feed_grows_with_the_log_and_survives_its_node(tmp_path: Path) -> None:
    async with running_nodes(tmp_path, "a", "b") as nodes:
        writers = [await Writer.create(node) for node in nodes]
        await commit(writers, 50_000)
        async with following(nodes) as (follower, feed):
            await until(lambda: feed.vdl == 50_000)
            assert follower.node == "a"
            await commit(writers, 120_000)
            await until(lambda: feed.vdl == 120_000)
            assert feed.buffered(100_000, 120_000) == log_bytes(100_000, 120_000)
            assert await feed.read(8192, 16384) == log_bytes(8192, 16384)

            await nodes[0].kill()
            await commit(writers[1:], 150_000)
            await until(lambda: feed.vdl == 150_000)
            assert follower.node == "b"
            assert feed.buffered(100_000, 150_000) == log_bytes(100_000, 150_000)
            await writers[1].connection.close()


async def test_a_node_that_is_cut_off_from_the_writer_is_left(tmp_path: Path) -> None:
    async with running_nodes(tmp_path, "a", "b") as nodes:
        (tmp_path / "peers.json").write_text("{}")  # no gossip: a stays where it is
        writers = [await Writer.create(node) for node in nodes]
        await commit(writers, 50_000)
        async with following(nodes) as (follower, feed):
            await until(lambda: feed.vdl == 50_000)
            assert follower.node == "a"
            await commit(writers[1:], 80_000)
            await until(lambda: feed.vdl == 80_000)
            assert follower.node == "b"
        for writer in writers:
            await writer.connection.close()


async def test_waits_for_nodes_that_are_not_there_yet(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path, "a")
    (tmp_path / "peers.json").write_text("{}")
    async with following([node]) as (_, feed):
        await asyncio.sleep(0)
        assert not feed.known
        await node.start()
        try:
            writer = await Writer.create(node)
            await commit([writer], 10_000)
            await until(lambda: feed.vdl == 10_000)
            await writer.connection.close()
        finally:
            await node.stop()
