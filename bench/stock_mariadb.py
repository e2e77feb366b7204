"""Stock MariaDB: a single node with full local durability, or a primary with two semi-synchronous replicas.

Owns their data directories and server processes; everything is gone at the end.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pymysql

from bench.sysbench import DATABASE, Target
from tests.support.region import PASSWORD, free_port

USER = "bench"
RUN_AS = ("mysql", "postgres", "nobody")
START_SECONDS = 30.0


def _unprivileged() -> str | None:
    """Who servers run as when we are root, which they refuse to be."""
    if os.getuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in RUN_AS if name in known)


class Server:
    """One mariadbd: `start` makes its directory and runs it, `stop` ends it."""

    def __init__(self, root: Path, number: int, settings: dict[str, str]) -> None:
        self.data = root / f"data{number}"
        self.port = free_port()
        self._socket = root / f"{number}.sock"
        self._run_as = _unprivileged()
        self._settings = {
            "log_bin": "binlog",
            "server_id": str(number),
            "sync_binlog": "1",
            "innodb_flush_log_at_trx_commit": "1",
            "innodb_doublewrite": "1",
            "binlog_format": "ROW",
            "gtid_strict_mode": "1",
            "skip_name_resolve": "1",
            "bind_address": "127.0.0.1",
            "port": str(self.port),
            "socket": str(self._socket),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> Target:
        return Target("127.0.0.1", self.port, USER, PASSWORD)

    def start(self) -> None:
        """Raises CalledProcessError, TimeoutError."""
        self.data.mkdir()
        if self._run_as:
            entry = pwd.getpwnam(self._run_as)
            os.chown(self.data, entry.pw_uid, entry.pw_gid)
        install = [
            "mariadb-install-db", "--no-defaults", f"--datadir={self.data}", f"--tmpdir={self.data}",
            "--skip-test-db",
            "--auth-root-authentication-method=normal",
        ]  # fmt: skip
        subprocess.run(
            install, user=self._run_as, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        options = [f"--{name.replace('_', '-')}={value}" for name, value in self._settings.items()]
        with (self.data.parent / f"{self.data.name}.log").open("wb") as log:
            self._process = subprocess.Popen(
                [shutil.which("mariadbd") or "/usr/sbin/mariadbd", "--no-defaults",
                 f"--datadir={self.data}", f"--tmpdir={self.data}", *options],
                user=self._run_as, stdout=log, stderr=log,
            )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.sql("SELECT 1")
                return
            except pymysql.err.OperationalError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{self.data} does not start") from None
                time.sleep(0.05)

    def sql(self, *statements: str) -> None:
        """As the administrator, over the socket."""
        db = pymysql.connect(unix_socket=str(self._socket), user="root", autocommit=True)
        with db, db.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class StockMariadb:
    """`with StockMariadb({"innodb_buffer_pool_size": "…"}) as node:`; `replicas`: semi-synchronous ones."""

    def __init__(self, settings: dict[str, str], replicas: int = 0) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="stock-", dir="/tmp"))
        self.root.chmod(0o777)
        semi = {"rpl_semi_sync_master_timeout": "600000", "rpl_semi_sync_master_wait_point": "AFTER_SYNC"}
        self.primary = Server(self.root, 1, settings | (semi if replicas else {}))
        reader = {"read_only": "1", "slave_parallel_threads": "4", "rpl_semi_sync_slave_enabled": "1"}
        self.replicas = [Server(self.root, n + 2, settings | reader) for n in range(replicas)]

    def __enter__(self) -> StockMariadb:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        for server in (self.primary, *self.replicas):
            server.start()
        # Made before semi-synchronous replication is on: it waits for a replica.
        self.primary.sql(
            f"CREATE USER {USER}@'%' IDENTIFIED BY '{PASSWORD}'",
            f"GRANT ALL ON *.* TO {USER}@'%'",
            f"CREATE DATABASE {DATABASE}",
        )
        for replica in self.replicas:
            replica.sql(
                f"CHANGE MASTER TO master_host='127.0.0.1', master_port={self.primary.port}, "
                f"master_user='{USER}', master_password='{PASSWORD}', master_use_gtid=slave_pos",
                "START SLAVE",
            )
        if self.replicas:
            self.primary.sql("SET GLOBAL rpl_semi_sync_master_enabled = 1")

    def __exit__(self, *_: object) -> None:
        for server in (*self.replicas, self.primary):
            server.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def target(self) -> Target:
        """The primary."""
        return self.primary.target
