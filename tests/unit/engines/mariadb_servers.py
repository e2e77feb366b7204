"""Real MariaDB servers as they come from the package, for tests: a primary that writes binary logs, replicas
that follow whatever they are told to; and a log made of a primary's files."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql

from borealis.engines.base import EngineVersion, RunAs
from borealis.engines.mariadb.binlog import MAGIC, EventHeader
from borealis.engines.mariadb.gtid import Gtid, parse_state
from borealis.engines.mariadb.history import TimelineHistory

from .memory_feed import MemoryFeed

START_LSN = 4096
SERVER = shutil.which("mariadbd") or "/usr/sbin/mariadbd"
_COMMON = (
    "--no-defaults",
    "--skip-networking",
    "--skip-name-resolve",
    "--skip-log-error",
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=16M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=0",
    "--innodb-use-native-aio=0",
    "--performance-schema=0",
    "--max-allowed-packet=128M",
    "--binlog-format=ROW",
    "--binlog-checksum=CRC32",
    "--gtid-strict-mode=1",
    "--sync-binlog=0",
    "--log-bin=binlog",
    "--log-slave-updates=0",
    "--event-scheduler=0",
    "--slave-parallel-threads=4",
    "--slave-parallel-mode=conservative",
)


def server_version() -> EngineVersion | None:
    """The server that is installed."""
    if not Path(SERVER).exists():
        return None
    said = subprocess.run([SERVER, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"Ver ([\d.]+-MariaDB)", said)
    if match is None:
        return None
    text = match[1]
    return EngineVersion("aurora-mysql", text, "10.11", Path(SERVER).parent, "aurora-mysql8.0")


def server_user() -> RunAs:
    """MariaDB refuses to run as root."""
    if os.getuid() != 0:
        return RunAs.current()
    return RunAs.lookup("postgres")


def _as_user() -> dict[str, Any]:
    user = server_user()
    if os.getuid() != 0:
        return {}
    return {"user": user.uid, "group": user.gid, "extra_groups": []}


@dataclass
class Server:
    """One server process; its administrator connects by the local socket."""

    home: Path
    server_id: int
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def data_dir(self) -> Path:
        return self.home / "data"

    @property
    def log_text(self) -> str:
        return (self.home / "log").read_text(errors="replace")

    def start(self) -> Server:
        command = [SERVER, *_COMMON, f"--datadir={self.data_dir}", f"--socket={self.home}/sock"]
        # A server that starts removes the temporary tables of all that share its directory for them.
        command.append(f"--tmpdir={self.data_dir}")
        command += [f"--server-id={self.server_id}", f"--pid-file={self.home}/pid", *self.options]
        with open(self.home / "log", "ab") as log:
            self.process = subprocess.Popen(
                command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, **_as_user()
            )
        end = time.monotonic() + 30
        while True:
            try:
                self.connect().close()
                return self
            except pymysql.err.OperationalError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(self.log_text) from None
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
        if self.process is not None:
            self.process.wait(30)

    def connect(self, database: str | None = None) -> pymysql.Connection[pymysql.cursors.Cursor]:
        return pymysql.connect(
            unix_socket=f"{self.home}/sock",
            user="root",
            autocommit=True,
            database=database,
            max_allowed_packet=128 << 20,
            local_infile=True,
        )

    def run(self, *statements: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run statements one after the other on one connection; the rows of the last one."""
        with self.connect(database) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def value(self, sql: str) -> Any:
        (row,) = self.run(sql)
        return row[0]

    def binlog_files(self) -> list[Path]:
        index = (self.data_dir / "binlog.index").read_text().split()
        return [self.data_dir / Path(name).name for name in index]

    # -- as a replica
    def follow(self, upstream: dict[str, Any], *options: str) -> None:
        settings = [
            f"MASTER_HOST='{upstream['host']}'",
            f"MASTER_PORT={upstream['port']}",
            f"MASTER_USER='{upstream['user']}'",
            f"MASTER_PASSWORD='{upstream['password']}'",
            "MASTER_USE_GTID=slave_pos",
            "MASTER_CONNECT_RETRY=1",
            *options,
        ]
        self.run("STOP SLAVE", f"CHANGE MASTER TO {', '.join(settings)}", "START SLAVE")

    def replica_status(self) -> dict[str, Any]:
        with self.connect() as connection, connection.cursor(pymysql.cursors.DictCursor) as cursor:
            cursor.execute("SHOW SLAVE STATUS")
            row = cursor.fetchone()
            return dict(row) if row else {}

    def has_applied(self, gtid: Gtid | str | None, timeout: float = 90) -> None:
        if self.value(f"SELECT MASTER_GTID_WAIT('{gtid or ''}', {timeout})") != 0:
            raise AssertionError(f"{gtid} not applied: {self.replica_status()}\n{self.log_text}")


