"""The state store: atomic, conflict-checked, durable, with memory never behind the file."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from borealis.control.records import (
    Cluster,
    Event,
    ServerlessV2,
    Volume,
    new_cluster_resource_id,
    new_volume_id,
    now_utc,
)
from borealis.control.store import Conflict, Delete, NameTaken, Put, Store, StoreError


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "control.sqlite")
    yield opened
    await opened.close()


def make_cluster(identifier: str) -> Cluster:
    return Cluster(
        resource_id=new_cluster_resource_id(),
        identifier=identifier,
        arn=f"arn:aws:rds:us-east-1:000000000000:cluster:{identifier}",
        engine="aurora-postgresql",
        engine_version="15.20",
        port=5432,
        master_username="dba",
        serverless_v2=ServerlessV2(min_capacity=0.5, max_capacity=4),
        volume=Volume(id=new_volume_id()),
    )


def make_event(message: str) -> Event:
    return Event(
        event_id="RDS-EVENT-0170",
        source_type="db-cluster",
        source_id="c",
        source_arn="arn",
        message=message,
        categories=("creation",),
    )


async def test_put_then_read_and_reopen(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    store = await Store.open(path)
    cluster = make_cluster("Shop")
    await store.commit([Put(cluster), make_event("DB cluster created.")])
    stored = store.cluster_named("shop")
    assert stored == cluster.but(version=1)
    await store.close()

    again = await Store.open(path)
    assert again.clusters() == [stored]
    assert [e.message for e in again.events()] == ["DB cluster created."]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await again.close()


async def test_conflict_changes_nothing(store: Store) -> None:
    cluster = make_cluster("a")
    await store.commit([Put(cluster)])
    with pytest.raises(Conflict):
        await store.commit([make_event("never"), Put(cluster.but(port=1))])
    assert store.events() == []
    assert store.clusters()[0].port == 5432


async def test_names_are_unique_and_may_change(store: Store) -> None:
    first, second = make_cluster("a"), make_cluster("b")
    await store.commit([Put(first), Put(second)])
    with pytest.raises(NameTaken):
        await store.commit([Put(make_cluster("A"))])
    stored = store.clusters()[0]
    await store.commit([Put(stored.but(identifier="c"))])
    assert store.cluster_named("a") is None
    assert store.cluster_named("c") is not None
    await store.commit([Put(make_cluster("a"))])
    assert [c.identifier for c in store.clusters()] == ["a", "b", "c"]


async def test_delete_needs_the_current_version(store: Store) -> None:
    await store.commit([Put(make_cluster("a"))])
    stored = store.clusters()[0]
    await store.commit([Put(stored.but(port=6000))])
    with pytest.raises(Conflict):
        await store.commit([Delete(stored)])
    await store.commit([Delete(store.clusters()[0])])
    assert store.clusters() == []


async def test_update_repeats_until_it_wins(store: Store) -> None:
    await store.commit([Put(make_cluster("a"))])
    key = store.clusters()[0].key
    await asyncio.gather(*(store.update(Cluster, key, lambda c: c.but(port=c.port + 1)) for _ in range(20)))
    assert store.clusters()[0].port == 5452
    with pytest.raises(Conflict):
        await store.update(Cluster, "cluster-none", lambda c: c)


async def test_counters_never_repeat(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "s.sqlite")
    first = await asyncio.gather(*(store.allocate("term", 2) for _ in range(5)))
    assert sorted(first) == [1, 3, 5, 7, 9]
    await store.close()
    again = await Store.open(tmp_path / "s.sqlite")
    assert await again.allocate("term") == 11
    await again.close()


async def test_only_one_owner(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="in use by another control process"):
        await Store.open(tmp_path / "control.sqlite")


async def test_full_disk_is_named_and_changes_nothing(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "control.sqlite")
    await store.commit([Put(make_cluster("kept"))])
    await store._run(lambda: store._connection().execute("PRAGMA max_page_count = 1").fetchall())
    with pytest.raises(StoreError, match=r"database or disk is full. Check disk space"):
        await store.commit([Put(make_cluster(f"more-{n}").but(status_reason="y" * 3000)) for n in range(50)])
    assert [c.identifier for c in store.clusters()] == ["kept"]
    await store._run(lambda: store._connection().execute("PRAGMA max_page_count = 100000").fetchall())
    await store.commit([Put(make_cluster("more"))])
    await store.close()
    again = await Store.open(tmp_path / "control.sqlite")
    assert [c.identifier for c in again.clusters()] == ["kept", "more"]
    await again.close()


async def test_watchers_see_commits_in_order(store: Store) -> None:
    seen: list[str] = []
    stop = store.watch(lambda ops: seen.extend(type(op).__name__ for op in ops))
    await store.commit([Put(make_cluster("a")), make_event("x")])
    stop()
    await store.commit([make_event("y")])
    assert seen == ["Put", "Event"]


async def test_events_are_filtered(store: Store) -> None:
    await store.commit([make_event("old").but(date=now_utc() - timedelta(hours=2)), make_event("new")])
    assert [e.message for e in store.events(since=now_utc() - timedelta(hours=1))] == ["new"]
    assert store.events(source_type="db-instance") == []


async def test_cancelled_commit_is_finished(store: Store) -> None:
    task = asyncio.ensure_future(store.commit([Put(make_cluster("a"))]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.commit([make_event("after")])
    assert len(store.clusters()) == 1
