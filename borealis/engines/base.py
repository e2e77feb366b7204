"""What an engine must offer: the one interface between Borealis and a database server.

Owns the data that crosses the boundary (versions, settings, states, log positions) and the abstract
classes `Engine`, `EngineSession`, `ReaderServer`, `LogScanner`, and the `LogFeed` protocol.
Never: anything of one engine. A second engine is a second package, not a second branch in here.

Log positions (`Lsn`) are bytes in the volume's log. For PostgreSQL they are WAL positions; an engine
whose log is a row of files (binlog) maps its files and transaction ids to one running offset.
"""

from __future__ import annotations

import os
import pwd
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from borealis.errors import BorealisError

Lsn = int
"""A byte position in the volume's log."""


class EngineError(BorealisError):
    """An engine could not do what it was asked to do; the message says what to do about it."""

    code = "EngineError"


class EngineNotFound(EngineError):
    """No installation of the engine (or of the version that was asked for) is on this machine."""

    code = "EngineNotFound"


class EngineUnavailable(EngineError):
    """The engine process does not answer: starting, ended, or out of connections. May be tried again."""

    code = "EngineUnavailable"


class EngineTimeout(EngineError):
    """The engine answers, but did not get where it should be in the given time."""

    code = "EngineTimeout"


class UnsafeSettings(EngineError):
    """A setting that durability hangs on does not have the value that it must have."""

    code = "UnsafeSettings"


@dataclass(frozen=True, slots=True)
class EngineVersion:
    """One installed version of an engine."""

    engine: str
    """The API's engine name, e.g. "aurora-postgresql"."""
    version: str
    """The version as the binaries give it, e.g. "15.20"."""
    major: str
    """What must agree between the instances of a cluster, e.g. "15"."""
    bin_dir: Path
    """Directory with the server's programs."""
    family: str
    """The API's parameter group family, e.g. "aurora-postgresql15"."""


@dataclass(frozen=True, slots=True)
class RunAs:
    """The operating system user that an engine runs as (engines refuse to run as root)."""

    user: str
    uid: int
    gid: int

    @classmethod
    def lookup(cls, user: str) -> RunAs:
        """The user of that name. Raises EngineError when there is none."""
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            raise EngineError(
                f"user {user!r} does not exist; create it or configure another engine user"
            ) from None
        return cls(user, entry.pw_uid, entry.pw_gid)

    @classmethod
    def current(cls) -> RunAs:
        """The user of this process."""
        return cls(pwd.getpwuid(os.getuid()).pw_name, os.getuid(), os.getgid())


@dataclass(frozen=True, slots=True)
class Command:
    """A process for the host agent to start."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    """The whole environment of the process, not additions to one. Holds no secrets."""


@dataclass(frozen=True, slots=True)
class BootstrapSpec:
    """What a new volume holds besides the engine's own system data."""

    master_username: str
    master_verifier: str
    """The stored form of the master password (PostgreSQL: a SCRAM verifier), never the password."""
    database_name: str | None = None
    """An initial database, owned by the master user; None: only the engine's own."""
    port: int = 0
    """The cluster's port; 0: the engine's default."""


@dataclass(frozen=True, slots=True)
class VolumeSeed:
    """The first bytes of a volume's log, made by `Engine.bootstrap`."""

    system_id: str
    """The engine's own identity of the database; readers refuse a log of another one."""
    timeline: int
    start_lsn: Lsn
    """Position of the first byte of `log`. An image needs the log from here on."""
    log: bytes = field(repr=False)
    history: str = ""
    """Timeline history text; empty for a first timeline."""

    @property
    def end_lsn(self) -> Lsn:
        """Where the log goes on: the end of the last whole record."""
        return self.start_lsn + len(self.log)


@dataclass(frozen=True, slots=True)
class InstanceSettings:
    """All that an engine must be told to run as one instance of a cluster."""

    instance_id: str
    cluster_id: str
    listen_address: str
    port: int
    socket_dir: Path
    """Where the engine's own Unix socket lies: 0700 of the engine's user, the only way in for the
    administrator."""
    upstream_dir: Path
    """Where the driver's `ReaderServer` listens, a Unix socket with the same port number in its name."""
    shm: Path
    """The log device's shared memory file."""
    lib_path: Path | None
    """The volume library to preload; None only in tests: the engine then runs without a log device."""
    memory_bytes: int
    """Memory that the instance may count as its own: class memory, or less where the machine has less."""
    vcpu: float
    system_id: str = ""
    max_connections: int | None = None
    """None: by memory. Give every instance of a cluster the same (largest) number: a reader with fewer
    than its writer cannot follow it."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """The user's own settings (parameter groups); locked ones are refused by `Engine.prepare`."""
    region: str = "us-east-1"
    resource_id: str = ""
    server_number: int = 0
    """A number that no other life of this cluster ever had or will have, from 1 on; 0: not given (tests)."""


