"""Volumes on the storage nodes: seeding, looking, images, dropping.

Owns the control plane's own connections to segments, and the images unpacked on this machine. Which volume
is what is in the records; the rules of seeding are in `borealis.log.seeding`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from borealis.control.ports import CreatedVolume, InstancePlan
from borealis.control.records import Cluster, Image, Node, now_utc
from borealis.control.view import SegmentSeen, VolumeSeen
from borealis.engines.base import BootstrapSpec, EngineVersion, RunAs, VolumeSeed
from borealis.engines.registry import find_version, get_engine
from borealis.errors import BorealisError
from borealis.log.history import TermHistory
from borealis.log.quorum import QuorumSet
from borealis.log.seeding import SEED_TERM, VolumeSeeder
from borealis.log.wire import BlobDelete, Create, Drop, Purpose, Status, StatusReply, Trim
from borealis.logs import get_logger
from borealis.paths import RegionPaths
from borealis.region import RegionConfig
from borealis.storage.client import NodeConnection
from borealis.storage.errors import NodeRefused, NodeUnreachable, StorageError
from borealis.volume import images

log = get_logger(__name__)

SEED_SECONDS = 15.0
SEED_REST_SECONDS = 1.0
"""How long a seeding that is durable already waits for the last segments."""
LOOK_SECONDS = 1.0
TRIM_SECONDS = 10.0
DROP_SECONDS = 5.0
PASSABLE = 0o711


class SeedingFailed(BorealisError):
    """Too few nodes could be reached to make a volume."""

    code = "InsufficientStorageClusterCapacity"


class VolumeNodes:
    """Implements `ports.Volumes`. `nodes()` are the region's nodes, all of them members of every volume."""

    def __init__(self, paths: RegionPaths, region: RegionConfig, nodes: Callable[[], list[Node]]) -> None:
        self._paths = paths
        self._region = region
        self.nodes = nodes
        self._connections: dict[tuple[str, str], NodeConnection] = {}
        self._refusals: dict[tuple[str, str], str] = {}
        """The codes with which nodes that answer refused to say how a segment stands."""
        self._image_locks: dict[Path, asyncio.Lock] = {}

    async def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.abort()
        self._connections.clear()

    @property
    def _addresses(self) -> list[str]:
        return [node.address for node in self.nodes()]

    # creating

    async def create(self, cluster: Cluster) -> CreatedVolume:
        volume = cluster.volume.id
        version = await asyncio.to_thread(find_version, cluster.engine, cluster.engine_version)
        fresh = self._paths.volume_dir(volume) / "bootstrap"
        seed = await asyncio.to_thread(self._bootstrap, cluster, version, fresh)
        await self._seed(volume, seed)
        cache = self._paths.image_cache(volume, seed.start_lsn)
        await asyncio.to_thread(_replace, fresh, cache)
        image = await self._publish(
            version, volume, cache, seed.system_id, timeline=seed.timeline, lsn=seed.start_lsn
        )
        return CreatedVolume(
            system_id=seed.system_id,
            start_lsn=seed.start_lsn,
            end_lsn=seed.end_lsn,
            timeline=seed.timeline,
            term=SEED_TERM,
            image=image,
        )

    def _bootstrap(self, cluster: Cluster, version: EngineVersion, folder: Path) -> VolumeSeed:
        user = RunAs.lookup(self._region.engine_user) if self._region.engine_user else None
        for parent in (self._paths.volumes_dir, folder.parent):
            parent.mkdir(mode=PASSABLE, exist_ok=True)
            parent.chmod(PASSABLE)
        shutil.rmtree(folder, ignore_errors=True)
        spec = BootstrapSpec(
            master_username=cluster.master_username,
            master_verifier=cluster.master_verifier,
            database_name=cluster.database_name or None,
            port=cluster.port,
        )
        return get_engine(cluster.engine).bootstrap(version, folder, user, spec)

    async def _seed(self, volume: str, seed: VolumeSeed) -> None:
        nodes = self.nodes()
        size = len(nodes)
        quorum = QuorumSet(frozenset(node.id for node in nodes), size // 2 + 1, size - size // 2)
        seeder = VolumeSeeder(
            quorum, volume, timeline=seed.timeline, start=seed.start_lsn, data=seed.log, history=seed.history
        )
        work = _Seeding(volume, seeder, nodes)
        await work.run()

    # looking

    async def look(self, volume: str) -> VolumeSeen:
        nodes = self.nodes()
        answers = await asyncio.gather(*(self._status(volume, node) for node in nodes))
        found = [answer for answer in answers if answer is not None]
        if found:
            await self._complete(volume, nodes, answers, found[0].history)
        segments = tuple(
            SegmentSeen(
                node.id,
                node.availability_zone,
                connected=False,
                trouble=self._refusals.get((volume, node.id), ""),
            )
            if answer is None
            else SegmentSeen(
                node=node.id,
                zone=node.availability_zone,
                connected=True,
                scl=answer.end,
                vdl=answer.vdl.lsn,
                base=answer.base,
                images=images.whole(answer.blobs),
                damaged=answer.health.damaged,
                repaired=answer.health.repaired,
                checked_bytes=answer.health.checked_bytes,
                trouble=answer.health.trouble,
                bytes_on_disk=answer.bytes_on_disk,
            )
            for node, answer in zip(nodes, answers, strict=True)
        )
        return VolumeSeen(segments=segments, known=True, write_quorum=len(nodes) // 2 + 1)

    async def _status(self, volume: str, node: Node) -> StatusReply | None:
        self._refusals.pop((volume, node.id), None)
        try:
            connection = await self._connection(volume, node)
            if not connection.exists:
                return None
            reply = await connection.request(Status(), timeout=LOOK_SECONDS)
            return reply if isinstance(reply, StatusReply) else None
        except (StorageError, OSError) as error:
            log.debug("%s of %s: %s", node.id, volume, error)
            if isinstance(error, NodeRefused):
                self._refusals[volume, node.id] = error.code
            self._connections.pop((volume, node.id), None)
            return None

    async def _connection(self, volume: str, node: Node) -> NodeConnection:
        known = self._connections.get((volume, node.id))
        if known is not None and not known.closed.is_set():
            return known
        made = await NodeConnection.connect(node.address, volume, Purpose.CONTROL, timeout=LOOK_SECONDS)
        self._connections[volume, node.id] = made
        return made

    async def _complete(
        self, volume: str, nodes: list[Node], answers: list[StatusReply | None], history: TermHistory
    ) -> None:
        """A node that was away when the volume was made gets its segment now; gossip fills it."""
        for node, answer in zip(nodes, answers, strict=True):
            connection = self._connections.get((volume, node.id))
            if answer is not None or connection is None or connection.exists or connection.closed.is_set():
                continue
            seed = TermHistory(history.entries[:1])
            with contextlib.suppress(StorageError, OSError):
                await connection.request(Create(volume, seed), timeout=LOOK_SECONDS)
                log.info("node %s has a segment of %s now", node.id, volume)

    # images

    async def local_image(self, plan: InstancePlan) -> Path:
        """The plan's image, unpacked on this machine; fetched from the nodes if it is not there."""
        cache = self._paths.image_cache(plan.volume, plan.image.lsn)
        async with self._image_locks.setdefault(cache, asyncio.Lock()):
            if not cache.is_dir():
                connect = images.connector(plan.volume)
                manifest = await images.find(connect, self._addresses, plan.image.lsn)
                if manifest.lsn != plan.image.lsn:
                    raise images.ImageError(f"image {plan.image.name} is on no node that answers")
                await images.attach(connect, self._addresses, cache, manifest)
        return cache

    async def publish_image(self, plan: InstancePlan, timeline: int) -> Image:
        version = await asyncio.to_thread(find_version, plan.engine, plan.engine_version)
        engine, data = get_engine(plan.engine), self._paths.pgdata(plan.incarnation)
        await asyncio.to_thread(engine.clean_image, data)
        lsn = await asyncio.to_thread(engine.image_position, version, data)
        if lsn <= plan.image.lsn:
            raise images.ImageError(
                f"an image made now would need the log from {lsn:X}, the present one needs it from "
                f"{plan.image.lsn:X}: nothing is gained; it is tried again when there is more log"
            )
        return await self._publish(version, plan.volume, data, plan.system_id, timeline=timeline, lsn=lsn)

    async def _publish(
        self, version: EngineVersion, volume: str, folder: Path, system_id: str, *, timeline: int, lsn: int
    ) -> Image:
        archive = self._paths.volume_dir(volume) / f".image-{lsn:x}.tar.zst"
        try:
            manifest = await images.pack(
                folder,
                archive,
                system_id=system_id,
                timeline=timeline,
                lsn=lsn,
                engine=version.engine,
                engine_version=version.version,
            )
            quorum = len(self.nodes()) // 2 + 1
            await images.store(images.connector(volume), self._addresses, archive, manifest, quorum=quorum)
        finally:
            archive.unlink(missing_ok=True)
        return Image(name=manifest.name, lsn=lsn, timeline=timeline, created_at=now_utc())

    async def delete_image(self, volume: str, image: Image) -> None:
        for node in self.nodes():
            await self._delete_image(volume, node, image.name)
        await asyncio.to_thread(shutil.rmtree, self._paths.image_cache(volume, image.lsn), ignore_errors=True)

    async def _delete_image(self, volume: str, node: Node, name: str) -> None:
        with contextlib.suppress(StorageError, OSError):
            connection = await self._connection(volume, node)
            for blob in (name, images.archive_of(name)):
                with contextlib.suppress(NodeRefused):
                    await connection.request(BlobDelete(blob), timeout=LOOK_SECONDS)

    # trimming

    async def trim(self, volume: str, below: int) -> None:
        await asyncio.gather(*(self._trim(volume, node, below) for node in self.nodes()))

    async def _trim(self, volume: str, node: Node, below: int) -> None:
        answer = await self._status(volume, node)
        if answer is None:
            return
        # Also those that were removed while this node was away: their log is gone elsewhere.
        for blob in answer.blobs:
            lsn = images.position_of(blob.name)
            if lsn is not None and lsn < below:
                await self._delete_image(volume, node, images.manifest_name(lsn))
        with contextlib.suppress(StorageError, OSError):
            connection = await self._connection(volume, node)
            await connection.request(Trim(below), timeout=TRIM_SECONDS)

    # dropping

    async def drop(self, volume: str) -> tuple[str, ...]:
        nodes = self.nodes()
        gone = await asyncio.gather(*(self._drop(volume, node) for node in nodes))
        await asyncio.to_thread(shutil.rmtree, self._paths.volume_dir(volume), ignore_errors=True)
        return tuple(node.id for node, done in zip(nodes, gone, strict=True) if not done)

    async def drop_at(self, node: str, volume: str) -> bool:
        found = next((known for known in self.nodes() if known.id == node), None)
        return found is None or await self._drop(volume, found)

    async def _drop(self, volume: str, node: Node) -> bool:
        try:
            connection = await self._connection(volume, node)
            if connection.exists:
                await connection.request(Drop(), timeout=DROP_SECONDS)
        except (StorageError, OSError) as error:
            log.debug("%s still has %s: %s", node.id, volume, error)
            return False
        finally:
            former = self._connections.pop((volume, node.id), None)
            if former is not None:
                former.abort()
        return True


class _Seeding:
    """One run of the seeder over fresh connections to all nodes."""

    def __init__(self, volume: str, seeder: VolumeSeeder, nodes: list[Node]) -> None:
        self._volume = volume
        self._seeder = seeder
        self._nodes = nodes
        self._connections: dict[str, NodeConnection] = {}
        self._done = asyncio.Event()
        self._error: BorealisError | None = None

    async def run(self) -> None:
        """Returns when the seed is durable, and everywhere it could be had. Raises SeedingFailed."""
        try:
            await asyncio.gather(*(self._connect(node) for node in self._nodes))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SEED_SECONDS):
                    await self._until(lambda: self._seeder.done)
            if not self._seeder.done:
                raise SeedingFailed(
                    f"The volume's first log reached {len(self._seeder.ends)} of {len(self._nodes)} storage "
                    "nodes, which is no write quorum: start more of them."
                )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SEED_REST_SECONDS):
                    await self._until(lambda: self._seeder.complete)
        finally:
            for connection in self._connections.values():
                await connection.close()

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            if self._error is not None:
                raise self._error
            if all(c.closed.is_set() for c in self._connections.values()):
                return
            self._done.clear()
            await self._done.wait()

    async def _connect(self, node: Node) -> None:
        def heard(message: object) -> None:
            self._step(lambda: self._seeder.receive(node.id, message))  # type: ignore[arg-type]

        try:
            connection = await NodeConnection.connect(
                node.address, self._volume, Purpose.WRITER, on_message=heard
            )
        except NodeUnreachable as error:
            log.warning("volume %s is made without node %s: %s", self._volume, node.id, error)
            return
        self._connections[node.id] = connection
        self._step(lambda: self._seeder.connected(node.id))

    def _step(self, action: Callable[[], None]) -> None:
        try:
            action()
            for node, message in self._seeder.take_outbox():
                self._connections[node].send(message)
        except BorealisError as error:
            self._error = error
        self._done.set()


def _replace(fresh: Path, place: Path) -> None:
    if place.exists():
        shutil.rmtree(place)
    os.rename(fresh, place)
