"""The unmodified aws CLI against the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api.fake_region import ENGINE, PASSWORD, FakeRegion

AWS = Path(sys.executable).parent / "aws"

pytestmark = pytest.mark.skipif(not AWS.exists(), reason="the aws CLI is not installed beside Python")


def aws(region: FakeRegion, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **region.environment()}
    # Version 1 of the CLI does not look at AWS_ENDPOINT_URL for rds in us-east-1, only at the option.
    command = [str(AWS), "--endpoint-url", region.server.url, "--output", "json", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def answer(region: FakeRegion, *arguments: str) -> Any:
    done = aws(region, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else None


def test_a_cluster_by_command_line(region: FakeRegion) -> None:
    assert answer(region, "sts", "get-caller-identity")["Account"] == "123456789012"
    created = answer(
        region,
        *("rds", "create-db-cluster", "--db-cluster-identifier", "cli", "--engine", ENGINE),
        *("--master-username", "postgres", "--master-user-password", PASSWORD),
        *("--serverless-v2-scaling-configuration", "MinCapacity=0.5,MaxCapacity=2"),
        *("--no-deletion-protection", "--tags", "Key=a,Value=b c"),
    )
    assert created["DBCluster"]["Status"] == "creating"
    answer(
        region,
        *("rds", "create-db-instance", "--db-instance-identifier", "one", "--db-cluster-identifier", "cli"),
        *("--engine", ENGINE, "--db-instance-class", "db.serverless"),
    )
    answer(region, "rds", "wait", "db-instance-available", "--db-instance-identifier", "one")
    by_engine = f"Name=engine,Values={ENGINE}"
    [cluster] = answer(region, "rds", "describe-db-clusters", "--filters", by_engine)["DBClusters"]
    assert cluster["ServerlessV2ScalingConfiguration"] == {"MinCapacity": 0.5, "MaxCapacity": 2.0}
    assert cluster["TagList"] == [{"Key": "a", "Value": "b c"}]
    options = answer(
        region, "rds", "describe-orderable-db-instance-options", "--engine", ENGINE, "--page-size", "100"
    )
    assert len(options["OrderableDBInstanceOptions"]) > 150
    deletion = ("rds", "delete-db-cluster", "--db-cluster-identifier", "cli", "--skip-final-snapshot")
    refused = aws(region, *deletion)
    assert refused.returncode != 0
    assert "InvalidDBClusterStateFault" in refused.stderr
    later = aws(region, "rds", "describe-db-proxies")
    assert "rds:DescribeDBProxies is not implemented by Borealis yet" in later.stderr
