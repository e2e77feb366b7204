"""Real instances of the MySQL-compatible edition for tests: an image made once, instances on copies of it,
each with the server that it follows and the session that drives it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql

from borealis.engines.base import EngineVersion, InstanceSettings, ReaderProgress, VolumeSeed
from borealis.engines.mariadb.binlog import UnitReader
from borealis.engines.mariadb.binlogfiles import BinlogFiles, file_name
from borealis.engines.mariadb.engine import MariadbEngine
from tests.unit.engines.launching import launch, make_home

from .memory_feed import MemoryFeed
from .real import engine_user

MASTER, PASSWORD, DATABASE = "master", "a secret of 9 words", "app"
PORT = 33890


@dataclass
class Instance:
    """One server process and what belongs to it."""

    engine: MariadbEngine
    data_dir: Path
    settings: InstanceSettings
    process: subprocess.Popen[bytes]

    @property
    def log_text(self) -> str:
        return (self.settings.socket_dir / "engine.log").read_text(errors="replace")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def connect(
        self, user: str = MASTER, password: str = PASSWORD, database: str | None = DATABASE, **more: Any
    ) -> Iterator[Customer]:
        """A customer's connection."""
        connection = pymysql.connect(
            host=self.settings.listen_address,
            port=self.settings.port,
            user=user,
            password=password,
            database=database,
            autocommit=True,
            **more,
        )
        try:
            yield Customer(connection)
        finally:
            with contextlib.suppress(pymysql.Error):
                connection.close()


class Customer:
    """Somebody's connection."""

    def __init__(self, connection: pymysql.Connection[Any]) -> None:
        self.connection = connection

    def ask(self, *statements: str) -> list[tuple[Any, ...]]:
        """The rows of the last statement."""
        rows: list[tuple[Any, ...]] = []
        with self.connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                rows = list(cursor.fetchall())
        return rows


@dataclass
class Workshop:
    """Makes instances below one directory."""

    root: Path
    version: EngineVersion
    image: Path
    seed: VolumeSeed
    engine: MariadbEngine = field(default_factory=MariadbEngine)
    instances: list[Instance] = field(default_factory=list)
    number: int = 0

    def settings(self, name: str, **more: Any) -> InstanceSettings:
        self.number += 1
        number = self.number
        home = self.root / f"i{number}-{name}"
        make_home(home, engine_user())
        values: dict[str, Any] = {
            "instance_id": name,
            "cluster_id": "cluster-one",
            "listen_address": f"127.78.{os.getpid() % 200 + 1}.{number}",
            "port": PORT,
            "socket_dir": home,
            "upstream_dir": home / "up",
            "shm": home / "log.shm",
            "lib_path": None,
            "memory_bytes": 1 << 30,
            "vcpu": 2,
            "system_id": self.seed.system_id,
            "max_connections": 50,
            "server_number": 10 + number,
        }
        return InstanceSettings(**{**values, **more})

    def start(self, settings: InstanceSettings, image: Path | None = None) -> Instance:
        data_dir, process = launch(self.engine, self.version, settings, image or self.image, engine_user())
        instance = Instance(self.engine, data_dir, settings, process)
        self.instances.append(instance)
        return instance

    def stop_all(self) -> None:
        for instance in self.instances:
            instance.stop(signal.SIGKILL)
            self.engine.release(instance.data_dir)
            shutil.rmtree(instance.settings.socket_dir, ignore_errors=True)
        self.instances.clear()


class Served:
    """An instance with the server that it follows and the session that drives it."""

    def __init__(
        self,
        workshop: Workshop,
        name: str,
        feed: MemoryFeed,
        settings: InstanceSettings | None = None,
        image: Path | None = None,
    ):
        self.workshop = workshop
        self.feed = feed
        self.image = image
        self.settings = settings or workshop.settings(name)
        self.progress: list[ReaderProgress] = []
        self.server = workshop.engine.reader_server(
            workshop.version, self.settings, feed, None, self.progress.append
        )
        self.instance: Instance
        self.session = workshop.engine.session(
            workshop.version, self.settings.socket_dir / "data", self.settings
        )

    async def __aenter__(self) -> Served:
        await self.server.start()
        self.instance = self.workshop.start(self.settings, self.image)
        try:
            await self.session.wait_ready(20)
            await self.session.follow()
        except BaseException:
            print(self.instance.log_text)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        await self.server.close()
        self.instance.stop()

    async def promote(self) -> None:
        """Promote at the end of the feed, and put the new timeline into it."""
        old = max(self.feed.timelines)
        await self.session.wait_replayed(self.feed.vdl)
        await self.session.request_promote()
        switch = await self.session.promoted_timeline(old)
        await self.session.wait_writable()
        self.feed.cut(min(switch.lsn, self.feed.end))
        self.feed.begin_timeline(switch.timeline, switch.lsn, switch.history)
        self.ship()

    def ship(self) -> None:
        """Take the writer's new log into the feed, as far as its groups are whole."""
        files = BinlogFiles.load(self.instance.data_dir)
        while True:
            reader = UnitReader(self.feed.end)
            data = files.path(files.newest.number).read_bytes()[self.feed.end - files.newest.start :]
            units = list(reader.feed(data))
            if units:
                self.feed.append(data[: units[-1].end - self.feed.end])
            following = files.newest.number + 1
            if units or not (self.instance.data_dir / file_name(following)).exists():
                if not units:
                    return
                continue
            files.add(following, self.feed.end)


def seeded_feed(workshop: Workshop) -> MemoryFeed:
    feed = MemoryFeed(workshop.seed.system_id, workshop.seed.start_lsn, workshop.seed.timeline)
    feed.timelines = {workshop.seed.timeline: (workshop.seed.start_lsn, None, workshop.seed.history)}
    feed.append(workshop.seed.log)
    return feed


async def visible(reader: Served, sql: str, expected: object) -> None:
    """Wait until a query on the reader gives the expected value."""
    async with asyncio.timeout(20):
        while True:
            with reader.instance.connect() as customer:
                try:
                    if customer.ask(sql) == [(expected,)]:
                        return
                except pymysql.ProgrammingError:
                    pass
            await asyncio.sleep(0.01)