@dataclass(frozen=True, slots=True)
class EngineState:
    """What one probe of an engine found."""

    up: bool
    """A new connection was made and answered."""
    in_recovery: bool | None = None
    """True: a reader (or a writer-to-be). None: unknown, the engine is down."""
    receive_lsn: Lsn | None = None
    """Log received (reader) or written (writer) up to here."""
    replay_lsn: Lsn | None = None
    """Log visible to queries up to here; on a writer the same as `receive_lsn`."""
    timeline: int | None = None
    connections: int | None = None
    """Client connections, without the administrator's own."""
    oldest_xmin: int | None = None
    """Oldest transaction that a snapshot of this instance may still see (64 bit); None: no snapshot."""
    started_at: float | None = None
    """Unix time of the start of the engine."""
    replay_paused: bool = False
    """True: replay stands still (for example because the writer allows more connections than this reader):
    the instance must be started again with larger settings."""
    error: str | None = None
    """Why `up` is False."""


class TimelineSwitch(NamedTuple):
    """Where a promoted engine has begun a timeline of its own."""

    timeline: int
    lsn: Lsn
    """The engine's first new record starts here; what the log holds from here on of the parent is void."""
    history: str
    """Timeline history text, to be kept in the term's entry."""


class Feedback(NamedTuple):
    """What a reader asks its writer to keep for it: full (64 bit) transaction ids; 0: nothing."""

    xmin: int = 0
    catalog_xmin: int = 0

    @staticmethod
    def merge(parts: Iterable[Feedback]) -> Feedback:
        """The oldest demand of all readers."""
        listed = list(parts)
        return Feedback(
            min((p.xmin for p in listed if p.xmin), default=0),
            min((p.catalog_xmin for p in listed if p.catalog_xmin), default=0),
        )


class ReaderProgress(NamedTuple):
    """How far the engine says it has come with the log it is served."""

    written: Lsn
    flushed: Lsn
    applied: Lsn


class ScanResult(NamedTuple):
    """How far a piece of log may be shipped: up to the larger of the two. 0: none seen yet."""

    record_end: Lsn
    """End (with its alignment) of the last record or group that is whole and verified."""
    boundary: Lsn
    """Highest position at which a reader may be cut off although a record goes on there (PostgreSQL: a
    page boundary below which nothing will change any more; binlog: a place inside an event group that is
    longer than the data); never above the limit of the scan."""


class LogScanner(Protocol):
    """Finds where records end in a log that grows. Keeps its place between calls.

    Made by `Engine.log_scanner(position, timeline)`; `position` must be a record end or a page boundary.
    """

    @property
    def position(self) -> Lsn:
        """The log is settled up to here, and may be given away; bytes below are not needed again. The place
        where the scan began, or a record end or boundary since."""

    def scan(self, data: bytes | bytearray | memoryview, start: Lsn, limit: Lsn, /) -> tuple[Lsn, Lsn]:
        """Go on through `data`, the log from `start` (at or below `position`).

        `limit`: the end of the last page known to be written when `data` was read; nothing at or above it is
        looked at. The last page below it may still change, except for whole records. A `ScanResult`; nothing
        new: the last result again. Raises EngineError when `data` does not hold `position`.
        """


class LogTimeline(NamedTuple):
    """One timeline of a log."""

    start: Lsn
    """First position that belongs to this timeline and not to its parent."""
    end: Lsn | None
    """Where the next one took over; None: this is the newest."""
    history: str


