"""Two regions side by side on one machine, each with its own folder and port, know nothing of each other."""

from __future__ import annotations

from tests.support.editions import Edition, series
from tests.support.region import Region


def test_same_names_in_two_regions_do_not_meet(region: Region, edition: Edition) -> None:
    other = Region()
    try:
        other.up("--region", "eu-west-1")
        name = f"twin-{edition.name}"
        made = [
            one.create_cluster(readers=0, edition=edition, DBClusterIdentifier=name)
            for one in (region, other)
        ]
        here, there = made
        assert here.identifier == there.identifier
        here.sql("CREATE TABLE here (n int)")
        there.sql("CREATE TABLE there (n int)")
        assert here.sql(edition.tables) == [("here",)]
        assert there.sql(edition.tables) == [("there",)]
        assert there.describe()["AvailabilityZones"] == ["eu-west-1a", "eu-west-1b", "eu-west-1c"]
        other.down()
        assert here.sql("SELECT 1") == [(1,)]
    finally:
        other.destroy()


def test_down_and_up_again_keep_everything(region: Region, edition: Edition) -> None:
    cluster = region.create_cluster(readers=1, edition=edition)
    cluster.sql("CREATE TABLE lasting (n int)")
    cluster.sql(f"INSERT INTO lasting {series(500)}")
    region.down()
    region.up()
    cluster.wait_healthy()
    assert cluster.sql("SELECT count(*) FROM lasting") == [(500,)]
