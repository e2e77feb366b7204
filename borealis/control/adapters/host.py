"""The connection to the host agent: kept up, made anew, and the agent itself started again when it is gone.

Owns that connection and the reading of the agent's events and lists into the observer. It holds no process
state: after every new connection the agent's whole list is taken in, so that no event can be missed for
good.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from borealis.control.observe import Observer
from borealis.control.view import EngineLife
from borealis.errors import BorealisError
from borealis.host.client import CpuTimes, HostClient, ProcessInfo, start_agent
from borealis.host.records import ProcessSpec
from borealis.logs import get_logger
from borealis.paths import RegionPaths
from borealis.rpc import RpcConnectionLost, RpcError

log = get_logger(__name__)

Answer = TypeVar("Answer")

CONNECT_SECONDS = 0.5
"""How long an agent that listens may take to answer before it is taken for gone."""
START_SECONDS = 15.0
CALL_WAIT_SECONDS = 20.0
"""How long a call waits for the connection to come back."""
LIST_SECONDS = 5.0
"""How often the whole list is read although events come: a belt to the braces."""

ENGINE = "engine-"
DRIVER = "driver-"
PROXY = "proxy-"


class AgentAway(BorealisError):
    """The host agent cannot be reached now."""

    code = "AgentAway"


class HostLink:
    """The agent, as the adapters use it. `run` keeps the connection until it is cancelled."""

    def __init__(self, paths: RegionPaths) -> None:
        self._paths = paths
        self._client: HostClient | None = None
        self._connected = asyncio.Event()
        self._started: subprocess.Popen[bytes] | None = None
        self.observer: Observer | None = None
        self.on_proxy_restarted: Callable[[], None] | None = None
        self.on_restarted: Callable[[str], None] | None = None
        """Hears the name of every process that had ended on its own and runs again."""
        self._fresh: set[str] = set()
        self._cpu: CpuTimes | None = None
        self.processes: dict[str, ProcessInfo] = {}
        """As last listed."""

    async def run(self) -> None:
        """Connect, take in the list, hear events; again after every loss."""
        while True:
            try:
                await self._connect()
            except (BorealisError, OSError) as error:
                log.warning("the host agent cannot be reached: %s", error)
                await asyncio.sleep(0.2)
                continue
            client = self._client
            assert client is not None
            try:
                await self._stay(client)
            except (BorealisError, OSError) as error:
                log.warning("the host agent does not answer: %s", error)
            finally:
                self._connected.clear()
                self._client = None
                await client.close()

    async def connected(self) -> None:
        """Wait for the first (or the next) connection."""
        await self._connected.wait()

    # What `endpoints.proxy.ProcessAgent` asks for.

    async def spawn(self, spec: ProcessSpec) -> int:
        """Start a process, or find it running."""
        return await self.call(lambda client: client.spawn(spec))

    async def stop(self, name: str, signal: str | None = None, wait: float = 10.0) -> int | None:
        """Ask a process to end, then kill it."""
        return await self.call(lambda client: client.stop(name, signal, wait))

    async def forget(self, name: str) -> None:
        """Remove the record of a process that has ended."""
        await self.call(lambda client: client.forget(name))

    async def call(self, work: Callable[[HostClient], Awaitable[Answer]]) -> Answer:
        """Do `work` with the agent; waits for one that is being started. Raises RpcError or AgentAway."""
        try:
            async with asyncio.timeout(CALL_WAIT_SECONDS):
                await self._connected.wait()
        except TimeoutError:
            raise AgentAway(
                f"The host agent does not answer within {CALL_WAIT_SECONDS:g} s; see its log "
                f"{self._paths.log_file('host')}."
            ) from None
        client = self._client
        if client is None:
            raise AgentAway("The host agent was just lost; the step is tried again.")
        return await work(client)

    async def _connect(self) -> None:
        try:
            client = await HostClient.connect(self._paths, self._event, CONNECT_SECONDS)
        except RpcConnectionLost:
            log.warning("the host agent is gone: starting it again")
            await self._start()
            client = await HostClient.connect(self._paths, self._event, START_SECONDS)
        self._client = client
        try:
            await self._take_list(client)
        except BaseException:
            await client.close()
            raise
        self._connected.set()
        log.info("connected to the host agent")

    async def _start(self) -> None:
        if self._started is not None:
            # Its exit status is collected, so that no zombie stays; an agent that lives is left alone.
            await asyncio.to_thread(_collect, self._started)
        self._started = await asyncio.to_thread(start_agent, self._paths)

    async def _stay(self, client: HostClient) -> None:
        while not client.closed.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LIST_SECONDS):
                    await client.closed.wait()
            if not client.closed.is_set():
                await self._take_list(client)

    async def _take_list(self, client: HostClient) -> None:
        # Events that come while the list is on its way are newer than the list.
        self._fresh.clear()
        processes = await client.list()
        self.processes = {process.name: process for process in processes}
        if self.observer is not None:
            self.observer.processes(_engines(processes), _drivers(processes), self._fresh)
            await self._take_cpu(client, self.observer)

    async def _take_cpu(self, client: HostClient, observer: Observer) -> None:
        before, self._cpu = self._cpu, await client.cpu_times()
        if before is None or self._cpu.at <= before.at:
            return
        for name, seconds in self._cpu.seconds.items():
            if name.startswith(ENGINE) and name in before.seconds:
                used = max(0.0, seconds - before.seconds[name]) / (self._cpu.at - before.at)
                observer.engine_cpu(name.removeprefix(ENGINE), used)

    def _event(self, event: str, data: dict[str, Any]) -> None:
        name = str(data.get("name", ""))
        if name.startswith(PROXY) and event == "restarted" and self.on_proxy_restarted is not None:
            self.on_proxy_restarted()
        if event == "restarted" and self.on_restarted is not None:
            self.on_restarted(name)
        if self.observer is None:
            return
        self._fresh.add(name.removeprefix(ENGINE).removeprefix(DRIVER))
        if name.startswith(ENGINE):
            life = EngineLife.GONE if event == "exited" else EngineLife.ALIVE
            self.observer.engine_life(name.removeprefix(ENGINE), life)
        elif name.startswith(DRIVER) and event in ("started", "restarted"):
            self.observer.driver_started(name.removeprefix(DRIVER))


async def ended(work: Awaitable[object]) -> None:
    """Await `work`, taking a process that was never there for one that has ended."""
    try:
        await work
    except RpcError as error:
        if error.code != "UnknownProcess":
            raise


def _engines(processes: tuple[ProcessInfo, ...]) -> dict[str, EngineLife]:
    return {
        p.name.removeprefix(ENGINE): EngineLife.ALIVE if p.alive else EngineLife.GONE
        for p in processes
        if p.name.startswith(ENGINE)
    }


def _drivers(processes: tuple[ProcessInfo, ...]) -> list[str]:
    # One that is dead but wanted is about to be started again.
    return [p.name.removeprefix(DRIVER) for p in processes if p.name.startswith(DRIVER) and p.wanted]


def _collect(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=1)
