"""Custom endpoints, subnet groups, tags, events, versions, classes and the rest, through boto3."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.unit.api.conftest import Maker
from tests.unit.api.fake_region import ACCOUNT, ENGINE, FakeRegion, with_quotas
from tests.unit.api.test_clusters import refused


def endpoint(make: Maker, name: str = "e1", **more: Any) -> dict[str, Any]:
    asked = {"DBClusterIdentifier": "c1", "EndpointType": "READER", **more}
    return dict(make.rds.create_db_cluster_endpoint(DBClusterEndpointIdentifier=name, **asked))


def test_custom_endpoints(region: FakeRegion, make: Maker) -> None:
    make.cluster("c1")
    make.cluster("c2")
    make.instance("i1")
    make.instance("other", cluster="c2")
    region.hold()
    created = endpoint(make, "E1", StaticMembers=["I1"], Tags=[{"Key": "a", "Value": "b"}])
    assert created["DBClusterEndpointIdentifier"] == "e1"
    assert created["Status"] == "creating"
    assert created["EndpointType"] == "CUSTOM"
    assert created["CustomEndpointType"] == "READER"
    assert created["StaticMembers"] == ["i1"]
    assert created["DBClusterEndpointArn"] == f"arn:aws:rds:us-east-1:{ACCOUNT}:cluster-endpoint:e1"
    region.hold(False)
    rds = make.rds
    create = rds.create_db_cluster_endpoint
    base = {"DBClusterIdentifier": "c1", "DBClusterEndpointIdentifier": "e2", "EndpointType": "ANY"}
    refused(create, "DBClusterEndpointAlreadyExistsFault", **{**base, "DBClusterEndpointIdentifier": "e1"})
    refused(create, "InvalidParameterValue", "WRITER", **{**base, "EndpointType": "WRITER"})
    refused(create, "DBInstanceNotFound", "other", **base, StaticMembers=["other"])
    refused(create, "InvalidParameterCombination", **base, StaticMembers=["i1"], ExcludedMembers=["i1"])
    refused(create, "DBClusterNotFoundFault", **{**base, "DBClusterIdentifier": "c9"})
    with_quotas(region, custom_endpoints_per_cluster=1)
    refused(create, "DBClusterEndpointQuotaExceededFault", "1", **base)

    def listed(**which: Any) -> list[tuple[str, str]]:
        found = rds.describe_db_cluster_endpoints(**which)["DBClusterEndpoints"]
        return [
            (e["DBClusterIdentifier"], e.get("DBClusterEndpointIdentifier", e["EndpointType"])) for e in found
        ]

    assert listed() == [("c1", "WRITER"), ("c1", "READER"), ("c1", "e1"), ("c2", "WRITER"), ("c2", "READER")]
    assert listed(DBClusterIdentifier="c2") == [("c2", "WRITER"), ("c2", "READER")]
    assert listed(DBClusterEndpointIdentifier="E1") == [("c1", "e1")]
    custom = [{"Name": "db-cluster-endpoint-type", "Values": ["custom"]}]
    assert listed(Filters=custom) == [("c1", "e1")]
    refused(rds.describe_db_cluster_endpoints, "DBClusterNotFoundFault", DBClusterIdentifier="c9")

    changed = rds.modify_db_cluster_endpoint(
        DBClusterEndpointIdentifier="e1", EndpointType="ANY", ExcludedMembers=["i1"]
    )
    assert changed["Status"] == "modifying"
    assert (changed["StaticMembers"], changed["ExcludedMembers"]) == ([], ["i1"])
    assert changed["CustomEndpointType"] == "ANY"
    gone = rds.delete_db_cluster_endpoint(DBClusterEndpointIdentifier="e1")
    assert gone["Status"] == "deleting"
    make.until(lambda: not listed(DBClusterEndpointIdentifier="e1"))
    refused(
        rds.delete_db_cluster_endpoint, "DBClusterEndpointNotFoundFault", DBClusterEndpointIdentifier="e1"
    )


def test_subnet_groups(make: Maker) -> None:
    rds = make.rds
    [default] = rds.describe_db_subnet_groups()["DBSubnetGroups"]
    assert default["DBSubnetGroupName"] == "default"
    zones = {s["SubnetAvailabilityZone"]["Name"]: s["SubnetIdentifier"] for s in default["Subnets"]}
    assert sorted(zones) == ["us-east-1a", "us-east-1b", "us-east-1c"]
    two = [zones["us-east-1b"], zones["us-east-1c"]]
    create = rds.create_db_subnet_group

    def group(name: str, subnets: list[str]) -> dict[str, Any]:
        return {
            "DBSubnetGroupName": name,
            "DBSubnetGroupDescription": '<two> & "zones"\nof three',
            "SubnetIds": subnets,
        }

    made = create(**group("Mine", two))["DBSubnetGroup"]
    assert made["DBSubnetGroupName"] == "mine"
    assert made["DBSubnetGroupDescription"] == '<two> & "zones"\nof three'
    assert made["VpcId"] == default["VpcId"]
    refused(create, "DBSubnetGroupAlreadyExists", "mine", **group("mine", two))
    refused(create, "InvalidSubnet", "subnet-x", **group("other", [*two, "subnet-x"]))
    refused(create, "DBSubnetGroupDoesNotCoverEnoughAZs", "us-east-1b", **group("other", two[:1]))
    refused(create, "InvalidParameterValue", "DBSubnetGroupName", **group("a/b", two))
    cluster = make.cluster("c1", DBSubnetGroupName="MINE")
    assert cluster["AvailabilityZones"] == ["us-east-1b", "us-east-1c"]
    refused(
        make.cluster,
        "InvalidVPCNetworkStateFault",
        name="c2",
        DBSubnetGroupName="mine",
        AvailabilityZones=["us-east-1a"],
    )
    refused(make.instance, "InvalidParameterValue", "us-east-1a", name="i1", AvailabilityZone="us-east-1a")
    modify = rds.modify_db_subnet_group
    three = [*two, zones["us-east-1a"]]
    refused(
        modify, "SubnetAlreadyInUse", "c1", DBSubnetGroupName="mine", SubnetIds=[zones["us-east-1a"], two[0]]
    )
    assert len(modify(DBSubnetGroupName="mine", SubnetIds=three)["DBSubnetGroup"]["Subnets"]) == 3
    refused(modify, "InvalidDBSubnetGroupStateFault", DBSubnetGroupName="default", SubnetIds=three)
    delete = rds.delete_db_subnet_group
    refused(delete, "InvalidDBSubnetGroupStateFault", "c1", DBSubnetGroupName="mine")
    refused(delete, "InvalidDBSubnetGroupStateFault", "default", DBSubnetGroupName="default")
    refused(delete, "DBSubnetGroupNotFoundFault", "nosuch", DBSubnetGroupName="nosuch")
    rds.delete_db_cluster(DBClusterIdentifier="c1", SkipFinalSnapshot=True)
    make.wait("db_cluster_deleted", DBClusterIdentifier="c1")
    delete(DBSubnetGroupName="mine")
    refused(rds.describe_db_subnet_groups, "DBSubnetGroupNotFoundFault", "mine", DBSubnetGroupName="mine")


def test_tags_of_every_kind(make: Maker) -> None:
    rds = make.rds
    arns = [make.cluster("c1", Tags=[{"Key": "a", "Value": "1"}])["DBClusterArn"]]
    arns.append(make.instance("i1", Tags=[{"Key": "a", "Value": "1"}])["DBInstanceArn"])
    arns.append(endpoint(make, Tags=[{"Key": "a", "Value": "1"}])["DBClusterEndpointArn"])
    arns.append(rds.describe_db_subnet_groups()["DBSubnetGroups"][0]["DBSubnetGroupArn"])
    for arn in arns:
        rds.add_tags_to_resource(ResourceName=arn, Tags=[{"Key": "a", "Value": "2"}, {"Key": "b"}])
        listed = rds.list_tags_for_resource(ResourceName=arn)["TagList"]
        assert listed == [{"Key": "a", "Value": "2"}, {"Key": "b", "Value": ""}]
        rds.remove_tags_from_resource(ResourceName=arn, TagKeys=["a", "nosuch"])
        assert rds.list_tags_for_resource(ResourceName=arn)["TagList"] == [{"Key": "b", "Value": ""}]
    assert make.describe()["TagList"] == [{"Key": "b", "Value": ""}]
    assert make.describe_instance("i1")["TagList"] == [{"Key": "b", "Value": ""}]
    tags = rds.list_tags_for_resource
    arn = arns[0]
    refused(tags, "InvalidParameterValue", "c1", ResourceName="c1")
    refused(tags, "InvalidParameterValue", "region", ResourceName=arn.replace("us-east-1", "eu-west-1"))
    refused(tags, "InvalidParameterValue", "snapshot", ResourceName=arn.replace(":cluster:", ":snapshot:"))
    refused(tags, "DBClusterNotFoundFault", ResourceName=arn.replace("c1", "c9"))
    refused(tags, "DBInstanceNotFound", ResourceName=arns[1].replace("i1", "i9"))
    many = [{"Key": f"k{i}", "Value": ""} for i in range(50)]
    refused(rds.add_tags_to_resource, "InvalidParameterValue", "50", ResourceName=arn, Tags=many)
    refused(rds.add_tags_to_resource, "InvalidParameterValue", "<x>", ResourceName=arn, Tags=[{"Key": "<x>"}])


def test_events(make: Maker) -> None:
    make.cluster("c1")
    make.instance("i1")
    rds = make.rds

    def messages(**which: Any) -> list[str]:
        return [e["Message"] for e in rds.describe_events(**which)["Events"]]

    assert messages() == ["DB cluster created.", "DB instance created."]
    [event] = rds.describe_events(SourceType="db-cluster", SourceIdentifier="C1")["Events"]
    assert event["SourceIdentifier"] == "c1"
    assert event["EventCategories"] == ["creation"]
    assert event["SourceArn"] == make.describe()["DBClusterArn"]
    assert messages(SourceType="db-instance") == ["DB instance created."]
    assert messages(EventCategories=["failover"]) == []
    assert messages(EventCategories=["Creation"], Duration=5) == [
        "DB cluster created.",
        "DB instance created.",
    ]
    now = datetime.now(UTC)
    assert messages(EndTime=now - timedelta(hours=1)) == []
    assert len(messages(StartTime=now - timedelta(hours=1), EndTime=now + timedelta(seconds=5))) == 2
    assert len(messages(StartTime=now - timedelta(hours=1), Duration=120)) == 2
    refused(rds.describe_events, "InvalidParameterCombination", "SourceType", SourceIdentifier="c1")
    refused(rds.describe_events, "InvalidParameterValue", "Duration", Duration=20161)
    refused(
        rds.describe_events,
        "InvalidParameterCombination",
        "before",
        StartTime=now,
        EndTime=now - timedelta(hours=1),
    )
    refused(rds.describe_events, "InvalidParameterValue", "14 days", EndTime=now - timedelta(days=20))
    refused(rds.describe_events, "InvalidParameterValue", "db-cluster", SourceType="planet")


def test_engine_versions(region: FakeRegion, make: Maker) -> None:
    rds = make.rds

    def versions(**which: Any) -> list[str]:
        return [v["EngineVersion"] for v in rds.describe_db_engine_versions(**which)["DBEngineVersions"]]

    assert versions() == ["15.18", "15.20", "16.6"]
    assert versions(Engine=ENGINE, EngineVersion="15") == ["15.18", "15.20"]
    assert versions(EngineVersion="16.6") == ["16.6"]
    assert versions(DBParameterGroupFamily="aurora-postgresql15") == ["15.18", "15.20"]
    assert versions(Engine=ENGINE, DefaultOnly=True) == ["16.6"]
    assert versions(Filters=[{"Name": "engine-version", "Values": ["15.20"]}]) == ["15.20"]
    refused(
        rds.describe_db_engine_versions, "InvalidParameterValue", "Unrecognized engine name", Engine="db2"
    )
    [shown] = rds.describe_db_engine_versions(EngineVersion="15.18", ListSupportedCharacterSets=True)[
        "DBEngineVersions"
    ]
    assert shown["DBParameterGroupFamily"] == "aurora-postgresql15"
    assert shown["MajorEngineVersion"] == "15"
    assert [t["EngineVersion"] for t in shown["ValidUpgradeTarget"]] == ["15.20"]
    assert shown["SupportedCharacterSets"] == [{"CharacterSetName": "UTF8"}]
    assert shown["SupportedEngineModes"] == ["provisioned"]
    region.versions.clear()
    refused(make.cluster, "InvalidParameterCombination", "install")


def test_orderable_options(make: Maker) -> None:
    rds = make.rds
    [option] = rds.describe_orderable_db_instance_options(
        Engine=ENGINE, EngineVersion="15.20", DBInstanceClass="db.serverless"
    )["OrderableDBInstanceOptions"]
    assert [z["Name"] for z in option["AvailabilityZones"]] == ["us-east-1a", "us-east-1b", "us-east-1c"]
    assert option["SupportsClusters"] is True
    paginator = rds.get_paginator("describe_orderable_db_instance_options")
    pages = list(paginator.paginate(Engine=ENGINE, PaginationConfig={"PageSize": 50}))
    found = [
        (o["EngineVersion"], o["DBInstanceClass"]) for p in pages for o in p["OrderableDBInstanceOptions"]
    ]
    assert len(found) == len(set(found)) > 150
    assert ("16.6", "db.r6g.large") in found
    assert found[0][0] == "15.18"
    call = rds.describe_orderable_db_instance_options
    assert call(Engine=ENGINE, LicenseModel="byol")["OrderableDBInstanceOptions"] == []
    refused(call, "InvalidParameterValue", "nosuch", Engine="nosuch")
    refused(call, "InvalidParameterValue", "1000", Engine=ENGINE, MaxRecords=1001)


def test_global_clusters_are_not_there(rds: Any) -> None:
    assert rds.describe_global_clusters()["GlobalClusters"] == []
    refused(rds.describe_global_clusters, "GlobalClusterNotFoundFault", "g1", GlobalClusterIdentifier="g1")


def test_who_am_i(region: FakeRegion) -> None:
    answer = region.client("sts").get_caller_identity()
    assert answer["Account"] == ACCOUNT
    assert answer["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"
    assert answer["UserId"] == ACCOUNT


def test_operations_that_are_not_there_are_named(rds: Any) -> None:
    refused(
        rds.create_db_cluster_snapshot,
        "InvalidAction",
        "rds:CreateDBClusterSnapshot is not implemented",
        DBClusterIdentifier="c1",
        DBClusterSnapshotIdentifier="s1",
    )
    refused(rds.describe_db_proxies, "InvalidAction", "rds:DescribeDBProxies")
