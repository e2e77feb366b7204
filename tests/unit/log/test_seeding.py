"""A volume's birth."""

from __future__ import annotations

import pytest

from borealis.log import wire
from borealis.log.seeding import SeedRefused, VolumeSeeder
from borealis.log.types import Superseded
from tests.unit.log.cluster import START, Cluster
from tests.unit.log.helpers import NODES, SIX


def seeder(data: bytes = b"seed") -> VolumeSeeder:
    return VolumeSeeder(SIX, "vol", timeline=1, start=START, data=data, writer="w1")


def test_six_segments_get_entry_and_bytes() -> None:
    cluster = Cluster(seed=b"")
    data = bytes(range(256)) * 8192
    work = cluster.seed(data)
    assert work.done
    assert work.complete
    assert all(log == data for log in cluster.data.values())
    assert all(core.vdl == (1, START + len(data)) for core in cluster.cores.values())


def test_four_are_enough_and_the_others_come_later() -> None:
    cluster = Cluster(seed=b"")
    cluster.down = {"n2", "n3"}
    work = cluster.seed(b"seed")
    assert (work.done, work.complete) == (True, False)
    cluster.down = set()
    assert cluster.seed(b"seed").complete, "the same work again"


def test_three_are_not_enough() -> None:
    cluster = Cluster(seed=b"")
    cluster.down = {"n1", "n2", "n3"}
    assert not cluster.seed(b"seed").done


def test_a_lost_connection_is_taken_up_where_it_was() -> None:
    cluster = Cluster(seed=b"")
    work = seeder()
    work.connected("n1")
    ((_, create),) = work.take_outbox()
    (reply,) = cluster.ask("n1", create)
    work.receive("n1", reply)
    work.lost("n1")
    for node in NODES:
        work.connected(node)
    cluster.run(work.take_outbox, work.receive)
    assert work.complete


def test_a_volume_in_use_is_not_seeded_again() -> None:
    cluster = Cluster()
    cluster.ask("n1", wire.Vote(2, "w"))
    with pytest.raises(Superseded):
        cluster.seed(b"seed")


def test_another_segment_in_the_way_is_an_error() -> None:
    cluster = Cluster()
    work = VolumeSeeder(SIX, "vol", timeline=1, start=START + 8, data=b"seed")
    work.connected("n1")
    with pytest.raises(SeedRefused, match="another seed"):
        cluster.run(work.take_outbox, work.receive)
