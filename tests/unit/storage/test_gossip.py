"""Several storage nodes: gaps are filled, damage is repaired, histories are learned, without the writer."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from borealis.log.types import TermEntry
from borealis.log.wire import Ack, Refused, Trim
from tests.unit.storage.support import SEED, VOLUME, NodeProcess, Writer, log_bytes, running_nodes, until

MIB = 1 << 20

pytestmark = pytest.mark.usefixtures("loops")


async def _has(node: NodeProcess, end: int) -> bool:
    return (await node.status()).end >= end


async def test_a_node_that_was_away_catches_up(tmp_path: Path) -> None:
    async with running_nodes(tmp_path, "n1", "n2", "n3") as (one, two, three):
        writers = [await Writer.create(node) for node in (one, two, three)]
        await three.kill()
        for writer in writers[:2]:
            await writer.write_log(3 * MIB)
            writer.commit(3 * MIB)
        await three.start()
        await until(lambda: _has(three, 3 * MIB))
        assert await three.read(0, 3 * MIB) == log_bytes(0, 3 * MIB)
        assert "took [" in three.log.read_text()
        # It has the writer's term: the writer goes on with it where gossip has ended.
        back = await Writer.take_over(three, SEED)
        assert back.sent == 3 * MIB
        assert isinstance(await back.write(b"more"), Ack)


async def test_a_refused_gap_is_filled_at_once(tmp_path: Path) -> None:
    async with running_nodes(tmp_path, "n1", "n2") as (one, two):
        first, second = await Writer.create(one), await Writer.create(two)
        await first.write_log(MIB)
        second.sent = MIB
        assert isinstance(await second.write(b"ahead"), Refused)
        await until(lambda: _has(two, MIB))
        second.sent = MIB
        assert isinstance(await second.write(b"ahead"), Ack)
        assert await two.read(0, 2 * MIB) == log_bytes(0, MIB) + b"ahead"


async def test_damage_is_repaired_from_a_peer(tmp_path: Path) -> None:
    async with running_nodes(tmp_path, "n1", "n2") as (one, two):
        writers = [await Writer.create(node) for node in (one, two)]
        await asyncio.gather(*(writer.write_log(2 * MIB, piece=5000) for writer in writers))
        await two.kill()
        log_directory = two.directory / "segments" / VOLUME / "log"
        # One piece is damaged below what a restart reads again, one in what it does.
        for lsn in (200_000, 2 * MIB - 40_000):
            path = next(path for path in log_directory.glob("*.log") if _holds(path, lsn))
            data = bytearray(path.read_bytes())
            data[data.index(log_bytes(lsn, lsn + 100)) + 50] ^= 0x10
            path.write_bytes(data)
        await two.start()

        async def whole() -> bool:
            seen = await two.read(0, 2 * MIB)
            assert seen == log_bytes(0, len(seen)), "damaged bytes were served"
            return len(seen) == 2 * MIB and not (await two.status()).corrupt

        await until(whole)
        text = two.log.read_text()
        assert "damaged" in text
        assert "repaired" in text
        await two.kill()
        await two.start()
        assert await two.read(0, 2 * MIB) == log_bytes(0, 2 * MIB)


def _holds(path: Path, lsn: int) -> bool:
    return log_bytes(lsn, lsn + 100) in path.read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
async def test_a_full_disk_stops_gossip_and_nothing_else(tmp_path: Path) -> None:
    small = tmp_path / "n2"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        async with running_nodes(tmp_path, "n1", "n2") as (one, two):
            first, _ = await Writer.create(one), await Writer.create(two)
            connection = await two.connect()
            await first.write_log(20 * MIB)
            first.commit(20 * MIB)

            async def refused() -> bool:
                return "cannot prepare the next log file" in two.log.read_text()

            await until(refused)
            end = (await two.status()).end
            assert 2 * MIB < end < 20 * MIB
            assert await two.read(0, end) == log_bytes(0, end)
            assert not connection.closed.is_set(), "the segment was closed and opened again"
            assert "until the log is read again" not in two.log.read_text()
            subprocess.run(["mount", "-o", "remount,size=60m", str(small)], check=True)
            await until(lambda: _has(two, 20 * MIB))
            assert not connection.closed.is_set()
    finally:
        subprocess.run(["umount", str(small)], check=True)


async def test_a_durable_new_history_is_learned_and_a_dead_end_is_cut(tmp_path: Path) -> None:
    async with running_nodes(tmp_path, "n1", "n2") as (one, two):
        writers = [await Writer.create(node) for node in (one, two)]
        for writer in writers:
            await writer.write_log(100_000)
        await writers[1].write_log(150_000)  # Never acknowledged by a quorum: a dead end.
        await two.kill()
        history = SEED.extend(TermEntry(2, 2, 100_000, "switch", "b"))
        leader = await Writer.take_over(one, history)
        await leader.write_log(200_000, seed=2)
        await two.start()
        # Not durable yet: nothing of it is believed.
        await leader.write(b"")
        assert (await two.status()).history == SEED
        leader.commit(200_000)
        await until(lambda: _has(two, 200_000))
        status = await two.status()
        assert status.history == history
        assert status.promised == 2
        assert await two.read(0, 200_000) == log_bytes(0, 100_000) + log_bytes(100_000, 200_000, 2)


async def test_a_node_left_far_behind_starts_anew_at_its_peers_base(tmp_path: Path) -> None:
    async with running_nodes(tmp_path, "n1", "n2") as (one, two):
        writers = [await Writer.create(node) for node in (one, two)]
        await two.kill()
        await writers[0].write_log(3 * MIB)
        writers[0].commit(3 * MIB)
        control = await one.connect()
        await control.request(Trim(2 * MIB))
        await two.start()
        await until(lambda: _has(two, 3 * MIB))
        assert (await two.status()).base == 2 * MIB
        assert await two.read(2 * MIB, 3 * MIB) == log_bytes(2 * MIB, 3 * MIB)
