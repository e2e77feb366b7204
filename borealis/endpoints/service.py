"""All endpoints of a region: makes proxies and names what the control plane's plans say.

Owns the proxies, the table of names, the name server and the region's block of the hosts file. Every call
may be repeated; after a restart of the control plane the first `apply` of each cluster finds what is there.
A plan is anything that has the attributes of `Plan`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from borealis.endpoints.addresses import AddressBlock
from borealis.endpoints.dns import NameServer
from borealis.endpoints.errors import EndpointError
from borealis.endpoints.haproxy import Endpoint
from borealis.endpoints.names import HostsFile, NamePatterns, NameTable
from borealis.endpoints.proxy import ProcessAgent, Proxy, proxies_on_disk
from borealis.endpoints.published import PublishedNames
from borealis.logs import get_logger
from borealis.paths import RegionPaths

WRITER, READER, CUSTOM = "writer", "reader", "custom"
WRITER_SLOTS: Final = 3
POOL_SLOTS: Final = 24
"""Up to sixteen instances, and some room for sessions that outlive their target."""
PUBLISH_WAIT_SECONDS: Final = 1.0
GATHER_SECONDS: Final = 0.05
"""Names of several clusters that change together are published together."""
RESTART_GATHER_SECONDS: Final = 2.0
"""After a restart: until all clusters have said their names, the former block stays as it is."""

log = get_logger(__name__)


class PlannedTarget(Protocol):
    @property
    def address(self) -> str: ...


class PlannedCustom(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def identifier(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def targets(self) -> Sequence[PlannedTarget]: ...


class PlannedName(Protocol):
    @property
    def identifier(self) -> str: ...
    @property
    def address(self) -> str: ...


class Plan(Protocol):
    """All endpoints of one cluster as they should be."""

    @property
    def cluster(self) -> str:
        """The cluster's key."""

    @property
    def identifier(self) -> str: ...
    @property
    def hash12(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def running(self) -> bool:
        """False: nothing listens."""

    @property
    def writer_address(self) -> str: ...
    @property
    def reader_address(self) -> str: ...
    @property
    def writer(self) -> PlannedTarget | None:
        """None: there is no writer now, connections are held."""

    @property
    def readers(self) -> Sequence[PlannedTarget]:
        """Where the reader endpoint leads, the writer among them if need be."""

    @property
    def customs(self) -> Sequence[PlannedCustom]: ...
    @property
    def instances(self) -> Sequence[PlannedName]: ...


def cluster_endpoints(plan: Plan) -> tuple[Endpoint, ...]:
    """The endpoints of the cluster's own proxy."""
    writer = (plan.writer.address,) if plan.writer is not None else ()
    readers = tuple(target.address for target in plan.readers)
    return (
        Endpoint(WRITER, plan.writer_address, plan.port, WRITER_SLOTS, writer),
        Endpoint(READER, plan.reader_address, plan.port, POOL_SLOTS, readers),
    )


def names_of(plan: Plan, patterns: NamePatterns) -> dict[str, str]:
    """All names of the cluster and their addresses."""
    unique = plan.hash12
    names = {
        patterns.cluster(plan.identifier, unique): plan.writer_address,
        patterns.reader(plan.identifier, unique): plan.reader_address,
    }
    names |= {patterns.custom(custom.identifier, unique): custom.address for custom in plan.customs}
    names |= {patterns.instance(one.identifier, unique): one.address for one in plan.instances}
    return {name: address for name, address in names.items() if address}


class EndpointService:
    """The endpoints of one region."""

    def __init__(
        self,
        paths: RegionPaths,
        patterns: NamePatterns,
        agent: ProcessAgent,
        *,
        hosts: HostsFile | None,
        dns_port: int,
    ) -> None:
        """`hosts`: None leaves the hosts file alone. `dns_port`: 0 for no name server."""
        self._paths = paths
        self._patterns = patterns
        self._agent = agent
        self._hosts = hosts
        self._dns_port = dns_port
        self._block = AddressBlock.of(paths.root)
        self._table = NameTable()
        self._dns = NameServer(self._table, patterns.domain)
        self._locks: dict[str, asyncio.Lock] = {}
        self._changed = asyncio.Event()
        self._published = asyncio.Event()
        self._published.set()
        self._publisher: asyncio.Task[None] | None = None
        self.names = PublishedNames(patterns)
        """What the API gives out as hosts."""

    async def start(self) -> None:
        """Start the name server and the publication of names; what cannot be had is logged, no more."""
        if self._dns_port:
            try:
                await self._dns.start(self._block.region_address, self._dns_port)
            except EndpointError as error:
                log.warning("no name server: %s", error.message)
        if self._hosts is not None and not self._hosts.writable():
            log.info("the hosts file cannot be written: clients are given addresses instead of names")
            self._hosts = None
        self._publisher = asyncio.create_task(self._publish_changes(), name="publish-names")

    async def close(self) -> None:
        """End what this process runs. Proxies and the hosts file stay: clients go on."""
        if self._publisher is not None:
            self._publisher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._publisher
            self._publisher = None
        self._dns.close()
        self.names.close()

    @property
    def name_server(self) -> str | None:
        """Where the name server listens, host:port; None: there is none."""
        return f"{self._block.region_address}:{self._dns_port}" if self._dns_port else None

    async def allocate(self, port: int, in_use: set[str]) -> str:
        """A loopback address of the region outside `in_use`, free at `port`. Raises NoAddress."""
        return await asyncio.to_thread(self._block.allocate, port, frozenset(in_use))

    async def apply(self, plan: Plan) -> None:
        """Make the cluster's proxies and names as planned. Raises EndpointError."""
        async with self._lock(plan.cluster):
            wanted = {custom.key: custom for custom in plan.customs} if plan.running else {}
            await self._drop(plan.cluster, keep={*wanted, *([plan.cluster] if plan.running else [])})
            if plan.running:
                await self._proxy(plan.cluster).ensure(cluster_endpoints(plan), plan.cluster, _cut(plan))
            for key, custom in wanted.items():
                targets = tuple(target.address for target in custom.targets)
                endpoint = Endpoint(CUSTOM, custom.address, plan.port, POOL_SLOTS, targets)
                await self._proxy(key).ensure((endpoint,), plan.cluster, _cut(plan))
        await self._name(plan.cluster, names_of(plan, self._patterns))

    async def move_writer(self, plan: Plan) -> None:
        """Make the writer endpoint lead to the plan's writer, and cut all sessions to another one.

        Nothing else: `apply` is to follow. Raises EndpointError.
        """
        await self._proxy(plan.cluster).move(cluster_endpoints(plan)[0], _cut(plan))

    async def remove(self, cluster: str) -> None:
        """Remove all endpoints of the cluster with this key."""
        async with self._lock(cluster):
            await self._drop(cluster, keep=set())
        await self._name(cluster, {})
        self._locks.pop(cluster, None)

    async def remove_all(self) -> None:
        """Remove the proxies of all clusters and the region's names: the region goes down."""
        for name, _owner in await asyncio.to_thread(lambda: list(proxies_on_disk(self._paths))):
            await self._proxy(name).remove()
        if self._hosts is not None:
            await asyncio.to_thread(self._hosts.remove)

    # ---- inside ---------------------------------------------------------

    def _lock(self, cluster: str) -> asyncio.Lock:
        return self._locks.setdefault(cluster, asyncio.Lock())

    def _proxy(self, name: str) -> Proxy:
        return Proxy(self._paths, self._agent, name)

    async def _drop(self, cluster: str, keep: set[str]) -> None:
        present = await asyncio.to_thread(lambda: list(proxies_on_disk(self._paths)))
        for name, owner in present:
            if owner == cluster and name not in keep:
                await self._proxy(name).remove()

    async def _name(self, cluster: str, names: Mapping[str, str]) -> None:
        if not self._table.put(cluster, names):
            return
        self._published.clear()
        self._changed.set()
        if self._publisher is None:
            return
        # So that whoever asks next is told the name already. When it takes longer, the address does as well.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PUBLISH_WAIT_SECONDS):
                await self._published.wait()

    async def _publish_changes(self) -> None:
        hosts = self._hosts
        found = hosts is not None and await asyncio.to_thread(hosts.present)
        pause = RESTART_GATHER_SECONDS if found else GATHER_SECONDS
        while True:
            await self._changed.wait()
            await asyncio.sleep(pause)
            pause = GATHER_SECONDS
            self._changed.clear()
            names = self._table.all()
            try:
                if hosts is not None:
                    await asyncio.to_thread(hosts.write, names)
            except EndpointError as error:
                log.warning("%s", error.message)
            await self.names.look(names)
            if not self._changed.is_set():
                self._published.set()


def _cut(plan: Plan) -> _CutRule:
    return _CutRule(
        {target.address for target in plan.readers} | ({plan.writer.address} if plan.writer else set())
    )


class _CutRule:
    """Which sessions end when their address is left.

    Those of the writer endpoint always: they would be on a former writer. Those of other endpoints when their
    instance is out of service; one that only changed its role keeps them.
    """

    def __init__(self, in_service: set[str]) -> None:
        self._in_service = in_service

    def __call__(self, section: str, address: str) -> bool:
        return section == WRITER or address not in self._in_service
