"""The pure rules one by one: who becomes writer, where endpoints lead, placement, windows, states."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from borealis.control.actions import OpenWriter, RenewLease
from borealis.control.endpoint_plan import endpoint_plan
from borealis.control.failover import candidates, choose_writer, ready_target, writer_hung
from borealis.control.maintenance import in_window
from borealis.control.placement import choose_zone
from borealis.control.planner import plan
from borealis.control.records import (
    Cluster,
    EndpointAddresses,
    FailoverRequest,
    Incarnation,
    IncarnationPhase,
    Instance,
    RebootRequest,
    Volume,
    now_utc,
)
from borealis.control.settings import ControlSettings
from borealis.control.states import (
    CLUSTER_MOVES,
    INSTANCE_MOVES,
    ClusterStatus,
    IllegalMove,
    InstanceStatus,
    Want,
    check_cluster_move,
)
from borealis.control.topology import Target, custom_members, reader_targets
from borealis.control.view import (
    DriverEngine,
    DriverStatus,
    EngineLife,
    Seen,
    SegmentSeen,
    View,
    VolumeSeen,
)


def instance(name: str, tier: int = 1, **changes: object) -> Instance:
    life = Incarnation(
        id=f"i-{name}",
        phase=IncarnationPhase.SERVING,
        instance_class="db.r6g.large",
        engine_version="15.20",
        port=5432,
    )
    return Instance(
        resource_id=f"db-{name}",
        identifier=name,
        arn="",
        cluster="c",
        engine="aurora-postgresql",
        engine_version="15.20",
        instance_class="db.r6g.large",
        status=InstanceStatus.AVAILABLE,
        availability_zone="a",
        promotion_tier=tier,
        address=f"127.0.0.{len(name)}",
        incarnation=life,
    ).but(**changes)


def well(lsn: int = 100, **changes: object) -> Seen:
    engine = DriverEngine(up=True, receive_lsn=lsn, replay_lsn=lsn)
    status = DriverStatus(engine=engine, lease_remaining=3.0)
    return Seen(engine=EngineLife.ALIVE, status=status, **changes)  # type: ignore[arg-type]


def nodes(up: int) -> VolumeSeen:
    return VolumeSeen(tuple(SegmentSeen(f"n{n}", "a", n < up) for n in range(6)), known=True)


def view(instances: list[Instance], seen: dict[str, Seen], writer: str | None = "w", up: int = 6) -> View:
    volume = Volume(
        id="vol-1", seeded=True, writer_term=3, writer_incarnation=f"i-{writer}" if writer else ""
    )
    cluster = Cluster(
        resource_id="c",
        identifier="shop",
        arn="",
        engine="aurora-postgresql",
        engine_version="15.20",
        port=5432,
        master_username="dba",
        status=ClusterStatus.AVAILABLE,
        addresses=EndpointAddresses(writer="127.0.1.1", reader="127.0.1.2"),
        volume=volume,
        writer=f"db-{writer}" if writer else None,
    )
    return View(cluster=cluster, instances=tuple(instances), seen=seen, volume=nodes(up))


def opens(shown: View) -> list[str]:
    return [a.target for a in plan(shown, ControlSettings()) if isinstance(a, OpenWriter)]


def names(found: list[Instance]) -> list[str]:
    return [i.identifier for i in found]


def test_best_tier_first_then_most_log() -> None:
    members = [instance("w"), instance("aa", tier=2), instance("bbb"), instance("cccc")]
    seen = {"i-w": Seen(engine=EngineLife.GONE), "i-aa": well(900), "i-bbb": well(100), "i-cccc": well(200)}
    shown = view(members, seen)
    assert names(candidates(shown)) == ["cccc", "bbb", "aa"]
    assert opens(shown) == ["db-cccc"]


def test_after_five_failures_tiers_do_not_count() -> None:
    members = [instance("w"), instance("aa", tier=15), instance("bbb", tier=0)]
    seen = {"i-w": Seen(engine=EngineLife.GONE), "i-aa": well(900), "i-bbb": well(100)}
    shown = view(members, seen)
    tired = replace(shown, cluster=shown.cluster.but(failed_attempts=5))
    assert names(candidates(shown)) == ["bbb", "aa"]
    assert names(candidates(tired)) == ["aa", "bbb"]


@pytest.mark.parametrize(
    ("silent", "up", "hung"), [(2.9, 6, False), (3.1, 6, True), (3.1, 4, True), (600.0, 3, False)]
)
def test_silent_writer_is_given_up_only_while_another_could_be_opened(
    silent: float, up: int, hung: bool
) -> None:
    seen = {"i-w": well(silent_for=silent), "i-rr": well()}
    shown = view([instance("w"), instance("rr")], seen, up=up)
    assert writer_hung(shown) is hung
    assert opens(shown) == (["db-rr"] if hung else [])


def test_dead_writer_is_replaced_even_if_the_nodes_look_away() -> None:
    """The opening itself finds out whether there is a quorum; nothing is lost by trying."""
    seen = {"i-w": Seen(engine=EngineLife.GONE), "i-rr": well()}
    assert opens(view([instance("w"), instance("rr")], seen, up=0)) == ["db-rr"]


def test_reader_whose_replay_is_paused_is_not_promoted() -> None:
    engine = DriverEngine(up=True, receive_lsn=900, replay_lsn=900, replay_paused=True)
    paused = Seen(engine=EngineLife.ALIVE, status=DriverStatus(engine=engine))
    members = [instance("w"), instance("aa", tier=0), instance("bbb", tier=9)]
    seen = {"i-w": Seen(engine=EngineLife.GONE), "i-aa": paused, "i-bbb": well()}
    assert opens(view(members, seen)) == ["db-bbb"]


def test_rebooting_writer_is_waited_for() -> None:
    request = RebootRequest(requested_at=now_utc())
    shown = view([instance("w", incarnation=None, reboot=request), instance("rr")], {"i-rr": well()})
    assert choose_writer(shown) is None


@pytest.mark.parametrize("first_is_ready", [True, False])
def test_first_instance_created_is_the_first_writer(first_is_ready: bool) -> None:
    """Although another one is ready sooner, and would be the better choice in a failover."""
    older, newer = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    first = instance("zz", tier=15, created_at=older)
    if not first_is_ready:
        first = first.but(incarnation=None)
    seen = {"i-zz": well(100), "i-aa": well(900)}
    shown = view([instance("aa", tier=0, created_at=newer), first], seen, writer=None)
    assert opens(shown) == (["db-zz"] if first_is_ready else [])


def test_first_writer_that_cannot_be_started_is_not_waited_for() -> None:
    older, newer = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    members = [instance("aa", created_at=newer), instance("zz", created_at=older, incarnation=None)]
    shown = view(members, {"i-aa": well()}, writer=None)
    assert opens(shown) == []
    assert opens(replace(shown, failures={"instance db-zz": 1})) == ["db-aa"]
    ended = [members[0], instance("zz", created_at=older)]
    gone = {"i-aa": well(), "i-zz": Seen(engine=EngineLife.GONE)}
    assert opens(replace(shown, instances=tuple(ended), seen=gone)) == ["db-aa"]


def test_deleted_instance_is_no_first_writer() -> None:
    older, newer = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    leaving = instance("zz", created_at=older, want=Want.DELETED)
    shown = view([instance("aa", created_at=newer), leaving], {"i-aa": well(), "i-zz": well()}, writer=None)
    assert opens(shown) == ["db-aa"]


def test_started_cluster_waits_for_the_writer_of_before() -> None:
    """Only while it starts: once it runs, a lost writer is replaced by whoever is best."""
    members = [instance("w", tier=15, incarnation=None), instance("aa", tier=0)]
    shown = view(members, {"i-aa": well()})
    starting = replace(shown, cluster=shown.cluster.but(status=ClusterStatus.STARTING))
    assert opens(starting) == []
    assert opens(replace(starting, failures={"instance db-w": 1})) == ["db-aa"]
    back = replace(
        starting, instances=(instance("w", tier=15), members[1]), seen={"i-w": well(), "i-aa": well()}
    )
    stopped = back.cluster.volume.but(writer_incarnation="i-of-before")
    assert opens(replace(back, cluster=back.cluster.but(volume=stopped))) == ["db-w"]
    assert opens(shown) == ["db-aa"]


def test_lease_is_vouched_for_only_while_the_writer_is_heard() -> None:
    def renewals(silent: float) -> int:
        status = DriverStatus(engine=DriverEngine(up=True), lease_remaining=0.5)
        seen = {"i-w": Seen(engine=EngineLife.ALIVE, status=status, silent_for=silent)}
        actions = plan(view([instance("w")], seen, up=3), ControlSettings())
        return sum(isinstance(a, RenewLease) for a in actions)

    assert renewals(0.1) == 1
    assert renewals(3.5) == 0


def test_endpoints_follow_roles_and_health() -> None:
    members = [instance("w"), instance("rr"), instance("xxx")]
    seen = {"i-w": well(), "i-rr": well(), "i-xxx": well(silent_for=10)}
    planned = endpoint_plan(view(members, seen))
    assert planned.writer == Target("w", "127.0.0.1")
    assert [t.instance for t in planned.readers] == ["rr"]


def test_reader_endpoint_falls_back_to_the_writer() -> None:
    writer = Target("w", "127.0.0.1")
    assert reader_targets(writer, ()) == (writer,)
    assert reader_targets(None, ()) == ()


@pytest.mark.parametrize(
    ("kind", "static", "excluded", "expected"),
    [
        ("ANY", (), (), {"r1", "r2", "w"}),
        ("READER", (), (), {"r1", "r2"}),
        ("ANY", ("W", "r1"), (), {"r1", "w"}),
        ("READER", ("w", "r1"), (), {"r1"}),
        ("ANY", (), ("r2",), {"r1", "w"}),
    ],
)
def test_custom_endpoint_members(
    kind: str, static: tuple[str, ...], excluded: tuple[str, ...], expected: set[str]
) -> None:
    readers = [Target("r1", "127.0.0.2"), Target("r2", "127.0.0.3")]
    found = custom_members(kind, static, excluded, Target("w", "127.0.0.1"), readers)
    assert {t.instance for t in found} == expected


def test_new_instances_go_where_the_fewest_are() -> None:
    cluster = view([], {}).cluster
    placed = [instance("x", availability_zone="a"), instance("y", availability_zone="b")]
    assert choose_zone(cluster, placed, ("a", "b", "c")) == "c"
    assert choose_zone(cluster.but(availability_zones=("a", "b")), placed, ("a", "b", "c")) == "a"


@pytest.mark.parametrize(
    ("window", "inside"),
    [
        ("mon:03:00-mon:03:30", True),
        ("mon:03:16-mon:03:30", False),
        ("sun:23:00-mon:04:00", True),
        ("nonsense", False),
        ("", False),
    ],
)
def test_maintenance_window(window: str, inside: bool) -> None:
    assert in_window(window, datetime(2026, 11, 23, 3, 15, tzinfo=UTC)) is inside


def test_moves_are_complete_and_checked() -> None:
    assert set(CLUSTER_MOVES) == set(ClusterStatus)
    assert set(INSTANCE_MOVES) == set(InstanceStatus)
    with pytest.raises(IllegalMove, match="cannot go from deleting to available"):
        check_cluster_move(ClusterStatus.DELETING, ClusterStatus.AVAILABLE)


def test_a_planned_failover_waits_for_a_reader_that_catches_up_but_not_for_ever() -> None:
    def lagging(lag_ms: float) -> Seen:
        engine = DriverEngine(up=True, receive_lsn=100, replay_lsn=100, lag_ms=lag_ms)
        return Seen(engine=EngineLife.ALIVE, status=DriverStatus(engine=engine))

    members = [instance("w"), instance("a"), instance("b"), instance("later", tier=2)]
    seen = {"i-w": well(), "i-a": lagging(900), "i-b": lagging(800), "i-later": lagging(0)}
    request = FailoverRequest(target=None, requested_at=now_utc())
    asked = view(members, seen)
    asked = replace(asked, cluster=asked.cluster.but(failover=request))
    assert ready_target(asked) is None, "the tier counts more than the lag"
    late = replace(asked, failover_age=11.0)
    assert ready_target(late) == members[1]
    caught_up = replace(asked, seen={**asked.seen, "i-b": lagging(3)})
    assert ready_target(caught_up) == members[2]
    named = replace(caught_up, cluster=asked.cluster.but(failover=request.but(target=members[1].key)))
    assert ready_target(named) is None
