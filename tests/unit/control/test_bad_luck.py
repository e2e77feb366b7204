"""What cannot be had is said in a status and an event, and comes to be by itself when it can be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from borealis.control.states import ClusterStatus, InstanceStatus, Want
from borealis.endpoints.addresses import NoAddress
from borealis.engines.base import EngineError, EngineNotFound
from borealis.errors import BorealisError
from borealis.storage.errors import StorageFull

from .region import FakeRegion
from .test_lifecycle import live, messages, three

NO_QUORUM = StorageFull("The volume's first log reached 2 of 6 storage nodes.")
NO_ADDRESS = NoAddress("none of the region's addresses can be listened on at port 5432")


@pytest.mark.parametrize(("method", "error"), [("create", NO_QUORUM), ("allocate", NO_ADDRESS)])
def test_cluster_that_cannot_be_made_yet(tmp_path: Path, method: str, error: BorealisError) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        region.world.refusals[method] = error
        key = await region.create_cluster()
        await region.until(lambda: bool(region.cluster(key).status_reason))
        assert region.cluster(key).status is ClusterStatus.CREATING
        assert region.cluster(key).status_reason == error.message
        [event] = region.store.events()
        assert (event.event_id, event.categories) == ("RDS-EVENT-0354", ("failure",))
        assert event.message.endswith(f"It is tried again. {error.message}")
        region.world.refusals.clear()
        await region.until(lambda: region.cluster(key).status is ClusterStatus.AVAILABLE)
        assert region.cluster(key).status_reason == ""
        assert len(messages(region)) == 2
        await region.stop()

    live(scenario())


@pytest.mark.parametrize("error", [EngineNotFound("15.20 is not installed"), EngineError("initdb failed")])
def test_cluster_whose_engine_cannot_make_it_is_failed_and_may_be_deleted(
    tmp_path: Path, error: EngineError
) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        region.world.refusals["create"] = error
        key = await region.create_cluster()
        await region.until(lambda: region.cluster(key).status is ClusterStatus.FAILED)
        assert region.cluster(key).status_reason == error.message
        assert messages(region)[-1].endswith(error.message)
        await region.change_cluster(key, want=Want.DELETED)
        await region.until(lambda: not region.store.clusters())
        await region.stop()

    live(scenario())


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("prepare", EngineNotFound("aurora-postgresql 15.20 is not installed; installed versions: none")),
        ("prepare", BorealisError("copying the image: No space left on device")),
        ("start", BorealisError("The engine of life i9 has ended: see its log.")),
        ("allocate", NO_ADDRESS),
    ],
)
def test_instance_that_cannot_be_brought_up(tmp_path: Path, method: str, error: BorealisError) -> None:
    """The others are not touched, and it comes up when it can."""

    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, others = await three(region)
        lives = [region.instance(i).incarnation for i in others]
        region.world.refusals[method] = error
        added = await region.create_instance(key, "four")
        await region.until(lambda: region.instance(added).status is InstanceStatus.FAILED)
        assert region.instance(added).status_reason == error.message
        [event] = [e for e in region.store.events() if e.event_id == "RDS-EVENT-0035"]
        assert event.source_id == "four"
        assert error.message in event.message
        assert [region.instance(i).incarnation for i in others] == lives
        region.world.refusals.clear()
        await region.until(lambda: region.settled(key))
        assert messages(region)[-1] == "Recovery of the DB instance is complete."
        await region.stop()

    live(scenario())


def test_only_writer_dies_and_cannot_be_brought_up_for_a_while(tmp_path: Path) -> None:
    """Nothing is lost: the volume is untouched, and the same instance goes on with it."""

    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key = await region.create_cluster()
        only = await region.create_instance(key, "one")
        await region.until(lambda: region.settled(key))
        before = region.cluster(key).volume
        region.world.refusals["prepare"] = BorealisError("No space left on device")
        region.world.kill_engine(before.writer_incarnation)
        await region.until(lambda: region.instance(only).status is InstanceStatus.FAILED)
        assert [m for m in messages(region) if m.startswith("Recovery of the DB instance has started")]
        region.world.refusals.clear()
        await region.until(lambda: region.settled(key))
        after = region.cluster(key).volume
        assert (after.id, region.cluster(key).writer) == (before.id, only)
        assert after.writer_term > before.writer_term
        await region.stop()

    live(scenario())
