"""Two regions side by side on one machine, each with its own folder and port, know nothing of each other."""

from __future__ import annotations

from tests.support.region import Region


def test_same_names_in_two_regions_do_not_meet(region: Region) -> None:
    other = Region()
    try:
        other.up("--region", "eu-west-1")
        here, there = region.create_cluster(readers=0), other.create_cluster(readers=0)
        assert here.identifier == there.identifier
        here.sql("CREATE TABLE here (n int)")
        there.sql("CREATE TABLE there (n int)")
        assert here.sql("SELECT to_regclass('there')") == [(None,)]
        assert there.sql("SELECT to_regclass('here')") == [(None,)]
        assert there.describe()["AvailabilityZones"] == ["eu-west-1a", "eu-west-1b", "eu-west-1c"]
        other.down()
        assert here.sql("SELECT 1") == [(1,)]
    finally:
        other.destroy()


def test_down_and_up_again_keep_everything(region: Region) -> None:
    cluster = region.create_cluster(readers=1, DBClusterIdentifier="lasting")
    cluster.sql("CREATE TABLE lasting AS SELECT generate_series(1, 500) AS n")
    region.down()
    region.up()
    cluster.wait_healthy()
    assert cluster.sql("SELECT count(*) FROM lasting") == [(500,)]
