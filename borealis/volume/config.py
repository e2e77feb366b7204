"""The driver's configuration: what one driver process is told when it is started.

Owns the shape of `CONFIG.json`. It never changes while the driver runs: whatever may change (topology, lease
renewals, the role) arrives over the driver's RPC socket instead.

FORMAT: `driver.json`, version 1. A JSON object with the fields of `DriverConfig`; unknown fields are ignored,
so that a newer control plane can start an older driver. Paths are absolute. Durations are seconds. It holds
no secrets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from borealis.errors import BorealisError

VERSION = 1


class DriverConfigError(BorealisError):
    """The driver's configuration file is missing, malformed, or of a version that is not known here."""

    code = "InvalidDriverConfiguration"


class NodeAddress(msgspec.Struct, frozen=True):
    """One storage node: its id, its availability zone, and a Unix socket path or `host:port`."""

    id: str
    az: str
    address: str


class DriverConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a driver knows from its start. `nodes` are the members of the volume's quorum set."""

    version: int
    region: str
    """Root of the region's data folder."""
    instance_id: str
    cluster_id: str
    incarnation: str
    volume: str
    az: str
    nodes: tuple[NodeAddress, ...]
    engine: str
    engine_version: str
    bin_dir: str
    data_dir: str
    run_dir: str
    """Folder of the engine's own Unix socket."""
    upstream_dir: str
    """Folder of the Unix socket on which the driver is the engine's upstream."""
    shm: str
    """The log device's shared page; its datagram socket is `<shm>.sock`."""
    state_file: str
    rpc_socket: str
    port: int
    listen_address: str
    system_id: str
    """Identifier of the database cluster's files, as the engine states it."""
    image_lsn: int = 0
    """LSN of the image that the data folder was made from: nothing below it is ever asked for."""
    lease_seconds: float = 3.0
    probe_seconds: float = 0.5
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    """What else the engine's module is told of the instance: fields of `engines.base.InstanceSettings`."""


def decode_config(text: bytes | str, source: str = "configuration") -> DriverConfig:
    """The configuration in `text`; raises `DriverConfigError` that names `source` and the field at fault."""
    try:
        config = msgspec.json.decode(text, type=DriverConfig)
    except msgspec.DecodeError as error:
        raise DriverConfigError(
            f"{source}: {error}; expected a driver configuration of version {VERSION}: write it again"
        ) from error
    if config.version != VERSION:
        raise DriverConfigError(
            f"{source}: version {config.version}, expected {VERSION}: start it with the driver that wrote it"
        )
    ids = [node.id for node in config.nodes]
    if not ids or len(set(ids)) != len(ids):
        raise DriverConfigError(f"{source}: nodes {ids}: expected at least one, each with an id of its own")
    for name in ("lease_seconds", "probe_seconds"):
        if getattr(config, name) <= 0:
            raise DriverConfigError(
                f"{source}: {name} is {getattr(config, name)}: expected more than 0 seconds"
            )
    return config


def load_config(path: Path) -> DriverConfig:
    """Reads and checks a configuration file; raises `DriverConfigError`."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DriverConfigError(
            f"{path}: {error.strerror}: the driver needs its configuration file"
        ) from error
    return decode_config(text, str(path))


def encode_config(config: DriverConfig) -> bytes:
    """The file's content for `config`, readable by people."""
    return msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n"
