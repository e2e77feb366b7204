"""Endpoints with the real HAProxy: holding, moving, cutting, balancing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from borealis.endpoints import service as service_module
from borealis.endpoints.errors import EndpointError
from borealis.endpoints.haproxy import Moves, moves
from borealis.endpoints.names import HostsFile, NamePatterns
from borealis.endpoints.proxy import Proxy, program, unprivileged
from borealis.endpoints.runtime import Runtime
from borealis.endpoints.service import EndpointService, cluster_endpoints
from borealis.host.records import ProcessSpec
from borealis.paths import RegionPaths
from borealis.rpc import RpcError

try:
    program()
except EndpointError:
    pytest.skip("haproxy is not installed", allow_module_level=True)

PORT = 54399
WAIT_SECONDS = 20.0


@dataclass(frozen=True)
class Target:
    address: str
    instance: str = "i"


@dataclass(frozen=True)
class Custom:
    key: str
    identifier: str
    address: str
    targets: tuple[Target, ...] = ()


@dataclass(frozen=True)
class Plan:
    writer_address: str
    reader_address: str
    writer: Target | None = None
    readers: tuple[Target, ...] = ()
    customs: tuple[Custom, ...] = ()
    running: bool = True
    cluster: str = "cluster-ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    identifier: str = "demo"
    hash12: str = "abcdefghijkl"
    port: int = PORT
    instances: tuple[Target, ...] = ()


@dataclass
class Agent:
    """Stands in for the host agent."""

    running: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    async def spawn(self, spec: ProcessSpec) -> int:
        process = self.running.get(spec.name)
        if process is None or process.returncode is not None:
            with open(spec.log, "ab") as log:
                process = await asyncio.create_subprocess_exec(*spec.argv, stdout=log, stderr=log)
            self.running[spec.name] = process
        return process.pid

    async def stop(self, name: str, signal: str | None = None, wait: float = 10.0) -> int | None:
        if name not in self.running:
            raise RpcError("UnknownProcess", name)
        process = self.running.pop(name)
        if process.returncode is None:
            process.terminate()
        return await process.wait()

    async def forget(self, name: str) -> None:
        self.running.pop(name, None)


class Instance:
    """A server that sends its name to whoever connects."""

    def __init__(self, address: str, name: str) -> None:
        self.target = Target(address)
        self.name = name
        self._server: asyncio.Server | None = None
        self._sessions: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.target.address, PORT, backlog=1000)

    async def _serve(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sessions.append(writer)
        writer.write(self.name.encode() + b"\n")

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for session in self._sessions:
                session.transport.abort()
            self._sessions.clear()
            self._server = None


class Client:
    """A connection, and the name of the instance that it came to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, address: str) -> Client:
        return cls(*await asyncio.open_connection(address, PORT))

    async def greeting(self) -> str:
        return (await asyncio.wait_for(self.reader.readline(), WAIT_SECONDS)).decode().strip()

    async def cut(self) -> None:
        """Return when the session has been ended from the other side."""
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(self.reader.read(), WAIT_SECONDS) == b""

    def close(self) -> None:
        self.writer.close()


@dataclass
class Region:
    service: EndpointService
    agent: Agent
    paths: RegionPaths
    plan: Plan
    instances: list[Instance]
    clients: list[Client] = field(default_factory=list)

    async def connect(self, address: str, count: int = 1) -> list[Client]:
        made = list(await asyncio.gather(*(Client.connect(address) for _ in range(count))))
        self.clients += made
        return made

    async def names(self, address: str, count: int = 1) -> list[str]:
        clients = await self.connect(address, count)
        return list(await asyncio.gather(*(client.greeting() for client in clients)))


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bor-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
async def region(root: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Region]:
    monkeypatch.setattr(service_module, "PUBLISH_WAIT_SECONDS", WAIT_SECONDS)
    paths = RegionPaths(root)
    paths.log_dir.mkdir()
    (root / "hosts").write_text("127.0.0.1\tlocalhost\n")
    agent = Agent()
    hosts = HostsFile(root, root / "hosts", root / "hosts.lock")
    service = EndpointService(
        paths, NamePatterns("us-east-1", "rds.borealis.internal"), agent, hosts=hosts, dns_port=0
    )
    await service.start()
    in_use: set[str] = set()
    for _ in range(6):
        in_use.add(await service.allocate(PORT, in_use))
    writer_address, reader_address, custom_address, *rest = sorted(in_use)
    instances = [Instance(address, f"i{n}") for n, address in enumerate(rest)]
    for instance in instances:
        await instance.start()
    plan = Plan(writer_address, reader_address, customs=(Custom("cluster-endpoint-1", "bi", custom_address),))
    made = Region(service, agent, paths, plan, instances)
    yield made
    for client in made.clients:
        client.close()
    for instance in instances:
        await instance.stop()
    await service.remove_all()
    await service.close()
    assert not agent.running


