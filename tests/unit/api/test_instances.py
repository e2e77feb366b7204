"""DB instances through boto3."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.api.conftest import Maker
from tests.unit.api.fake_region import ACCOUNT, ENGINE, FakeRegion, with_quotas
from tests.unit.api.test_clusters import refused


def test_create_has_the_defaults_of_aws(make: Maker) -> None:
    make.cluster("c1", Port=6001, DatabaseName="orders")
    created = make.instance("I-1")
    assert created["DBInstanceIdentifier"] == "i-1"
    assert created["DBInstanceStatus"] == "creating"
    assert "Endpoint" not in created
    shown = make.describe_instance("i-1")
    assert shown["DBInstanceStatus"] == "available"
    assert shown["Endpoint"] == {
        "Address": "127.1.2.1",
        "Port": 6001,
        "HostedZoneId": make.describe()["HostedZoneId"],
    }
    assert shown["DBInstanceArn"] == f"arn:aws:rds:us-east-1:{ACCOUNT}:db:i-1"
    assert shown["DbiResourceId"].startswith("db-")
    assert shown["DBClusterIdentifier"] == "c1"
    assert shown["PromotionTier"] == 1
    assert shown["MasterUsername"] == "postgres"
    assert shown["DBName"] == "orders"
    assert shown["StorageType"] == "aurora"
    assert shown["LicenseModel"] == "postgresql-license"
    assert shown["DBSubnetGroup"]["DBSubnetGroupName"] == "default"
    assert shown["DBParameterGroups"][0]["DBParameterGroupName"] == "default.aurora-postgresql16"
    assert shown["OptionGroupMemberships"][0]["OptionGroupName"] == "default:aurora-postgresql-16"
    assert shown["CACertificateIdentifier"] == "rds-ca-rsa2048-g1"
    assert shown["PendingModifiedValues"] == {}
    assert make.describe()["DBClusterMembers"] == [
        {
            "DBInstanceIdentifier": "i-1",
            "IsClusterWriter": True,
            "DBClusterParameterGroupStatus": "in-sync",
            "PromotionTier": 1,
        }
    ]


@pytest.mark.parametrize(
    ("parameters", "code", "word"),
    [
        ({"name": "1a"}, "InvalidParameterValue", "DBInstanceIdentifier"),
        ({"cluster": "nosuch"}, "DBClusterNotFoundFault", "nosuch"),
        ({"Engine": "postgres"}, "InvalidParameterValue", "Invalid DB engine"),
        ({"EngineVersion": "15.18"}, "InvalidParameterCombination", "15.18"),
        ({"DBInstanceClass": "db.z99.huge"}, "InvalidParameterCombination", "DBInstanceClass=db.z99.huge"),
        ({"DBInstanceClass": "db.serverless"}, "InvalidDBClusterStateFault", "Serverless v2 scaling"),
        ({"AvailabilityZone": "us-east-1z"}, "InvalidParameterValue", "us-east-1z"),
        ({"PromotionTier": 16}, "InvalidParameterValue", "16"),
        ({"CACertificateIdentifier": "mine"}, "CertificateNotFound", "mine"),
        ({"DBParameterGroupName": "mine"}, "DBParameterGroupNotFound", "mine"),
        ({"LicenseModel": "byol"}, "InvalidParameterValue", "byol"),
        ({"DBSubnetGroupName": "other"}, "InvalidParameterCombination", "other"),
        # What belongs to the cluster.
        ({"MasterUsername": "me"}, "InvalidParameterCombination", "MasterUsername"),
        ({"MasterUserPassword": "Secret-Word"}, "InvalidParameterCombination", "MasterUserPassword"),
        ({"BackupRetentionPeriod": 2}, "InvalidParameterCombination", "BackupRetentionPeriod"),
        ({"DBName": "d"}, "InvalidParameterCombination", "DBName"),
        ({"Port": 5433}, "InvalidParameterCombination", "Port"),
        ({"AllocatedStorage": 20}, "InvalidParameterCombination", "AllocatedStorage"),
        # What is not there.
        ({"PubliclyAccessible": True}, "InvalidParameterCombination", "PubliclyAccessible"),
        ({"EnablePerformanceInsights": True}, "InvalidParameterCombination", "EnablePerformanceInsights"),
        ({"MonitoringInterval": 60}, "InvalidParameterCombination", "MonitoringInterval"),
        ({"MultiAZ": True}, "InvalidParameterCombination", "MultiAZ"),
        ({"Iops": 1000}, "InvalidParameterCombination", "Iops"),
        ({"TdeCredentialArn": "x"}, "InvalidParameterCombination", "TdeCredentialArn"),
    ],
)
def test_bad_parameters(make: Maker, parameters: dict[str, Any], code: str, word: str) -> None:
    make.cluster("c1")
    message = refused(make.instance, code, word, **{"name": "i1", **parameters})
    assert "Secret-Word" not in message
    assert make.rds.describe_db_instances()["DBInstances"] == []


def test_an_instance_needs_a_cluster(rds: Any) -> None:
    refused(
        rds.create_db_instance,
        "InvalidParameterCombination",
        "DBClusterIdentifier",
        DBInstanceIdentifier="i1",
        DBInstanceClass="db.r6g.large",
        Engine=ENGINE,
    )
    refused(
        rds.create_db_instance,
        "DBClusterNotFoundFault",
        DBInstanceIdentifier="i1",
        DBInstanceClass="db.r6g.large",
        Engine=ENGINE,
        DBClusterIdentifier="c9",
    )


def test_an_instance_may_be_made_before_its_cluster_is_available(region: FakeRegion, make: Maker) -> None:
    region.hold()
    asked = {"Engine": ENGINE, "MasterUsername": "me", "MasterUserPassword": "Correct-Horse"}
    make.rds.create_db_cluster(DBClusterIdentifier="c1", **asked)
    make.rds.create_db_instance(
        DBInstanceIdentifier="i1", DBInstanceClass="db.r6g.large", Engine=ENGINE, DBClusterIdentifier="c1"
    )
    region.hold(False)
    make.wait("db_instance_available", DBInstanceIdentifier="i1")


def test_the_sixteenth_reader_and_the_quota(region: FakeRegion, make: Maker) -> None:
    make.cluster("c1")
    names = [f"i{number}" for number in range(1, 17)]
    asked = {"Engine": ENGINE, "DBClusterIdentifier": "c1", "DBInstanceClass": "db.r6g.large"}
    for name in names:
        make.rds.create_db_instance(DBInstanceIdentifier=name, **asked)
    refused(make.instance, "InstanceQuotaExceeded", "one writer and 15 readers", name="i17")
    make.cluster("c2")
    with_quotas(region, instances=16)
    refused(make.instance, "InstanceQuotaExceeded", "maximum of 16", name="i17", cluster="c2")


def test_duplicates(region: FakeRegion, make: Maker) -> None:
    make.cluster("c1")
    make.instance("i1")
    refused(make.instance, "DBInstanceAlreadyExists", "already exists", name="I1")
    make.rds.modify_db_instance(DBInstanceIdentifier="i1", NewDBInstanceIdentifier="soon")
    refused(make.instance, "DBInstanceAlreadyExists", "already exists", name="soon")


def test_describe(make: Maker) -> None:
    make.cluster("c1")
    make.cluster("c2")
    make.instance("i1")
    make.instance("i2", cluster="c2", DBInstanceClass="db.t4g.medium")
    one, two = make.describe_instance("i1"), make.describe_instance("i2")

    def names(name: str, *values: str) -> list[str]:
        filters = [{"Name": name, "Values": list(values)}]
        return [
            i["DBInstanceIdentifier"] for i in make.rds.describe_db_instances(Filters=filters)["DBInstances"]
        ]

    assert names("db-cluster-id", "c2") == ["i2"]
    assert names("db-cluster-id", make.describe("c1")["DBClusterArn"]) == ["i1"]
    assert names("db-instance-id", "I1", two["DBInstanceArn"]) == ["i1", "i2"]
    assert names("dbi-resource-id", one["DbiResourceId"]) == ["i1"]
    assert names("engine", "aurora-mysql") == []
    assert make.describe_instance(one["DBInstanceArn"])["DBInstanceIdentifier"] == "i1"
    describe = make.rds.describe_db_instances
    refused(describe, "DBInstanceNotFound", "DBInstance nosuch not found.", DBInstanceIdentifier="nosuch")
    with pytest.raises(make.rds.exceptions.DBInstanceNotFoundFault):
        describe(DBInstanceIdentifier="nosuch")


def test_reboot(region: FakeRegion, make: Maker) -> None:
    make.cluster("c1")
    make.instance("i1")
    reboot = make.rds.reboot_db_instance
    refused(
        reboot,
        "InvalidParameterCombination",
        "FailoverDBCluster",
        DBInstanceIdentifier="i1",
        ForceFailover=True,
    )
    refused(reboot, "DBInstanceNotFound", "i9", DBInstanceIdentifier="i9")
    region.hold()
    assert reboot(DBInstanceIdentifier="i1")["DBInstance"]["DBInstanceStatus"] == "rebooting"
    [instance] = region.store.instances()
    assert instance.reboot is not None
    refused(reboot, "InvalidDBInstanceState", "not in available state", DBInstanceIdentifier="i1")
    region.hold(False)
    make.wait("db_instance_available", DBInstanceIdentifier="i1")


def test_modify_now_and_later(region: FakeRegion, make: Maker) -> None:
    make.cluster("c1")
    make.instance("i1")
    modify = make.rds.modify_db_instance
    later = modify(DBInstanceIdentifier="i1", DBInstanceClass="db.r6g.xlarge")["DBInstance"]
    assert later["DBInstanceStatus"] == "available"
    assert later["PendingModifiedValues"] == {"DBInstanceClass": "db.r6g.xlarge"}
    # Asking for the present class takes the change back.
    assert (
        modify(DBInstanceIdentifier="i1", DBInstanceClass="db.r6g.large")["DBInstance"][
            "PendingModifiedValues"
        ]
        == {}
    )
    region.hold()
    now = modify(DBInstanceIdentifier="i1", DBInstanceClass="db.r6g.2xlarge", ApplyImmediately=True)[
        "DBInstance"
    ]
    assert now["DBInstanceStatus"] == "modifying"
    refused(modify, "InvalidDBInstanceState", "modifying", DBInstanceIdentifier="i1", PromotionTier=2)
    region.hold(False)
    make.wait("db_instance_available", DBInstanceIdentifier="i1")
    assert make.describe_instance("i1")["DBInstanceClass"] == "db.r6g.2xlarge"


def test_modify_what_is_only_stored(make: Maker) -> None:
    make.cluster("c1")
    make.instance("i1")
    changed = make.rds.modify_db_instance(
        DBInstanceIdentifier="i1",
        PromotionTier=0,
        AutoMinorVersionUpgrade=False,
        CopyTagsToSnapshot=True,
        CACertificateIdentifier="rds-ca-ecc384-g1",
        PreferredMaintenanceWindow="Tue:01:00-Tue:01:30",
    )["DBInstance"]
    assert changed["DBInstanceStatus"] == "available"
    assert changed["PromotionTier"] == 0
    assert changed["AutoMinorVersionUpgrade"] is False
    assert changed["CopyTagsToSnapshot"] is True
    assert changed["CACertificateIdentifier"] == "rds-ca-ecc384-g1"
    assert changed["PreferredMaintenanceWindow"] == "tue:01:00-tue:01:30"
    modify = make.rds.modify_db_instance
    refused(
        modify,
        "InvalidParameterCombination",
        "engine version",
        DBInstanceIdentifier="i1",
        EngineVersion="16.7",
    )
    refused(
        modify, "InvalidParameterCombination", "DBPortNumber", DBInstanceIdentifier="i1", DBPortNumber=5555
    )
    refused(
        modify,
        "InvalidParameterCombination",
        "MasterUserPassword",
        DBInstanceIdentifier="i1",
        MasterUserPassword="x",
    )


def test_rename_takes_custom_endpoints_along(make: Maker) -> None:
    make.cluster("c1")
    make.instance("i1")
    make.instance("i2")
    make.rds.create_db_cluster_endpoint(
        DBClusterIdentifier="c1",
        DBClusterEndpointIdentifier="e1",
        EndpointType="ANY",
        StaticMembers=["i1", "i2"],
    )
    modify = make.rds.modify_db_instance
    refused(modify, "DBInstanceAlreadyExists", DBInstanceIdentifier="i1", NewDBInstanceIdentifier="I2")
    changed = modify(DBInstanceIdentifier="i1", NewDBInstanceIdentifier="New-Name", ApplyImmediately=True)
    assert changed["DBInstance"]["DBInstanceStatus"] == "renaming"
    make.appears("new-name")
    make.wait("db_instance_available", DBInstanceIdentifier="new-name")
    renamed = make.describe_instance("new-name")
    assert renamed["DBInstanceArn"].endswith(":db:new-name")
    [endpoint] = make.rds.describe_db_cluster_endpoints(DBClusterEndpointIdentifier="e1")[
        "DBClusterEndpoints"
    ]
    assert endpoint["StaticMembers"] == ["new-name", "i2"]
    make.rds.delete_db_instance(DBInstanceIdentifier="i2")
    [endpoint] = make.rds.describe_db_cluster_endpoints(DBClusterEndpointIdentifier="e1")[
        "DBClusterEndpoints"
    ]
    assert endpoint["StaticMembers"] == ["new-name"]


def test_delete(region: FakeRegion, make: Maker) -> None:
    make.cluster("c1")
    make.instance("i1")
    delete = make.rds.delete_db_instance
    refused(
        delete,
        "InvalidParameterCombination",
        "FinalDBSnapshotIdentifier",
        DBInstanceIdentifier="i1",
        FinalDBSnapshotIdentifier="s",
    )
    region.hold()
    gone = delete(DBInstanceIdentifier="i1", SkipFinalSnapshot=True)["DBInstance"]
    assert gone["DBInstanceStatus"] == "deleting"
    refused(delete, "InvalidDBInstanceState", "already being deleted", DBInstanceIdentifier="i1")
    region.hold(False)
    make.wait("db_instance_deleted", DBInstanceIdentifier="i1")
