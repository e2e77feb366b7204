"""The unmodified Terraform AWS provider: apply, a plan without drift, a change, destroy."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.api.fake_region import KEY, PASSWORD, REGION, FakeRegion

MIRROR = Path("/opt/tf-plugins")
PROVIDER = MIRROR / "registry.terraform.io/hashicorp/aws"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("terraform") is None, reason="the terraform program is not installed"),
    pytest.mark.skipif(
        not PROVIDER.is_dir(), reason=f"there is no mirror of the hashicorp/aws provider in {MIRROR}"
    ),
]

_CONFIGURATION = """
terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

provider "aws" {
  region     = "%(region)s"
  access_key = "%(key)s"
  secret_key = "%(secret)s"
  endpoints {
    rds = "%(url)s"
    sts = "%(url)s"
  }
}

variable "retention" { default = 3 }

resource "aws_rds_cluster" "main" {
  cluster_identifier              = "tf-cluster"
  engine                          = "aurora-postgresql"
  engine_version                  = "15"
  database_name                   = "orders"
  master_username                 = "postgres"
  master_password                 = "%(password)s"
  backup_retention_period         = var.retention
  preferred_backup_window         = "02:00-03:00"
  preferred_maintenance_window    = "sun:05:00-sun:06:00"
  copy_tags_to_snapshot           = true
  skip_final_snapshot             = true
  apply_immediately               = true
  serverlessv2_scaling_configuration {
    min_capacity = 0.5
    max_capacity = 4
  }
  tags = { team = "storage" }
}

resource "aws_rds_cluster_instance" "member" {
  count              = 2
  identifier         = "tf-instance-${count.index}"
  cluster_identifier = aws_rds_cluster.main.id
  engine             = aws_rds_cluster.main.engine
  engine_version     = aws_rds_cluster.main.engine_version
  instance_class     = count.index == 0 ? "db.r6g.large" : "db.serverless"
  promotion_tier     = count.index
  apply_immediately  = true
  tags = { number = tostring(count.index) }
}

resource "aws_rds_cluster_endpoint" "analytics" {
  cluster_identifier          = aws_rds_cluster.main.id
  cluster_endpoint_identifier = "tf-analytics"
  custom_endpoint_type        = "READER"
  static_members              = [aws_rds_cluster_instance.member[1].id]
}
"""


class Terraform:
    def __init__(self, folder: Path, region: FakeRegion) -> None:
        self._folder = folder
        values = {
            "region": REGION,
            "key": KEY.access_key_id,
            "secret": KEY.secret_access_key,
            "url": region.server.url,
            "password": PASSWORD,
        }
        (folder / "main.tf").write_text(_CONFIGURATION % values)
        settings = folder / "terraform.rc"
        settings.write_text(f'provider_installation {{\n  filesystem_mirror {{ path = "{MIRROR}" }}\n}}\n')
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TF_CLI_CONFIG_FILE": str(settings),
            "TF_IN_AUTOMATION": "1",
            "CHECKPOINT_DISABLE": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def run(self, *arguments: str, expected: int = 0) -> str:
        done = subprocess.run(
            ["terraform", *arguments],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == expected, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout


@pytest.mark.timeout(900)
def test_terraform(tmp_path: Path, region: FakeRegion) -> None:
    folder = tmp_path / "terraform"
    folder.mkdir()
    terraform = Terraform(folder, region)
    terraform.run("init", "-no-color")
    terraform.run("apply", "-auto-approve", "-no-color")
    names = [cluster.identifier for cluster in region.store.clusters()]
    assert names == ["tf-cluster"]
    # Exit code 0 of -detailed-exitcode: nothing to change.
    terraform.run("plan", "-detailed-exitcode", "-no-color")
    terraform.run("apply", "-auto-approve", "-no-color", "-var=retention=5")
    assert region.store.clusters()[0].backup_retention_period == 5
    terraform.run("plan", "-detailed-exitcode", "-no-color", "-var=retention=5")
    terraform.run("destroy", "-auto-approve", "-no-color")
    assert region.store.clusters() == []
    assert region.store.instances() == []
