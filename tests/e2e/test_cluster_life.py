"""Changes of a cluster over its life: stop and start, reboot, resize, readers added and removed,
rename, deletion.
"""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from tests.support.editions import Edition, series
from tests.support.processes import wait_until
from tests.support.region import WAIT, Cluster, Region


@pytest.fixture(scope="module")
def cluster(region: Region, edition: Edition) -> Cluster:
    return region.create_cluster(readers=1, instance_class="db.t3.medium", edition=edition)


def wait_cluster(cluster: Cluster, status: str) -> None:
    wait_until(lambda: cluster.describe()["Status"] == status, 60, f"cluster status {status}", 0.1)


def test_reader_endpoint_falls_back_to_the_writer(region: Region, edition: Edition) -> None:
    alone = region.create_cluster(readers=0, edition=edition)
    assert not alone.is_reader(alone.reader_endpoint)
    alone.delete()
    with pytest.raises(ClientError, match="DBClusterNotFoundFault"):
        alone.describe()


def test_stop_and_start_keep_every_row(region: Region, cluster: Cluster, edition: Edition) -> None:
    cluster.sql("CREATE TABLE kept (n int)")
    cluster.sql(f"INSERT INTO kept {series(1000)}")
    region.rds.stop_db_cluster(DBClusterIdentifier=cluster.identifier)
    wait_cluster(cluster, "stopped")
    with pytest.raises(edition.Error):
        cluster.sql("SELECT 1")
    with pytest.raises(ClientError, match="InvalidDBClusterStateFault"):
        region.rds.stop_db_cluster(DBClusterIdentifier=cluster.identifier)
    region.rds.start_db_cluster(DBClusterIdentifier=cluster.identifier)
    wait_cluster(cluster, "available")
    cluster.wait_healthy()
    assert cluster.sql("SELECT count(*) FROM kept") == [(1000,)]


@pytest.mark.parametrize("role", ["reader", "writer"])
def test_reboot(region: Region, cluster: Cluster, role: str) -> None:
    name = cluster.writer if role == "writer" else cluster.readers[0]
    before = cluster.main_process(name)
    region.rds.reboot_db_instance(DBInstanceIdentifier=name)
    cluster.wait_instance(name)
    cluster.wait_healthy()
    assert cluster.main_process(name) != before
    assert cluster.sql("SELECT count(*) FROM kept") == [(1000,)]


def test_a_larger_class_gets_more_connections(region: Region, cluster: Cluster, edition: Edition) -> None:
    name = cluster.readers[0]
    [(before,)] = cluster.instance(name).sql(edition.max_connections)
    region.rds.modify_db_instance(
        DBInstanceIdentifier=name, DBInstanceClass="db.r6g.2xlarge", ApplyImmediately=True
    )

    def resized() -> bool:
        found = region.rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]
        return found["DBInstanceClass"] == "db.r6g.2xlarge" and found["DBInstanceStatus"] == "available"

    wait_until(resized, 60, "the new class", 0.1)
    cluster.wait_healthy()
    assert cluster.instance(name).sql(edition.max_connections)[0][0] > before


def test_a_reader_joins_and_leaves(region: Region, cluster: Cluster) -> None:
    late = f"{cluster.identifier}-late"
    cluster.add_instance(late)
    cluster.wait_healthy()
    assert cluster.instance(late).sql("SELECT count(*) FROM kept") == [(1000,)]
    region.rds.delete_db_instance(DBInstanceIdentifier=late, SkipFinalSnapshot=True)
    region.rds.get_waiter("db_instance_deleted").wait(DBInstanceIdentifier=late, WaiterConfig=WAIT)
    assert late not in cluster.members()


def test_bad_requests_get_the_codes_of_aws(region: Region, cluster: Cluster, edition: Edition) -> None:
    rds = region.rds
    with pytest.raises(ClientError, match="DBClusterAlreadyExistsFault"):
        rds.create_db_cluster(
            DBClusterIdentifier=cluster.identifier,
            Engine=edition.engine,
            MasterUsername=edition.user,
            MasterUserPassword="Long-Enough-1",
        )
    with pytest.raises(ClientError, match="DBClusterNotFoundFault"):
        rds.create_db_instance(
            DBInstanceIdentifier="x",
            DBClusterIdentifier="nowhere",
            Engine=edition.engine,
            DBInstanceClass="db.r6g.large",
        )
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        rds.create_db_cluster(
            DBClusterIdentifier="bad--name",
            Engine=edition.engine,
            MasterUsername=edition.user,
            MasterUserPassword="Long-Enough-1",
        )
    with pytest.raises(ClientError, match="InvalidDBClusterStateFault"):
        rds.delete_db_cluster(DBClusterIdentifier=cluster.identifier, SkipFinalSnapshot=True)
    with pytest.raises(ClientError, match="RestoreDBClusterFromS3"):
        rds.restore_db_cluster_from_s3(
            DBClusterIdentifier="y",
            Engine=edition.engine,
            MasterUsername=edition.user,
            SourceEngine="mysql",
            SourceEngineVersion="8",
            S3BucketName="b",
            S3IngestionRoleArn="arn:aws:iam::123456789012:role/r",
        )
