"""A world in memory for the reconciler: processes, drivers, volumes and endpoints that outlive the control
plane.

`World` holds what is real; `Ports` is how one control process reaches it. After `World.crash_control` the
calls of the former control have no effect any more, as if it had been killed in the middle of them. The
world checks the invariants that the control plane must keep, whatever happens, and raises `Broken` when one
is violated.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from borealis.control.observe import Observer
from borealis.control.ports import CreatedVolume, InstancePlan, Opened
from borealis.control.records import Cluster, Image, now_utc
from borealis.control.topology import EndpointPlan
from borealis.control.view import DriverEngine, DriverStatus, EngineLife, SegmentSeen, VolumeSeen
from borealis.engines.classes import instance_class
from borealis.errors import BorealisError
from borealis.rpc import RpcConnectionLost, RpcError, RpcTimeout

LOG_FILE = 16 * 1024 * 1024
"""What positions in the log are multiples of here."""


NODES = tuple(f"n{number}" for number in range(1, 7))


class Broken(AssertionError):
    """An invariant was violated."""


@dataclass
class Life:
    """One incarnation: directory, driver, engine."""

    plan: InstancePlan
    engine: bool = False
    engine_ran: bool = False
    driver: bool = False
    hung: bool = False
    role: str = "reader"
    term: int = 0
    opening: asyncio.Task[None] | None = None


@dataclass
class FakeVolume:
    """A volume on six nodes."""

    promised: int = 1
    writer_term: int = 0
    timeline: int = 1
    base: int = 0
    """Below it the log is gone."""
    vdl: int = 1000 * LOG_FILE
    checkpoint: int = 1000 * LOG_FILE
    """Where the last checkpoint in the log is: no image is newer."""
    images: dict[str, int] = field(default_factory=dict)
    """Name → from where on the image needs the log."""
    verifier: str = ""


def _memory(name: str) -> int:
    return instance_class(name).memory_bytes


class World:
    """Everything that is not the control plane. All chance comes from `rng`."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.epoch = 0
        self.observer: Observer | None = None
        self.lives: dict[str, Life] = {}
        self.volumes: dict[str, FakeVolume] = {}
        self.nodes_up = 6
        self.segments: set[tuple[str, str]] = set()
        """(node, volume)"""
        self.endpoints: dict[str, EndpointPlan] = {}
        self.topologies: dict[str, Mapping[str, Any]] = {}
        self.ever_prepared: set[str] = set()
        self.terms_used: set[tuple[str, int]] = set()
        self.servers: dict[tuple[str, int], str] = {}
        self.flaky = 0.0
        self.refusals: dict[str, BorealisError] = {}
        """What a port's method raises instead of doing its work, by its name."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.log: list[str] = []

    def note(self, text: str) -> None:
        self.log.append(f"{asyncio.get_running_loop().time():10.3f} {text}")

    def crash_control(self) -> None:
        """From now on calls of the control that runs have no effect."""
        self.epoch += 1
        self.observer = None

    def spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def answers(self, node: str) -> bool:
        return NODES.index(node) < self.nodes_up

    # what happens to processes

    def kill_engine(self, incarnation: str) -> None:
        life = self.lives.get(incarnation)
        if life is not None and life.engine:
            life.engine = False
            self.note(f"engine {incarnation} ends")
            self._tell(incarnation, EngineLife.GONE)

    def fence(self, incarnation: str) -> None:
        life = self.lives[incarnation]
        if life.hung or life.role == "fenced":
            return
        life.role = "fenced"
        self.note(f"{incarnation} is fenced")
        self.kill_engine(incarnation)

    def _tell(self, incarnation: str, life: EngineLife) -> None:
        if self.observer is not None:
            self.observer.engine_life(incarnation, life)

    def start_engine(self, incarnation: str) -> None:
        life = self.lives[incarnation]
        if life.engine:
            return
        if life.engine_ran:
            raise Broken(f"the directory of {incarnation} is used again after its engine ended")
        if life.plan.image.lsn < self.volumes[life.plan.volume].base:
            raise Broken(f"{incarnation} needs log that is gone")
        for other, present in self.lives.items():
            if present.engine and present.plan.address and present.plan.address == life.plan.address:
                raise Broken(f"{incarnation} and {other} listen on the same address")
        life.engine = life.engine_ran = True
        self._tell(incarnation, EngineLife.ALIVE)

    def replay_paused(self, incarnation: str) -> bool:
        """A reader that allows fewer connections than the writer cannot go on."""
        life = self.lives[incarnation]
        writers = [o for o in self.lives.values() if o.plan.volume == life.plan.volume and o.role == "writer"]
        if life.role == "writer" or not writers:
            return False
        own = max(map(_memory, (life.plan.instance_class, *life.plan.cluster_classes)))
        return any(max(map(_memory, (w.plan.instance_class, *w.plan.cluster_classes))) > own for w in writers)

    def unhang(self, incarnation: str) -> None:
        life = self.lives.get(incarnation)
        if life is None or not life.hung:
            return
        life.hung = False
        if life.role == "writer" and self.volumes[life.plan.volume].promised > life.term:
            self.fence(incarnation)

    def writers(self, volume: str) -> list[str]:
        """Lives that could still have a commit acknowledged."""
        return [
            name
            for name, life in self.lives.items()
            if life.plan.volume == volume
            and life.engine
            and life.role == "writer"
            and life.term == self.volumes[volume].promised
        ]

    async def open(self, incarnation: str, term1: int, term2: int) -> None:
        """A candidate opens the volume; goes on when control is gone."""
        life = self.lives[incarnation]
        volume = self.volumes[life.plan.volume]
        if (life.plan.volume, term1) in self.terms_used or (life.plan.volume, term2) in self.terms_used:
            raise Broken(f"terms {term1}, {term2} were used before")
        self.terms_used |= {(life.plan.volume, term1), (life.plan.volume, term2)}
        if self.nodes_up < 4:
            raise RpcError("NoQuorum", f"{self.nodes_up} nodes can be reached")
        if term1 <= volume.promised:
            raise RpcError("Superseded", f"{volume.promised} is promised")
        if self.replay_paused(incarnation):
            self.kill_engine(incarnation)
            raise RpcError("EngineError", "an engine whose replay is paused ends when it is promoted")
        life.role = "opening"
        volume.promised = term1
        for name, other in self.lives.items():
            if other.plan.volume == life.plan.volume and other.role == "writer" and name != incarnation:
                self.fence(name)
        await asyncio.sleep(self.rng.uniform(0.01, 0.2))
        if not life.engine or self.rng.random() < self.flaky:
            self.kill_engine(incarnation)
            life.role = "fenced"
            raise RpcError("EngineError", "the engine ended while it was promoted")
        if self.nodes_up < 4 or volume.promised != term1:
            life.role = "fenced"
            self.kill_engine(incarnation)
            raise RpcError("Superseded", f"{volume.promised} is promised")
        volume.promised = volume.writer_term = term2
        volume.timeline += 1
        volume.vdl += 100 * LOG_FILE
        life.role, life.term = "writer", term2
        self.note(f"{incarnation} is writer at term {term2}")


class Ports:
    """One control process's way into the world: all four interfaces in one object."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.epoch = world.epoch

    async def _step(self, seconds: float = 0.02) -> None:
        """A point where time passes, where control may have been killed, and where things may fail."""
        self._alive()
        await asyncio.sleep(self.world.rng.uniform(0.001, seconds))
        self._alive()
        if self.world.rng.random() < self.world.flaky:
            raise BorealisError("by chance")

    def _alive(self) -> None:
        if self.world.epoch != self.epoch:
            raise asyncio.CancelledError

    def _refuse(self, method: str) -> None:
        if method in self.world.refusals:
            raise self.world.refusals[method]

    # instances

    async def prepare(self, plan: InstancePlan) -> None:
        await self._step(0.3)
        self._refuse("prepare")
        if plan.incarnation in self.world.lives and self.world.lives[plan.incarnation].engine_ran:
            raise Broken(f"{plan.incarnation} is prepared again after its engine ran")
        if plan.image.name not in self.world.volumes[plan.volume].images:
            raise BorealisError(f"there is no image {plan.image.name}")
        self.world.lives[plan.incarnation] = Life(plan)
        self.world.ever_prepared.add(plan.incarnation)
        numbered = (plan.volume, plan.server_number)
        if (
            not plan.server_number
            or self.world.servers.setdefault(numbered, plan.incarnation) != plan.incarnation
        ):
            raise Broken(f"{plan.incarnation} has the server number of another life: {plan.server_number}")

    async def start(self, plan: InstancePlan) -> None:
        await self._step()
        self._refuse("start")
        life = self.world.lives[plan.incarnation]
        life.driver = True
        await self._step()
        if not life.engine_ran:
            self.world.start_engine(plan.incarnation)

    async def stop_engine(self, incarnation: str, seconds: float) -> bool:
        await self._step(0.5)
        self.world.kill_engine(incarnation)
        return True

    async def kill(self, incarnation: str) -> None:
        await self._step()
        self.world.kill_engine(incarnation)
        if incarnation in self.world.lives:
            self.world.lives[incarnation].driver = False

    async def destroy(self, incarnation: str) -> None:
        await self.kill(incarnation)
        await self._step(0.2)
        self.world.lives.pop(incarnation, None)

    async def lives(self) -> set[str]:
        await self._step()
        return set(self.world.lives)

    # drivers

    def _driver(self, incarnation: str) -> Life:
        life = self.world.lives.get(incarnation)
        if life is None or not life.driver:
            raise RpcConnectionLost(f"no driver {incarnation}")
        return life

    async def status(self, incarnation: str, seconds: float) -> DriverStatus:
        self._alive()
        life = self._driver(incarnation)
        await asyncio.sleep(0.001)
        self._alive()
        if life.hung:
            await asyncio.sleep(seconds)
            raise RpcTimeout(f"driver {incarnation}: no answer")
        volume = self.world.volumes[life.plan.volume]
        return DriverStatus(
            role=life.role,
            incarnation=incarnation,
            term=life.term,
            timeline=volume.timeline,
            vdl=volume.vdl,
            engine=DriverEngine(
                up=life.engine,
                in_recovery=life.role != "writer",
                receive_lsn=volume.vdl,
                replay_lsn=volume.vdl,
                replay_paused=self.world.replay_paused(incarnation),
            ),
            lease_remaining=3.0 if self.world.nodes_up >= 4 else 0.5,
        )

    async def open_volume(self, incarnation: str, term1: int, term2: int, seconds: float) -> Opened:
        await self._step()
        life = self._driver(incarnation)
        if life.hung:
            await asyncio.sleep(seconds)
            raise RpcTimeout("hung")
        if life.role != "reader":
            raise RpcError("WrongRole", life.role)
        work = self.world.spawn(self.world.open(incarnation, term1, term2))
        await asyncio.shield(work)
        await self._step()
        volume = self.world.volumes[life.plan.volume]
        return Opened(term=term2, timeline=volume.timeline, vdl=volume.vdl)

    async def renew(self, incarnation: str, term: int, seconds: float) -> None:
        await self._step()
        life = self._driver(incarnation)
        if life.role != "writer" or life.term != term:
            raise RpcError("WrongTerm", f"{life.role} at {life.term}")

    async def set_topology(self, incarnation: str, topology: Mapping[str, Any]) -> None:
        await self._step()
        self._driver(incarnation)
        self.world.topologies[incarnation] = topology

    async def set_master_password(self, incarnation: str, username: str, verifier: str) -> None:
        await self._step()
        life = self._driver(incarnation)
        if life.role != "writer":
            raise RpcError("WrongRole", life.role)
        self.world.volumes[life.plan.volume].verifier = verifier

    async def checkpoint(self, incarnation: str) -> None:
        await self._step()
        life = self._driver(incarnation)
        volume = self.world.volumes[life.plan.volume]
        if life.role != "writer" or life.hung:
            raise RpcError("NotWriter", life.role)
        volume.checkpoint = volume.vdl

    async def prepare_image(self, incarnation: str) -> int:
        await self._step()
        return self.world.volumes[self._driver(incarnation).plan.volume].timeline

    async def release(self, incarnation: str) -> None:
        self._alive()

    # volumes

    async def create(self, cluster: Cluster) -> CreatedVolume:
        await self._step(0.5)
        self._refuse("create")
        volume = cluster.volume.id
        if volume in self.world.volumes:
            raise Broken(f"volume {volume} is created twice")
        self.world.segments |= {(node, volume) for node in NODES if self.world.answers(node)}
        self.world.volumes[volume] = FakeVolume(
            images={"first": 1000 * LOG_FILE}, verifier=cluster.master_verifier
        )
        await self._step(0.5)
        image = Image(name="first", lsn=1000 * LOG_FILE, timeline=1, created_at=now_utc())
        return CreatedVolume("sys", 900 * LOG_FILE, 1000 * LOG_FILE, 1, 1, image)

    async def look(self, volume: str) -> VolumeSeen:
        self._alive()
        await asyncio.sleep(0.001)
        self._alive()
        present = self.world.volumes.get(volume)
        end = present.vdl if present else 0
        base, images = (present.base, frozenset(present.images)) if present else (0, frozenset[str]())
        segments = tuple(
            SegmentSeen(f"n{n}", "z", n <= self.world.nodes_up, end, end, base, images=images)
            for n in range(1, 7)
        )
        return VolumeSeen(segments=segments, known=True)

    async def publish_image(self, plan: InstancePlan, timeline: int) -> Image:
        await self._step()
        volume = self.world.volumes[plan.volume]
        if volume.checkpoint <= plan.image.lsn:
            raise BorealisError("nothing is gained")
        name = f"image-{volume.checkpoint}"
        volume.images[name] = volume.checkpoint
        return Image(name=name, lsn=volume.checkpoint, timeline=timeline, created_at=now_utc())

    async def delete_image(self, volume: str, image: Image) -> None:
        await self._step()
        self.world.volumes[volume].images.pop(image.name, None)

    async def trim(self, volume: str, below: int) -> None:
        await self._step()
        present = self.world.volumes[volume]
        if sum(1 for lsn in present.images.values() if lsn >= below) < 2:
            raise Broken(f"with the log below {below} gone there are no two images to start from")
        present.base = max(present.base, below)
        self.world.note(f"the log of {volume} begins at {below // LOG_FILE}")

    async def drop(self, volume: str) -> tuple[str, ...]:
        await self._step()
        self.world.volumes.pop(volume, None)
        silent = [node for node in NODES if not self.world.answers(node)]
        for node in NODES:
            if node not in silent:
                self.world.segments.discard((node, volume))
        await self._step()
        return tuple(silent)

    async def drop_at(self, node: str, volume: str) -> bool:
        await self._step()
        if not self.world.answers(node):
            return False
        self.world.segments.discard((node, volume))
        return True

    # endpoints

    async def allocate(self, port: int, in_use: set[str]) -> str:
        await self._step()
        self._refuse("allocate")
        return next(a for a in (f"127.9.9.{n}" for n in range(1, 255)) if a not in in_use)

    async def apply(self, plan: EndpointPlan) -> None:
        await self._step()
        self.world.endpoints[plan.cluster] = plan

    async def move_writer(self, plan: EndpointPlan) -> None:
        await self._step()
        self.world.endpoints[plan.cluster] = plan

    async def remove(self, cluster: str) -> None:
        await self._step()
        self.world.endpoints.pop(cluster, None)


PortsFactory = Callable[[World], Ports]
