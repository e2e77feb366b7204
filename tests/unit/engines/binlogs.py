"""Binary logs for tests: made up, event by event, and real ones of the server on this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from borealis.engines.base import RunAs
from borealis.engines.mariadb.binlog import MAGIC, EventType

TIMESTAMP_LIKE_MAGIC = int.from_bytes(MAGIC, "little")


def event(
    type_: int, body: bytes, at: int, *, server: int = 7, flags: int = 0, timestamp: int = 1_700_000_000
) -> bytes:
    """One event that stands at offset `at` of its file."""
    length = 19 + len(body) + 4
    head = struct.pack("<IBIIIH", timestamp, type_, server, length, (at + length) & 0xFFFF_FFFF, flags)
    return head + body + struct.pack("<I", zlib.crc32(head + body))


def query_body(text: bytes, database: bytes = b"shop", status: bytes = b"\0" * 9) -> bytes:
    """The body of a QUERY event."""
    head = struct.pack("<IIBHH", 1, 0, len(database), 0, len(status))
    return head + status + database + b"\0" + text


def format_body() -> bytes:
    """The body of a format description, as long as a real one."""
    name = b"10.11.19-MariaDB-log".ljust(50, b"\0")
    return struct.pack("<H", 4) + name + struct.pack("<IB", 0, 19) + bytes(range(150)) + b"\x01"


class FakeBinlog:
    """Writes binlog files one behind the other; knows where units end."""

    def __init__(self, start: int = 4096) -> None:
        self.start = start
        self.data = b""
        self.file_at = 0
        self.units: list[tuple[str, int, int]] = []
        """(kind, start, end) in log positions."""
        self.sequence = 0

    @property
    def end(self) -> int:
        return self.start + len(self.data)

    def _unit(self, kind: str, data: bytes) -> None:
        self.units.append((kind, self.end, self.end + len(data)))
        self.data += data

    @property
    def offset(self) -> int:
        """Of the end in its file."""
        return len(self.data) - self.file_at

    def begin_file(self) -> None:
        """Magic bytes, format description, GTID list, checkpoint."""
        self.file_at = len(self.data)
        self._unit("MAGIC", MAGIC)
        fde = event(EventType.FORMAT_DESCRIPTION, format_body(), 4)
        self._unit("FORMAT", fde[:17] + b"\x01" + fde[18:])
        self.other(EventType.GTID_LIST, struct.pack("<I", 0))
        self.other(EventType.BINLOG_CHECKPOINT, struct.pack("<I", 13) + b"binlog.000001")

    def other(self, type_: int, body: bytes) -> None:
        self._unit("OTHER", event(type_, body, self.offset))

    def rotate(self) -> None:
        """The file's last event, and the next file."""
        self.other(EventType.ROTATE, struct.pack("<Q", 4) + b"binlog.000002")
        self.begin_file()

    def group(
        self, events: Sequence[tuple[int, bytes]], *, standalone: bool, timestamp: int = 1_700_000_000
    ) -> None:
        """A group of these events, behind its GTID event."""
        self.sequence += 1
        body = struct.pack("<QIB", self.sequence, 0, 1 if standalone else 0) + b"\0" * 6
        data = b""
        for type_, content in [(EventType.GTID, body), *events]:
            data += event(type_, content, self.offset + len(data), timestamp=timestamp)
        self._unit("GROUP", data)

    def transaction(self, *sizes: int, ending: bytes | None = None, timestamp: int = 1_700_000_000) -> None:
        """Rows events with bodies of these sizes; the end is an XID event, or this text."""
        rows = [(23, bytes((size + index) % 251 for index in range(size))) for size in sizes]
        end = (EventType.XID, bytes(8)) if ending is None else (EventType.QUERY, query_body(ending))
        self.group([*rows, end], standalone=False, timestamp=timestamp)

    def statement(self, text: bytes, prelude: Sequence[int] = ()) -> None:
        """A stand-alone group."""
        self.group([*((t, b"\0" * 9) for t in prelude), (EventType.QUERY, query_body(text))], standalone=True)


# ---- real ones ---------------------------------------------------------------------------------------------


