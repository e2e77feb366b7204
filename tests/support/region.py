"""A whole region for a test: its own folder, port and processes, driven by the command line and boto3.

Owns the region's folder and sees to it that nothing of it is left. Never reaches into Borealis' code: what
a user can do, it does.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.support import processes
from tests.support.editions import POSTGRESQL, Edition, Row, Target, postgres_target
from tests.support.load import Load

BOREALIS = Path(sys.executable).parent / "borealis"
PASSWORD = "Aurora-Test-" + secrets.token_hex(6)
WAIT = {"Delay": 1, "MaxAttempts": 180}
DATABASE = "app"


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Cluster:
    """A DB cluster of a test, seen through the API and SQL."""

    region: Region
    identifier: str
    edition: Edition = POSTGRESQL

    def describe(self) -> dict[str, Any]:
        """DescribeDBClusters for this one."""
        found = self.region.rds.describe_db_clusters(DBClusterIdentifier=self.identifier)
        return dict(found["DBClusters"][0])

    @property
    def endpoint(self) -> Target:
        """The writer endpoint."""
        return self.at(str(self.describe()["Endpoint"]))

    @property
    def reader_endpoint(self) -> Target:
        """The reader endpoint."""
        return self.at(str(self.describe()["ReaderEndpoint"]))

    def instance(self, identifier: str) -> Target:
        """The endpoint of an instance."""
        found = self.region.rds.describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"][0]
        return self.at(str(found["Endpoint"]["Address"]))

    def at(self, host: str) -> Target:
        """One of the cluster's endpoints by its name or address."""
        port = int(self.describe()["Port"])
        return Target(self.edition, host, port, self.edition.user, DATABASE, PASSWORD)

    def load(self, clients: int = 4) -> Load:
        """Writers at the writer endpoint."""
        return Load(self.endpoint, clients)

    def conninfo(self, host: str | None = None) -> str:
        """For clients of libpq: the writer endpoint, or `host`."""
        about = self.describe()
        return (
            f"host={host or about['Endpoint']} port={about['Port']} user={self.edition.user} "
            f"password={PASSWORD} dbname={DATABASE} application_name=test"
        )

    def reader_conninfo(self) -> str:
        """For clients of libpq: the reader endpoint."""
        return self.conninfo(self.describe()["ReaderEndpoint"])

    def instance_conninfo(self, identifier: str) -> str:
        """For clients of libpq: an instance endpoint."""
        return self.conninfo(self.instance(identifier).host)

    def members(self) -> dict[str, bool]:
        """Instance identifiers, and whether each is the writer."""
        return {m["DBInstanceIdentifier"]: m["IsClusterWriter"] for m in self.describe()["DBClusterMembers"]}

    @property
    def writer(self) -> str:
        """Identifier of the writer instance."""
        return next(name for name, is_writer in self.members().items() if is_writer)

    @property
    def readers(self) -> list[str]:
        """Identifiers of the readers."""
        return sorted(name for name, is_writer in self.members().items() if not is_writer)

    def sql(
        self, statement: str, at: Target | str | None = None, parameters: Sequence[object] | None = None
    ) -> list[Row]:
        """Run one statement in its own session (the writer endpoint's, unless told) and give its rows."""
        target = postgres_target(at) if isinstance(at, str) else at
        return (target or self.endpoint).sql(statement, parameters)

    def answers(self, question: Callable[[], bool]) -> bool:
        """Whether the answer is yes; no, too, while an instance is on its way back and refuses clients."""
        try:
            return question()
        except (self.edition.Error, OSError):
            return False

    def who(self, at: Target) -> str:
        """Which instance answers there."""
        return str(at.sql(self.edition.who)[0][0])

    def is_reader(self, at: Target) -> bool:
        """Whether the instance that answers there is a reader."""
        with at.connect() as session:
            return self.edition.is_reader(session)

    def status(self) -> dict[str, Any]:
        """What `borealis status` knows of this cluster."""
        return next(c for c in self.region.status()["clusters"] if c["identifier"] == self.identifier)

    def instance_status(self, identifier: str) -> dict[str, Any]:
        """What `borealis status` knows of one instance."""
        return next(i for i in self.status()["instances"] if i["identifier"] == identifier)

    def data_directory(self, identifier: str) -> Path:
        """Folder of the instance's engine."""
        return self.region.data / "instances" / self.instance_status(identifier)["incarnation"] / "data"

    def main_process(self, identifier: str) -> int:
        """Pid of the instance's engine: of its processes the one that started the others."""
        pids = self.engine_processes(identifier)
        return next(pid for pid in pids if processes.parent(pid) not in pids)

    def engine_processes(self, identifier: str) -> list[int]:
        """Pids of the instance's engine and its children."""
        return processes.working_in(self.data_directory(identifier))

    def driver_processes(self, identifier: str) -> list[int]:
        """Pids of the instance's driver."""
        incarnation = self.instance_status(identifier)["incarnation"]
        return processes.find("borealis.volume.driver", f"{self.region.data}/instances/{incarnation}/")

    def add_instance(self, identifier: str, wait: bool = True, **more: Any) -> None:
        """CreateDBInstance."""
        self.region.rds.create_db_instance(
            DBInstanceIdentifier=identifier,
            DBClusterIdentifier=self.identifier,
            Engine=self.edition.engine,
            DBInstanceClass=more.pop("DBInstanceClass", "db.r6g.large"),
            **more,
        )
        if wait:
            self.wait_instance(identifier)

    def wait_instance(self, identifier: str) -> None:
        """Wait until the API calls the instance available."""
        waiter = self.region.rds.get_waiter("db_instance_available")
        waiter.wait(DBInstanceIdentifier=identifier, WaiterConfig=WAIT)

    def wait_healthy(self, timeout: float = 60) -> None:
        """Wait until cluster and instances are available, serve, and are where endpoints lead."""

        def healthy() -> bool:
            about = self.status()
            instances = about["instances"]
            roles = sorted(str(i["role"]) for i in instances)
            return (
                about["status"] == "available"
                and about["endpoints_current"]
                and all(i["status"] == "available" and i["serving"] for i in instances)
                and roles.count("writer") == min(1, len(instances))
                and all(role in ("reader", "writer") for role in roles)
            )

        processes.wait_until(healthy, timeout, f"{self.identifier} healthy", 0.1)

    def delete(self) -> None:
        """Delete the instances and the cluster, and wait until they are gone."""
        for name in self.members():
            self.region.rds.delete_db_instance(DBInstanceIdentifier=name, SkipFinalSnapshot=True)
        for name in self.members():
            waiter = self.region.rds.get_waiter("db_instance_deleted")
            waiter.wait(DBInstanceIdentifier=name, WaiterConfig=WAIT)
        self.region.rds.delete_db_cluster(DBClusterIdentifier=self.identifier, SkipFinalSnapshot=True)
        waiter = self.region.rds.get_waiter("db_cluster_deleted")
        waiter.wait(DBClusterIdentifier=self.identifier, WaiterConfig=WAIT)


