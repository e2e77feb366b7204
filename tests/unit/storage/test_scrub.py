"""Flipped bytes that nobody reads are found in the background, reported, and mended from another node."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from borealis.log.wire import BlobData, BlobGet, BlobInfo, BlobPut, Create, Trim
from borealis.storage.client import NodeConnection
from borealis.storage.errors import NodeRefused
from borealis.storage.logfile import LogConfig
from borealis.storage.node import NodeSettings, StorageNode
from borealis.storage.scrub import ScrubConfig
from tests.unit.storage.support import SEED, VOLUME, NodeProcess, Writer, log_bytes, running_nodes, until

MIB = 1 << 20
BUSY = ("--scrub-bytes-per-second", str(1 << 30), "--scrub-pass-seconds", "0")
"""Check for ever, as fast as can be."""
BLOB = log_bytes(0, 3 * MIB, seed=9)
INFO = BlobInfo("image.tar", len(BLOB), hashlib.sha256(BLOB).hexdigest())


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x20]))


def flip_log(node: NodeProcess, lsn: int) -> None:
    """Change a byte of the log on a node's disk."""
    wanted = log_bytes(lsn, lsn + 100)
    for path in (node.directory / "segments" / VOLUME / "log").glob("*.log"):
        at = path.read_bytes().find(wanted)
        if at >= 0:
            flip(path, at + 50)
            return
    raise AssertionError(f"the log at {lsn} is in no file of {node.node}")


def blob_file(node: NodeProcess) -> Path:
    return node.directory / "segments" / VOLUME / "blobs" / f"{INFO.name}@{INFO.sha256}"


async def put(node: NodeProcess) -> None:
    connection = await node.connect()
    for start in range(0, len(BLOB), MIB):
        last = start + MIB == len(BLOB)
        piece = BlobPut(INFO.name, start, INFO.size, INFO.sha256, last, BLOB[start : start + MIB])
        await connection.request(piece)
    await connection.close()


async def get(node: NodeProcess) -> bytes:
    connection = await node.connect()
    found = b""
    while len(found) < INFO.size:
        reply = await connection.request(BlobGet(INFO.name, len(found), MIB))
        assert isinstance(reply, BlobData)
        found += reply.data
    await connection.close()
    return found


async def passed(node: NodeProcess, more: int = 2) -> None:
    """Wait for some more checks of everything."""
    goal = (await node.status()).health.passes + more

    async def done() -> bool:
        return (await node.status()).health.passes >= goal

    await until(done)


async def test_damaged_log_is_found_and_mended(tmp_path: Path) -> None:
    async with running_nodes(tmp_path, "n1", "n2", options=BUSY) as (one, two):
        writers = [await Writer.create(node) for node in (one, two)]
        await asyncio.gather(*(writer.write_log(3 * MIB, piece=5000) for writer in writers))
        await passed(two)
        assert (await two.status()).health.damaged == 0
        for lsn in (100_000, 1_500_000, 2 * MIB):
            flip_log(two, lsn)

        async def mended() -> bool:
            status = await two.status()
            return status.health.damaged >= 3 and status.health.repaired >= 3 and not status.corrupt

        await until(mended)
        assert await two.read(0, 3 * MIB) == log_bytes(0, 3 * MIB)
        text = two.log.read_text()
        assert text.count("are damaged on this node") >= 3
        assert "are repaired" in text
        # The writer was never in the way, and what was mended stays so.
        await writers[1].write_log(4 * MIB)
        before = (await two.status()).health.damaged
        await passed(two)
        assert (await two.status()).health.damaged == before
        assert (await one.status()).health.damaged == 0


async def test_damaged_log_without_a_peer_is_reported_and_never_served(tmp_path: Path) -> None:
    async with running_nodes(tmp_path, "n1", options=BUSY) as (node,):
        writer = await Writer.create(node)
        await writer.write_log(2 * MIB, piece=5000)
        flip_log(node, 500_000)
        [(start, end)] = await until(lambda: _corrupt(node))
        assert start <= 500_050 < end
        assert await node.read(0, 2 * MIB) == log_bytes(0, start)
        assert await node.read(end, 2 * MIB) == log_bytes(end, 2 * MIB)
        await passed(node)
        assert (await node.status()).health.damaged == 1


