"""The demonstration's clusters: made through the AWS API with boto3, or found and used again.

Owns their password file, and the display while they come up.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from borealis.cli.common import CliError, out
from borealis.cli.demo.editions import Edition
from borealis.cli.demo.sessions import SQL_ERRORS, Login, Session
from borealis.paths import RegionPaths
from borealis.region import write_file

INSTANCE_CLASS = "db.r6g.large"
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

    identifier: str
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
            and len(self.members) >= 3
            and all(member.status == "available" for member in self.members)
            and any(member.writer for member in self.members)
        )

    @property
    def writer(self) -> str:
        """The writer's identifier, empty while there is none."""
        return next((member.identifier for member in self.members if member.writer), "")


class DemoCluster:
    """One edition's cluster."""

    def __init__(self, rds: Any, paths: RegionPaths, edition: Edition) -> None:
        self.rds = rds
        self.paths = paths
        self.edition = edition

    def connect(self, host: str, port: int, database: str | None) -> Session:
        """A session at an endpoint."""
        return self.edition.connect(Login(host, port, self.edition.user, self.password(), database))

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
                DBClusterIdentifier=self.edition.cluster,
                Engine=self.edition.engine,
                MasterUsername=self.edition.user,
                MasterUserPassword=self.password(),
                **({"DatabaseName": name} if (name := self.edition.first_database) else {}),
            )
        else:
            self._revive(found, fresh_password)
        present = {member["DBInstanceIdentifier"] for member in (found or {}).get("DBClusterMembers", [])}
        for name in self.edition.instances:
            if name not in present:
                self.rds.create_db_instance(
                    DBInstanceIdentifier=name,
                    DBClusterIdentifier=self.edition.cluster,
                    Engine=self.edition.engine,
                    DBInstanceClass=INSTANCE_CLASS,
                )
        return found is not None

    def _revive(self, found: dict[str, Any], fresh_password: bool) -> None:
        name = self.edition.cluster
        if found["Engine"] != self.edition.engine:
            raise CliError(f"the cluster {name} is of another engine, {found['Engine']}: delete it first")
        if found["Status"] == "deleting":
            raise CliError(f"the cluster {name} is being deleted: try again when it is gone")
        if found["Status"] == "stopped":
            self.rds.start_db_cluster(DBClusterIdentifier=name)
        if fresh_password:
            self.rds.modify_db_cluster(
                DBClusterIdentifier=name, MasterUserPassword=self.password(), ApplyImmediately=True
            )

    def _find(self) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        name = self.edition.cluster
        try:
            return dict(self.rds.describe_db_clusters(DBClusterIdentifier=name)["DBClusters"][0])
        except ClientError as error:
            if error.response["Error"]["Code"] == "DBClusterNotFoundFault":
                return None
            raise

    def look(self) -> Snapshot:
        """What the API says now."""
        cluster = self._find()
        if cluster is None:
            raise CliError(f"the cluster {self.edition.cluster} was deleted meanwhile")
        writers = {
            m["DBInstanceIdentifier"]: m["IsClusterWriter"] for m in cluster.get("DBClusterMembers", [])
        }
        instances = self.rds.describe_db_instances(
            Filters=[{"Name": "db-cluster-id", "Values": [self.edition.cluster]}]
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
            identifier=self.edition.cluster,
            status=cluster["Status"],
            endpoint=cluster.get("Endpoint", ""),
            reader_endpoint=cluster.get("ReaderEndpoint", ""),
            port=cluster["Port"],
            members=tuple(sorted(members, key=lambda member: member.identifier)),
        )

    def answers(self, snapshot: Snapshot) -> bool:
        """Whether each instance answers SQL in its role: after a start of the region that takes a moment."""
        for member in snapshot.members:
            try:
                with self.connect(member.address, snapshot.port, self.edition.first_database) as session:
                    _, is_reader = session.one(self.edition.who)
            except SQL_ERRORS:
                return False
            if bool(is_reader) is member.writer:
                return False
        return True


def wait(clusters: Sequence[DemoCluster]) -> float:
    """Shows the clusters until all of them are ready; returns the seconds it took. Raises CliError."""
    start = time.monotonic()
    snapshots = [cluster.look() for cluster in clusters]
    with Live(
        render(snapshots, 0.0), console=out, refresh_per_second=12, transient=not out.is_terminal
    ) as live:
        while not all(s.ready and c.answers(s) for c, s in zip(clusters, snapshots, strict=True)):
            if time.monotonic() - start > WAIT_SECONDS:
                raise CliError(
                    f"not everything was ready within {WAIT_SECONDS:.0f} s: `borealis status` and "
                    "`borealis logs control` tell why"
                )
            time.sleep(LOOK_SECONDS)
            snapshots = [cluster.look() for cluster in clusters]
            live.update(render(snapshots, time.monotonic() - start))
    if not out.is_terminal:
        out.print(render(snapshots, time.monotonic() - start))
    return time.monotonic() - start


def render(snapshots: Sequence[Snapshot], seconds: float) -> RenderableType:
    """The clusters as a table."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("instance", "zone", "role", "status"):
        table.add_column(heading)
    for snapshot in snapshots:
        for member in snapshot.members:
            role = "writer" if member.writer else ("reader" if member.status == "available" else "")
            table.add_row(member.identifier, member.zone, role, _status(member.status))
        table.add_row(snapshot.identifier, "", "cluster", _status(snapshot.status), end_section=True)
    return Group(table, Text(f"{seconds:.1f} s", style="dim"))


def _status(status: str) -> Text:
    return Text(status, style=_COLOURS.get(status, "yellow"))
