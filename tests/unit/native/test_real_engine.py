"""A real PostgreSQL under the volume library, with the smallest of drivers."""

from __future__ import annotations

import os
import pwd
import select
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from borealis.volume.device import DeviceMode, LogDevice
from borealis.volume.nativelib import WalScanner, volume_library_path

from .waiting import until, until_syncing

BIN = Path("/usr/lib/postgresql/15/bin")
PAGE, SEGMENT = 8192, 16 << 20
SETTINGS = """
listen_addresses = ''
unix_socket_directories = '{root}'
fsync = on
wal_sync_method = fdatasync
full_page_writes = off
restart_after_crash = off
autovacuum = off
checkpoint_timeout = 1h
"""

pytestmark = pytest.mark.skipif(not (BIN / "pg_basebackup").exists(), reason="needs PostgreSQL 15")

USER = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())


def run(program: str, *arguments: str) -> str:
    command = [str(BIN / program), *arguments]
    user = USER.pw_uid if os.getuid() == 0 else None
    return subprocess.run(command, user=user, check=True, capture_output=True, text=True).stdout.strip()


def lsn(text: str) -> int:
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


class Postgres:
    """A server with the library, and a thread that releases what it writes, unless `hold` is set."""

    def __init__(self, root: Path, name: str, port: int) -> None:
        self.root, self.directory, self.port = root, root / name, port
        owner = (USER.pw_uid, USER.pw_gid)
        self.device = LogDevice.create(root / f"{name}.shm", owner=owner)
        self._notices = self.device.bind_notices(owner=owner)
        self.hold = threading.Event()
        self._stop = threading.Event()
        self._driver = threading.Thread(target=self._drive)
        self.scanner: WalScanner | None = None
        with (root / f"{name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(BIN / "postgres"), "-D", str(self.directory), "-p", str(port)],
                env={
                    "PATH": "/usr/bin:/bin",
                    "LD_PRELOAD": str(root / "lib.so"),
                    "BOREALIS_LOG_DEVICE": str(self.device.path),
                    "BOREALIS_LOG_KIND": "pgwal",
                },
                user=owner[0] if os.getuid() == 0 else None,
                stdout=log,
                stderr=log,
            )
        self._driver.start()

    def _drive(self) -> None:
        while not self._stop.is_set():
            select.select([self._notices], [], [], 0.02)
            try:
                while self._notices.recv(64):
                    pass
            except BlockingIOError:
                pass
            if not self.hold.is_set():
                self._release()

    def _release(self) -> None:
        view = self.device.view()
        seq, written, timeline = view.write_seq, view.written_lsn, view.timeline
        if view.mode != DeviceMode.ON or seq == self.device.released_seq:
            return
        if self.scanner is None or self.scanner.timeline != timeline:
            self.scanner = WalScanner((written - 1) // SEGMENT * SEGMENT, timeline)
        base = self.scanner.position // PAGE * PAGE
        self.scanner.scan(self.read(timeline, base, written), base, written)
        assert not self.scanner.missed(written)
        self.device.release(seq)

    def read(self, timeline: int, start: int, end: int) -> bytes:
        data = b""
        while start < end:
            number = start // SEGMENT
            name = f"{timeline:08X}{number >> 8:08X}{number & 255:08X}"
            part = min(end, (number + 1) * SEGMENT) - start
            with (self.directory / "pg_wal" / name).open("rb") as file:
                data += os.pread(file.fileno(), part, start % SEGMENT)
            start += part
        return data

    def command(self, sql: str) -> list[str]:
        where = ["-h", str(self.root), "-p", str(self.port), "-U", "postgres"]
        return [str(BIN / "psql"), *where, "-d", "postgres", "-Atqc", sql]

    def sql(self, sql: str) -> str:
        return run("psql", *self.command(sql)[1:])

    def start_sql(self, sql: str) -> subprocess.Popen[str]:
        return subprocess.Popen(self.command(sql), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ready(self) -> None:
        def answers() -> bool:
            assert self.process.poll() is None, (self.root / f"{self.directory.name}.log").read_text()
            return subprocess.run(self.command("select 1"), capture_output=True).returncode == 0

        until(answers)

    def close(self) -> None:
        self._stop.set()
        self._driver.join()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
        self.process.wait()
        self.device.close()


@pytest.fixture
def root() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="bor-", dir="/tmp"))
    os.chown(path, USER.pw_uid, USER.pw_gid)
    shutil.copy(volume_library_path(), path / "lib.so")
    (path / "lib.so").chmod(0o755)
    run("initdb", "-D", str(path / "one"), "-A", "trust", "-U", "postgres", "--no-sync")
    with (path / "one/postgresql.conf").open("a") as file:
        file.write(SETTINGS.format(root=path))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def one(root: Path) -> Iterator[Postgres]:
    server = Postgres(root, "one", 5432)
    server.device.set_mode(DeviceMode.ON)
    server.ready()
    yield server
    server.close()


