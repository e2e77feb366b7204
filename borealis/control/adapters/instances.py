"""Lives of instances on this machine: directories from images, configurations, driver and engine processes.

Owns the layout of a life (see `borealis.paths`) and the names of its processes: engine-<inc>, driver-<inc>.
The engine's own part is the engine package's; starting and killing are the agent's.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from borealis import _native
from borealis.control.adapters.host import DRIVER, ENGINE, HostLink, ended
from borealis.control.adapters.volumes import VolumeNodes
from borealis.control.ports import InstancePlan
from borealis.control.settings import ControlSettings
from borealis.engines.base import Engine, EngineVersion, InstanceSettings
from borealis.engines.classes import instance_class
from borealis.engines.registry import engines, find_version, get_engine
from borealis.host.records import ProcessSpec
from borealis.paths import RegionPaths
from borealis.region import RegionConfig, write_file
from borealis.volume.config import VERSION, DriverConfig, NodeAddress, encode_config
from borealis.volume.device import LogDevice

PASSABLE = 0o711
VOLUME_LIBRARY = "libborealis_volume.so"
NO_ADDRESS = ""


class LocalInstances:
    """Implements `ports.Instances`."""

    def __init__(
        self,
        paths: RegionPaths,
        region: RegionConfig,
        settings: ControlSettings,
        host: HostLink,
        volumes: VolumeNodes,
    ) -> None:
        self._paths = paths
        self._region = region
        self._settings = settings
        self._host = host
        self._volumes = volumes

    async def prepare(self, plan: InstancePlan) -> None:
        await self._end(plan.incarnation)
        await self._remove(plan.incarnation)
        image = await self._volumes.local_image(plan)
        paths, user, life = self._paths, self._region.engine_user, plan.incarnation
        home, run = str(paths.instance_dir(life)), str(paths.instance_run(life))
        await self._host.call(lambda c: c.make_dir(home, PASSABLE))
        await self._host.call(lambda c: c.make_dir(run, 0o700, user))
        await self._host.call(lambda c: c.make_dir(str(paths.upstream_dir(life)), 0o700, user))
        await self._host.call(lambda c: c.copy_tree(str(image), str(paths.pgdata(life)), user))
        await asyncio.to_thread(self._configure, plan)

    async def start(self, plan: InstancePlan) -> None:
        engine = await asyncio.to_thread(self._engine_spec, plan)
        await asyncio.gather(
            self._host.call(lambda c: c.spawn(self._driver_spec(plan))),
            self._host.call(lambda c: c.spawn(engine)),
        )

    async def stop_engine(self, incarnation: str, seconds: float) -> bool:
        status = await self._host.call(lambda c: c.stop(ENGINE + incarnation, wait=seconds))
        return status == 0

    async def kill(self, incarnation: str) -> None:
        await asyncio.gather(
            ended(self._host.call(lambda c: c.kill(ENGINE + incarnation))),
            ended(self._host.call(lambda c: c.kill(DRIVER + incarnation))),
        )

    async def destroy(self, incarnation: str) -> None:
        await self._end(incarnation)
        await self._remove(incarnation)

    async def lives(self) -> set[str]:
        processes = await self._host.call(lambda c: c.list())
        named = {p.name for p in processes}
        found = {n.removeprefix(kind) for kind in (ENGINE, DRIVER) for n in named if n.startswith(kind)}
        folder = self._paths.instances_dir
        return found | set(await asyncio.to_thread(_names, folder))

    async def _end(self, incarnation: str) -> None:
        await self.kill(incarnation)
        for name in (ENGINE + incarnation, DRIVER + incarnation):
            await self._host.call(lambda c, name=name: c.forget(name))  # type: ignore[misc]

    async def _remove(self, incarnation: str) -> None:
        await asyncio.to_thread(self._release, incarnation)
        for folder in (self._paths.instance_run(incarnation), self._paths.instance_dir(incarnation)):
            await self._host.call(lambda c, folder=folder: c.remove_tree(str(folder)))  # type: ignore[misc]

    # in a thread

    def _release(self, incarnation: str) -> None:
        # The life's record may be gone already: whose engine it was is not asked.
        for engine in engines().values():
            engine.release(self._paths.pgdata(incarnation))

    def _configure(self, plan: InstancePlan) -> None:
        engine, version = get_engine(plan.engine), find_version(plan.engine, plan.engine_version)
        data, paths = self._paths.pgdata(plan.incarnation), self._paths
        engine.prepare(version, data, self._engine_settings(engine, plan))
        owner = data.stat()
        other = (owner.st_uid, owner.st_gid) if owner.st_uid != os.getuid() else None
        # Made here and not by the driver, so that driver and engine can be started at the same time.
        LogDevice.create(paths.instance_shm(plan.incarnation), owner=other).close()
        write_file(paths.driver_config(plan.incarnation), self._driver_config(engine, version, plan))

    def _engine_settings(self, engine: Engine, plan: InstancePlan) -> InstanceSettings:
        paths, life = self._paths, plan.incarnation
        return InstanceSettings(
            instance_id=plan.instance_id,
            cluster_id=plan.cluster_id,
            listen_address=plan.address or NO_ADDRESS,
            port=plan.port,
            socket_dir=paths.instance_run(life),
            upstream_dir=paths.upstream_dir(life),
            shm=paths.instance_shm(life),
            lib_path=library(paths),
            system_id=plan.system_id,
            **self._given(engine, plan),
        )

    def _given(self, engine: Engine, plan: InstancePlan) -> dict[str, Any]:
        own = instance_class(plan.instance_class)
        classes = {plan.instance_class, *plan.cluster_classes}
        machine = machine_memory_bytes()
        memories = [min(instance_class(name).memory_bytes, machine // 4) for name in classes]
        return {
            "memory_bytes": min(own.memory_bytes, machine // 4),
            "vcpu": own.vcpu,
            "max_connections": max(engine.default_max_connections(memory) for memory in memories),
            "region": self._region.region,
            "resource_id": plan.resource_id,
            "server_number": plan.server_number,
        }

    def _driver_config(self, engine: Engine, version: EngineVersion, plan: InstancePlan) -> bytes:
        paths, life = self._paths, plan.incarnation
        settings = self._given(engine, plan) | {"lib_path": str(library(paths))}
        return encode_config(
            DriverConfig(
                version=VERSION,
                region=str(paths.root),
                instance_id=plan.instance_id,
                cluster_id=plan.cluster_id,
                incarnation=life,
                volume=plan.volume,
                az=plan.zone,
                nodes=tuple(NodeAddress(n.id, n.availability_zone, n.address) for n in self._volumes.nodes()),
                engine=plan.engine,
                engine_version=version.version,
                bin_dir=str(version.bin_dir),
                data_dir=str(paths.pgdata(life)),
                run_dir=str(paths.instance_run(life)),
                upstream_dir=str(paths.upstream_dir(life)),
                shm=str(paths.instance_shm(life)),
                state_file=str(paths.driver_state(life)),
                rpc_socket=str(paths.driver_socket(life)),
                port=plan.port,
                listen_address=plan.address,
                system_id=plan.system_id,
                image_lsn=plan.image.lsn,
                lease_seconds=self._settings.lease_seconds,
                probe_seconds=self._settings.probe_seconds,
                settings=settings,
            )
        )

    def _engine_spec(self, plan: InstancePlan) -> ProcessSpec:
        engine, version = get_engine(plan.engine), find_version(plan.engine, plan.engine_version)
        data = self._paths.pgdata(plan.incarnation)
        command = engine.start_command(version, data, self._engine_settings(engine, plan))
        name = ENGINE + plan.incarnation
        return ProcessSpec(
            name=name,
            argv=command.argv,
            env=dict(command.env),
            cwd=str(data),
            user=self._region.engine_user,
            log=str(self._paths.log_file(name)),
            restart="never",
            sweep_dir=str(data),
            stop_signal=engine.shutdown_signals["clean"],
        )

    def _driver_spec(self, plan: InstancePlan) -> ProcessSpec:
        name = DRIVER + plan.incarnation
        config = str(self._paths.driver_config(plan.incarnation))
        return ProcessSpec(
            name=name,
            argv=(sys.executable, "-m", "borealis.volume.driver", config),
            log=str(self._paths.log_file(name)),
            restart="always",
        )


def library(paths: RegionPaths) -> Path:
    """The volume library that engines preload: the region's readable copy, or the package's own."""
    copied = paths.lib_dir / VOLUME_LIBRARY
    return copied if copied.exists() else Path(_native.__file__).with_name(VOLUME_LIBRARY)


def machine_memory_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _names(folder: Path) -> list[str]:
    if not folder.exists():
        return []
    return [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
