"""Real PostgreSQL servers for tests: an image made once, instances started from copies of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from borealis.engines.base import EngineVersion, InstanceSettings, RunAs, VolumeSeed
from borealis.engines.postgres.engine import PostgresEngine
from tests.unit.engines.launching import launch, make_home

MASTER, PASSWORD, DATABASE = "master", "a secret of 9 words", "app"
PORT = 54390


def engine_user() -> RunAs:
    """PostgreSQL refuses to run as root."""
    return RunAs.lookup("postgres") if os.getuid() == 0 else RunAs.current()


def short_directory() -> Path:
    """A directory of its own, short enough for Unix sockets, that the engine's user can pass through."""
    memory = Path("/dev/shm")  # Many small files are copied; a disk is not what is tested.
    path = Path(tempfile.mkdtemp(prefix="bor-", dir=memory if os.access(memory, os.W_OK) else "/tmp"))
    path.chmod(0o711)
    return path


@dataclass
class Instance:
    """One server process and what belongs to it."""

    engine: PostgresEngine
    version: EngineVersion
    data_dir: Path
    settings: InstanceSettings
    process: subprocess.Popen[bytes]

    @property
    def log_text(self) -> str:
        return (self.settings.socket_dir / "engine.log").read_text(errors="replace")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    def connect(
        self, user: str = MASTER, password: str = PASSWORD, dbname: str = DATABASE
    ) -> psycopg.Connection:
        """A customer's connection."""
        return psycopg.connect(
            host=self.settings.listen_address,
            port=self.settings.port,
            user=user,
            password=password,
            dbname=dbname,
            autocommit=True,
            sslmode="disable",
        )

    def admin(self, dbname: str = "rdsadmin") -> psycopg.Connection:
        return psycopg.connect(
            host=str(self.settings.socket_dir),
            port=self.settings.port,
            user="rdsadmin",
            dbname=dbname,
            autocommit=True,
        )


@dataclass
class Workshop:
    """Makes instances of one engine version below one directory."""

    root: Path
    version: EngineVersion
    image: Path
    seed: VolumeSeed
    engine: PostgresEngine = field(default_factory=PostgresEngine)
    instances: list[Instance] = field(default_factory=list)
    number: int = 0

    def settings(self, name: str) -> InstanceSettings:
        self.number += 1
        number = self.number
        home = self.root / f"i{number}-{name}"
        make_home(home, engine_user())
        return InstanceSettings(
            instance_id=name,
            cluster_id="cluster-one",
            listen_address=f"127.77.{os.getpid() % 200 + 1}.{number}",
            port=PORT,
            socket_dir=home,
            upstream_dir=home / "up",
            shm=home / "log.shm",
            lib_path=None,
            memory_bytes=1 << 30,
            vcpu=2,
            system_id=self.seed.system_id,
            max_connections=50,
        )

    def start(self, settings: InstanceSettings, image: Path | None = None) -> Instance:
        data_dir, process = launch(self.engine, self.version, settings, image or self.image, engine_user())
        instance = Instance(self.engine, self.version, data_dir, settings, process)
        self.instances.append(instance)
        return instance

    def stop_all(self) -> None:
        for instance in self.instances:
            instance.stop(signal.SIGQUIT)
            self.engine.release(instance.data_dir)
            shutil.rmtree(instance.settings.socket_dir, ignore_errors=True)
        self.instances.clear()
