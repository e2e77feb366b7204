"""A volume, its storage nodes, and instances (driver + engine) of it, without control plane or host agent.

Owns its processes and its folder, and does the little that the control plane would do: make the volume,
attach an instance, name a writer with fresh terms. Reusable by benchmarks. It never hides an error: what a
process says goes to `<root>/log`, and `close()` ends everything that was started, by pid.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pymysql

from borealis import _native
from borealis.engines.base import BootstrapSpec, InstanceSettings, RunAs, VolumeSeed
from borealis.engines.mariadb.administrator import Administrator
from borealis.engines.mariadb.settings import socket_path
from borealis.engines.registry import find_version, get_engine
from borealis.log.seeding import VolumeSeeder
from borealis.log.wire import Purpose
from borealis.paths import RegionPaths
from borealis.rpc import RpcClient, RpcError
from borealis.storage.client import NodeConnection
from borealis.storage.errors import StorageError
from borealis.volume.config import DriverConfig, NodeAddress, encode_config
from borealis.volume.context import quorum_of
from tests.support.editions import MYSQL, POSTGRESQL, Edition, Target

MASTER_PASSWORD = "mini-" + secrets.token_hex(6)
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
GIB = 1 << 30


def free_port() -> int:
    """A TCP port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


OS_USERS = {POSTGRESQL.name: "postgres", MYSQL.name: "nobody"}
DATABASES = {POSTGRESQL.name: "postgres", MYSQL.name: "app"}


def engine_user(edition: Edition = POSTGRESQL) -> RunAs | None:
    """Who engines run as: nobody else when we are not root."""
    return RunAs.lookup(OS_USERS[edition.name]) if os.getuid() == 0 else None


@dataclass
class Node:
    """One storage node."""

    id: str
    az: str
    address: str
    directory: Path
    process: subprocess.Popen[bytes] | None = None


