"""Stock MariaDB servers for tests: system tables made once, servers started on copies of them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql

from borealis.engines.base import RunAs
from borealis.engines.mariadb.plugin import LIBRARY
from borealis.engines.topology import TOPOLOGY_FILE

SERVER = shutil.which("mariadbd") or "/usr/sbin/mariadbd"
INSTALLER = shutil.which("mariadb-install-db")
NATIVE = Path(__file__).parents[3] / "native"
START_SECONDS = 60

QUIET = {
    "skip_name_resolve": "1",
    "innodb_use_native_aio": "0",
    "innodb_buffer_pool_size": "16M",
    "innodb_log_file_size": "4M",
    "innodb_flush_log_at_trx_commit": "0",
    "performance_schema": "0",
}


def has_1011() -> bool:
    """Whether the MariaDB that the plugin is for is on this machine."""
    if INSTALLER is None or not Path(SERVER).is_file():
        return False
    shown = subprocess.run([SERVER, "--no-defaults", "--version"], capture_output=True, text=True).stdout
    return "Ver 10.11." in shown


def build_plugin(source: Path, out: Path, *settings: str) -> Path:
    """Build the plugin from `source` into the directory `out`."""
    done = subprocess.run(
        ["make", "-s", "-C", str(source), f"OUT={out}", *settings, str(out / LIBRARY)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    out.chmod(0o755)
    return out


def server_user() -> RunAs:
    """MariaDB refuses to run as root without being told to."""
    return RunAs.lookup("nobody") if os.getuid() == 0 else RunAs.current()


def free_port(address: str) -> int:
    with socket.create_server((address, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass
class StockServer:
    """One server process in its data directory."""

    data_dir: Path
    address: str
    port: int
    options: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def socket(self) -> str:
        return str(self.data_dir / "s")

    @property
    def log_text(self) -> str:
        return self.data_dir.with_suffix(".log").read_text(errors="replace")

    def start(self, **environment: str) -> None:
        """Start it and wait until it answers."""
        options = {
            **QUIET,
            "datadir": str(self.data_dir),
            "tmpdir": str(self.data_dir),
            "socket": self.socket,
            "pid_file": str(self.data_dir / "pid"),
            "bind_address": self.address,
            "port": str(self.port),
            "user": server_user().user,
            **self.options,
        }
        with self.data_dir.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                [SERVER, "--no-defaults", *(f"--{name}={value}" for name, value in options.items())],
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.ask("SELECT 1")
                return
            except pymysql.Error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"the server did not start:\n{self.log_text}") from None
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(60)

    @contextlib.contextmanager
    def connect(self, **arguments: Any) -> Iterator[pymysql.Connection[Any]]:
        """The administrator's connection, or with user=… somebody's over TCP."""
        if "user" in arguments:
            arguments = {"host": self.address, "port": self.port, **arguments}
        else:
            arguments = {"unix_socket": self.socket, "user": "root", **arguments}
        with pymysql.connect(autocommit=True, **arguments) as connection:
            yield connection

    def ask(self, *statements: str, **arguments: Any) -> list[tuple[Any, ...]]:
        """The rows of the last statement."""
        rows: list[tuple[Any, ...]] = []
        with self.connect(**arguments) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                rows = list(cursor.fetchall())
        return rows


class StockMariaDB:
    """Makes servers in `root`, which the server's user must be able to pass through."""

    def __init__(self, root: Path) -> None:
        assert INSTALLER is not None
        self._root = root
        self._image = root / "image"
        self._servers: list[StockServer] = []
        user = server_user()
        subprocess.run(
            [
                INSTALLER,
                "--no-defaults",
                f"--user={user.user}",
                f"--datadir={self._image}",
                # A server that starts removes the temporary tables of all that share its directory for them.
                f"--tmpdir={self._image}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--innodb-log-file-size=4M",
            ],
            check=True,
            capture_output=True,
        )

    def server(self, address: str = "127.0.0.1", port: int | None = None, **options: str) -> StockServer:
        """A new server, not started."""
        data_dir = self._root / f"server{len(self._servers)}"
        subprocess.run(["cp", "-a", str(self._image), str(data_dir)], check=True)
        server = StockServer(data_dir, address, port or free_port(address), options)
        self._servers.append(server)
        return server

    def stop_all(self) -> None:
        for server in self._servers:
            server.stop(signal.SIGKILL)
            shutil.rmtree(server.data_dir, ignore_errors=True)


def write_topology(server: StockServer, document: object) -> None:
    """Replace a server's topology file; a text is written as it is."""
    text = document if isinstance(document, str) else json.dumps(document)
    temporary = server.data_dir / "topology.new"
    temporary.write_text(text)
    temporary.chmod(0o644)
    temporary.replace(server.data_dir / TOPOLOGY_FILE)


def member(name: str, role: str, **more: object) -> dict[str, object]:
    return {"instance_id": name, "role": role, "updated_at": time.time(), **more}


def topology(*members: dict[str, object]) -> dict[str, object]:
    return {"version": 1, "members": list(members)}
