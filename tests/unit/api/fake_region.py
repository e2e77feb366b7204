"""A region for tests of the API: the real server and the real store, and a control plane that moves states.

Runs in a thread of its own, so that blocking clients (boto3, the aws CLI, Terraform) can talk to it. No
process, no engine.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import boto3
from botocore.config import Config

from borealis.api.context import Context
from borealis.api.server import ApiServer
from borealis.control.events import ClusterEvent, InstanceEvent, cluster_event, instance_event
from borealis.control.records import (
    Cluster,
    ClusterPending,
    CustomEndpoint,
    EndpointAddresses,
    Instance,
    InstancePending,
    now_utc,
)
from borealis.control.settle import with_new_names
from borealis.control.states import ClusterStatus, EndpointStatus, InstanceStatus, Want
from borealis.control.store import Conflict, Delete, Op, Put, Store
from borealis.engines.base import Engine, EngineVersion
from borealis.engines.classes import INSTANCE_CLASSES
from borealis.region import AccessKeyPair, Credentials

T = TypeVar("T")
REGION = "us-east-1"
ACCOUNT = "123456789012"
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
KEY = AccessKeyPair(access_key_id="AKIATESTTESTTESTTEST", secret_access_key="test/secret+key", user="root")
PASSWORD = "Correct-Horse-9"
ENGINE = "aurora-postgresql"
OTHER_ENGINE = "aurora-mysql"
PORTS = {ENGINE: 5432, OTHER_ENGINE: 3306}


def fake_engine(name: str) -> Engine:
    """An engine that can turn a password into a verifier and nothing else."""
    return cast(
        Engine,
        SimpleNamespace(
            name=name,
            default_port=PORTS[name],
            password_verifier=lambda user, password: f"verifier-of-{len(password)}",
        ),
    )


def version(number: str) -> EngineVersion:
    major = number.partition(".")[0]
    return EngineVersion(ENGINE, number, major, Path(f"/pg/{major}"), f"{ENGINE}{major}")


def other_version(number: str) -> EngineVersion:
    major = number.rpartition(".")[0]
    return EngineVersion(OTHER_ENGINE, number, major, Path(f"/other/{major}"), f"{OTHER_ENGINE}{major}")


class FakeNames:
    """Endpoint names that are the addresses."""

    def writer(self, cluster: Cluster) -> str | None:
        return cluster.addresses.writer or None

    def reader(self, cluster: Cluster) -> str | None:
        return cluster.addresses.reader or None

    def custom(self, cluster: Cluster, endpoint: CustomEndpoint) -> str | None:
        return endpoint.address or None

    def instance(self, cluster: Cluster, instance: Instance) -> str | None:
        return instance.address or None


class FakeControl:
    """Moves every record to where its user wants it, one step for each look, unless it is held."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.kicks: list[str] = []
        self.held = False
        self._wake = asyncio.Event()

    def kick(self, cluster: str) -> None:
        self.kicks.append(cluster)
        self._wake.set()

    def hold(self, held: bool) -> None:
        """Stop moving, so that a test can see the states in between."""
        self.held = held
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while not self.held and await self._step():
                pass

    async def _step(self) -> bool:
        ops = [op for cluster in self.store.clusters() for op in self._cluster(cluster)]
        try:
            await self.store.commit(ops)
        except Conflict:
            return True
        return bool(ops)

    def _cluster(self, cluster: Cluster) -> list[Op]:
        ops = [op for i in self.store.instances(cluster.key) for op in self._instance(cluster, i)]
        ops += [op for e in self.store.endpoints(cluster.key) for op in self._endpoint(e)]
        return ops or self._cluster_itself(cluster)

    def _cluster_itself(self, cluster: Cluster) -> list[Op]:
        status, members = cluster.status, self.store.instances(cluster.key)
        if cluster.want is Want.DELETED:
            return [] if members else [Delete(cluster), cluster_event(ClusterEvent.DELETED, cluster)]
        if status is ClusterStatus.CREATING:
            addresses = EndpointAddresses(writer="127.1.1.1", reader="127.1.1.2")
            new = cluster.but(status=ClusterStatus.AVAILABLE, addresses=addresses)
            return [Put(new), cluster_event(ClusterEvent.CREATED, new)]
        if cluster.pending and cluster.apply_pending:
            return [Put(_applied(cluster))]
        if status is ClusterStatus.STOPPING:
            stopped = all(m.status is InstanceStatus.STOPPED for m in members)
            return [Put(cluster.but(status=ClusterStatus.STOPPED))] if stopped else []
        if status is ClusterStatus.FAILING_OVER and cluster.failover is not None:
            readers = [m.key for m in members if m.key != cluster.writer]
            writer = cluster.failover.target or readers[0]
            return [Put(cluster.but(writer=writer, failover=None, status=ClusterStatus.AVAILABLE))]
        first = next((m.key for m in members), None)
        if first and cluster.writer not in [m.key for m in members]:
            return [Put(cluster.but(writer=first))]
        if status not in (ClusterStatus.AVAILABLE, ClusterStatus.STOPPED):
            return [Put(cluster.but(status=ClusterStatus.AVAILABLE))]
        return []

    def _instance(self, cluster: Cluster, instance: Instance) -> list[Op]:
        status = instance.status
        if instance.want is Want.DELETED:
            return [Delete(instance), instance_event(InstanceEvent.DELETED, instance)]
        if cluster.want is Want.STOPPED:
            stopped = instance.but(status=InstanceStatus.STOPPED)
            return [Put(stopped)] if status is not InstanceStatus.STOPPED else []
        if instance.pending and instance.apply_pending:
            new = instance.but(
                identifier=instance.pending.identifier or instance.identifier,
                instance_class=instance.pending.instance_class or instance.instance_class,
                arn=_arn(instance.arn, instance.pending.identifier),
                pending=InstancePending(),
                apply_pending=False,
            )
            names = {instance.identifier: new.identifier}
            members = [(e, with_new_names(e, names)) for e in self.store.endpoints(cluster.key)]
            return [Put(new), *(Put(renamed) for former, renamed in members if renamed != former)]
        if status is InstanceStatus.AVAILABLE:
            return []
        order = [i.key for i in self.store.instances(cluster.key)].index(instance.key)
        up = instance.but(
            status=InstanceStatus.AVAILABLE,
            reboot=None,
            availability_zone=instance.availability_zone or ZONES[order % 3],
            address=instance.address or f"127.1.2.{order + 1}",
        )
        return [Put(up), instance_event(InstanceEvent.CREATED, up)]

    def _endpoint(self, endpoint: CustomEndpoint) -> list[Op]:
        if endpoint.want is Want.DELETED:
            return [Delete(endpoint)]
        if endpoint.status is EndpointStatus.AVAILABLE:
            return []
        return [Put(endpoint.but(status=EndpointStatus.AVAILABLE, address="127.1.3.1"))]