def mariadbd() -> str | None:
    """The server's program; None: it is not installed."""
    return shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Server:
    """A plain MariaDB server with a binlog, for as long as a test needs it."""

    def __init__(
        self, root: Path, *, environment: dict[str, str] | None = None, options: Sequence[str] = ()
    ) -> None:
        self.root = root
        self.data = root / "data"
        self.socket = root / "s"
        self.process: subprocess.Popen[bytes] | None = None
        self._environment = environment or {}
        self.options = list(options)
        self._user = RunAs.lookup("nobody") if os.getuid() == 0 else None

    def install(self) -> None:
        """Make an empty database."""
        self.data.mkdir()
        self._give(self.root)
        self._give(self.data)
        program = shutil.which("mariadb-install-db")
        assert program is not None
        self._run(
            [
                # A server that starts removes the temporary tables of all that share its directory for them.
                program, "--no-defaults", f"--datadir={self.data}", f"--tmpdir={self.data}",
                "--skip-test-db", "--skip-name-resolve",
                "--auth-root-authentication-method=normal",
            ]
        )  # fmt: skip

    def _give(self, path: Path) -> None:
        if self._user is not None:
            os.chown(path, self._user.uid, self._user.gid)

    def _as_user(self) -> dict[str, object]:
        if self._user is None:
            return {}
        return {"user": self._user.uid, "group": self._user.gid, "extra_groups": []}

    def _run(self, argv: Sequence[str]) -> None:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, cwd=self.root, **self._as_user()
        )  # type: ignore[call-overload]
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Returns when it answers."""
        program = mariadbd()
        assert program is not None
        argv = [
            program, "--no-defaults", f"--datadir={self.data}", f"--tmpdir={self.data}",
            f"--socket={self.socket}",
            "--skip-networking", f"--pid-file={self.root}/pid", "--log-bin=binlog",
            "--log-bin-index=binlog.index", "--binlog-format=ROW", "--sync-binlog=1", "--server-id=7",
            "--innodb-use-native-aio=0", "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=32M", "--gtid-strict-mode=1", "--performance-schema=0",
            *self.options,
        ]  # fmt: skip
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.root, start_new_session=True,
                env={**os.environ, **self._environment}, **self._as_user(),
            )  # type: ignore[call-overload]  # fmt: skip
        deadline = time.monotonic() + 30
        while self._client("SELECT 1").returncode != 0:
            assert self.process is not None
            assert self.process.poll() is None, (self.root / "log").read_text()
            assert time.monotonic() < deadline, (self.root / "log").read_text()
            time.sleep(0.02)

    def _client(self, sql: str, database: str = "") -> subprocess.CompletedProcess[str]:
        argv = ["mariadb", "--no-defaults", "-uroot", f"--socket={self.socket}", "-N", "-B", "--binary-mode"]
        if database:
            argv.append(database)
        return subprocess.run(argv, input=sql, capture_output=True, text=True, check=False)

    def sql(self, sql: str, database: str = "") -> str:
        """Run statements; what they print."""
        done = self._client(sql, database)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def client(self, sql: str, database: str = "") -> subprocess.Popen[str]:
        """Run statements beside the test."""
        argv = [
            "mariadb",
            "--no-defaults",
            "-uroot",
            f"--socket={self.socket}",
            "-N",
            "-B",
            *([database] if database else []),
            "-e",
            sql,
        ]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def stop(self, *, kill: bool = False) -> None:
        """End it; without `kill` in good order."""
        if self.process is not None:
            (self.process.kill if kill else self.process.terminate)()
            self.process.wait(60)
            self.process = None

    def binlogs(self) -> list[Path]:
        """The binlog files, oldest first."""
        return sorted(path for path in self.data.glob("binlog.*") if path.suffix[1:].isdigit())


@contextlib.contextmanager
def server(*, environment: dict[str, str] | None = None, options: Sequence[str] = ()) -> Iterator[Server]:
    """A fresh server that runs; removed with all that it wrote."""
    root = Path(tempfile.mkdtemp(prefix="bl", dir="/tmp"))
    root.chmod(0o755)
    made = Server(root, environment=environment, options=options)
    try:
        made.install()
        made.start()
        yield made
    finally:
        made.stop(kill=True)
        shutil.rmtree(root, ignore_errors=True)
