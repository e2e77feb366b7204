"""Changes that wait: when they take effect, what follows them, and which events tell of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from borealis.control.records import (
    CustomEndpoint,
    InstancePending,
    new_endpoint_resource_id,
    now_utc,
)
from borealis.control.settle import settle
from borealis.control.states import EndpointStatus, Want
from borealis.control.store import Put

from .region import ZONES, FakeRegion
from .test_lifecycle import live, messages, three
from .test_rules import instance, view, well


def endpoint(name: str, **changes: object) -> CustomEndpoint:
    return CustomEndpoint(
        resource_id=new_endpoint_resource_id(),
        identifier=name,
        arn="",
        cluster="c",
        status=EndpointStatus.AVAILABLE,
    ).but(**changes)


def always_open() -> str:
    """A maintenance window that is open now, and for hours."""
    start, end = now_utc() - timedelta(hours=2), now_utc() + timedelta(hours=2)
    return f"{start:%a:%H:%M}-{end:%a:%H:%M}".lower()


def test_endpoints_follow_all_that_are_renamed_in_one_commit() -> None:
    def to(name: str) -> InstancePending:
        return InstancePending(identifier=name)

    members = [instance("w", pending=to("one")), instance("rr", pending=to("two")), instance("xxx")]
    seen = {"i-w": well(), "i-rr": well(), "i-xxx": well()}
    endpoints = (
        endpoint("listed", static_members=("rr", "w", "xxx")),
        endpoint("without", excluded_members=("w",), want=Want.DELETED),
        endpoint("other", static_members=("xxx",)),
    )
    shown = replace(view(members, seen), endpoints=endpoints, instances_in_window=frozenset({"db-w"}))
    assert _endpoints(shown) == {"listed": ("rr", "one", "xxx"), "without": ("one",)}
    both = replace(shown, instances_in_window=frozenset({"db-w", "db-rr"}))
    assert _endpoints(both) == {"listed": ("two", "one", "xxx"), "without": ("one",)}


def _endpoints(shown: object) -> dict[str, tuple[str, ...]]:
    ops = settle(shown, ZONES)  # type: ignore[arg-type]
    records = [op.record for op in ops if isinstance(op, Put)]
    keys = [record.key for record in records]
    assert len(keys) == len(set(keys)), "a record stands twice in one commit: the second would win"
    found = [record for record in records if isinstance(record, CustomEndpoint)]
    return {record.identifier: record.static_members or record.excluded_members for record in found}


def test_rename_waits_for_the_instances_own_window(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, (_, second, _) = await three(region)
        custom = endpoint("custom", cluster=key, static_members=("two",))
        await region.store.commit([Put(custom)])
        await region.change_instance(second, pending=InstancePending(identifier="renamed"))
        await region.change_cluster(key, preferred_maintenance_window=always_open())
        await region.until(lambda: region.settled(key))
        assert region.instance(second).identifier == "two"
        await region.change_instance(second, preferred_maintenance_window=always_open())
        await region.until(lambda: region.instance(second).identifier == "renamed")
        await region.until(lambda: region.settled(key))
        plan = region.world.endpoints[key]
        assert [[t.instance for t in c.targets] for c in plan.customs] == [["renamed"]]
        await region.stop()

    live(scenario())


def test_change_of_port_is_a_restart_and_no_change_of_class(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, (first, *_) = await three(region)
        seen = len(region.store.events())
        await region.change_cluster(key, port=6000)

        def moved() -> bool:
            lives = [i.incarnation for i in region.store.instances(key)]
            return all(life is not None and life.port == 6000 for life in lives) and region.settled(key)

        await region.until(moved)
        assert region.cluster(key).writer == first
        told = messages(region)[seen:]
        assert told.count("DB instance shutdown.") == told.count("DB instance restarted.") == 3
        assert not [text for text in told if "class" in text]
        await region.stop()

    live(scenario())


def test_change_of_class_is_told_as_such(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, (_, second, _) = await three(region)
        seen = len(region.store.events())
        await region.change_class(second, "db.r6g.xlarge")
        await region.until(lambda: not region.instance(second).pending and region.settled(key))
        told = messages(region)[seen:]
        assert [text for text in told if "class" in text or "restart" in text] == [
            "Applying modification to database instance class.",
            "Finished applying modification to DB instance class.",
        ]
        await region.stop()

    live(scenario())
