"""The typed records of the control plane: what the user asked for and what was found to be so.

Owns the shape of every stored thing. Records are immutable: a change is a new record made with `but(...)` and
committed through `control.store`, which checks that nobody else changed it meanwhile. No I/O in here.

FORMAT: each record is one JSON object (msgspec) in the `records` table of control.sqlite. Fields may be added
with a default; none is ever given a new meaning. Passwords are never stored: only the engine's verifiers are.
"""

from __future__ import annotations

import secrets
import string
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar, Self

import msgspec

from borealis.control.states import ClusterStatus, EndpointStatus, InstanceStatus, Want


def now_utc() -> datetime:
    """The time now, with its zone, as all records keep it."""
    return datetime.now(UTC)


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """An immutable piece of a record."""

    def but(self, **changes: Any) -> Self:
        """A copy with these fields changed."""
        return msgspec.structs.replace(self, **changes)


class Record(Part, frozen=True, kw_only=True):
    """A stored thing. `version` is the store's: 0 before the first commit, one more with every commit."""

    KIND: ClassVar[str] = ""

    version: int = 0

    @property
    def key(self) -> str:
        """The unchanging id of this record within its kind."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """The name that must be unique within the kind (what the user calls it; may change)."""
        return self.key


class ServerlessV2(Part, frozen=True, kw_only=True):
    """Capacity range in ACU, and after how many idle seconds to pause (None: never)."""

    min_capacity: float
    max_capacity: float
    seconds_until_auto_pause: int | None = None


class FailoverRequest(Part, frozen=True, kw_only=True):
    """A failover that a user asked for; None as target means the best reader."""

    target: str | None  # instance key
    requested_at: datetime


class Opening(Part, frozen=True, kw_only=True):
    """A try to open the volume at new terms; stored before the driver is asked: a restart can finish it.

    Invariant: term2 = term1 + 1, both taken from the store's counter, used by no other try.
    """

    instance: str  # instance key
    incarnation: str
    term1: int
    term2: int
    started_at: datetime
    previous_writer: str | None = None  # instance key of the writer before


class Image(Part, frozen=True, kw_only=True):
    """A packed data directory from which an instance may start, complete up to `lsn`."""

    name: str  # blob name on the nodes
    lsn: int
    timeline: int
    created_at: datetime
    nodes: tuple[str, ...] = ()  # which hold it


class ImageJob(Part, frozen=True, kw_only=True):
    """A hidden instance at work on the next image."""

    incarnation: str
    started_at: datetime
    server_number: int = 0  # as in `Incarnation`


class NodeNoted(Part, frozen=True, kw_only=True):
    """What events have told of a volume's segment on one node."""

    damaged: int = 0  # how many damages, as its node counts them since its start
    trouble: str = ""  # why it takes no log; "": it does


class Volume(Part, frozen=True, kw_only=True):
    """The cluster's volume as control knows it."""

    id: str
    system_id: str = ""
    seeded: bool = False  # the first log bytes and the first image are on a write quorum
    start_lsn: int = 0
    term: int = 0  # the highest term ever handed out for it
    writer_term: int = 0  # the term that the present writer holds
    writer_incarnation: str = ""  # which life of the cluster's writer instance holds it
    timeline: int = 1
    servers: int = 0  # the highest server number ever handed out for it
    images: tuple[Image, ...] = ()
    image_job: ImageJob | None = None
    noted: dict[str, NodeNoted] = {}  # by node id
    tried: bool = False  # a creation under this id was begun
    garbage: tuple[str, ...] = ()  # volume ids of attempts that came to nothing, still to be dropped


class EndpointAddresses(Part, frozen=True, kw_only=True):
    """The loopback addresses of the cluster's own endpoints; empty until allocated."""

    writer: str = ""
    reader: str = ""


class ClusterPending(Part, frozen=True, kw_only=True):
    """Asked-for changes that are not in effect yet; shown as PendingModifiedValues."""

    engine_version: str | None = None
    master_verifier: str | None = None
    identifier: str | None = None
    port: int | None = None

    def __bool__(self) -> bool:
        return any(getattr(self, field) is not None for field in self.__struct_fields__)


