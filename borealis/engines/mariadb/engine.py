"""MariaDB behind the interface of `engines.base`.

Owns nothing but the wiring: each method is one line into the module that does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

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
from borealis.engines.mariadb import image, ownlog
from borealis.engines.mariadb.binlogfiles import BinlogFiles
from borealis.engines.mariadb.binlogscan import BinlogScanner
from borealis.engines.mariadb.bootstrap import bootstrap
from borealis.engines.mariadb.discover import ENGINE_NAME, discover
from borealis.engines.mariadb.dumpserver import MariadbReaderServer
from borealis.engines.mariadb.passwords import native_verifier
from borealis.engines.mariadb.prepare import LOG_DEVICE_KIND, prepare, start_command
from borealis.engines.mariadb.session import MariadbSession
from borealis.engines.mariadb.settings import default_max_connections


class MariadbEngine(Engine):
    """Unmodified MariaDB, offered as aurora-mysql."""

    name = ENGINE_NAME
    default_port = 3306
    # There is no signal that ends the server at once and lets it say a word.
    shutdown_signals: Mapping[str, str] = MappingProxyType({"clean": "TERM", "immediate": "KILL"})
    log_device_kind = LOG_DEVICE_KIND
    log_file_bytes = 0

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
        """A killed server leaves nothing outside its data directory: temporary files lie in there too."""

    def image_position(self, version: EngineVersion, data_dir: Path) -> Lsn:
        return image.image_position(data_dir)

    def session(self, version: EngineVersion, data_dir: Path, settings: InstanceSettings) -> EngineSession:
        return MariadbSession(version, data_dir, settings)

    def reader_server(
        self,
        version: EngineVersion,
        settings: InstanceSettings,
        feed: LogFeed,
        on_feedback: Callable[[Feedback], None] | None = None,
        on_progress: Callable[[ReaderProgress], None] | None = None,
    ) -> ReaderServer:
        return MariadbReaderServer(version, settings, feed, on_feedback, on_progress)

    def log_scanner(self, position: Lsn, timeline: int) -> LogScanner:
        return BinlogScanner(position, timeline)

    def log_path(self, data_dir: Path, timeline: int, lsn: Lsn) -> Path:
        return ownlog.path_at(data_dir, lsn)

    def log_read(self, data_dir: Path, timeline: int, start: Lsn, end: Lsn) -> bytes:
        return BinlogFiles.load(data_dir).read(start, end)

    def password_verifier(self, username: str, password: str) -> str:
        return native_verifier(password)

    def default_max_connections(self, memory_bytes: int) -> int:
        return default_max_connections(memory_bytes)
