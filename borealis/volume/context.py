"""What one driver works with: its configuration made into objects.

Owns their making and their closing; no behaviour.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from borealis.engines.base import Engine, EngineSession, EngineVersion, InstanceSettings
from borealis.engines.registry import get_engine
from borealis.log.quorum import QuorumSet
from borealis.volume.config import DriverConfig
from borealis.volume.device import DeviceError, LogDevice
from borealis.volume.follower import order_of
from borealis.volume.source import LogSource


@dataclass(slots=True)
class DriverContext:
    """The parts that reader and writer share."""

    config: DriverConfig
    engine: Engine
    version: EngineVersion
    settings: InstanceSettings
    session: EngineSession
    device: LogDevice
    source: LogSource
    quorum: QuorumSet

    @property
    def data_dir(self) -> Path:
        return Path(self.config.data_dir)

    @property
    def state_file(self) -> Path:
        return Path(self.config.state_file)

    async def close(self) -> None:
        """Let go of everything; engine and page live on."""
        await self.session.close()
        await self.source.close()
        self.device.close()


def make_context(config: DriverConfig) -> DriverContext:
    """Raises EngineNotFound or DeviceError."""
    engine = get_engine(config.engine)
    version = EngineVersion(
        config.engine, config.engine_version, config.engine_version.split(".")[0], Path(config.bin_dir), ""
    )
    settings = instance_settings(config)
    nodes = order_of(config.nodes, config.az)
    return DriverContext(
        config=config,
        engine=engine,
        version=version,
        settings=settings,
        session=engine.session(version, Path(config.data_dir), settings),
        device=_device(config),
        source=LogSource(config.volume, nodes),
        quorum=quorum_of(len(nodes), frozenset(node.id for node in nodes)),
    )


def quorum_of(count: int, members: frozenset[str]) -> QuorumSet:
    """4 and 3 of six; of fewer nodes (tests), the same idea."""
    return QuorumSet(members, write=count // 2 + 1, read=count - count // 2)


def instance_settings(config: DriverConfig) -> InstanceSettings:
    """The engine's settings, as far as a driver needs them."""
    values: dict[str, Any] = {"memory_bytes": 0, "vcpu": 1.0, "lib_path": None, **config.settings}
    return InstanceSettings(
        instance_id=config.instance_id,
        cluster_id=config.cluster_id,
        listen_address=config.listen_address,
        port=config.port,
        socket_dir=Path(config.run_dir),
        upstream_dir=Path(config.upstream_dir),
        shm=Path(config.shm),
        system_id=config.system_id,
        **values,
    )


def engine_owner(data_dir: Path) -> tuple[int, int] | None:
    """Who the engine runs as, when that is somebody else than the driver."""
    owner = data_dir.stat()
    if owner.st_uid == os.getuid():
        return None
    return owner.st_uid, owner.st_gid


def _device(config: DriverConfig) -> LogDevice:
    """The instance's page: the one that its engine may have mapped already, else a new one."""
    path = Path(config.shm)
    if path.exists():
        with contextlib.suppress(DeviceError):
            return LogDevice.open(path)
    return LogDevice.create(path, owner=engine_owner(Path(config.data_dir)))
