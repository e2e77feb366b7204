"""Control is killed at any step, engines die and hang, nodes go: when the storm is over all is well again.

Seeded and in simulated time: the number in a failing test's name is the seed; running that test replays it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

import pytest

from borealis.control.settings import ControlSettings
from borealis.control.states import ClusterStatus, Want
from borealis.control.store import StoreError
from borealis.errors import BorealisError

from .fakes import LOG_FILE
from .region import FakeRegion
from .virtual_time import run_virtually

SEEDS = 100


async def storm(region: FakeRegion, key: str, rng: random.Random, steps: int) -> None:
    """Users and bad luck, both without pity."""
    for number in range(steps):
        await asyncio.sleep(rng.choice([0.0, 0.01, 0.05, 0.2, 1.0, 4.0]))
        with contextlib.suppress(BorealisError):
            await one_blow(region, key, rng, number)


async def one_blow(region: FakeRegion, key: str, rng: random.Random, number: int) -> None:
    world = region.world
    lives = sorted(world.lives)
    instances = region.store.instances(key)
    match rng.randrange(14):
        case 0 | 1 | 2 | 3:
            await region.kill()
            await asyncio.sleep(rng.choice([0.0, 0.1, 2.0]))
            await region.start()
        case 4 | 5 if lives:
            world.kill_engine(rng.choice(lives))
        case 6 if lives:
            name = rng.choice(lives)
            world.lives[name].hung = True
            asyncio.get_running_loop().call_later(rng.uniform(0.5, 20), world.unhang, name)
        case 7:
            world.nodes_up = rng.choice([3, 4, 6])
        case 8 if len(instances) < 5:
            await region.create_instance(key, f"more-{number}", tier=rng.randrange(3))
        case 9 if len(instances) > 2:
            await region.delete_instance(rng.choice(instances).key)
        case 10 if region.cluster(key).status is ClusterStatus.AVAILABLE and instances:
            await region.fail_over(key, rng.choice([None, rng.choice(instances).key]))
        case 11 if instances:
            await region.reboot(rng.choice(instances).key, rng.random() < 0.3)
        case 12 if instances:
            await region.change_class(rng.choice(instances).key, f"db.r6g.{rng.choice(['large', 'xlarge'])}")
        case 13:
            wanted = rng.choice([Want.RUNNING, Want.RUNNING, Want.STOPPED])
            await region.change_cluster(key, want=wanted, master_verifier=f"word-{number}")


async def scenario(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    region = FakeRegion(folder, seed, ControlSettings(start_seconds=20, image_log_bytes=500 * LOG_FILE))
    region.world.flaky = rng.choice([0.0, 0.02, 0.1])
    await region.start()
    key = await region.create_cluster()
    for name in ("one", "two", "three"):
        await region.create_instance(key, name, tier=rng.randrange(2))
    await storm(region, key, rng, steps=30)
    # The storm is over.
    region.world.flaky, region.world.nodes_up = 0.0, 6
    for name in list(region.world.lives):
        region.world.unhang(name)
    await region.change_cluster(key, want=Want.RUNNING)
    await region.until(lambda: region.settled(key), 600)
    for instance in region.store.instances(key):
        await region.delete_instance(instance.key)
    await region.change_cluster(key, want=Want.DELETED)
    await region.until(lambda: not region.store.clusters(), 600)
    assert not region.world.lives
    assert not region.world.volumes
    assert not region.world.endpoints
    await region.until(lambda: not region.world.segments)
    await region.stop()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_any_seed_ends_well(tmp_path: Path, seed: int) -> None:
    run_virtually(scenario(tmp_path, seed))


def test_store_is_closed_after_kill(tmp_path: Path) -> None:
    async def closed() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        await region.kill()
        with pytest.raises(StoreError):
            await region.store.allocate("x")

    run_virtually(closed())
