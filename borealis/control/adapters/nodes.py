"""The region's storage nodes: which there are, and their processes.

Owns the node records' making at first start, peers.json, and the spawning of nodes through the agent, which
keeps them running from then on.
"""

from __future__ import annotations

import sys

import msgspec

from borealis.control.adapters.host import HostLink
from borealis.control.records import Node
from borealis.control.settings import ControlSettings
from borealis.control.store import Put, Store
from borealis.errors import BorealisError
from borealis.host.records import ProcessSpec
from borealis.logs import get_logger
from borealis.paths import RegionPaths
from borealis.region import RegionConfig, write_file

log = get_logger(__name__)

PEERS = "peers.json"


async def ensure_nodes(
    store: Store, paths: RegionPaths, region: RegionConfig, settings: ControlSettings
) -> None:
    """At first start: n1 and n2 in the first zone, n3 and n4 in the second, and so on."""
    if store.nodes():
        return
    per_zone = max(1, int(settings.nodes_per_zone))
    nodes = [
        Node(
            id=f"n{index * per_zone + number}",
            availability_zone=zone,
            address=str(paths.node_socket(f"n{index * per_zone + number}")),
        )
        for index, zone in enumerate(region.zones)
        for number in range(1, per_zone + 1)
    ]
    await store.commit([Put(node) for node in nodes])


async def start_nodes(store: Store, paths: RegionPaths, host: HostLink, settings: ControlSettings) -> None:
    """Start the nodes that do not run. One that cannot be started is logged: the others make a quorum."""
    nodes = store.nodes()
    peers = {node.id: {"az": node.availability_zone, "address": node.address} for node in nodes}
    paths.nodes_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    (paths.run_dir / "n").mkdir(mode=0o700, parents=True, exist_ok=True)
    path = paths.nodes_dir / PEERS
    content = msgspec.json.format(msgspec.json.encode(peers)) + b"\n"
    if not path.exists() or path.read_bytes() != content:
        write_file(path, content)
    for node in nodes:
        try:
            await host.spawn(_spec(paths, node, settings))
        except BorealisError as error:
            log.error("storage node %s could not be started: %s", node.id, error)


def _spec(paths: RegionPaths, node: Node, settings: ControlSettings) -> ProcessSpec:
    return ProcessSpec(
        name=node.id,
        argv=(
            sys.executable,
            "-m",
            "borealis.storage.main",
            "--node-id",
            node.id,
            "--az",
            node.availability_zone,
            "--dir",
            str(paths.node_dir(node.id)),
            "--socket",
            node.address,
            "--peers",
            str(paths.nodes_dir / PEERS),
            "--scrub-bytes-per-second",
            str(int(settings.scrub_bytes_per_second)),
            "--scrub-pass-seconds",
            str(settings.scrub_pass_seconds),
        ),
        log=str(paths.log_file(node.id)),
        restart="always",
    )