class Cluster(Record, frozen=True, kw_only=True):
    """A DB cluster. `key` is its resource id; `identifier` is the name, and may be changed."""

    KIND: ClassVar[str] = "cluster"

    resource_id: str
    identifier: str
    arn: str
    engine: str
    engine_version: str
    port: int
    master_username: str
    master_verifier: str = ""
    # What the writer has been told; the reconciler sets it to master_verifier once the engine knows it.
    applied_verifier: str = ""
    database_name: str = ""
    status: ClusterStatus = ClusterStatus.CREATING
    status_reason: str = ""
    want: Want = Want.RUNNING
    created_at: datetime = msgspec.field(default_factory=now_utc)

    subnet_group: str = "default"
    availability_zones: tuple[str, ...] = ()
    backup_retention_period: int = 1
    preferred_backup_window: str = ""
    preferred_maintenance_window: str = ""
    deletion_protection: bool = False
    copy_tags_to_snapshot: bool = False
    iam_auth: bool = False
    storage_encrypted: bool = False
    kms_key_id: str = ""
    storage_type: str = ""  # "" is aurora, or "aurora-iopt1"
    serverless_v2: ServerlessV2 | None = None
    parameter_group: str = ""
    vpc_security_groups: tuple[str, ...] = ()
    network_type: str = "IPV4"
    engine_mode: str = "provisioned"
    engine_lifecycle_support: str = "open-source-rds-extended-support"
    auto_minor_version_upgrade: bool = True
    http_endpoint: bool = False
    enabled_log_exports: tuple[str, ...] = ()
    performance_insights: bool = False
    performance_insights_retention_days: int = 0
    database_insights_mode: str = "standard"
    monitoring_interval: int = 0
    monitoring_role_arn: str = ""
    ca_certificate_identifier: str = ""
    tags: dict[str, str] = {}

    hash12: str = ""  # the <xyz> of the endpoint names
    addresses: EndpointAddresses = EndpointAddresses()
    volume: Volume
    writer: str | None = None  # instance key of the writer, None while there is none
    opening: Opening | None = None
    failover: FailoverRequest | None = None
    failed_attempts: int = 0  # openings that failed in a row; after five the promotion tiers are ignored
    pending: ClusterPending = ClusterPending()
    apply_pending: bool = False  # apply `pending` now, not in the maintenance window
    last_stopped_at: datetime | None = None

    @property
    def key(self) -> str:
        return self.resource_id

    @property
    def name(self) -> str:
        return self.identifier


class IncarnationPhase(StrEnum):
    """How far an incarnation has come. After a restart of control each phase is simply done again."""

    PREPARING = "preparing"  # its directory is being made: nothing in it may be trusted yet
    STARTING = "starting"  # driver and engine are being started and are catching up
    SERVING = "serving"  # it follows the volume, or writes to it


class Incarnation(Part, frozen=True, kw_only=True):
    """One life of an instance: its own directory, driver and engine. Not used again after an unclean end."""

    id: str
    phase: IncarnationPhase = IncarnationPhase.PREPARING
    image_lsn: int = 0
    instance_class: str = ""  # the class that the engine was started with
    cluster_classes: tuple[str, ...] = ()  # those that its settings were made for
    engine_version: str = ""
    port: int = 0
    server_number: int = 0  # the volume's log names its writers by it: no two lives on one volume share it
    boot_id: str = ""  # a directory made before the machine's last start is not trusted
    created_at: datetime = msgspec.field(default_factory=now_utc)


class InstancePending(Part, frozen=True, kw_only=True):
    """Asked-for changes of an instance that are not in effect yet; shown as PendingModifiedValues."""

    instance_class: str | None = None
    engine_version: str | None = None
    identifier: str | None = None
    ca_certificate_identifier: str | None = None

    def __bool__(self) -> bool:
        return any(getattr(self, field) is not None for field in self.__struct_fields__)


class RebootRequest(Part, frozen=True, kw_only=True):
    """A reboot that a user asked for."""

    requested_at: datetime
    force_failover: bool = False


class Instance(Record, frozen=True, kw_only=True):
    """A DB instance. `key` is its resource id; `cluster` is the key of its cluster."""

    KIND: ClassVar[str] = "instance"

    resource_id: str
    identifier: str
    arn: str
    cluster: str
    engine: str
    engine_version: str
    instance_class: str
    status: InstanceStatus = InstanceStatus.CREATING
    status_reason: str = ""
    want: Want = Want.RUNNING
    created_at: datetime = msgspec.field(default_factory=now_utc)

    availability_zone: str = ""  # "" lets placement choose
    promotion_tier: int = 1
    publicly_accessible: bool = False
    auto_minor_version_upgrade: bool = True
    copy_tags_to_snapshot: bool = False
    ca_certificate_identifier: str = "rds-ca-rsa2048-g1"
    monitoring_interval: int = 0
    monitoring_role_arn: str = ""
    performance_insights: bool = False
    performance_insights_kms_key_id: str = ""
    performance_insights_retention_days: int = 0
    database_insights_mode: str = "standard"
    parameter_group: str = ""
    preferred_backup_window: str = ""
    preferred_maintenance_window: str = ""
    engine_lifecycle_support: str = "open-source-rds-extended-support"
    license_model: str = ""
    tags: dict[str, str] = {}

    address: str = ""  # loopback address, "" until allocated
    incarnation: Incarnation | None = None
    retired: tuple[str, ...] = ()  # incarnations still to be swept away
    pending: InstancePending = InstancePending()
    apply_pending: bool = False
    reboot: RebootRequest | None = None

    @property
    def key(self) -> str:
        return self.resource_id

    @property
    def name(self) -> str:
        return self.identifier