async def _corrupt(node: NodeProcess) -> tuple[tuple[int, int], ...]:
    return (await node.status()).corrupt


@pytest.mark.parametrize("damage", ["flipped", "cut short"])
async def test_damaged_blob_is_fetched_anew(tmp_path: Path, damage: str) -> None:
    async with running_nodes(tmp_path, "n1", "n2", options=BUSY) as (one, two):
        for node in (one, two):
            await Writer.create(node)
            await put(node)
        if damage == "flipped":
            flip(blob_file(two), 2 * MIB)
        else:
            with blob_file(two).open("r+b") as file:
                file.truncate(MIB)

        async def mended() -> bool:
            status = await two.status()
            return status.health.repaired == 1 and INFO in status.blobs

        await until(mended)
        assert await get(two) == BLOB
        assert f"blob {INFO.name} is damaged" in two.log.read_text()


async def test_damaged_blob_is_not_given_out_and_comes_back_with_its_peer(tmp_path: Path) -> None:
    async with running_nodes(tmp_path, "n1", "n2", options=BUSY) as (one, two):
        for node in (one, two):
            await Writer.create(node)
            await put(node)
        await one.kill()
        flip(blob_file(two), 5)
        await until(lambda: not blob_file(two).exists())
        with pytest.raises(NodeRefused, match="no blob"):
            await get(two)
        assert (await two.status()).blobs == ()
        await one.start()
        await until(blob_file(two).exists)
        assert await get(two) == BLOB


async def test_checks_go_on_while_log_comes_and_goes(tmp_path: Path) -> None:
    async with running_nodes(tmp_path, "n1", options=BUSY) as (node,):
        writer = await Writer.create(node)
        control = await node.connect()
        for end in range(MIB, 9 * MIB, MIB):
            await writer.write_log(end, piece=20_000)
            writer.commit(end)
            await control.request(Trim(max(0, end - 2 * MIB)))
            await passed(node, 1)
        health = (await node.status()).health
        assert (health.damaged, health.repaired) == (0, 0)
        assert "failed" not in node.log.read_text()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The pauses that the check makes; none of them lasts."""
    taken: list[float] = []
    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        taken.append(seconds)
        await sleep(0.001)

    with monkeypatch.context() as patch:
        patch.setattr("borealis.storage.scrub.asyncio", _Asyncio(pause))
        yield taken


class _Asyncio:
    def __init__(self, pause: object) -> None:
        self.sleep = pause

    def __getattr__(self, name: str) -> object:
        return getattr(asyncio, name)


async def test_rate_is_bounded(tmp_path: Path, pauses: list[float]) -> None:
    """Every byte of log and blobs is checked once in a pass, and is paid for with a pause."""
    settings = NodeSettings(
        "n1", "a", tmp_path / "n1", str(tmp_path / "s"), tmp_path / "p.json", LogConfig(MIB, MIB),
        ScrubConfig(bytes_per_second=1000, pass_seconds=3600.0),
    )  # fmt: skip
    node = StorageNode(settings)
    await node.start()
    try:
        connection = await NodeConnection.connect(settings.address, VOLUME, "writer")
        await connection.request(Create(VOLUME, SEED))
        await Writer(connection, SEED, 0).write_log(2 * MIB)
        actor = node._actors[VOLUME]
        await until(lambda: actor.condition.passes >= 2)
        before, count = actor.condition.checked_bytes, len(pauses)
        began = actor.condition.passes
        await until(lambda: actor.condition.passes > began + 1)
        checked = actor.condition.checked_bytes - before
        assert checked >= 2 * MIB
        spent = sum(pause for pause in pauses[count:] if pause < 1000)
        assert spent >= (checked - MIB) / 1000
        assert max(pauses) > 3000, "passes follow each other without a pause"
    finally:
        await node.stop()


async def test_it_can_be_switched_off(tmp_path: Path) -> None:
    async with running_nodes(tmp_path, "n1", options=("--scrub-bytes-per-second", "0")) as (node,):
        writer = await Writer.create(node)
        await writer.write_log(MIB)
        assert await node.read(0, MIB) == log_bytes(0, MIB)
        assert (await node.status()).health.checked_bytes == 0
