"""The driver's RPC methods: what the control plane and other drivers may ask of it.

Owns names, parameters and answers of the calls; what they do is in the driver's other modules.

FORMAT (methods, see `borealis.rpc` for the framing)
    status() → see `DriverService.status`
    open_volume(term1, term2, fresh) → {term, timeline, vdl, timings}
    renew(term, seconds) → {lease_remaining}
    set_topology(topology) → {}          topology: {"members": […], "writer_incarnation": id | null, …}
    feedback(instance_id, xmin, catalog_xmin) → {}
    set_master_password(username, verifier) → {}
    checkpoint() → {lsn}
    prepare_image() → {lsn, timeline}    then the caller stops the engine cleanly
    events: role_changed, fenced, engine_up, engine_down
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from borealis.engines.base import Feedback
from borealis.errors import BorealisError
from borealis.paths import RegionPaths
from borealis.rpc import Handler
from borealis.volume.device import boottime_ns
from borealis.volume.state import Role

if TYPE_CHECKING:
    from borealis.volume.driver import Driver


class NotWriter(BorealisError):
    """The call is for the writer, and this driver is not the writer of that term."""

    code = "NotWriter"


class DriverService:
    """The methods of one driver."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def handlers(self) -> Mapping[str, Handler]:
        """Method name → coroutine function."""
        return {
            "status": self.status,
            "open_volume": self.open_volume,
            "renew": self.renew,
            "set_topology": self.set_topology,
            "feedback": self.feedback,
            "set_master_password": self.set_master_password,
            "checkpoint": self.checkpoint,
            "prepare_image": self.prepare_image,
        }

    # ------------------------------------------------------------------ status
    async def status(self) -> dict[str, Any]:
        """Everything that is known here without asking anybody."""
        driver = self._driver
        writer, reader = driver.writer, driver.reader
        vdl = writer.vdl if writer else reader.feed.vdl if reader else 0
        return {
            "role": Role.OPENING if driver.opening else driver.state.role,
            "reason": driver.state.reason,
            "instance_id": driver.config.instance_id,
            "incarnation": driver.config.incarnation,
            "term": writer.term if writer else reader.feed.commit_point.term if reader else driver.state.term,
            "timeline": max(reader.feed.timelines, default=0) if reader else driver.timeline,
            "vdl": vdl,
            "shipped": writer.shipped if writer else reader.feed.end if reader else 0,
            "nodes": self._nodes(),
            "engine": self._engine(vdl),
            "lease_remaining": writer.lease.remaining_seconds(boottime_ns()) if writer else None,
            "feed_node": reader.follower.node if reader else "",
            "started_at": driver.started_at,
        }

    def _nodes(self) -> dict[str, dict[str, Any]]:
        writer = self._driver.writer
        if writer is None:
            return {}
        return {
            node: {
                "connected": progress.connected,
                "acked": (acked := writer.acked(node)),
                "behind_bytes": max(0, writer.shipped - acked),
            }
            for node, progress in writer.nodes.items()
        }

    def _engine(self, vdl: int) -> dict[str, Any]:
        driver = self._driver
        state, reader = driver.engine_state, driver.reader
        replay = state.replay_lsn or 0
        if reader is not None:
            replay = max(replay, reader.applied)
        feedback = reader.server.feedback if reader is not None else Feedback()
        return {
            "up": state.up,
            "pid": driver.process.pid if driver.process is not None else None,
            "in_recovery": state.in_recovery,
            "receive_lsn": state.receive_lsn,
            "replay_lsn": replay,
            "behind_bytes": max(0, vdl - replay) if reader is not None else 0,
            "lag_ms": reader.lag_ms if reader is not None else 0.0,
            "connections": state.connections,
            "oldest_xmin": state.oldest_xmin,
            "feedback_xmin": feedback.xmin or None,
            "started_at": state.started_at,
            "replay_paused": state.replay_paused,
            "silent_seconds": round(driver.engine_silent_seconds, 3),
            "error": state.error,
        }

    # ------------------------------------------------------------------ the role
    async def open_volume(self, term1: int, term2: int, fresh: bool = False) -> dict[str, Any]:
        """`fresh`: the volume's first opening; nothing differs, but it is worth a line in the log."""
        return await self._driver.open_volume(term1, term2)

    async def renew(self, term: int, seconds: float) -> dict[str, Any]:
        """The control plane names no other writer for `seconds`."""
        writer = self._driver.writer
        if writer is None or writer.over or writer.term != term:
            raise NotWriter(f"this instance is not the writer of term {term}")
        writer.renew(seconds)
        return {"lease_remaining": writer.lease.remaining_seconds(boottime_ns())}

    async def set_topology(self, topology: dict[str, Any]) -> dict[str, Any]:
        """Who is who in the cluster: for the engine's own SQL functions, and to find the writer."""
        writer = topology.get("writer_incarnation")
        if self._driver.reader is not None:
            paths = RegionPaths(Path(self._driver.config.region))
            self._driver.reader.writer_socket = paths.driver_socket(writer) if writer else None
        await asyncio.to_thread(self._driver.context.session.write_topology, topology)
        return {}

    async def feedback(self, instance_id: str, xmin: int = 0, catalog_xmin: int = 0) -> dict[str, Any]:
        """A reader tells what its queries need kept on the writer."""
        if self._driver.writer is None:
            raise NotWriter("this instance is not the writer")
        self._driver.heard_feedback(instance_id, Feedback(xmin, catalog_xmin))
        return {}

    # ------------------------------------------------------------------ the engine
    async def set_master_password(self, username: str, verifier: str) -> dict[str, Any]:
        """Writer: the stored form of the master user's new password."""
        self._must_be(Role.WRITER)
        await self._driver.context.session.set_master_password(username, verifier)
        return {}

    async def checkpoint(self) -> dict[str, Any]:
        """Checkpoint, or restartpoint on a reader: where an image made now would need the log from."""
        return {"lsn": await self._driver.context.session.checkpoint()}

    async def prepare_image(self) -> dict[str, Any]:
        """Reader: as `checkpoint`, and the timeline that an image made now is on."""
        self._must_be(Role.READER)
        lsn = await self._driver.context.session.checkpoint()
        reader = self._driver.reader
        return {"lsn": lsn, "timeline": max(reader.feed.timelines, default=0) if reader else 0}

    def _must_be(self, role: Role) -> None:
        if self._driver.state.role is not role:
            raise NotWriter(f"the role is {self._driver.state.role}, expected {role}")
