"""What happens to storage and to helper processes is told in events: once, also when control starts again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from borealis.control.notices import AGAIN_SECONDS, Notices
from borealis.control.records import Cluster, CustomEndpoint, Event, Volume, new_endpoint_resource_id
from borealis.control.settle import settle
from borealis.control.store import Put
from borealis.control.view import SegmentSeen, View

from .region import ZONES, FakeRegion
from .test_lifecycle import live, messages, three
from .test_rules import instance, nodes, view, well


def seen(volume: Volume, *segments: SegmentSeen) -> View:
    shown = view([instance("w")], {"i-w": well()})
    own = shown.cluster.volume.but(noted=volume.noted)
    return replace(shown, cluster=shown.cluster.but(volume=own), volume=replace(nodes(6), segments=segments))


def told(shown: View) -> tuple[list[str], Volume]:
    """The messages of the events that follow, and the volume as it is recorded then."""
    ops = settle(shown, ZONES)
    clusters = [op.record for op in ops if isinstance(op, Put) and isinstance(op.record, Cluster)]
    texts = [op.message for op in ops if isinstance(op, Event)]
    return texts, clusters[0].volume if clusters else shown.cluster.volume


def test_damage_is_told_once_and_again_when_there_is_more() -> None:
    one = SegmentSeen("n1", "us-east-1a", True)
    volume = Volume(id="vol-1")
    assert told(seen(volume, one)) == ([], seen(volume).cluster.volume)
    texts, volume = told(seen(volume, replace(one, damaged=1)))
    assert texts == [
        "Storage node n1 in us-east-1a holds damaged data; it is not used and is fetched anew from other "
        "nodes."
    ]
    assert told(seen(volume, replace(one, damaged=1)))[0] == []
    # Its node was started again and counts anew.
    texts, volume = told(seen(volume, one))
    assert texts == []
    assert len(told(seen(volume, replace(one, damaged=1)))[0]) == 1


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("StorageFull", "its disk is full"),
        ("ReadOnly", "its disk is mounted read-only"),
        ("StorageBroken", "its disk fails"),
        ("SegmentDamaged", "may be lost"),
        ("Unheard", "Unheard"),
    ],
)
def test_node_that_takes_no_log_is_told_of(code: str, words: str, connected: bool) -> None:
    well_again = SegmentSeen("n1", "us-east-1a", True)
    [text], volume = told(seen(Volume(id="vol-1"), replace(well_again, connected=connected, trouble=code)))
    assert text.startswith("Storage node n1 in us-east-1a does not take log")
    assert words in text
    silent = replace(well_again, connected=False)
    assert told(seen(volume, silent))[0] == [], "one that does not answer says nothing about its disk"
    assert told(seen(volume, well_again))[0] == ["Storage node n1 in us-east-1a takes log again."]


def test_restarted_processes_are_told_of_now_and_then(tmp_path: Path) -> None:
    async def scenario() -> None:
        region = FakeRegion(tmp_path)
        await region.start()
        key, (first, *_) = await three(region)
        custom = CustomEndpoint(
            resource_id=new_endpoint_resource_id(), identifier="custom", arn="", cluster=key
        )
        await region.store.commit([Put(custom)])
        life = region.instance(first).incarnation
        assert life is not None
        now = 0.0
        notices = Notices(region.store, lambda: now)

        async def events_of(process: str) -> list[tuple[str, str]]:
            before = len(region.store.events())
            notices.restarted(process)
            await notices.close()
            return [(e.source_id, e.message) for e in region.store.events()[before:]]

        [(source, text)] = await events_of(f"driver-{life.id}")
        assert source == "one"
        assert "driver" in text
        [(source, text)] = await events_of("n3")
        assert source == "shop"
        assert text.startswith("Storage node n3 in ")
        for proxy in (key, custom.key):
            [(source, text)] = await events_of(f"proxy-{proxy}")
            assert source == "shop"
            assert "proxy" in text
        assert await events_of("n3") == []
        now = AGAIN_SECONDS
        assert len(await events_of("n3")) == 1
        for stranger in ("engine-i1", "driver-i999", "proxy-gone", "control"):
            assert await events_of(stranger) == []
        assert len(messages(region)) == len(region.store.events())
        await region.stop()

    live(scenario())