def with_writer(region: Region, number: int | None) -> Plan:
    writer = None if number is None else region.instances[number].target
    readers = tuple(i.target for n, i in enumerate(region.instances) if n != number)
    return replace(region.plan, writer=writer, readers=readers)


async def test_roles(region: Region) -> None:
    await region.service.apply(with_writer(region, 0))
    assert await region.names(region.plan.writer_address, 3) == ["i0", "i0", "i0"]
    assert Counter(await region.names(region.plan.reader_address, 10)) == {"i1": 5, "i2": 5}


async def test_connections_are_held_while_there_is_no_writer(region: Region) -> None:
    await region.service.apply(with_writer(region, None))
    clients = await region.connect(region.plan.writer_address, 50)
    greetings = [asyncio.create_task(client.greeting()) for client in clients]
    await asyncio.wait(greetings, timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
    assert not any(task.done() for task in greetings)
    await region.service.move_writer(with_writer(region, 1))
    assert set(await asyncio.gather(*greetings)) == {"i1"}


async def test_connections_to_a_dead_writer_reach_the_next_one(region: Region) -> None:
    """Nobody has told the proxy yet: connections are refused, tried again, and arrive all the same."""
    await region.service.apply(with_writer(region, 0))
    (session,) = await region.connect(region.plan.writer_address)
    await session.greeting()
    await region.instances[0].stop()
    await session.cut()
    clients = await region.connect(region.plan.writer_address, 50)
    greetings = [asyncio.create_task(client.greeting()) for client in clients]
    await asyncio.wait(greetings, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
    assert not any(task.done() for task in greetings)
    await region.service.move_writer(with_writer(region, 2))
    assert set(await asyncio.gather(*greetings)) == {"i2"}


async def test_nobody_is_lost_however_the_writer_moves(region: Region) -> None:
    """Round after round: the writer dies, clients keep coming, there is none for a while, or one at once."""
    service, current = region.service, 0
    await service.apply(with_writer(region, current))
    for round_ in range(12):
        await region.instances[current].stop()
        clients = await region.connect(region.plan.writer_address, 20)
        if round_ % 3:
            await service.apply(with_writer(region, None))
            clients += await region.connect(region.plan.writer_address, 20)
        former, current = current, (current + 1) % 3
        await service.move_writer(with_writer(region, current))
        name = region.instances[current].name
        assert {await client.greeting() for client in clients} == {name}
        if round_ % 2:
            await service.apply(with_writer(region, current))
        # What the proxy says of itself is what was asked for: nothing is left to do.
        endpoint = cluster_endpoints(with_writer(region, current))[0]
        slots = (await Runtime(Proxy(region.paths, region.agent, region.plan.cluster).socket).state())[
            "writer"
        ]
        assert [slot.address for slot in slots if slot.ready] == [region.instances[current].target.address]
        assert moves(endpoint, slots, 1, lambda _address: True) == Moves((), ())
        await region.instances[former].start()


async def test_sessions_to_a_former_writer_are_cut(region: Region) -> None:
    await region.service.apply(with_writer(region, 0))
    clients = await region.connect(region.plan.writer_address, 20)
    assert {await client.greeting() for client in clients} == {"i0"}
    await region.service.move_writer(with_writer(region, 1))
    await asyncio.gather(*(client.cut() for client in clients))
    assert await region.names(region.plan.writer_address) == ["i1"]


async def test_sessions_on_the_reader_endpoint(region: Region) -> None:
    """A reader that becomes the writer keeps them; one that goes out of service loses them."""
    await region.service.apply(with_writer(region, 0))
    clients = {}
    for client in await region.connect(region.plan.reader_address, 2):
        clients[await client.greeting()] = client
    assert set(clients) == {"i1", "i2"}
    plan = replace(region.plan, writer=region.instances[1].target, readers=(region.instances[0].target,))
    await region.service.apply(plan)
    await clients["i2"].cut()
    assert set(await region.names(region.plan.reader_address, 4)) == {"i0"}
    assert not clients["i1"].reader.at_eof()


async def test_the_reader_endpoint_without_readers_leads_to_the_writer(region: Region) -> None:
    writer = region.instances[0].target
    await region.service.apply(replace(region.plan, writer=writer, readers=(writer,)))
    assert await region.names(region.plan.reader_address, 2) == ["i0", "i0"]
    await region.service.apply(with_writer(region, 0))
    assert set(await region.names(region.plan.reader_address, 6)) == {"i1", "i2"}


async def test_a_dead_reader_costs_nobody_a_connection(region: Region) -> None:
    await region.service.apply(with_writer(region, 0))
    await region.instances[1].stop()
    assert set(await region.names(region.plan.reader_address, 10)) == {"i2"}


async def test_custom_endpoints(region: Region) -> None:
    custom = region.plan.customs[0]
    plan = with_writer(region, 0)
    await region.service.apply(
        replace(plan, customs=(replace(custom, targets=(region.instances[2].target,)),))
    )
    assert await region.names(custom.address, 2) == ["i2", "i2"]
    assert len(region.agent.running) == 2
    await region.service.apply(replace(plan, customs=()))
    assert len(region.agent.running) == 1
    with pytest.raises(ConnectionRefusedError):
        await region.connect(custom.address)


async def test_a_stopped_cluster_listens_nowhere(region: Region) -> None:
    await region.service.apply(with_writer(region, 0))
    await region.service.apply(replace(region.plan, running=False))
    assert not region.agent.running
    with pytest.raises(ConnectionRefusedError):
        await region.connect(region.plan.writer_address)
    await region.service.apply(with_writer(region, 0))
    assert await region.names(region.plan.writer_address) == ["i0"]


async def test_a_proxy_that_dies_comes_back_with_its_targets(region: Region) -> None:
    await region.service.apply(with_writer(region, 0))
    await region.service.move_writer(with_writer(region, 1))
    await region.service.apply(with_writer(region, 1))
    name = f"proxy-{region.plan.cluster}"
    process = region.agent.running[name]
    process.send_signal(signal.SIGKILL)
    await process.wait()
    with pytest.raises(EndpointError):
        await region.service.move_writer(with_writer(region, 1))
    await region.service.apply(with_writer(region, 1))
    assert await region.names(region.plan.writer_address) == ["i1"]


async def test_another_service_goes_on_where_the_first_one_was(region: Region) -> None:
    """The control plane was restarted; the proxy runs on, and sessions with it."""
    await region.service.apply(with_writer(region, 0))
    (session,) = await region.connect(region.plan.writer_address)
    await session.greeting()
    again = EndpointService(region.paths, NamePatterns("r", "d"), region.agent, hosts=None, dns_port=0)
    pids = {name: process.pid for name, process in region.agent.running.items()}
    await again.apply(with_writer(region, 0))
    assert pids == {name: process.pid for name, process in region.agent.running.items()}
    assert not session.reader.at_eof()
    await again.remove(region.plan.cluster)
    assert not region.agent.running
    await again.close()


async def test_a_new_port_needs_a_new_process(region: Region) -> None:
    await region.service.apply(with_writer(region, 0))
    pid = region.agent.running[f"proxy-{region.plan.cluster}"].pid
    await region.service.apply(replace(with_writer(region, 0), port=PORT + 1))
    assert region.agent.running[f"proxy-{region.plan.cluster}"].pid != pid
    with socket.create_connection((region.plan.writer_address, PORT + 1)):
        pass


async def test_an_address_that_is_taken_is_told(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("borealis.endpoints.proxy.START_SECONDS", 0.5)
    with (
        socket.create_server((region.plan.writer_address, PORT)),
        pytest.raises(EndpointError, match="did not start"),
    ):
        await region.service.apply(with_writer(region, 0))


def test_the_socket_is_never_the_longest_path(root: Path) -> None:
    """`RegionPaths.check` looks at the engine's socket; HAProxy binds its own under a longer name first."""
    paths = RegionPaths(root)
    bound = f"{Proxy(paths, Agent(), 'cluster-' + 'X' * 26).socket}.4194304.tmp"
    assert len(bound) <= len(str(paths.upstream_dir("i999999") / ".s.PGSQL.65535"))


async def test_names_are_published(region: Region, root: Path) -> None:
    await region.service.apply(with_writer(region, 0))
    line = f"{region.plan.writer_address}\tdemo.cluster-abcdefghijkl.us-east-1.rds.borealis.internal\n"
    assert line in (root / "hosts").read_text()
    await region.service.remove(region.plan.cluster)
    assert line not in (root / "hosts").read_text()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give up rights")
async def test_a_proxy_of_root_gives_up_its_rights(region: Region) -> None:
    await region.service.apply(with_writer(region, 0))
    pid = region.agent.running[f"proxy-{region.plan.cluster}"].pid
    user = unprivileged()
    assert user is not None
    assert Path(f"/proc/{pid}").owner() == user[0]
    # Nobody but root may command it.
    sockets = list((region.paths.run_dir / "x").iterdir())
    assert [path.stat().st_mode & 0o777 for path in sockets] == [0o600, 0o600]
