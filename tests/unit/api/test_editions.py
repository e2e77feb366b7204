"""Two engines in one region: each with versions, words, bounds and names of its own."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.unit.api.conftest import Maker
from tests.unit.api.fake_region import ENGINE, OTHER_ENGINE, PASSWORD, FakeRegion, other_version

MASTER = {"Engine": OTHER_ENGINE, "MasterUsername": "admin"}


@pytest.fixture
def both(region: FakeRegion) -> FakeRegion:
    """The region with a version of the other engine installed too."""
    region.versions.append(other_version("10.11.19"))
    return region


def refused(call: Any, code: str, text: str, **parameters: Any) -> None:
    with pytest.raises(ClientError, match=text) as caught:
        call(**parameters)
    assert caught.value.response["Error"]["Code"] == code


def test_a_cluster_with_its_engines_own_defaults(both: FakeRegion, make: Maker) -> None:
    created = make.cluster(**MASTER, DatabaseName="shop")
    assert created["Engine"] == OTHER_ENGINE
    assert created["EngineVersion"] == "10.11.19"
    assert created["Port"] == 3306
    assert created["DBClusterParameterGroup"] == "default.aurora-mysql10.11"
    instance = make.instance("i1", Engine=OTHER_ENGINE)
    assert instance["LicenseModel"] == "general-public-license"
    assert instance["DBParameterGroups"][0]["DBParameterGroupName"] == "default.aurora-mysql10.11"
    assert instance["OptionGroupMemberships"][0]["OptionGroupName"] == "default:aurora-mysql-10-11"


def test_editions_side_by_side(both: FakeRegion, make: Maker) -> None:
    make.cluster("one")
    make.cluster("two", **MASTER)
    assert {name: make.describe(name)["Port"] for name in ("one", "two")} == {"one": 5432, "two": 3306}
    filtered = make.rds.describe_db_clusters(Filters=[{"Name": "engine", "Values": [OTHER_ENGINE]}])
    assert [c["DBClusterIdentifier"] for c in filtered["DBClusters"]] == ["two"]
    refused(
        make.rds.create_db_instance,
        "InvalidParameterCombination",
        "doesn't match",
        DBInstanceIdentifier="x",
        DBClusterIdentifier="two",
        Engine=ENGINE,
        DBInstanceClass="db.r6g.large",
    )


@pytest.mark.parametrize(
    ("parameters", "code", "text"),
    [
        ({"MasterUsername": "a" * 17}, "InvalidParameterValue", "1 to 16 characters"),
        ({"MasterUsername": "root"}, "InvalidParameterValue", "reserved word"),
        ({"MasterUsername": "rdsadmin"}, "InvalidParameterValue", "reserved word"),
        ({"DatabaseName": "mysql"}, "InvalidParameterValue", "reserved word"),
        ({"DatabaseName": "Select"}, "InvalidParameterValue", "reserved word"),
        ({"DatabaseName": "d" * 65}, "InvalidParameterValue", "1 to 64 characters"),
        ({"MasterUserPassword": "x" * 42}, "InvalidParameterValue", "longer than 41"),
        ({"EngineVersion": "15"}, "InvalidParameterCombination", r"Installed versions: 10\.11\.19"),
        (
            {"DBClusterParameterGroupName": "default.aurora-postgresql16"},
            "DBClusterParameterGroupNotFound",
            "default.aurora-mysql10.11",
        ),
    ],
)
def test_what_its_own_rules_refuse(
    both: FakeRegion, rds: Any, parameters: dict[str, str], code: str, text: str
) -> None:
    asked = {**MASTER, "MasterUserPassword": PASSWORD, **parameters}
    refused(rds.create_db_cluster, code, text, DBClusterIdentifier="c1", **asked)


def test_longer_names_are_fine_where_the_engine_allows_them(both: FakeRegion, make: Maker) -> None:
    make.cluster("long", MasterUsername="a" * 63, MasterUserPassword="x" * 99)


def test_versions_and_classes_of_both(both: FakeRegion, rds: Any) -> None:
    newest = rds.describe_db_engine_versions(DefaultOnly=True)["DBEngineVersions"]
    assert {v["Engine"]: v["EngineVersion"] for v in newest} == {ENGINE: "16.6", OTHER_ENGINE: "10.11.19"}
    [shown] = rds.describe_db_engine_versions(
        Engine=OTHER_ENGINE, EngineVersion="10.11", ListSupportedCharacterSets=True
    )["DBEngineVersions"]
    assert shown["DBEngineDescription"] == "Aurora MySQL"
    assert "10.11.19" in shown["DBEngineVersionDescription"]
    assert shown["SupportedCharacterSets"] == [{"CharacterSetName": "utf8mb4"}]
    assert "slowquery" in shown["ExportableLogTypes"]
    options = rds.describe_orderable_db_instance_options(Engine=OTHER_ENGINE, MaxRecords=1000)
    licences = {o["LicenseModel"] for o in options["OrderableDBInstanceOptions"]}
    assert licences == {"general-public-license"}


def test_an_engine_that_is_not_installed_says_so(region: FakeRegion, rds: Any) -> None:
    refused(
        rds.create_db_cluster,
        "InvalidParameterCombination",
        "install the engine's packages",
        DBClusterIdentifier="c1",
        MasterUserPassword=PASSWORD,
        **MASTER,
    )
    assert rds.describe_db_engine_versions(Engine=OTHER_ENGINE)["DBEngineVersions"] == []