class LogFeed(Protocol):
    """The log as a `ReaderServer` sees it: only what is durable, only terms that are committed.

    Everything but `read` is called on the event loop, returns at once, and must not change within a callback.
    """

    @property
    def system_id(self) -> str: ...

    @property
    def start(self) -> Lsn:
        """Oldest position that can be served."""

    @property
    def vdl(self) -> Lsn:
        """Nothing at or above this may be served. Always a record end or a page boundary."""

    @property
    def timelines(self) -> Mapping[int, tuple[Lsn, Lsn | None, str]]:
        """Committed timelines by number, in the form of `LogTimeline`. Never empty once served."""

    def buffered(self, start: Lsn, end: Lsn) -> bytes | None:
        """Bytes [start, end) if all of them are in memory, else None."""

    async def read(self, start: Lsn, end: Lsn) -> bytes:
        """Bytes from `start` on, up to `end`; shorter or empty when they cannot be had now (the caller asks
        again). May take long; may raise BorealisError or OSError, which ends the reader's connection."""

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call `on_change()` synchronously after each change of `vdl` or `timelines`. Returns the way to
        unsubscribe. It is the caller of the callback that advances the log: no task switch in between."""


class ReaderServer(ABC):
    """Is, to the local engine, the primary that it follows. Serves a `LogFeed`, never above its VDL."""

    @abstractmethod
    async def start(self) -> None:
        """Listen. Raises OSError when the socket cannot be made."""

    @abstractmethod
    async def close(self) -> None:
        """Stop listening and drop the engine's connections."""

    @property
    @abstractmethod
    def connected(self) -> bool:
        """True while the engine is streaming."""

    @property
    @abstractmethod
    def progress(self) -> ReaderProgress | None:
        """The engine's last word on how far it is; None before the first one."""

    @property
    @abstractmethod
    def feedback(self) -> Feedback:
        """What the engine's own queries need kept on the writer; `Feedback()` while none is connected."""

    @abstractmethod
    def request_progress(self) -> None:
        """Ask the engine to say now how far it is; `progress` changes when it answers."""


class EngineSession(ABC):
    """The driver's way into one running engine, as administrator over the local socket.

    Methods may be called in any order and at the same time; each connects as needed and survives a restart of
    the engine. They raise EngineUnavailable when the engine does not answer.
    """

    @abstractmethod
    async def probe(self, timeout: float = 5.0) -> EngineState:
        """Make a *new* connection, run a query. Never raises for an engine that is down: the state tells."""

    @abstractmethod
    async def positions(self) -> EngineState:
        """Like `probe`, but cheap: over a kept connection, and only the log positions and the role."""

    @abstractmethod
    async def wait_ready(self, timeout: float = 60.0) -> EngineState:
        """Wait until queries are answered. Raises EngineTimeout; EngineUnavailable when the process has
        ended."""

    @abstractmethod
    async def follow(self) -> None:
        """Make a reader follow its upstream, which is there (idempotent; also after a driver restart: it may
        have moved). Engines whose configuration says so do nothing. Raises EngineUnavailable."""

    @abstractmethod
    async def wait_replayed(self, lsn: Lsn, timeout: float = 30.0) -> Lsn:
        """Wait until the log is replayed to `lsn` as far as it holds whole records. Returns the replay
        position, which may lie below `lsn` when `lsn` is not a record end: the engine has then received all
        of it. Raises EngineTimeout."""

    @abstractmethod
    async def request_promote(self) -> None:
        """Tell a reader to become a writer. Returns at once: with the log device on, the engine now begins
        its timeline and then waits in its first log sync until the term is open."""

    @abstractmethod
    async def promoted_timeline(self, after: int, timeout: float = 10.0) -> TimelineSwitch:
        """Wait for the first timeline above `after` that the promoted engine begins. Raises EngineTimeout."""

    @abstractmethod
    async def wait_writable(self, timeout: float = 10.0) -> None:
        """Wait until the engine accepts writes. Raises EngineTimeout."""

    @abstractmethod
    async def canary(self) -> Lsn:
        """Write a tiny committed record; where it ends. Proof that commits go through the volume."""

    @abstractmethod
    async def check_settings(self) -> None:
        """Raises UnsafeSettings if a setting that the promise hangs on is not as it must be."""

    @abstractmethod
    async def apply_feedback(self, feedback: Feedback) -> None:
        """Writer: keep what the readers need (all of them, merged). `Feedback()` lets go of everything."""

    @abstractmethod
    async def set_master_password(self, username: str, verifier: str) -> None:
        """Writer: replace the master user's stored password."""

    @abstractmethod
    async def checkpoint(self) -> Lsn:
        """Checkpoint (writer) or restartpoint (reader). From where on an image made now needs the log."""

    @abstractmethod
    async def run_sql(self, sql: str, params: Sequence[object] | None = None) -> list[tuple[Any, ...]]:
        """Run one statement as administrator in the engine's own database; rows, or nothing."""

    @abstractmethod
    def write_topology(self, topology: Mapping[str, object]) -> None:
        """Write what the cluster looks like to where the engine's SQL functions read it; atomic. `members`:
        list of {instance_id, role: "writer"|"reader", lag_ms, replay_lsn, updated_at (unix s), …}."""

    @abstractmethod
    def process_id(self) -> int | None:
        """Pid of the engine's main process as its own pid file gives it; None: not running."""

    @abstractmethod
    async def close(self) -> None:
        """Close kept connections; the engine goes on."""