def test_every_sync_waits_and_the_scanner_follows(one: Postgres) -> None:
    assert one.device.engine_pid == one.process.pid
    one.sql("create table t (id int, text text)")
    before = one.device.counters()
    flushes = int(one.sql("select wal_sync from pg_stat_wal"))
    where = ["-h", str(one.root), "-p", str(one.port), "-U", "postgres"]
    run("pgbench", "-i", "-q", *where, "postgres")
    run("pgbench", "-N", "-c", "4", "-t", "100", *where, "postgres")
    for _ in range(3):
        one.sql("insert into t select g, repeat('x', 500) from generate_series(1, 5000) g")
        one.sql("select pg_switch_wal()")
        one.sql("checkpoint")
    one.sql("select pg_logical_emit_message(true, 'test', repeat('0123456789', 1000000))")
    assert one.scanner is not None
    assert one.scanner.position == lsn(one.sql("select pg_current_wal_flush_lsn()"))
    # Each of the server's own syncs came to the library; nearly all had to wait (a large write may have been
    # made durable before its sync), and none went on before its release.
    synced = int(one.sql("select wal_sync from pg_stat_wal")) - flushes
    after = one.device.counters()
    assert after.syncs - before.syncs >= synced > 100
    assert after.syncs_waited - before.syncs_waited > 100


def test_a_held_commit_cannot_be_cancelled(one: Postgres) -> None:
    one.sql("create table t (id int)")
    one.hold.set()
    client = one.start_sql("insert into t values (1)")
    until_syncing(one.device)
    assert one.sql("select count(*) from t") == "0", "reads go on, and do not see it"
    backend = "from pg_stat_activity where query like 'insert%' and pid <> pg_backend_pid()"
    assert one.sql(f"select pg_cancel_backend(pid), pg_terminate_backend(pid) {backend}") == "t|t"
    assert one.sql(f"select count(*) {backend}") == "1"
    assert client.poll() is None
    one.hold.clear()
    client.wait()
    client.communicate()
    assert one.sql("select count(*) from t") == "1"


def test_a_fenced_server_ends(one: Postgres) -> None:
    one.device.fence()
    client = one.start_sql("select 1")
    client.communicate()
    assert client.returncode != 0
    assert one.process.wait() == -signal.SIGKILL
    assert one.device.end_reason == 1


def test_promotion_waits_for_the_new_timeline(root: Path, one: Postgres) -> None:
    where = ["-h", str(root), "-p", str(one.port), "-U", "postgres"]
    run("pg_basebackup", *where, "-D", str(root / "two"), "-R", "-c", "fast", "--no-sync")
    two = Postgres(root, "two", 5433)
    try:
        two.ready()
        one.sql("create table t as select generate_series(1, 20000) id")
        end = one.sql("select pg_current_wal_flush_lsn()")
        until(lambda: two.sql(f"select pg_last_wal_replay_lsn() >= '{end}'") == "t")
        one.process.kill()
        assert two.device.counters().syncs_waited == 0
        two.hold.set()
        two.device.arm()
        armed = two.device.released_seq
        two.sql("select pg_promote(false)")
        history = two.directory / "pg_wal/00000002.history"
        until(history.exists)
        until_syncing(two.device)
        assert two.sql("select pg_is_in_recovery()") == "t"
        view = two.device.view()
        assert (view.timeline, two.device.released_seq) == (2, armed)
        switch = lsn(history.read_text().split()[1])
        scanner = WalScanner(switch, 2)
        base = switch // PAGE * PAGE
        scanner.scan(two.read(2, base, view.written_lsn), base, view.written_lsn)
        assert scanner.records >= 1
        assert not scanner.missed(view.written_lsn)
        two.hold.clear()
        until(lambda: two.sql("select pg_is_in_recovery()") == "f")
        two.sql("insert into t values (0)")
        assert two.sql("select count(*) from t") == "20001"
    finally:
        two.close()
