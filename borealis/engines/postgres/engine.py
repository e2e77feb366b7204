"""PostgreSQL behind the interface of `engines.base`.

Owns nothing but the wiring: each method is one line into the module that does the work.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from borealis.engines.base import (
    BootstrapSpec,
    Command,
    Engine,
    EngineSession,
    EngineVersion,
    Feedback,
    InstanceSettings,
    LogFeed,
    LogScanner,
    Lsn,
    ReaderProgress,
    ReaderServer,
    RunAs,
    VolumeSeed,
)
from borealis.engines.postgres import image, leftovers, wal
from borealis.engines.postgres.bootstrap import bootstrap
from borealis.engines.postgres.discover import ENGINE_NAME, discover
from borealis.engines.postgres.prepare import LOG_DEVICE_KIND, prepare, start_command
from borealis.engines.postgres.reader_server import PostgresReaderServer
from borealis.engines.postgres.scram import scram_verifier
from borealis.engines.postgres.session import PostgresSession
from borealis.engines.postgres.settings import default_max_connections
from borealis.engines.postgres.walscan import WalScanner


class PostgresEngine(Engine):
    """Unmodified PostgreSQL, offered as aurora-postgresql."""

    name = ENGINE_NAME
    default_port = 5432
    log_device_kind = LOG_DEVICE_KIND
    log_file_bytes = wal.SEGMENT_BYTES

    def discover(self) -> list[EngineVersion]:
        return discover()

    def bootstrap(
        self, version: EngineVersion, directory: Path, user: RunAs | None, spec: BootstrapSpec
    ) -> VolumeSeed:
        return bootstrap(version, directory, user, spec)

    def prepare(self, version: EngineVersion, data_dir: Path, settings: InstanceSettings) -> None:
        prepare(version, data_dir, settings)

    def start_command(self, version: EngineVersion, data_dir: Path, settings: InstanceSettings) -> Command:
        return start_command(version, data_dir, settings)

    def clean_image(self, data_dir: Path) -> None:
        image.clean_image(data_dir)

    def release(self, data_dir: Path) -> None:
        leftovers.release(data_dir)

    def image_position(self, version: EngineVersion, data_dir: Path) -> Lsn:
        return image.image_position(data_dir)

    def session(self, version: EngineVersion, data_dir: Path, settings: InstanceSettings) -> EngineSession:
        return PostgresSession(version, data_dir, settings)

    def reader_server(
        self,
        version: EngineVersion,
        settings: InstanceSettings,
        feed: LogFeed,
        on_feedback: Callable[[Feedback], None] | None = None,
        on_progress: Callable[[ReaderProgress], None] | None = None,
    ) -> ReaderServer:
        return PostgresReaderServer(version, settings, feed, on_feedback, on_progress)

    def log_scanner(self, position: Lsn, timeline: int) -> LogScanner:
        return WalScanner(position, timeline)

    def log_path(self, data_dir: Path, timeline: int, lsn: Lsn) -> Path:
        return data_dir / "pg_wal" / wal.file_name(timeline, lsn)

    def log_read(self, data_dir: Path, timeline: int, start: Lsn, end: Lsn) -> bytes:
        return wal.read_wal(data_dir, timeline, start, end)

    def password_verifier(self, username: str, password: str) -> str:
        return scram_verifier(password)

    def default_max_connections(self, memory_bytes: int) -> int:
        return default_max_connections(memory_bytes)