def _applied(cluster: Cluster) -> Cluster:
    pending = cluster.pending
    return cluster.but(
        identifier=pending.identifier or cluster.identifier,
        arn=_arn(cluster.arn, pending.identifier),
        port=pending.port or cluster.port,
        engine_version=pending.engine_version or cluster.engine_version,
        pending=ClusterPending(),
        apply_pending=False,
    )


def _arn(arn: str, identifier: str | None) -> str:
    return arn.rpartition(":")[0] + ":" + identifier if identifier else arn


class Clock:
    """The time now, moved by `offset`."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def __call__(self) -> datetime:
        return now_utc() + self.offset


class FakeRegion:
    """Server, store and control in a thread; `with FakeRegion(folder) as region:`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.clock = Clock()
        self.versions = [version("15.18"), version("15.20"), version("16.6")]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-region", daemon=True)

    def __enter__(self) -> FakeRegion:
        self._thread.start()
        self.call(self._start)
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run a coroutine function on the region's loop."""

        async def run() -> T:
            return await function()

        future: Future[T] = asyncio.run_coroutine_threadsafe(run(), self._loop)
        return future.result(60)

    def hold(self, held: bool = True) -> None:
        """Stop or resume the control plane."""

        async def run() -> None:
            self.control.hold(held)

        self.call(run)

    async def _start(self) -> None:
        self.store = await Store.open(self._folder / "control.sqlite")
        self.control = FakeControl(self.store)
        self.context = Context(
            region=REGION,
            account=ACCOUNT,
            zones=ZONES,
            store=self.store,
            control=self.control,
            names=FakeNames(),
            engines={name: fake_engine(name) for name in PORTS},
            versions=lambda: self.versions,
            classes=INSTANCE_CLASSES,
            clock=self.clock,
        )
        self.server = ApiServer("127.0.0.1", 0, self.context, Credentials(keys=(KEY,)))
        await self.server.start()
        self._task = asyncio.create_task(self.control.run())

    async def _stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.server.close()
        await self.store.close()

    def client(self, service: str = "rds", **changes: Any) -> Any:
        """A boto3 client of the region."""
        config = Config(retries={"max_attempts": 0}, parameter_validation=changes.pop("validate", True))
        settings = {
            "region_name": REGION,
            "endpoint_url": self.server.url,
            "aws_access_key_id": KEY.access_key_id,
            "aws_secret_access_key": KEY.secret_access_key,
            "config": config,
            **changes,
        }
        return boto3.session.Session().client(service, **settings)

    def environment(self) -> dict[str, str]:
        """Environment variables that lead AWS's tools here."""
        return {
            "AWS_ENDPOINT_URL": self.server.url,
            "AWS_ACCESS_KEY_ID": KEY.access_key_id,
            "AWS_SECRET_ACCESS_KEY": KEY.secret_access_key,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(self._folder / "no-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self._folder / "no-credentials"),
            "AWS_PAGER": "",
        }


def with_quotas(region: FakeRegion, **quotas: int) -> None:
    """Change quotas of a running region."""
    object.__setattr__(region.context, "quotas", replace(region.context.quotas, **quotas))