class Engine(ABC):
    """One kind of database server. Stateless: everything is in the arguments and in directories."""

    name: str
    """The API's engine name."""
    default_port: int
    shutdown_signals: Mapping[str, str] = {"clean": "INT", "immediate": "QUIT"}
    """Signal names (without SIG) for the main process: disconnect and checkpoint; or end at once."""
    log_device_kind: str
    """What the volume library is told in BOREALIS_LOG_KIND: which files are the log."""
    log_file_bytes: int
    """Size of a log file; each begins at a multiple of it. 0: they have any size."""

    @abstractmethod
    def discover(self) -> list[EngineVersion]:
        """All installed versions, oldest first. Runs their programs: call it in a thread, keep the answer."""

    @abstractmethod
    def bootstrap(
        self, version: EngineVersion, directory: Path, user: RunAs | None, spec: BootstrapSpec
    ) -> VolumeSeed:
        """Make the base image of a new volume in `directory` (made; must not exist or be empty) and return
        the log that it needs. Blocking, about a second: call it in a thread. `user`: who the engine runs as
        when we are root. Raises EngineError; leaves nothing behind then."""

    @abstractmethod
    def prepare(self, version: EngineVersion, data_dir: Path, settings: InstanceSettings) -> None:
        """Configure a fresh copy of an image to run as this instance. Files that it makes belong to the owner
        of `data_dir`. Can be repeated. Raises EngineError for settings that cannot be had."""

    @abstractmethod
    def start_command(self, version: EngineVersion, data_dir: Path, settings: InstanceSettings) -> Command:
        """How to start the instance (always as a reader that follows its upstream). It logs to stderr."""

    @abstractmethod
    def clean_image(self, data_dir: Path) -> None:
        """Turn the directory of an engine that was shut down cleanly into an image: no log, no state of one
        instance. Raises EngineError if it was not shut down cleanly."""

    @abstractmethod
    def release(self, data_dir: Path) -> None:
        """Free what a killed engine has left on the machine outside `data_dir` (shared memory). Call it when
        all of its processes are gone and before the directory is removed. Can be repeated; never raises."""

    @abstractmethod
    def image_position(self, version: EngineVersion, data_dir: Path) -> Lsn:
        """From where on an image needs the log (perhaps a little below what it has applied)."""

    @abstractmethod
    def session(self, version: EngineVersion, data_dir: Path, settings: InstanceSettings) -> EngineSession:
        """The driver's way in. Connects lazily."""

    @abstractmethod
    def reader_server(
        self,
        version: EngineVersion,
        settings: InstanceSettings,
        feed: LogFeed,
        on_feedback: Callable[[Feedback], None] | None = None,
        on_progress: Callable[[ReaderProgress], None] | None = None,
    ) -> ReaderServer:
        """The primary that the engine follows, at `settings.upstream_dir`. Callbacks: on the event loop."""

    @abstractmethod
    def log_scanner(self, position: Lsn, timeline: int) -> LogScanner:
        """A scanner in plain Python, for tests, bootstrap and tools; the driver uses a native one."""

    @abstractmethod
    def log_path(self, data_dir: Path, timeline: int, lsn: Lsn) -> Path:
        """The engine's log file that holds the byte at `lsn`. Raises EngineError when none can be named."""

    @abstractmethod
    def log_read(self, data_dir: Path, timeline: int, start: Lsn, end: Lsn) -> bytes:
        """Bytes [start, end) of the engine's own log files; shorter when a file is not there (yet)."""

    @abstractmethod
    def password_verifier(self, username: str, password: str) -> str:
        """The stored form of a password, for BootstrapSpec and `set_master_password`."""

    @abstractmethod
    def default_max_connections(self, memory_bytes: int) -> int:
        """The number of connections that a class with this memory allows by default."""
