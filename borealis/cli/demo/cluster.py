"""The demonstration's cluster: made through the AWS API with boto3, or found and used again.

Owns the cluster's and instances' names, its password file, and the display while it comes up.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from borealis.cli.common import CliError, out
from borealis.cli.connect import DEMO_CLUSTER
from borealis.paths import RegionPaths
from borealis.region import write_file

ENGINE = "aurora-postgresql"
INSTANCE_CLASS = "db.r6g.large"
INSTANCES = tuple(f"{DEMO_CLUSTER}-{number}" for number in (1, 2, 3))
USER = "postgres"
DATABASE = "ecommerce"
WAIT_SECONDS = 180.0
LOOK_SECONDS = 0.15

_COLOURS = {"available": "green", "creating": "yellow", "failed": "red", "deleting": "red"}


@dataclass(frozen=True, slots=True)
class Member:
    """An instance as the API shows it."""

    identifier: str
    zone: str
    status: str
    writer: bool
    address: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster as the API shows it at one moment."""

    status: str
    endpoint: str
    reader_endpoint: str
    port: int
    members: tuple[Member, ...]

    @property
    def ready(self) -> bool:
        """Whether the cluster and all its instances are available and one of them is the writer."""
        return (
            self.status == "available"
            and len(self.members) >= len(INSTANCES)
            and all(member.status == "available" for member in self.members)
            and any(member.writer for member in self.members)
        )

    @property
    def writer(self) -> str:
        """The writer's identifier, empty while there is none."""
        return next((member.identifier for member in self.members if member.writer), "")


class DemoCluster:
    """The cluster `orders-demo`."""

    def __init__(self, rds: Any, paths: RegionPaths) -> None:
        self.rds = rds
        self.paths = paths

    def conninfo(self, host: str) -> str:
        """How to connect to an endpoint."""
        import psycopg.conninfo

        return psycopg.conninfo.make_conninfo(
            host=host,
            port=self.look().port,
            user=USER,
            password=self.password(),
            dbname=DATABASE,
            application_name="borealis-demo",
            connect_timeout=10,
        )

    def password(self) -> str:
        """The generated master password."""
        return self.paths.demo_password.read_text().strip()

    def ensure(self) -> bool:
        """Asks for the cluster and three instances, those that are not there. True: it was there already."""
        fresh_password = not self.paths.demo_password.exists()
        if fresh_password:
            write_file(self.paths.demo_password, secrets.token_urlsafe(18).encode() + b"\n")
        found = self._find()
        if found is None:
            self.rds.create_db_cluster(
                DBClusterIdentifier=DEMO_CLUSTER,
                Engine=ENGINE,
                MasterUsername=USER,
                MasterUserPassword=self.password(),
                DatabaseName=DATABASE,
            )
        else:
            self._revive(found, fresh_password)
        present = {member["DBInstanceIdentifier"] for member in (found or {}).get("DBClusterMembers", [])}
        for name in INSTANCES:
            if name not in present:
                self.rds.create_db_instance(
                    DBInstanceIdentifier=name,
                    DBClusterIdentifier=DEMO_CLUSTER,
                    Engine=ENGINE,
                    DBInstanceClass=INSTANCE_CLASS,
                )
        return found is not None

    def _revive(self, found: dict[str, Any], fresh_password: bool) -> None:
        if found["Engine"] != ENGINE:
            raise CliError(
                f"the cluster {DEMO_CLUSTER} is of another engine, {found['Engine']}: delete it first"
            )
        if found["Status"] == "deleting":
            raise CliError(f"the cluster {DEMO_CLUSTER} is being deleted: try again when it is gone")
        if found["Status"] == "stopped":
            self.rds.start_db_cluster(DBClusterIdentifier=DEMO_CLUSTER)
        if fresh_password:
            self.rds.modify_db_cluster(
                DBClusterIdentifier=DEMO_CLUSTER, MasterUserPassword=self.password(), ApplyImmediately=True
            )

    def _find(self) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        try:
            return dict(self.rds.describe_db_clusters(DBClusterIdentifier=DEMO_CLUSTER)["DBClusters"][0])
        except ClientError as error:
            if error.response["Error"]["Code"] == "DBClusterNotFoundFault":
                return None
            raise

    def look(self) -> Snapshot:
        """What the API says now."""
        cluster = self._find()
        if cluster is None:
            raise CliError(f"the cluster {DEMO_CLUSTER} was deleted meanwhile")
        writers = {
            m["DBInstanceIdentifier"]: m["IsClusterWriter"] for m in cluster.get("DBClusterMembers", [])
        }
        instances = self.rds.describe_db_instances(
            Filters=[{"Name": "db-cluster-id", "Values": [DEMO_CLUSTER]}]
        )
        members = (
            Member(
                identifier=found["DBInstanceIdentifier"],
                zone=found.get("AvailabilityZone", ""),
                status=found["DBInstanceStatus"],
                writer=writers.get(found["DBInstanceIdentifier"], False),
                address=found.get("Endpoint", {}).get("Address", ""),
            )
            for found in instances["DBInstances"]
        )
        return Snapshot(
            status=cluster["Status"],
            endpoint=cluster.get("Endpoint", ""),
            reader_endpoint=cluster.get("ReaderEndpoint", ""),
            port=cluster["Port"],
            members=tuple(sorted(members, key=lambda member: member.identifier)),
        )

    def answers(self, snapshot: Snapshot) -> bool:
        """Whether each instance answers SQL in its role: after a start of the region that takes a moment."""
        import psycopg

        for member in snapshot.members:
            try:
                with psycopg.connect(self.conninfo(member.address)) as connection:
                    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
            except psycopg.OperationalError:
                return False
            if row is None or row[0] is member.writer:
                return False
        return True

    def wait(self) -> tuple[Snapshot, float]:
        """Shows the cluster until it is ready; returns it and the seconds it took. Raises CliError."""
        start = time.monotonic()
        snapshot = self.look()
        with Live(
            render(snapshot, 0.0), console=out, refresh_per_second=12, transient=not out.is_terminal
        ) as live:
            while not (snapshot.ready and self.answers(snapshot)):
                took = time.monotonic() - start
                if took > WAIT_SECONDS:
                    raise CliError(
                        f"the cluster was not ready within {WAIT_SECONDS:.0f} s: `borealis status` and "
                        "`borealis logs control` tell why"
                    )
                time.sleep(LOOK_SECONDS)
                snapshot = self.look()
                live.update(render(snapshot, time.monotonic() - start))
        if not out.is_terminal:
            out.print(render(snapshot, time.monotonic() - start))
        return snapshot, time.monotonic() - start


def render(snapshot: Snapshot, seconds: float) -> RenderableType:
    """The cluster as a table."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("instance", "zone", "role", "status"):
        table.add_column(heading)
    for member in snapshot.members:
        role = "writer" if member.writer else ("reader" if member.status == "available" else "")
        table.add_row(member.identifier, member.zone, role, _status(member.status))
    table.add_row(DEMO_CLUSTER, "", "cluster", _status(snapshot.status), end_section=True)
    table.caption = f"{seconds:.1f} s"
    table.caption_justify = "left"
    return table


def _status(status: str) -> Text:
    return Text(status, style=_COLOURS.get(status, "yellow"))
