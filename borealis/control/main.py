"""The control process: `python -m borealis.control.main --data DIR`.

Owns the making and the order of its parts: state store, host agent, storage nodes, endpoints, reconciler,
API, control socket; and their end. It may be killed at any time: the host agent starts it again, and it
goes on from the store and from what it sees. It starts the host agent again in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from borealis.control.adapters.drivers import DriverLinks
from borealis.control.adapters.host import HostLink
from borealis.control.adapters.instances import LocalInstances
from borealis.control.adapters.nodes import ensure_nodes, start_nodes
from borealis.control.adapters.volumes import VolumeNodes
from borealis.control.context import ControlContext
from borealis.control.garbage import collect_for_ever
from borealis.control.notices import Notices
from borealis.control.observe import Observer
from borealis.control.reconciler import Reconciler
from borealis.control.settings import ControlSettings
from borealis.control.status import region_status
from borealis.control.store import Store
from borealis.endpoints.names import HostsFile, NamePatterns
from borealis.endpoints.service import EndpointService
from borealis.engines.registry import installed_versions
from borealis.errors import BorealisError
from borealis.logs import get_logger, setup_logging
from borealis.paths import RegionPaths
from borealis.region import RegionConfig, load_credentials, load_region
from borealis.rpc import RpcServer

log = get_logger(__name__)

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
EXIT_FAILED = 1


@dataclass(slots=True)
class ControlPlane:
    """The running parts that others ask."""

    context: ControlContext
    reconciler: Reconciler
    endpoints: EndpointService
    host: HostLink
    region: RegionConfig

    async def status(self) -> dict[str, Any]:
        """See `control.status`."""
        return region_status(self.context, self.region.region, self.endpoints.names, self.host.processes)


@asynccontextmanager
async def control_plane(paths: RegionPaths) -> AsyncIterator[ControlPlane]:
    """The control plane of the region in `paths`, without API and control socket. Raises BorealisError."""
    region = load_region(paths)
    settings = ControlSettings.of(region)
    async with AsyncExitStack() as stack:
        store = await Store.open(paths.state_db)
        stack.push_async_callback(store.close)
        await ensure_nodes(store, paths, region, settings)
        plane = _assemble(stack, paths, region, settings, store)
        await _own(stack, plane.host.run(), "host agent link")
        await plane.host.connected()
        await start_nodes(store, paths, plane.host, settings)
        await plane.endpoints.start()
        stack.push_async_callback(plane.endpoints.close)
        await _sweep_strangers(plane.context)
        await _own(stack, collect_for_ever(store, plane.context.volumes), "garbage")
        plane.reconciler.start()
        stack.push_async_callback(plane.reconciler.close)
        yield plane


def _assemble(
    stack: AsyncExitStack, paths: RegionPaths, region: RegionConfig, settings: ControlSettings, store: Store
) -> ControlPlane:
    host = HostLink(paths)

    def spoke(incarnation: str, event: str, data: dict[str, Any]) -> None:
        observer.driver_spoke(incarnation, event, data)

    drivers = DriverLinks(paths, spoke)
    volumes = VolumeNodes(paths, region, store.nodes)
    stack.push_async_callback(drivers.close)
    stack.push_async_callback(volumes.close)

    def wake(cluster: str) -> None:
        reconciler.kick(cluster)

    observer = Observer(drivers, volumes, settings, wake)
    stack.push_async_callback(observer.close)
    endpoints = EndpointService(
        paths,
        NamePatterns(region.region, region.domain),
        host,
        hosts=HostsFile(paths.root) if settings.hosts_file else None,
        dns_port=int(settings.dns_port),
    )
    context = ControlContext(
        store=store,
        settings=settings,
        zones=region.zones,
        instances=LocalInstances(paths, region, settings, host, volumes),
        drivers=drivers,
        volumes=volumes,
        endpoints=endpoints,
        observer=observer,
        boot_id=BOOT_ID.read_text().strip(),
        wake=wake,
    )
    reconciler = Reconciler(context)
    host.observer = observer
    host.on_proxy_restarted = reconciler.resync_endpoints
    notices = Notices(store)
    stack.push_async_callback(notices.close)
    host.on_restarted = notices.restarted
    return ControlPlane(context, reconciler, endpoints, host, region)


async def _own(stack: AsyncExitStack, work: Any, name: str) -> asyncio.Task[None]:
    """A background task that ends with the stack."""
    task: asyncio.Task[None] = asyncio.create_task(work, name=name)

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)
    return task


async def _sweep_strangers(context: ControlContext) -> None:
    """Lives that no record knows: what a control process left that was killed at the wrong moment."""
    known: set[str] = set()
    for instance in context.store.instances():
        known |= set(instance.retired) | ({instance.incarnation.id} if instance.incarnation else set())
    for cluster in context.store.clusters():
        if cluster.volume.image_job is not None:
            known.add(cluster.volume.image_job.incarnation)
    for life in await context.instances.lives() - known:
        log.warning("removing life %s, which no instance has", life)
        try:
            await context.instances.destroy(life)
        except (BorealisError, OSError) as error:
            log.warning("life %s could not be removed: %s", life, error)


async def serve(paths: RegionPaths) -> None:
    """Run the control plane with API and control socket until SIGTERM or SIGINT. Raises BorealisError."""
    # The API is above the control plane; this module alone brings the two together.
    from borealis.control.api import make_api

    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    # Found once, before the first request, because it runs every engine's programs.
    await asyncio.to_thread(installed_versions)
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(control_plane(paths))
        api = make_api(
            plane.region, plane.context.store, plane.reconciler, plane.endpoints, load_credentials(paths)
        )
        await api.start()
        stack.push_async_callback(api.close)
        rpc = RpcServer(paths.control_socket, {"status": plane.status, "shutdown": _ender(over)})
        await rpc.start()
        stack.push_async_callback(rpc.close)
        log.info("region %s is up at %s", plane.region.region, plane.region.endpoint_url)
        await over.wait()
        log.info("ending; everything else runs on")


def _ender(over: asyncio.Event) -> Any:
    async def shutdown() -> None:
        over.set()

    return shutdown


def main() -> int:
    """Run the process. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m borealis.control.main", description="The control plane of a region."
    )
    parser.add_argument("--data", required=True, type=Path, help="the region's folder")
    paths = RegionPaths(parser.parse_args().data)
    setup_logging("control")
    try:
        paths.check()
        uvloop.run(serve(paths))
    except BorealisError as error:
        log.error("the control plane cannot run: %s", error.message)
        return EXIT_FAILED
    except KeyboardInterrupt:
        with contextlib.suppress(Exception):
            log.info("interrupted")
    return 0


if __name__ == "__main__":
    sys.exit(main())
