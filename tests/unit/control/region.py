"""A whole region in memory: the real store and reconciler on a fake world, and what users ask of the API."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

from borealis.control.context import ControlContext
from borealis.control.garbage import collect_for_ever
from borealis.control.observe import Observer
from borealis.control.reconciler import Reconciler
from borealis.control.records import (
    Cluster,
    FailoverRequest,
    Instance,
    InstancePending,
    Node,
    RebootRequest,
    Volume,
    new_cluster_resource_id,
    new_instance_resource_id,
    new_volume_id,
    now_utc,
)
from borealis.control.settings import ControlSettings
from borealis.control.states import ClusterStatus, InstanceStatus, Want
from borealis.control.store import Conflict, Put, Store
from borealis.control.view import EngineLife

from .fakes import NODES, Ports, World
from .virtual_time import InPlace

ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")


class FakeRegion:
    """Starts, kills and restarts control over one world and one state file."""

    def __init__(self, folder: Path, seed: int = 0, settings: ControlSettings | None = None) -> None:
        self.rng = random.Random(seed)
        self.world = World(self.rng)
        self.settings = settings or ControlSettings()
        self.boot_id = "boot-1"
        self._path = folder / "control.sqlite"
        self.store: Store
        self._reconciler: Reconciler
        self._observer: Observer

    async def start(self) -> None:
        self.store = await Store.open(self._path, InPlace())
        ports = Ports(self.world)
        self._observer = Observer(ports, ports, self.settings, self.kick)
        self.context = ControlContext(
            store=self.store,
            settings=self.settings,
            zones=ZONES,
            instances=ports,
            drivers=ports,
            volumes=ports,
            endpoints=ports,
            observer=self._observer,
            boot_id=self.boot_id,
            wake=self.kick,
        )
        if not self.store.nodes():
            await self.store.commit([Put(Node(id=n, availability_zone="a", address=n)) for n in NODES])
        self._reconciler = Reconciler(self.context)
        self._garbage = asyncio.create_task(collect_for_ever(self.store, ports))
        self.world.observer = self._observer
        self._observer.processes(
            {name: EngineLife.ALIVE for name, life in self.world.lives.items() if life.engine},
            [name for name, life in self.world.lives.items() if life.driver],
        )
        self._reconciler.start()

    def kick(self, cluster: str) -> None:
        self._reconciler.kick(cluster)

    async def kill(self) -> None:
        """As kill -9: nothing that control does from now on has an effect."""
        self.world.note("control is killed")
        self.world.crash_control()
        await self.stop()

    async def stop(self) -> None:
        self._garbage.cancel()
        await asyncio.gather(self._garbage, return_exceptions=True)
        await self._reconciler.close()
        await self._observer.close()
        await self.store.close()

    async def until(self, condition: Callable[[], bool], seconds: float = 120.0) -> None:
        """Wait, in the simulation's time, until `condition()` holds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not condition():
            if loop.time() > deadline:
                raise AssertionError("it did not come to pass:\n" + self.describe())
            await asyncio.sleep(0.02)

    def describe(self) -> str:
        lines = self.world.log[-40:]
        for cluster in self.store.clusters():
            lines.append(_short(cluster))
            lines += ["  " + _short(instance) for instance in self.store.instances(cluster.key)]
            lines.append(f"  endpoints: {self.world.endpoints.get(cluster.key)}")
        lines += [
            f"  {name}: {life.role} {life.term} engine={life.engine}"
            for name, life in self.world.lives.items()
        ]
        return "\n".join(lines)

    # the user

    async def create_cluster(self, identifier: str = "shop") -> str:
        cluster = Cluster(
            resource_id=new_cluster_resource_id(),
            identifier=identifier,
            arn=f"arn:aws:rds:us-east-1:1:cluster:{identifier}",
            engine="aurora-postgresql",
            engine_version="15.20",
            port=5432,
            master_username="dba",
            master_verifier="first",
            volume=Volume(id=new_volume_id()),
        )
        await self.store.commit([Put(cluster)])
        return cluster.key

    async def create_instance(self, cluster: str, identifier: str, tier: int = 1) -> str:
        instance = Instance(
            resource_id=new_instance_resource_id(),
            identifier=identifier,
            arn=f"arn:aws:rds:us-east-1:1:db:{identifier}",
            cluster=cluster,
            engine="aurora-postgresql",
            engine_version="15.20",
            instance_class="db.r6g.large",
            promotion_tier=tier,
        )
        await self.store.commit([Put(instance)])
        return instance.key

    async def change_cluster(self, key: str, **changes: object) -> None:
        await self.store.update(Cluster, key, lambda c: c.but(**changes))

    async def change_instance(self, key: str, **changes: object) -> None:
        await self.store.update(Instance, key, lambda i: i.but(**changes))

    async def fail_over(self, cluster: str, target: str | None = None) -> None:
        await self.change_cluster(cluster, failover=FailoverRequest(target=target, requested_at=now_utc()))

    async def reboot(self, instance: str, force_failover: bool = False) -> None:
        request = RebootRequest(requested_at=now_utc(), force_failover=force_failover)
        await self.change_instance(instance, reboot=request, status=InstanceStatus.REBOOTING)

    async def change_class(self, instance: str, name: str) -> None:
        await self.change_instance(instance, pending=InstancePending(instance_class=name), apply_pending=True)

    async def delete_instance(self, instance: str) -> None:
        await self.change_instance(instance, want=Want.DELETED)

    # judgements

    def cluster(self, key: str) -> Cluster:
        found = self.store.cluster(key)
        if found is None:
            raise Conflict("gone")
        return found

    def instance(self, key: str) -> Instance:
        found = self.store.instance(key)
        if found is None:
            raise Conflict("gone")
        return found

    def settled(self, key: str) -> bool:
        """Everything is as the user wants it, in the records and in the world, and nothing is left over."""
        cluster, instances = self.cluster(key), self.store.instances(key)
        if cluster.opening or cluster.failover or cluster.volume.image_job or cluster.volume.garbage:
            return False
        lives = {i.incarnation.id for i in instances if i.incarnation is not None}
        if set(self.world.lives) != lives or any(i.retired for i in instances):
            return False
        if cluster.want is Want.STOPPED:
            stopped = all(i.status is InstanceStatus.STOPPED for i in instances)
            return cluster.status is ClusterStatus.STOPPED and stopped
        if cluster.status is not ClusterStatus.AVAILABLE:
            return False
        if any(i.status is not InstanceStatus.AVAILABLE or i.want is Want.DELETED for i in instances):
            return False
        return not instances or self._writer_right(cluster, instances)

    def _writer_right(self, cluster: Cluster, instances: list[Instance]) -> bool:
        writer = next((i for i in instances if i.key == cluster.writer), None)
        if writer is None or writer.incarnation is None:
            return False
        plan = self.world.endpoints.get(cluster.key)
        return (
            self.world.writers(cluster.volume.id) == [writer.incarnation.id]
            and plan is not None
            and plan.writer is not None
            and plan.writer.address == writer.address
            and len(plan.readers) == max(1, len(instances) - 1)
            and self.world.volumes[cluster.volume.id].verifier == cluster.master_verifier
        )


def _short(record: Cluster | Instance) -> str:
    """The fields that tell why something is not done."""
    names = [
        "identifier",
        "status",
        "want",
        "reboot",
        "pending",
        "incarnation",
        "retired",
        "writer",
        "opening",
        "failover",
        "volume",
    ]
    return " ".join(f"{name}={getattr(record, name)}" for name in names if hasattr(record, name))