class Region:
    """`borealis up --detach` in a folder of its own."""

    def __init__(self, **env: str) -> None:
        self.data = Path(tempfile.mkdtemp(prefix="bor-", dir="/tmp"))
        self.data.chmod(0o711)
        self.port = free_port()
        self.extra_env = env
        self._made = 0

    # -- life ---------------------------------------------------------------------------------
    def up(self, *arguments: str) -> Region:
        """Start the region and read its credentials."""
        self.borealis("up", "--detach", "--port", str(self.port), *arguments)
        return self

    def down(self) -> None:
        """`borealis down`, then see that no process and no file is left."""
        self.borealis("down")
        left = [line for _, line in processes.command_lines() if str(self.data) in line]
        assert not left, f"processes left behind: {left}"
        assert not processes.working_in(self.data), "processes still work in the region's folder"
        assert str(self.data) not in Path("/etc/hosts").read_text(), "a block is left in the hosts file"

    def destroy(self) -> None:
        """Last resort of a failed test: kill what is left by pid, and remove the folder."""
        for _ in range(3):
            pids = [pid for pid, line in processes.command_lines() if str(self.data) in line]
            processes.send(
                [p for p in pids + processes.working_in(self.data) if p != os.getpid()], signal.SIGKILL
            )
        shutil.rmtree(self.data, ignore_errors=True)

    # -- ways in --------------------------------------------------------------------------------
    def borealis(
        self, *arguments: str, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line on this region."""
        env = {**os.environ, "BOREALIS_DATA": str(self.data), **self.extra_env}
        done = subprocess.run(
            [str(BOREALIS), *arguments], capture_output=True, text=True, env=env, timeout=timeout
        )
        assert not check or done.returncode == 0, (
            f"borealis {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
        )
        return done

    def status(self) -> dict[str, Any]:
        """`borealis status --json`."""
        return dict(json.loads(self.borealis("status", "--json").stdout))

    def environment(self) -> dict[str, str]:
        """What `borealis env` exports, as a mapping."""
        lines = self.borealis("env").stdout.splitlines()
        exports = [line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export ")]
        return {name: value.strip("'\"") for name, value in exports}

    def client(self, service: str) -> Any:
        """A stock boto3 client that points here."""
        env = self.environment()
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=env["AWS_ENDPOINT_URL"],
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            region_name=env["AWS_DEFAULT_REGION"],
            config=Config(retries={"total_max_attempts": 10, "mode": "standard"}),
        )

    @property
    def rds(self) -> Any:
        """The region's rds client."""
        if not hasattr(self, "_rds"):
            self._rds = self.client("rds")
        return self._rds

    def create_cluster(
        self,
        readers: int = 2,
        instance_class: str = "db.r6g.large",
        edition: Edition = POSTGRESQL,
        **more: Any,
    ) -> Cluster:
        """A cluster with one writer and `readers` readers, all available, one per AZ as far as they go."""
        self._made += 1
        identifier = more.pop("DBClusterIdentifier", f"c{self._made}")
        self.rds.create_db_cluster(
            DBClusterIdentifier=identifier,
            Engine=edition.engine,
            MasterUsername=edition.user,
            MasterUserPassword=PASSWORD,
            DatabaseName=DATABASE,
            **more,
        )
        cluster = Cluster(self, identifier, edition)
        for n in range(readers + 1):
            cluster.add_instance(f"{identifier}-{n + 1}", wait=False, DBInstanceClass=instance_class)
        for n in range(readers + 1):
            cluster.wait_instance(f"{identifier}-{n + 1}")
        cluster.wait_healthy()
        return cluster

    # -- storage nodes ------------------------------------------------------------------------------
    def node_processes(self, node: str) -> list[int]:
        """Pids of a storage node."""
        return processes.find("borealis.storage.main", f"--node-id {node} ", str(self.data))

    def signal_nodes(self, sig: signal.Signals, *nodes: str) -> None:
        """Send a signal to storage nodes."""
        for node in nodes:
            pids = self.node_processes(node)
            assert pids, f"storage node {node} does not run"
            processes.send(pids, sig)

    def unexpected_log_lines(self, allowed: tuple[str, ...]) -> list[str]:
        """Error lines in the logs of our own processes that no test has declared harmless."""
        found = []
        for log in sorted((self.data / "log").glob("*.log")):
            if log.name.startswith(("engine", "haproxy", "proxy")):
                continue
            telling = False
            for line in log.read_text(errors="replace").splitlines():
                if telling and not line[:4].isdigit():
                    found.append(f"    {line}")  # of a traceback
                    continue
                loud = " ERROR " in line or " CRITICAL " in line or line.startswith("Traceback")
                telling = loud and not any(text in line for text in allowed)
                if telling:
                    found.append(f"{log.name}: {line}")
        return found
