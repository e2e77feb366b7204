"""DB clusters through boto3: their life, their rules, and AWS's words for what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.unit.api.conftest import Maker
from tests.unit.api.fake_region import ACCOUNT, ENGINE, PASSWORD, FakeRegion, with_quotas


def refused(call: Any, code: str, *words: str, **parameters: Any) -> str:
    """Call and see that it is refused with this code and these words."""
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    error = caught.value.response["Error"]
    assert error["Code"] == code, error
    for word in words:
        assert word in error["Message"], error
    return str(error["Message"])


def test_create_has_the_defaults_of_aws(region: FakeRegion, make: Maker) -> None:
    created = make.cluster("My-Cluster")
    assert created["DBClusterIdentifier"] == "my-cluster"
    assert created["Status"] == "creating"
    assert created["EngineVersion"] == "16.6"
    assert created["Port"] == 5432
    assert created["DBClusterParameterGroup"] == "default.aurora-postgresql16"
    assert created["AvailabilityZones"] == ["us-east-1a", "us-east-1b", "us-east-1c"]
    assert created["BackupRetentionPeriod"] == 1
    assert created["DBClusterArn"] == f"arn:aws:rds:us-east-1:{ACCOUNT}:cluster:my-cluster"
    assert created["DBSubnetGroup"] == "default"
    assert created["VpcSecurityGroups"][0]["VpcSecurityGroupId"].startswith("sg-")
    assert created["StorageEncrypted"] is False
    assert created["EngineMode"] == "provisioned"
    assert "PendingModifiedValues" not in created
    shown = make.describe("MY-CLUSTER")
    assert shown["Status"] == "available"
    assert shown["Endpoint"] == "127.1.1.1"
    assert shown["ReaderEndpoint"] == "127.1.1.2"
    assert shown["ClusterCreateTime"].tzinfo is not None
    [cluster] = region.store.clusters()
    assert cluster.master_verifier == f"verifier-of-{len(PASSWORD)}"
    assert PASSWORD not in repr(cluster)


def test_create_keeps_what_it_was_given(make: Maker) -> None:
    created = make.cluster(
        EngineVersion="15",
        DatabaseName="orders",
        Port=6000,
        AvailabilityZones=["us-east-1b"],
        BackupRetentionPeriod=7,
        PreferredBackupWindow="01:00-01:30",
        PreferredMaintenanceWindow="Sun:02:00-Sun:03:00",
        DeletionProtection=True,
        CopyTagsToSnapshot=True,
        StorageType="aurora-iopt1",
        ServerlessV2ScalingConfiguration={"MinCapacity": 0.5, "MaxCapacity": 16},
        DBClusterParameterGroupName="default.aurora-postgresql15",
        EngineLifecycleSupport="open-source-rds-extended-support-disabled",
        Tags=[{"Key": "team", "Value": "a + b"}],
    )
    assert created["EngineVersion"] == "15.20"
    assert created["DatabaseName"] == "orders"
    assert created["Port"] == 6000
    assert created["AvailabilityZones"] == ["us-east-1a", "us-east-1b", "us-east-1c"]
    assert created["BackupRetentionPeriod"] == 7
    assert created["PreferredMaintenanceWindow"] == "sun:02:00-sun:03:00"
    assert created["DeletionProtection"] is True
    assert created["StorageType"] == "aurora-iopt1"
    assert created["ServerlessV2ScalingConfiguration"] == {"MinCapacity": 0.5, "MaxCapacity": 16.0}
    assert created["EngineLifecycleSupport"] == "open-source-rds-extended-support-disabled"
    assert created["TagList"] == [{"Key": "team", "Value": "a + b"}]


@pytest.mark.parametrize(
    "name", ["", "1abc", "a-", "a--b", "a_b", "a.b", "a" * 64, "ä", "-a", "a b", "a/../b", "${x}"]
)
def test_names_that_aws_forbids(make: Maker, name: str) -> None:
    code = "MissingParameter" if not name else "InvalidParameterValue"
    refused(make.cluster, code, "DBClusterIdentifier", name=name)


@pytest.mark.parametrize(
    ("parameters", "code", "word"),
    [
        ({"Engine": "oracle-ee"}, "InvalidParameterValue", "oracle-ee"),
        (
            {"EngineVersion": "99.1"},
            "InvalidParameterCombination",
            "Cannot find version 99.1 for aurora-postgresql",
        ),
        ({"MasterUsername": "1abc"}, "InvalidParameterValue", "MasterUsername"),
        ({"MasterUsername": "pg_me"}, "InvalidParameterValue", "reserved word"),
        ({"MasterUsername": "rdsadmin"}, "InvalidParameterValue", "reserved word"),
        ({"MasterUsername": "a" * 64}, "InvalidParameterValue", "MasterUsername"),
        ({"MasterUserPassword": "sh0rt"}, "InvalidParameterValue", "shorter than 8"),
        ({"MasterUserPassword": "x" * 100}, "InvalidParameterValue", "longer than 99"),
        ({"MasterUserPassword": "with space"}, "InvalidParameterValue", "printable ASCII"),
        ({"MasterUserPassword": "with/slash"}, "InvalidParameterValue", "printable ASCII"),
        ({"MasterUserPassword": 'with"quote'}, "InvalidParameterValue", "printable ASCII"),
        ({"MasterUserPassword": "with'quote"}, "InvalidParameterValue", "printable ASCII"),
        ({"MasterUserPassword": "with@sign-"}, "InvalidParameterValue", "printable ASCII"),
        ({"MasterUserPassword": "pässwörter"}, "InvalidParameterValue", "printable ASCII"),
        ({"DatabaseName": "template1"}, "InvalidParameterValue", "reserved word"),
        ({"DatabaseName": "a-b"}, "InvalidParameterValue", "DatabaseName"),
        ({"Port": 80}, "InvalidParameterValue", "80"),
        ({"Port": 65536}, "InvalidParameterValue", "65536"),
        ({"BackupRetentionPeriod": 36}, "InvalidParameterValue", "36"),
        ({"BackupRetentionPeriod": 0}, "InvalidParameterValue", "0"),
        ({"PreferredBackupWindow": "1-2"}, "InvalidParameterValue", "hh24:mi-hh24:mi"),
        ({"PreferredBackupWindow": "01:00-01:10"}, "InvalidParameterValue", "30 minutes"),
        ({"PreferredMaintenanceWindow": "xxx:01:00-mon:02:00"}, "InvalidParameterValue", "ddd:hh24:mi"),
        ({"PreferredMaintenanceWindow": "mon:01:00-tue:02:00"}, "InvalidParameterValue", "24 hours"),
        (
            {"PreferredBackupWindow": "23:45-00:30", "PreferredMaintenanceWindow": "sun:23:00-mon:00:00"},
            "InvalidParameterCombination",
            "must not overlap",
        ),
        ({"AvailabilityZones": ["eu-west-1a"]}, "InvalidParameterValue", "eu-west-1a"),
        ({"DBSubnetGroupName": "nosuch"}, "DBSubnetGroupNotFoundFault", "nosuch"),
        ({"DBClusterParameterGroupName": "mine"}, "DBClusterParameterGroupNotFound", "mine"),
        (
            {"DBClusterParameterGroupName": "default.aurora-postgresql13"},
            "InvalidParameterCombination",
            "aurora-postgresql16",
        ),
        ({"VpcSecurityGroupIds": ["sg-123"]}, "InvalidParameterValue", "sg-123"),
        ({"OptionGroupName": "mine"}, "OptionGroupNotFoundFault", "mine"),
        (
            {"OptionGroupName": "default:mysql-8-0"},
            "OptionGroupNotFoundFault",
            "default:aurora-postgresql-16",
        ),
        ({"StorageType": "gp3"}, "StorageTypeNotSupported", "gp3"),
        ({"EngineLifecycleSupport": "forever"}, "InvalidParameterValue", "forever"),
        (
            {"ServerlessV2ScalingConfiguration": {"MinCapacity": 1}},
            "InvalidParameterCombination",
            "MaxCapacity",
        ),
        (
            {"ServerlessV2ScalingConfiguration": {"MinCapacity": 0.3, "MaxCapacity": 1}},
            "InvalidParameterValue",
            "0.3",
        ),
        (
            {"ServerlessV2ScalingConfiguration": {"MinCapacity": 2, "MaxCapacity": 1}},
            "InvalidParameterCombination",
            "larger",
        ),
        (
            {
                "ServerlessV2ScalingConfiguration": {
                    "MinCapacity": 1,
                    "MaxCapacity": 2,
                    "SecondsUntilAutoPause": 400,
                }
            },
            "InvalidParameterCombination",
            "SecondsUntilAutoPause",
        ),
        ({"Tags": [{"Key": "aws:x", "Value": ""}]}, "InvalidParameterValue", "aws:"),
        ({"Tags": [{"Key": "x", "Value": "y" * 257}]}, "InvalidParameterValue", "256"),
        ({"Tags": [{"Key": "a"}, {"Key": "a"}]}, "InvalidParameterValue", "Duplicate"),
        # Features that are not there: named, never silently ignored.
        ({"StorageEncrypted": True}, "InvalidParameterCombination", "StorageEncrypted"),
        ({"KmsKeyId": "k"}, "InvalidParameterCombination", "KmsKeyId"),
        ({"ManageMasterUserPassword": True}, "InvalidParameterCombination", "ManageMasterUserPassword"),
        ({"EnableIAMDatabaseAuthentication": True}, "InvalidParameterCombination", "EnableIAMDatabaseAuth"),
        ({"EnableHttpEndpoint": True}, "InvalidParameterCombination", "EnableHttpEndpoint"),
        ({"BacktrackWindow": 60}, "InvalidParameterCombination", "BacktrackWindow"),
        ({"EngineMode": "serverless"}, "InvalidParameterCombination", "EngineMode"),
        ({"EnableCloudwatchLogsExports": ["postgresql"]}, "InvalidParameterCombination", "CloudwatchLogs"),
        ({"GlobalClusterIdentifier": "g1"}, "InvalidParameterCombination", "lobal"),
        ({"Domain": "d-1"}, "InvalidParameterCombination", "Domain"),
        ({"DBClusterInstanceClass": "db.r6g.large"}, "InvalidParameterCombination", "DBClusterInstanceClass"),
        ({"DatabaseInsightsMode": "advanced"}, "InvalidParameterCombination", "DatabaseInsightsMode"),
        ({"DatabaseInsightsMode": "deluxe"}, "InvalidParameterValue", "standard, advanced"),
    ],
)
def test_bad_parameters(make: Maker, parameters: dict[str, Any], code: str, word: str) -> None:
    message = refused(make.cluster, code, word, **parameters)
    password = parameters.get("MasterUserPassword")
    assert password is None or password not in message
    assert make.rds.describe_db_clusters()["DBClusters"] == []


def test_login_must_be_given(rds: Any) -> None:
    for given in ({}, {"MasterUsername": "me"}, {"MasterUserPassword": PASSWORD}):
        refused(
            rds.create_db_cluster,
            "InvalidParameterValue",
            "must be provided and must not be blank",
            DBClusterIdentifier="c1",
            Engine=ENGINE,
            **given,
        )


def test_features_that_are_turned_off_may_be_said_to_be_off(make: Maker) -> None:
    make.cluster(
        StorageEncrypted=False,
        EnableIAMDatabaseAuthentication=False,
        BacktrackWindow=0,
        EngineMode="provisioned",
        EnableCloudwatchLogsExports=[],
        MonitoringInterval=0,
        ManageMasterUserPassword=False,
        NetworkType="IPV4",
        DatabaseInsightsMode="standard",
        OptionGroupName="default:aurora-postgresql-16",
    )


def test_duplicates_and_quota(region: FakeRegion, make: Maker) -> None:
    make.cluster("c1")
    refused(make.cluster, "DBClusterAlreadyExistsFault", "already exists", name="C1")
    with_quotas(region, clusters=1)
    refused(make.cluster, "DBClusterQuotaExceededFault", "maximum of 1", name="c2")


def test_describe_by_arn_filter_and_unknown(make: Maker) -> None:
    arn = make.cluster("c1")["DBClusterArn"]
    resource_id = make.describe("c1")["DbClusterResourceId"]
    make.cluster("c2")
    rds = make.rds
    assert make.describe(arn)["DBClusterIdentifier"] == "c1"

    def names(**filters: list[str]) -> list[str]:
        given = [{"Name": k.replace("_", "-"), "Values": v} for k, v in filters.items()]
        return [c["DBClusterIdentifier"] for c in rds.describe_db_clusters(Filters=given)["DBClusters"]]

    assert names(db_cluster_id=["C2", "nosuch"]) == ["c2"]
    assert names(db_cluster_id=[arn]) == ["c1"]
    assert names(db_cluster_resource_id=[resource_id]) == ["c1"]
    assert names(engine=[ENGINE], db_cluster_id=["c1", "c2"]) == ["c1", "c2"]
    assert names(engine=["aurora-mysql"]) == []
    describe = rds.describe_db_clusters
    refused(describe, "DBClusterNotFoundFault", "nosuch", DBClusterIdentifier="nosuch")
    other = arn.replace("us-east-1", "eu-west-1")
    refused(describe, "DBClusterNotFoundFault", DBClusterIdentifier=other)
    refused(describe, "InvalidParameterValue", "colour", Filters=[{"Name": "colour", "Values": ["red"]}])
    with pytest.raises(rds.exceptions.DBClusterNotFoundFault) as caught:
        describe(DBClusterIdentifier="nosuch")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_pages(make: Maker, region: FakeRegion) -> None:
    with_quotas(region, clusters=100)
    expected = [f"c{i:02}" for i in range(45)]
    for name in expected:
        make.rds.create_db_cluster(
            DBClusterIdentifier=name, Engine=ENGINE, MasterUsername="me", MasterUserPassword=PASSWORD
        )
    pages = list(make.rds.get_paginator("describe_db_clusters").paginate(PaginationConfig={"PageSize": 20}))
    assert [len(p["DBClusters"]) for p in pages] == [20, 20, 5]
    assert [c["DBClusterIdentifier"] for p in pages for c in p["DBClusters"]] == expected
    describe = make.rds.describe_db_clusters
    refused(describe, "InvalidParameterValue", "Must be between 20 and 100", MaxRecords=19)
    refused(describe, "InvalidParameterValue", "Must be between 20 and 100", MaxRecords=101)
    refused(describe, "InvalidParameterValue", "Marker", Marker="garbage")
    first = describe(MaxRecords=20)
    make.rds.delete_db_cluster(DBClusterIdentifier="c19", SkipFinalSnapshot=True)
    make.wait("db_cluster_deleted", DBClusterIdentifier="c19")
    second = describe(MaxRecords=20, Marker=first["Marker"])
    assert second["DBClusters"][0]["DBClusterIdentifier"] == "c20"


def test_delete(region: FakeRegion, make: Maker) -> None:
    make.cluster("c1", DeletionProtection=True)
    make.instance("i1")
    delete = make.rds.delete_db_cluster
    refused(
        delete,
        "InvalidParameterCombination",
        "Cannot delete protected Cluster, please disable deletion protection and try again.",
        DBClusterIdentifier="c1",
        SkipFinalSnapshot=True,
    )
    make.rds.modify_db_cluster(DBClusterIdentifier="c1", DeletionProtection=False)
    refused(
        delete,
        "InvalidDBClusterStateFault",
        "still contains DB instances",
        DBClusterIdentifier="c1",
        SkipFinalSnapshot=True,
    )
    refused(delete, "InvalidParameterCombination", "SkipFinalSnapshot=true", DBClusterIdentifier="c1")
    refused(
        delete,
        "InvalidParameterCombination",
        "SkipFinalSnapshot=true",
        DBClusterIdentifier="c1",
        FinalDBSnapshotIdentifier="s",
    )
    refused(
        delete,
        "InvalidParameterCombination",
        "FinalDBSnapshotIdentifier",
        DBClusterIdentifier="c1",
        FinalDBSnapshotIdentifier="s",
        SkipFinalSnapshot=True,
    )
    region.hold()
    make.rds.delete_db_instance(DBInstanceIdentifier="i1", SkipFinalSnapshot=True)
    gone = delete(DBClusterIdentifier="c1", SkipFinalSnapshot=True)["DBCluster"]
    assert gone["Status"] == "deleting"
    refused(delete, "InvalidDBClusterStateFault", "already", DBClusterIdentifier="c1", SkipFinalSnapshot=True)
    region.hold(False)
    make.wait("db_cluster_deleted", DBClusterIdentifier="c1")
    refused(delete, "DBClusterNotFoundFault", "c1", DBClusterIdentifier="c1", SkipFinalSnapshot=True)


def test_stop_and_start(region: FakeRegion, make: Maker) -> None:
    make.cluster("c1")
    make.instance("i1")
    refused(make.rds.start_db_cluster, "InvalidDBClusterStateFault", "stopped", DBClusterIdentifier="c1")
    region.hold()
    assert make.rds.stop_db_cluster(DBClusterIdentifier="c1")["DBCluster"]["Status"] == "stopping"
    refused(make.rds.stop_db_cluster, "InvalidDBClusterStateFault", "stopping", DBClusterIdentifier="c1")
    refused(make.instance, "InvalidDBClusterStateFault", "stopping", name="i2")
    region.hold(False)
    make.until(lambda: make.describe()["Status"] == "stopped")
    assert make.describe_instance("i1")["DBInstanceStatus"] == "stopped"
    assert make.rds.start_db_cluster(DBClusterIdentifier="c1")["DBCluster"]["Status"] == "starting"
    make.wait("db_cluster_available", DBClusterIdentifier="c1")
    make.wait("db_instance_available", DBInstanceIdentifier="i1")


def test_failover(region: FakeRegion, make: Maker) -> None:
    make.cluster("c1")
    make.cluster("c2")
    failover = make.rds.failover_db_cluster
    make.instance("i1")
    make.instance("other", cluster="c2")
    refused(failover, "InvalidDBClusterStateFault", "no reader", DBClusterIdentifier="c1")
    make.instance("i2")
    make.instance("i3")

    def target(name: str) -> dict[str, str]:
        return {"DBClusterIdentifier": "c1", "TargetDBInstanceIdentifier": name}

    refused(failover, "InvalidParameterValue", "already the writer", **target("i1"))
    refused(failover, "DBInstanceNotFound", "other", **target("other"))
    refused(failover, "DBInstanceNotFound", "nosuch", **target("nosuch"))
    region.hold()
    assert failover(**target("I3"))["DBCluster"]["Status"] == "failing-over"
    refused(failover, "InvalidDBClusterStateFault", "failing-over", DBClusterIdentifier="c1")
    region.hold(False)
    make.wait("db_cluster_available", DBClusterIdentifier="c1")
    writers = {m["DBInstanceIdentifier"]: m["IsClusterWriter"] for m in make.describe()["DBClusterMembers"]}
    assert writers == {"i1": False, "i2": False, "i3": True}
    failover(DBClusterIdentifier="c1")
    make.wait("db_cluster_available", DBClusterIdentifier="c1")
    assert make.describe()["MultiAZ"] is True
