"""Whole lives of clusters in memory: what users ask for comes to be, with the states and events of AWS."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from borealis.control.states import ClusterStatus, InstanceStatus, Want

from .region import FakeRegion
from .virtual_time import run_virtually


def live(scenario: Coroutine[Any, Any, None]) -> None:
    run_virtually(scenario)


async def three(region: FakeRegion) -> tuple[str, list[str]]:
    """A settled cluster with three instances; the first has the best tier and is the writer."""
    key = await region.create_cluster()
    first = await region.create_instance(key, "one", tier=0)
    await region.until(lambda: region.settled(key))
    others = [await region.create_instance(key, name) for name in ("two", "three")]
    await region.until(lambda: region.settled(key))
    assert region.cluster(key).writer == first
    return key, [first, *others]


def messages(region: FakeRegion) -> list[str]:
    return [event.message for event in region.store.events()]


def test_create_and_delete(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key = await region.create_cluster()
        await region.until(lambda: region.cluster(key).status is ClusterStatus.AVAILABLE)
        instance = await region.create_instance(key, "one")
        await region.until(lambda: region.settled(key))
        assert region.cluster(key).writer == instance
        assert region.cluster(key).volume.writer_term == 3
        await region.delete_instance(instance)
        await region.change_cluster(key, want=Want.DELETED)
        await region.until(lambda: not region.store.clusters())
        assert not region.world.lives
        assert not region.world.volumes
        assert not region.world.endpoints
        assert messages(region) == [
            "DB cluster created.",
            "DB instance created.",
            "DB instance deleted.",
            "DB cluster deleted.",
        ]
        await region.stop()

    live(scenario())


def test_deletion_does_not_wait_for_nodes_that_are_down(tmp_path: Path) -> None:
    """What is left on them goes when they are back, also for a control plane that was started since."""

    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key = await region.create_cluster()
        await region.until(lambda: region.cluster(key).status is ClusterStatus.AVAILABLE)
        volume = region.cluster(key).volume.id
        region.world.nodes_up = 4
        await region.change_cluster(key, want=Want.DELETED)
        await region.until(lambda: not region.store.clusters())
        assert region.world.segments == {("n5", volume), ("n6", volume)}
        left = {node.id: node.garbage for node in region.store.nodes() if node.garbage}
        assert left == {"n5": (volume,), "n6": (volume,)}
        await region.kill()
        await region.start()
        region.world.nodes_up = 5
        await region.until(lambda: region.world.segments == {("n6", volume)})
        region.world.nodes_up = 6
        await region.until(lambda: not any(node.garbage for node in region.store.nodes()))
        assert not region.world.segments
        await region.stop()

    live(scenario())


def test_instances_spread_over_zones(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        _, instances = await three(region)
        zones = {region.instance(key).availability_zone for key in instances}
        assert zones == {"us-east-1a", "us-east-1b", "us-east-1c"}
        await region.stop()

    live(scenario())


def test_writer_dies(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, (first, _, third) = await three(region)
        await region.change_instance(third, promotion_tier=0)
        before = region.cluster(key).volume
        region.world.kill_engine(before.writer_incarnation)
        await region.until(lambda: region.cluster(key).status is ClusterStatus.FAILING_OVER)
        await region.until(lambda: region.settled(key))
        after = region.cluster(key)
        assert after.writer == third
        assert after.volume.writer_term > before.writer_term
        started, done = [m for m in messages(region) if "failover" in m]
        assert started == "Started cross AZ failover to DB instance: three."
        assert done == "Completed failover to DB instance: three."
        assert region.instance(first).incarnation is not None
        assert before.writer_incarnation not in region.world.lives
        await region.stop()

    live(scenario())


def test_dead_reader_is_given_up_at_once(tmp_path: Path) -> None:
    """By the agent's word that its engine ended, not because it was silent for long."""

    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, (_, second, _) = await three(region)
        life = region.instance(second).incarnation
        assert life is not None
        region.world.kill_engine(life.id)
        await region.until(lambda: region.instance(second).incarnation != life, seconds=0.2)
        await region.until(lambda: region.settled(key))
        await region.stop()

    live(scenario())


def test_only_instance_dies_and_comes_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key = await region.create_cluster()
        instance = await region.create_instance(key, "one")
        await region.until(lambda: region.settled(key))
        region.world.kill_engine(region.cluster(key).volume.writer_incarnation)
        await region.until(lambda: not region.settled(key))
        await region.until(lambda: region.settled(key))
        assert region.cluster(key).writer == instance
        assert "Promoting previous primary again: one." in messages(region)
        await region.stop()

    live(scenario())