class CustomEndpoint(Record, frozen=True, kw_only=True):
    """A custom endpoint of a cluster: a static list of members, or everyone but an excluded list."""

    KIND: ClassVar[str] = "endpoint"

    resource_id: str  # "cluster-endpoint-" + 26
    identifier: str
    arn: str
    cluster: str
    endpoint_type: str = "ANY"  # READER or ANY
    static_members: tuple[str, ...] = ()  # instance identifiers, as the user gave them
    excluded_members: tuple[str, ...] = ()
    status: EndpointStatus = EndpointStatus.CREATING
    want: Want = Want.RUNNING
    address: str = ""
    tags: dict[str, str] = {}
    created_at: datetime = msgspec.field(default_factory=now_utc)

    @property
    def key(self) -> str:
        return self.resource_id

    @property
    def name(self) -> str:
        return self.identifier


class Subnet(Part, frozen=True, kw_only=True):
    """A subnet of a group; on this machine it stands for an availability zone only."""

    id: str
    availability_zone: str


class SubnetGroup(Record, frozen=True, kw_only=True):
    """A DB subnet group. `default` exists from the start."""

    KIND: ClassVar[str] = "subnet-group"

    identifier: str
    arn: str
    description: str
    vpc_id: str
    subnets: tuple[Subnet, ...]
    tags: dict[str, str] = {}

    @property
    def key(self) -> str:
        return self.identifier


class AccessKey(Record, frozen=True, kw_only=True):
    """The public half of an access key; the secret lies in credentials.json alone."""

    KIND: ClassVar[str] = "access-key"

    access_key_id: str
    user_arn: str
    created_at: datetime = msgspec.field(default_factory=now_utc)

    @property
    def key(self) -> str:
        return self.access_key_id


class Node(Record, frozen=True, kw_only=True):
    """A storage node of the region. `address` is a Unix socket path or host:port."""

    KIND: ClassVar[str] = "node"

    id: str
    availability_zone: str
    address: str
    garbage: tuple[str, ...] = ()  # volumes that are gone, but not from this node yet: it did not answer

    @property
    def key(self) -> str:
        return self.id


class Event(Part, frozen=True, kw_only=True):
    """Something that happened, as DescribeEvents shows it. `id` is given by the store at commit."""

    id: int = 0
    event_id: str  # "RDS-EVENT-0071"
    source_type: str  # "db-cluster" or "db-instance"
    source_id: str  # the identifier at that time
    source_arn: str
    message: str
    categories: tuple[str, ...]
    date: datetime = msgspec.field(default_factory=now_utc)


AnyRecord = Cluster | Instance | CustomEndpoint | SubnetGroup | AccessKey | Node
RECORD_TYPES: tuple[type[AnyRecord], ...] = (Cluster, Instance, CustomEndpoint, SubnetGroup, AccessKey, Node)

_UPPER36 = string.ascii_uppercase + string.digits
_LOWER36 = string.ascii_lowercase + string.digits


def new_cluster_resource_id() -> str:
    """A fresh DbClusterResourceId."""
    return "cluster-" + _random(_UPPER36, 26)


def new_instance_resource_id() -> str:
    """A fresh DbiResourceId."""
    return "db-" + _random(_UPPER36, 26)


def new_endpoint_resource_id() -> str:
    """A fresh DBClusterEndpointResourceIdentifier."""
    return "cluster-endpoint-" + _random(_UPPER36, 26)


def new_volume_id() -> str:
    """A fresh volume id: `vol-` and 12 hexadecimal digits."""
    return "vol-" + secrets.token_hex(6)


def new_hash12() -> str:
    """Twelve of [a-z0-9], starting with a letter: the part of endpoint names that makes them unique."""
    return _random(string.ascii_lowercase, 1) + _random(_LOWER36, 11)


def rds_arn(region: str, account: str, kind: str, name: str) -> str:
    """The ARN of an RDS resource; kind is AWS's: cluster, db, cluster-endpoint, subgrp, …"""
    return f"arn:aws:rds:{region}:{account}:{kind}:{name}"


def _random(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))