@dataclass
class Servers:
    """Makes servers below one directory, all from the same empty database."""

    root: Path
    made: list[Server] = field(default_factory=list)
    number: int = 0

    @property
    def template(self) -> Path:
        return self.root / "template"

    def make_template(self) -> None:
        home = self._directory("template")
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", f"--datadir={home}", f"--tmpdir={home}", "--skip-test-db",
             "--auth-root-authentication-method=normal", "--innodb-log-file-size=16M"],
            check=True, capture_output=True, cwd="/", **_as_user(),
        )  # fmt: skip

    def make(self, *options: str, source: Path | None = None) -> Server:
        """A new server, with a number of its own; not started."""
        self.number += 1
        home = self._directory(f"s{self.number}")
        subprocess.run(["cp", "-a", str(source or self.template), str(home / "data")], check=True)
        server = Server(home, self.number, options)
        self.made.append(server)
        return server

    def upstream_dir(self) -> Path:
        self.number += 1
        return self._directory(f"u{self.number}")

    def _directory(self, name: str) -> Path:
        path = self.root / name
        path.mkdir()
        os.chown(path, server_user().uid, server_user().gid)
        return path

    def stop_all(self) -> None:
        for server in self.made:
            server.stop()
            shutil.rmtree(server.home, ignore_errors=True)
        self.made.clear()


def history_of(file: Path, gtid: Gtid | None = None, server_id: int = 0) -> str:
    """The history text of a timeline that begins with this file."""
    data = file.read_bytes()[:4096]
    header = EventHeader.parse(data, len(MAGIC))
    event = data[len(MAGIC) : len(MAGIC) + header.length]
    return TimelineHistory(server_id, gtid, event).to_text()


class Copier:
    """Puts a primary's binary logs into a feed, as its driver would."""

    def __init__(self, primary: Server, feed: MemoryFeed, seed: int = 1) -> None:
        self._primary = primary
        self._feed = feed
        self._random = random.Random(seed)
        self._files: list[Path] = []
        self._at = 0

    def copy(self) -> None:
        """Append what is new; it is not durable yet."""
        listed = self._primary.binlog_files()
        while True:
            if self._files:
                with open(self._files[-1], "rb") as file:
                    file.seek(self._at)
                    data = file.read()
                self._feed.log += data
                self._at += len(data)
            if len(self._files) == len(listed):
                return
            self._files.append(listed[len(self._files)])
            self._at = 0

    async def serve(self, pieces: int = 20) -> Gtid | None:
        """Append what is new, and let it become durable in random pieces. Returns its last group."""
        last = parse_state(str(self._primary.value("SELECT @@gtid_binlog_pos")))
        self.copy()
        cuts: Iterable[int] = sorted(
            self._random.randint(self._feed.vdl, self._feed.end) for _ in range(pieces)
        )
        for cut in (*cuts, self._feed.end):
            self._feed.advance(cut)
            await asyncio.sleep(0)
        return last


def feed_of(primary: Server, seed: int = 1) -> tuple[MemoryFeed, Copier]:
    """A log that begins with a primary's first file."""
    feed = MemoryFeed("mariadb", START_LSN)
    feed.timelines = {1: (START_LSN, None, history_of(primary.binlog_files()[0]))}
    return feed, Copier(primary, feed, seed)