@dataclass
class Instance:
    """One incarnation of an instance."""

    name: str
    config: DriverConfig
    config_path: Path
    settings: InstanceSettings
    edition: Edition = POSTGRESQL
    driver: subprocess.Popen[bytes] | None = None
    engine: subprocess.Popen[bytes] | None = None
    rpc: RpcClient | None = None
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def admin(self) -> str:
        """Connection string of the administrator, through the engine's own socket."""
        return f"host={self.config.run_dir} port={self.config.port} user=rdsadmin dbname=postgres"

    @property
    def customer(self) -> str:
        """Connection string of the master user, through TCP."""
        return (
            f"host={self.config.listen_address} port={self.config.port} user={self.edition.user} "
            f"password={MASTER_PASSWORD} dbname=postgres"
        )

    @property
    def target(self) -> Target:
        """Where the master user connects, through TCP."""
        return Target(
            self.edition,
            self.config.listen_address,
            self.config.port,
            self.edition.user,
            DATABASES[self.edition.name],
            MASTER_PASSWORD,
        )

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Runs one statement as administrator; rows, if there are any."""
        if self.edition is MYSQL:
            return self._mysql(statement)
        with psycopg.connect(self.admin, autocommit=True, connect_timeout=10) as db:
            cursor = db.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _mysql(self, statement: str) -> list[tuple[Any, ...]]:
        administrator = Administrator.load(Path(self.config.data_dir))
        assert administrator is not None
        with (
            pymysql.connect(
                unix_socket=str(socket_path(self.settings)),
                user=administrator.user,
                password=administrator.password,
                database=DATABASES[MYSQL.name],
                autocommit=True,
            ) as db,
            db.cursor() as cursor,
        ):
            cursor.execute(statement)
            return list(cursor.fetchall())


class MiniCluster:
    """Use as `async with MiniCluster() as cluster`."""

    def __init__(
        self,
        *,
        nodes: int = 6,
        lease_seconds: float = 3.0,
        memory_bytes: int = GIB,
        edition: Edition = POSTGRESQL,
    ) -> None:
        self.edition = edition
        self.root = Path(tempfile.mkdtemp(prefix="bmc-"))
        self.root.chmod(0o711)
        self.paths = RegionPaths(self.root)
        self.paths.check()
        self.volume = "vol-" + secrets.token_hex(6)
        self.lease_seconds = lease_seconds
        self.memory_bytes = memory_bytes
        self.port = free_port()
        self.nodes = [self._node(number) for number in range(1, nodes + 1)]
        self.instances: list[Instance] = []
        self.terms = 1
        self.seed: VolumeSeed | None = None
        self.version = find_version(edition.engine)
        self.engine = get_engine(edition.engine)
        self._incarnations = 0
        self.paths.log_dir.mkdir(mode=0o700)
        for public in (
            self.paths.lib_dir,
            self.paths.run_dir,
            self.paths.run_dir / "n",
            self.paths.run_dir / "i",
        ):
            public.mkdir(mode=0o711)
        self.paths.instances_dir.mkdir(mode=0o711)
        self.paths.lib_dir.chmod(0o755)
        self.library = self.paths.lib_dir / "libborealis_volume.so"
        shutil.copy(Path(_native.__file__).parent / "libborealis_volume.so", self.library)
        self.library.chmod(0o755)

    async def __aenter__(self) -> MiniCluster:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ------------------------------------------------------------------ processes
    def _node(self, number: int) -> Node:
        node = f"n{number}"
        az = ZONES[(number - 1) // 2 % len(ZONES)]
        return Node(node, az, str(self.paths.node_socket(node)), self.paths.node_dir(node))

    def _spawn(self, name: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        with self.paths.log_file(name).open("ab") as log:
            return subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **options
            )

    def start_node(self, node: Node) -> None:
        """Starts one storage node's process."""
        node.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        peers = self.root / "peers.json"
        argv = [sys.executable, "-m", "borealis.storage.main", "--node-id", node.id, "--az", node.az]
        argv += ["--dir", str(node.directory), "--socket", node.address, "--peers", str(peers)]
        node.process = self._spawn(node.id, argv)

    def kill_node(self, node: Node) -> None:
        """kill -9 of one storage node."""
        assert node.process is not None
        node.process.kill()
        node.process.wait()
        node.process = None

    def start_driver(self, instance: Instance) -> None:
        """Starts an instance's driver process."""
        argv = [sys.executable, "-m", "borealis.volume.driver", str(instance.config_path)]
        instance.driver = self._spawn(f"driver-{instance.config.incarnation}", argv)

    async def connect(self, instance: Instance, timeout: float = 20) -> RpcClient:
        """A fresh RPC connection to the instance's driver, once it answers."""
        if instance.rpc is not None and not instance.rpc.closed.is_set():
            return instance.rpc
        deadline = time.monotonic() + timeout
        while True:
            try:
                instance.rpc = await RpcClient.connect(
                    Path(instance.config.rpc_socket), on_event=lambda *e: instance.events.append(e), timeout=1
                )
            except RpcError:
                assert instance.driver is None or instance.driver.poll() is None, "the driver has ended"
                assert time.monotonic() < deadline, "the driver does not answer"
                await asyncio.sleep(0.02)
            else:
                return instance.rpc

    def start_engine(self, instance: Instance) -> None:
        """Starts an instance's engine."""
        command = self.engine.start_command(self.version, Path(instance.config.data_dir), instance.settings)
        user = engine_user(self.edition)
        options: dict[str, Any] = {"cwd": instance.config.data_dir, "env": dict(command.env)}
        if user is not None:
            options |= {"user": user.uid, "group": user.gid, "extra_groups": []}
        instance.engine = self._spawn(f"engine-{instance.config.incarnation}", command.argv, **options)

    # ------------------------------------------------------------------ what the control plane would do
    async def start(self) -> None:
        """Storage nodes and an empty volume."""
        self.write_peers()
        for node in self.nodes:
            self.start_node(node)
        self.seed = await self._bootstrap()
        await self._create_volume(self.seed)

    def write_peers(self) -> None:
        """The nodes' list of each other."""
        book = {node.id: {"az": node.az, "address": node.address} for node in self.nodes}
        (self.root / "peers.json").write_text(json.dumps(book))

    async def _bootstrap(self) -> VolumeSeed:
        master = self.edition.user
        database = None if self.edition is POSTGRESQL else DATABASES[self.edition.name]
        verifier = self.engine.password_verifier(master, MASTER_PASSWORD)
        spec = BootstrapSpec(master, verifier, database, port=self.port)
        return await asyncio.to_thread(
            self.engine.bootstrap, self.version, self.root / "image", engine_user(self.edition), spec
        )

    async def _create_volume(self, seed: VolumeSeed) -> None:
        members = frozenset(node.id for node in self.nodes)
        seeder = VolumeSeeder(
            quorum_of(len(members), members), self.volume, timeline=seed.timeline, start=seed.start_lsn,
            data=seed.log, history=seed.history,
        )  # fmt: skip
        connections = {node.id: await self._dial(node, seeder) for node in self.nodes}
        try:
            for node in members:
                seeder.connected(node)
            async with asyncio.timeout(20):
                while not seeder.complete:
                    for node, message in seeder.take_outbox():
                        connections[node].send(message)
                    await asyncio.sleep(0.005)
                for node, message in seeder.take_outbox():
                    connections[node].send(message)
        finally:
            for connection in connections.values():
                await connection.close()

    async def _dial(self, node: Node, seeder: VolumeSeeder) -> NodeConnection:
        deadline = time.monotonic() + 20
        while True:
            try:
                return await NodeConnection.connect(
                    node.address,
                    self.volume,
                    Purpose.CONTROL,
                    on_message=lambda m: seeder.receive(node.id, m),
                )
            except StorageError:
                assert node.process is not None
                assert node.process.poll() is None, f"{node.id} has ended"
                assert time.monotonic() < deadline, f"{node.id} does not answer"
                await asyncio.sleep(0.02)

    async def add_instance(self, name: str, az: str = ZONES[0]) -> Instance:
        """A new incarnation that follows the volume; returns when its engine answers queries."""
        instance = self._prepare(name, az)
        self.instances.append(instance)
        self.start_driver(instance)
        await self.connect(instance)
        self.start_engine(instance)
        await self.wait_status(instance, lambda status: bool(status["engine"]["up"]))
        return instance

    def _prepare(self, name: str, az: str) -> Instance:
        assert self.seed is not None
        self._incarnations += 1
        inc = f"i{self._incarnations}"
        home, run, up = (
            self.paths.instance_dir(inc),
            self.paths.instance_run(inc),
            self.paths.upstream_dir(inc),
        )
        for directory in (home, run, up):
            directory.mkdir(mode=0o700)
        subprocess.run(["cp", "-a", "--reflink=auto", self.root / "image", home / "data"], check=True)
        user = engine_user(self.edition)
        if user is not None:
            for path in (home, run, up):
                os.chown(path, user.uid, user.gid)
        config = DriverConfig(
            version=1, region=str(self.root), instance_id=name, cluster_id="mini", incarnation=inc,
            volume=self.volume, az=az, nodes=tuple(NodeAddress(n.id, n.az, n.address) for n in self.nodes),
            engine=self.edition.engine, engine_version=self.version.version,
            bin_dir=str(self.version.bin_dir), data_dir=str(self.paths.pgdata(inc)),
            run_dir=str(run), upstream_dir=str(up),
            shm=str(self.paths.instance_shm(inc)), state_file=str(self.paths.driver_state(inc)),
            rpc_socket=str(self.paths.driver_socket(inc)), port=self.port,
            listen_address=f"127.0.77.{self._incarnations}", system_id=self.seed.system_id,
            lease_seconds=self.lease_seconds, settings={"server_number": self._incarnations},
        )  # fmt: skip
        settings = InstanceSettings(
            instance_id=name, cluster_id="mini", listen_address=config.listen_address, port=self.port,
            socket_dir=run, upstream_dir=up, shm=Path(config.shm), lib_path=self.library,
            memory_bytes=self.memory_bytes, vcpu=2, system_id=self.seed.system_id, max_connections=200,
            server_number=self._incarnations,
        )  # fmt: skip
        self.engine.prepare(self.version, home / "data", settings)
        path = self.paths.driver_config(inc)
        path.write_bytes(encode_config(config))
        return Instance(name, config, path, settings, self.edition)

    async def open_volume(self, instance: Instance, timeout: float = 60) -> dict[str, Any]:
        """Makes `instance` the writer, with terms that nobody had before."""
        rpc = await self.connect(instance)
        term = self.terms + 1
        self.terms += 2
        result = await rpc.call(
            "open_volume", term1=term, term2=term + 1, fresh=len(self.instances) == 1, timeout=timeout
        )
        for other in self.instances:
            with contextlib.suppress(RpcError, AssertionError):
                await (await self.connect(other, timeout=1)).call(
                    "set_topology", topology=self.topology(instance)
                )
        return dict(result)

    def topology(self, writer: Instance) -> dict[str, Any]:
        """Who is who, as the control plane tells it to drivers."""
        members = [
            {"instance_id": i.name, "role": "writer" if i is writer else "reader"} for i in self.instances
        ]
        return {"members": members, "writer_incarnation": writer.config.incarnation}

    # ------------------------------------------------------------------ watching and ending
    async def status(self, instance: Instance) -> dict[str, Any]:
        """The driver's own status."""
        return dict(await (await self.connect(instance)).call("status", timeout=10))

    async def wait_status(self, instance: Instance, wanted: Any, timeout: float = 60) -> dict[str, Any]:
        """Waits until `wanted(status)` is true."""
        deadline = time.monotonic() + timeout
        status: dict[str, Any] = {}
        while time.monotonic() < deadline:
            with contextlib.suppress(RpcError):
                status = await self.status(instance)
                if wanted(status):
                    return status
            await asyncio.sleep(0.02)
        raise AssertionError(f"{instance.name} did not get there in {timeout} s: {status}")

    @staticmethod
    def kill_driver(instance: Instance) -> None:
        """kill -9 of the driver."""
        assert instance.driver is not None
        instance.driver.kill()
        instance.driver.wait()
        instance.driver = None

    @staticmethod
    def signal_engine(instance: Instance, number: signal.Signals) -> None:
        """Sends a signal to every process of the engine, the main one first."""
        assert instance.engine is not None
        for pid in engine_pids(instance):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill_engine(self, instance: Instance) -> None:
        """kill -9 of the whole engine."""
        assert instance.engine is not None
        self.signal_engine(instance, signal.SIGKILL)
        instance.engine.wait()
        instance.engine = None

    async def close(self) -> None:
        """Ends every process and removes the folder (kept when KEEP_MINICLUSTER is set)."""
        for instance in self.instances:
            if instance.rpc is not None:
                await instance.rpc.close()
            if instance.engine is not None:
                self.signal_engine(instance, signal.SIGKILL)
                instance.engine.wait()
            if instance.driver is not None:
                instance.driver.send_signal(signal.SIGCONT)
                instance.driver.kill()
                instance.driver.wait()
        for node in self.nodes:
            if node.process is not None:
                node.process.kill()
                node.process.wait()
        if not os.environ.get("KEEP_MINICLUSTER"):
            shutil.rmtree(self.root, ignore_errors=True)


def engine_pids(instance: Instance) -> list[int]:
    """Pids of all processes of an engine: those that work in its data folder."""
    assert instance.engine is not None
    found = [instance.engine.pid]
    home = Path(instance.config.data_dir)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == instance.engine.pid:
            continue
        with contextlib.suppress(OSError):
            if (entry / "cwd").readlink() == home:
                found.append(int(entry.name))
    return found
