"""The volume library under a real MariaDB server: its commits wait, and nothing that it writes escapes."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from borealis.engines.mariadb.binlog import UnitKind, UnitReader, without_in_use
from borealis.volume.device import LogDevice, boottime_ns
from borealis.volume.enginelog import EngineLog
from borealis.volume.nativelib import volume_library_path
from tests.unit.engines.binlogs import Server, mariadbd

from .waiting import until

START = 4096
KIND: Any = SimpleNamespace(log_device_kind="binlog:binlog", log_file_bytes=0)

pytestmark = pytest.mark.skipif(mariadbd() is None, reason="no MariaDB is installed on this machine")


class Driver:
    """Takes the engine's log and calls it durable at once, unless it was told to wait."""

    def __init__(self, device: LogDevice, data: Path) -> None:
        self.device = device
        self.log = EngineLog(KIND, data, START, 2)
        self.taken = bytearray()
        self.failure: Exception | None = None
        self._go = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._go.set()
        self._thread.start()

    def hold(self) -> None:
        self._go.clear()

    def go_on(self) -> None:
        self._go.set()

    def close(self) -> None:
        self._end.set()
        self._go.set()
        self._thread.join()
        self.log.close()

    def _run(self) -> None:
        try:
            while not self._end.wait(0.0005):
                if self._go.is_set():
                    self._look()
        except Exception as error:
            self.failure = error

    def _look(self) -> None:
        view = self.device.view()
        seq = view.write_seq
        written = self.log.written(view.timeline, view.written_lsn)
        assert written is not None
        more = True
        while more:
            data, more = self.log.take(written)
            self.taken += data
        assert not self.log.missed(written)
        if self.log.settled(written):
            self.device.release(seq)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server under the library, its device off, not started."""
    root = Path(tempfile.mkdtemp(prefix="bm", dir="/tmp"))
    root.chmod(0o755)
    library = root / "volume.so"
    shutil.copy(volume_library_path(), library)
    library.chmod(0o755)
    environment = {
        "LD_PRELOAD": str(library),
        "BOREALIS_LOG_DEVICE": str(root / "shm"),
        "BOREALIS_LOG_KIND": "binlog:binlog",
    }
    made = Server(root, environment=environment, options=["--max-binlog-size=8192"])
    try:
        made.install()
        yield made
    finally:
        made.stop(kill=True)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def device(server: Server) -> Iterator[LogDevice]:
    owner = server.data.stat()
    other = (owner.st_uid, owner.st_gid) if owner.st_uid != os.getuid() else None
    device = LogDevice.create(server.root / "shm", owner=other)
    device.bind_notices(owner=other)
    yield device
    device.close()


@pytest.fixture
def driver(server: Server, device: LogDevice) -> Iterator[Driver]:
    """The server is a writer."""
    server.start()
    device.arm()
    driver = Driver(device, server.data)
    yield driver
    driver.close()
    assert driver.failure is None


def test_a_commit_waits_and_cannot_be_cancelled(server: Server, device: LogDevice, driver: Driver) -> None:
    server.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY) ENGINE=InnoDB")
    driver.hold()
    commit = server.client("INSERT INTO d.t VALUES (1)")
    until(lambda: device.waiters > 0)
    session = server.sql("SELECT id FROM information_schema.processlist WHERE info LIKE 'INSERT%'").strip()
    server.sql(f"KILL QUERY {session}")
    assert server.sql("SELECT COUNT(*) FROM d.t") == "0\n"
    assert commit.poll() is None
    server.sql(f"KILL {session}")  # Takes the client its connection: it must not believe that all is well.
    assert server.sql("SELECT COUNT(*) FROM d.t") == "0\n"
    assert device.waiters > 0
    driver.go_on()
    commit.communicate(timeout=20)
    assert commit.returncode != 0
    until(lambda: server.sql("SELECT COUNT(*) FROM d.t") == "1\n")


def test_all_files_are_one_log(server: Server, device: LogDevice, driver: Driver) -> None:
    server.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT AUTO_INCREMENT PRIMARY KEY, b LONGTEXT)")
    clients = [
        server.client("".join(f"INSERT INTO d.t (b) VALUES (REPEAT('{n}', {n * 60}));" for n in range(40)))
        for _ in range(4)
    ]
    for client in clients:
        _, said = client.communicate(timeout=60)
        assert client.returncode == 0, said
    server.sql("INSERT INTO d.t (b) VALUES (REPEAT('long', 1000000)); FLUSH BINARY LOGS; FLUSH BINARY LOGS")
    server.sql("INSERT INTO d.t (b) VALUES ('last')")
    until(lambda: device.released_seq == device.write_seq)
    files = server.binlogs()
    assert len(files) > 10
    whole = b"".join(path.read_bytes() for path in files)
    assert closed(bytes(driver.taken)) == closed(whole)
    counters = device.counters()
    assert counters.syncs_waited > 100
    assert counters.notices_failed == 0


def closed(log: bytes) -> bytes:
    """The log as it is when all files are closed."""
    parts = []
    for unit in UnitReader(0).feed(log):
        part = log[unit.start : unit.end]
        parts.append(without_in_use(part) if unit.kind is UnitKind.FORMAT else part)
    return b"".join(parts)


def test_a_log_that_begins_anew_ends_the_engine(server: Server, device: LogDevice, driver: Driver) -> None:
    server.sql("CREATE DATABASE d")
    client = server.client("RESET MASTER")
    _, said = client.communicate(timeout=20)
    assert client.returncode != 0, said
    assert server.process is not None
    assert server.process.wait(20) != 0
    assert device.end_reason == 2
    assert "RESET MASTER" in (server.root / "log").read_text()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_encrypted_answers_wait_for_the_lease(server: Server, device: LogDevice) -> None:
    key, certificate = server.root / "key.pem", server.root / "cert.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    subprocess.run([*request, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    key.chmod(0o644)
    server.options += [f"--ssl-key={key}", f"--ssl-cert={certificate}"]
    server.start()
    device.arm()
    argv = ["mariadb", "--no-defaults", "-uroot", f"--socket={server.socket}", "--ssl", "-NBn"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin
        assert client.stdout
        client.stdin.write("SHOW STATUS LIKE 'Ssl_version';\n")
        client.stdin.flush()
        assert "TLS" in client.stdout.readline()
        device.set_lease(1)
        client.stdin.write("SELECT 'late';\n")
        client.stdin.flush()
        until(lambda: device.counters().lease_waits > 0)
        assert not select.select([client.stdout], [], [], 0)[0]
        device.set_lease(boottime_ns() + 3600 * 10**9)
        assert client.stdout.readline() == "late\n"
        client.stdin.close()
