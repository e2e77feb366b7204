"""ModifyDBCluster through boto3."""

from __future__ import annotations

from typing import Any

from tests.unit.api.conftest import Maker
from tests.unit.api.fake_region import FakeRegion
from tests.unit.api.test_clusters import refused


def test_what_is_only_stored_changes_at_once(region: FakeRegion, make: Maker) -> None:
    make.cluster("c1")
    region.hold()
    changed = make.rds.modify_db_cluster(
        DBClusterIdentifier="c1",
        BackupRetentionPeriod=14,
        PreferredBackupWindow="00:00-00:30",
        PreferredMaintenanceWindow="wed:01:00-wed:01:30",
        DeletionProtection=True,
        CopyTagsToSnapshot=True,
        AutoMinorVersionUpgrade=False,
        StorageType="aurora-iopt1",
        ServerlessV2ScalingConfiguration={"MinCapacity": 0, "MaxCapacity": 8},
    )["DBCluster"]
    assert changed["Status"] == "available"
    assert changed["BackupRetentionPeriod"] == 14
    assert changed["PreferredBackupWindow"] == "00:00-00:30"
    assert changed["PreferredMaintenanceWindow"] == "wed:01:00-wed:01:30"
    assert changed["DeletionProtection"] is True
    assert changed["AutoMinorVersionUpgrade"] is False
    assert changed["StorageType"] == "aurora-iopt1"
    assert changed["ServerlessV2ScalingConfiguration"] == {
        "MinCapacity": 0.0,
        "MaxCapacity": 8.0,
        "SecondsUntilAutoPause": 300,
    }
    changed = make.rds.modify_db_cluster(
        DBClusterIdentifier="c1", ServerlessV2ScalingConfiguration={"MinCapacity": 2}
    )["DBCluster"]
    assert changed["ServerlessV2ScalingConfiguration"] == {"MinCapacity": 2.0, "MaxCapacity": 8.0}


def test_nothing_to_change_commits_nothing(region: FakeRegion, make: Maker) -> None:
    make.cluster("c1")
    [before] = region.store.clusters()
    make.rds.modify_db_cluster(DBClusterIdentifier="c1", BackupRetentionPeriod=1, ApplyImmediately=True)
    [after] = region.store.clusters()
    assert after == before


def test_rename(region: FakeRegion, make: Maker) -> None:
    make.cluster("c1")
    make.cluster("c2")
    make.instance("i1")
    modify = make.rds.modify_db_cluster
    refused(modify, "DBClusterAlreadyExistsFault", DBClusterIdentifier="c1", NewDBClusterIdentifier="C2")
    refused(modify, "InvalidParameterValue", "New", DBClusterIdentifier="c1", NewDBClusterIdentifier="a--b")
    later = modify(DBClusterIdentifier="c1", NewDBClusterIdentifier="Later")["DBCluster"]
    assert later["Status"] == "available"
    assert later["PendingModifiedValues"] == {"DBClusterIdentifier": "later"}
    refused(make.cluster, "DBClusterAlreadyExistsFault", name="later")
    region.hold()
    now = modify(DBClusterIdentifier="c1", NewDBClusterIdentifier="now", ApplyImmediately=True)["DBCluster"]
    assert now["Status"] == "renaming"
    region.hold(False)
    make.appears("now")
    make.wait("db_cluster_available", DBClusterIdentifier="now")
    renamed = make.describe("now")
    assert renamed["DBClusterArn"].endswith(":cluster:now")
    assert "PendingModifiedValues" not in renamed
    assert make.describe_instance("i1")["DBClusterIdentifier"] == "now"


def test_port_and_version(region: FakeRegion, make: Maker) -> None:
    make.cluster("c1", EngineVersion="15.18")
    modify = make.rds.modify_db_cluster
    refused(modify, "InvalidParameterValue", "1", DBClusterIdentifier="c1", Port=1)
    refused(modify, "InvalidParameterCombination", "major", DBClusterIdentifier="c1", EngineVersion="16.6")
    refused(modify, "InvalidParameterCombination", "15.99", DBClusterIdentifier="c1", EngineVersion="15.99")
    region.hold()
    now = modify(DBClusterIdentifier="c1", Port=7000, EngineVersion="15.20", ApplyImmediately=True)[
        "DBCluster"
    ]
    assert now["Status"] == "modifying"
    assert now["PendingModifiedValues"] == {"EngineVersion": "15.20"}
    refused(modify, "InvalidDBClusterStateFault", "available state", DBClusterIdentifier="c1", Port=7001)
    region.hold(False)
    make.wait("db_cluster_available", DBClusterIdentifier="c1")
    changed = make.describe()
    assert (changed["Port"], changed["EngineVersion"]) == (7000, "15.20")
    refused(modify, "InvalidParameterCombination", "older", DBClusterIdentifier="c1", EngineVersion="15.18")


def test_password(region: FakeRegion, make: Maker) -> None:
    make.cluster("c1")
    modify = make.rds.modify_db_cluster
    refused(modify, "InvalidParameterValue", "8", DBClusterIdentifier="c1", MasterUserPassword="sh0rt")
    region.hold()
    changed = modify(DBClusterIdentifier="c1", MasterUserPassword="another-password-1")["DBCluster"]
    assert changed["Status"] == "resetting-master-credentials"
    [cluster] = region.store.clusters()
    assert cluster.master_verifier == "verifier-of-18"
    region.hold(False)
    make.wait("db_cluster_available", DBClusterIdentifier="c1")


def test_refusals(make: Maker) -> None:
    make.cluster("c1")

    def modify(**parameters: Any) -> None:
        make.rds.modify_db_cluster(DBClusterIdentifier="c1", **parameters)

    code = "InvalidParameterCombination"
    refused(modify, code, "AllowMajorVersionUpgrade", AllowMajorVersionUpgrade=True)
    refused(
        modify, code, "CloudwatchLogs", CloudwatchLogsExportConfiguration={"EnableLogTypes": ["postgresql"]}
    )
    refused(modify, code, "RotateMasterUserPassword", RotateMasterUserPassword=True)
    refused(modify, code, "ManageMasterUserPassword", ManageMasterUserPassword=True)
    refused(modify, code, "EngineMode", EngineMode="serverless")
    refused(modify, code, "DBInstanceParameterGroupName", DBInstanceParameterGroupName="x")
    refused(
        modify,
        code,
        "overlap",
        PreferredBackupWindow="05:00-06:00",
        PreferredMaintenanceWindow="mon:05:30-mon:06:00",
    )
    modify(AllowMajorVersionUpgrade=False, CloudwatchLogsExportConfiguration={})
    describe = make.rds.modify_db_cluster
    refused(describe, "DBClusterNotFoundFault", "c9", DBClusterIdentifier="c9")