def test_hung_writer_is_replaced_after_its_lease(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, _ = await three(region)
        hung = region.cluster(key).volume.writer_incarnation
        region.world.lives[hung].hung = True
        await region.until(lambda: region.cluster(key).volume.writer_incarnation not in ("", hung), 6.0)
        await region.until(lambda: region.settled(key))
        await region.stop()

    live(scenario())


def test_without_a_quorum_nobody_is_killed(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, _ = await three(region)
        writer = region.cluster(key).volume.writer_incarnation
        region.world.nodes_up = 3
        region.world.lives[writer].hung = True
        await region.until(lambda: not region._observer.volume(region.cluster(key).volume.id).writable)
        start = len(region.world.log)
        for _ in range(100):
            await region.until(lambda: True)
        assert region.world.log[start:] == []
        assert region.world.lives[writer].engine
        region.world.nodes_up = 6
        region.world.unhang(writer)
        await region.until(lambda: region.settled(key))
        await region.stop()

    live(scenario())


def test_failover_on_request(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, (_, second, _) = await three(region)
        await region.fail_over(key, second)
        await region.until(lambda: region.cluster(key).writer == second)
        await region.until(lambda: region.settled(key))
        assert "Completed failover to DB instance: two." in messages(region)
        await region.stop()

    live(scenario())


def test_failover_without_a_reader_is_refused_with_an_event(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key = await region.create_cluster()
        await region.create_instance(key, "one")
        await region.until(lambda: region.settled(key))
        await region.fail_over(key)
        await region.until(lambda: region.settled(key))
        assert any(m.startswith("Cluster failover failed") for m in messages(region))
        await region.stop()

    live(scenario())


def test_rebooted_writer_stays_the_writer(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, (first, *_) = await three(region)
        life = region.cluster(key).volume.writer_incarnation
        await region.reboot(first)
        await region.until(lambda: region.settled(key) and region.instance(first).reboot is None)
        assert region.cluster(key).writer == first
        assert region.cluster(key).volume.writer_incarnation != life
        assert "DB instance restarted." in messages(region)
        await region.stop()

    live(scenario())


def test_reboot_with_failover(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, (first, *_) = await three(region)
        await region.reboot(first, force_failover=True)
        await region.until(lambda: region.cluster(key).writer != first)
        await region.until(lambda: region.settled(key))
        await region.stop()

    live(scenario())


def test_change_of_class_restarts_with_the_new_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, (first, second, _) = await three(region)
        for instance in (second, first):
            await region.change_class(instance, "db.r6g.xlarge")
            await region.until(lambda: region.settled(key) and not region.instance(instance).pending)  # noqa: B023
            life = region.instance(instance).incarnation
            assert life is not None
            assert region.world.lives[life.id].plan.instance_class == "db.r6g.xlarge"
        assert region.cluster(key).writer == first
        await region.stop()

    live(scenario())


def test_pending_class_waits_for_the_window(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, (_, second, _) = await three(region)
        await region.change_class(second, "db.r6g.xlarge")
        await region.change_instance(second, apply_pending=False)
        await region.until(lambda: region.settled(key))
        await region.stop()

    live(scenario())


def test_members_list_says_how_much_cpu_they_use(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        _, (first, second, _) = await three(region)
        lives = [region.instance(i).incarnation for i in (first, second)]
        assert lives[0] is not None
        assert lives[1] is not None
        region.context.observer.engine_cpu(lives[0].id, 0.5)
        region.context.observer.engine_cpu(lives[1].id, 1000.0)
        region.context.observer.engine_cpu("of a stranger", 1.0)

        def shown() -> list[float]:
            members = region.world.topologies[lives[1].id]["members"]  # type: ignore[union-attr]
            return [m["cpu"] for m in sorted(members, key=lambda m: m["instance_id"])]

        vcpus = min(2, os.cpu_count() or 1)  # of a db.r6g.large
        await region.until(lambda: shown() == [50 / vcpus, 0.0, 100.0])
        await region.stop()

    live(scenario())


def test_smaller_reader_is_started_again_with_what_a_larger_writer_needs(tmp_path: Path) -> None:
    """By itself: its replay stops when the writer allows more connections than it was started with."""

    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, (first, second, third) = await three(region)
        before = {i: region.instance(i).incarnation for i in (second, third)}
        await region.change_class(first, "db.r6g.4xlarge")
        await region.until(lambda: not region.instance(first).pending and region.settled(key))
        assert region.cluster(key).writer == first
        for reader, former in before.items():
            life = region.instance(reader).incarnation
            assert life is not None
            assert life != former
            assert life.instance_class == "db.r6g.large"
            assert "db.r6g.4xlarge" in region.world.lives[life.id].plan.cluster_classes
            assert not region.world.replay_paused(life.id)
        lives = set(region.world.lives)
        await asyncio.sleep(60)
        assert set(region.world.lives) == lives
        told = [m for m in messages(region) if "more connections than this reader" in m]
        assert len(told) == 2
        await region.stop()

    live(scenario())


def test_reader_allows_what_its_writer_was_started_for_though_the_largest_member_is_gone(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, (_, second, third) = await three(region)
        await region.change_class(third, "db.r6g.4xlarge")
        await region.until(lambda: not region.instance(third).pending and region.settled(key))
        await region.reboot(region.cluster(key).writer or "")
        await region.until(lambda: region.settled(key))
        await region.delete_instance(third)
        await region.until(lambda: region.store.instance(third) is None and region.settled(key))
        await region.reboot(second)
        await region.until(lambda: region.instance(second).reboot is None and region.settled(key))
        lives = set(region.world.lives)
        await asyncio.sleep(60)
        assert set(region.world.lives) == lives
        await region.stop()

    live(scenario())


def test_stop_and_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, _ = await three(region)
        await region.change_cluster(key, want=Want.STOPPED)
        await region.until(lambda: region.settled(key))
        assert not region.world.lives
        assert region.world.volumes
        await region.change_cluster(key, want=Want.RUNNING)
        await region.until(lambda: region.settled(key))
        assert {"DB cluster stopped.", "DB cluster started."} <= set(messages(region))
        await region.stop()

    live(scenario())


def test_deleted_writer_hands_over_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, (first, *_) = await three(region)
        await region.delete_instance(first)
        await region.until(lambda: region.store.instance(first) is None)
        assert region.cluster(key).writer is not None
        await region.until(lambda: region.settled(key))
        await region.stop()

    live(scenario())


def test_new_password_reaches_the_writer(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, _ = await three(region)
        await region.change_cluster(key, master_verifier="second", status=ClusterStatus.RESETTING_CREDENTIALS)
        await region.until(lambda: region.settled(key))
        assert region.world.volumes[region.cluster(key).volume.id].verifier == "second"
        await region.stop()

    live(scenario())


def test_image_after_enough_log(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, _ = await three(region)
        volume = region.cluster(key).volume.id
        for _ in range(3):
            region.world.volumes[volume].vdl += int(region.settings.image_log_bytes) + 1
            end = region.world.volumes[volume].vdl
            await region.until(lambda: any(i.lsn == end for i in region.cluster(key).volume.images))  # noqa: B023
        await region.until(lambda: region.settled(key))
        added = await region.create_instance(key, "four")
        await region.until(lambda: region.settled(key))
        life = region.instance(added).incarnation
        assert life is not None
        assert life.image_lsn == region.world.volumes[volume].vdl
        await region.stop()

    live(scenario())


def test_instance_that_cannot_start_is_failed_then_recovers(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, _ = await three(region)
        volume = region.world.volumes[region.cluster(key).volume.id]
        images, volume.images = volume.images, {}
        added = await region.create_instance(key, "four")
        await region.until(lambda: region.instance(added).status is InstanceStatus.FAILED)
        assert "there is no image" in region.instance(added).status_reason
        volume.images = images
        await region.until(lambda: region.settled(key))
        await region.stop()

    live(scenario())


def test_machine_was_started_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, _ = await three(region)
        old = set(region.world.lives)
        await region.kill()
        for name in old:
            region.world.kill_engine(name)
        region.boot_id = "boot-2"
        await region.start()
        await region.until(lambda: region.settled(key))
        assert not old & set(region.world.lives)
        await region.stop()

    live(scenario())


def test_writer_dies_while_control_is_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, _ = await three(region)
        await region.kill()
        region.world.kill_engine(next(iter(region.world.writers(next(iter(region.world.volumes))))))
        await region.start()
        await region.until(lambda: not region.settled(key))
        await region.until(lambda: region.settled(key))
        await region.stop()

    live(scenario())
