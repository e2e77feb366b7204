"""What `borealis status` shows: the region as control knows it, as plain data. Reads only.

FORMAT (answer of the control socket's `status`; sizes in bytes, positions are
LSNs) {region, clusters: [{identifier, status, engine, version, engine_version,
endpoint, reader_endpoint, port, endpoints_current, endpoints: [{type, name,
address}], volume: {id, term, timeline, vdl, segments: [{node, az, base, scl, vdl,
connected, behind_bytes, damaged, repaired, checked_bytes, trouble}]}, instances:
[{identifier, status, role, serving, az, class, address, incarnation, lag_ms,
replay_lsn, cpu_percent, tier, reason}]}], nodes: [{id, az, status, pid, segments, bytes,
left_over: [volume]}], events: [{date, source, message}]}

`status` of an instance is what the API shows; `serving` is whether its engine
answers now. `endpoints_current`: every endpoint leads where it should.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from borealis.control.context import ControlContext
from borealis.control.endpoint_plan import endpoint_plan
from borealis.control.look import look
from borealis.control.records import Cluster, CustomEndpoint, Instance, Node
from borealis.control.steps.upkeep import cpu_percent
from borealis.control.view import View
from borealis.host.client import ProcessInfo

EVENTS_SHOWN = 20


class Names(Protocol):
    """Hosts of endpoints, as the API shows them."""

    def writer(self, cluster: Cluster) -> str | None: ...
    def reader(self, cluster: Cluster) -> str | None: ...
    def custom(self, cluster: Cluster, endpoint: CustomEndpoint) -> str | None: ...
    def instance(self, cluster: Cluster, instance: Instance) -> str | None: ...


def region_status(
    context: ControlContext, region: str, names: Names, processes: Mapping[str, ProcessInfo]
) -> dict[str, Any]:
    """Everything at once."""
    now = asyncio.get_running_loop().time()
    views = [look(context, cluster, now) for cluster in context.store.clusters()]
    return {
        "region": region,
        "clusters": [_cluster(view, names) for view in views],
        "nodes": [_node(node, views, processes.get(node.id)) for node in context.store.nodes()],
        "events": [
            {"date": event.date.isoformat(), "source": event.source_id, "message": event.message}
            for event in context.store.events()[-EVENTS_SHOWN:]
        ],
    }


def _cluster(view: View, names: Names) -> dict[str, Any]:
    cluster = view.cluster
    writer, reader = names.writer(cluster), names.reader(cluster)
    return {
        "identifier": cluster.identifier,
        "status": str(cluster.status),
        "reason": cluster.status_reason,
        "engine": cluster.engine,
        "version": cluster.engine_version,
        "engine_version": cluster.engine_version,
        "endpoint": writer,
        "reader_endpoint": reader,
        "port": cluster.port,
        "endpoints_current": view.endpoints_applied == endpoint_plan(view),
        "endpoints": [
            {"type": "writer", "name": writer, "address": cluster.addresses.writer},
            {"type": "reader", "name": reader, "address": cluster.addresses.reader},
            *(
                {
                    "type": "custom",
                    "identifier": endpoint.identifier,
                    "name": names.custom(cluster, endpoint),
                    "address": endpoint.address,
                }
                for endpoint in view.endpoints
            ),
        ],
        "volume": _volume(view),
        "instances": [_instance(view, instance, names) for instance in view.instances],
    }


def _volume(view: View) -> dict[str, Any]:
    volume, seen = view.cluster.volume, view.volume
    live = view.live_writer
    status = view.of(live).status if live is not None else None
    vdl = max(seen.vdl, status.vdl if status else 0)
    return {
        "id": volume.id,
        "term": volume.writer_term,
        "timeline": volume.timeline,
        "vdl": vdl,
        "segments": [
            {
                "node": segment.node,
                "az": segment.zone,
                "connected": segment.connected,
                "scl": segment.scl if segment.connected else None,
                "vdl": segment.vdl if segment.connected else None,
                "damaged": segment.damaged,
                "repaired": segment.repaired,
                "checked_bytes": segment.checked_bytes,
                "trouble": segment.trouble,
                "base": segment.base if segment.connected else None,
                "behind_bytes": max(0, vdl - segment.scl) if segment.connected else None,
            }
            for segment in seen.segments
        ],
    }


def _instance(view: View, instance: Instance, names: Names) -> dict[str, Any]:
    seen = view.of(instance)
    engine = seen.status.engine if seen.status else None
    is_writer = instance is view.live_writer
    return {
        "identifier": instance.identifier,
        "status": str(instance.status),
        "reason": instance.status_reason,
        "role": "writer" if is_writer else "reader",
        "serving": view.healthy(instance),
        "az": instance.availability_zone,
        "class": instance.instance_class,
        "address": instance.address,
        "host": names.instance(view.cluster, instance),
        "incarnation": instance.incarnation.id if instance.incarnation else None,
        "lag_ms": None if is_writer or engine is None else engine.lag_ms,
        "replay_lsn": engine.replay_lsn if engine else None,
        "cpu_percent": cpu_percent(seen.cpu_cores, instance.incarnation),
        "tier": instance.promotion_tier,
    }


def _node(node: Node, views: list[View], process: ProcessInfo | None) -> dict[str, Any]:
    segments = [s for view in views for s in view.volume.segments if s.node == node.id]
    return {
        "id": node.id,
        "az": node.availability_zone,
        "status": _node_status(segments, process),
        "pid": process.pid if process and process.alive else None,
        "segments": sum(1 for s in segments if s.connected),
        "bytes": sum(s.bytes_on_disk for s in segments),
        "left_over": list(node.garbage),
    }


def _node_status(segments: list[Any], process: ProcessInfo | None) -> str:
    if process is None or not process.alive:
        return "down"
    if segments and not any(s.connected for s in segments):
        return "silent"
    return "up"
