"""One HAProxy process: its files, its start, and making it what it should be.

Owns proxy/<name>/ and the control socket below run/x. The process itself belongs to the host agent, which
starts it again when it ends; it then comes up with the targets that were written last. As root it gives up
its rights after it has opened its sockets.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import pwd
import resource
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from borealis.endpoints.errors import EndpointError, ProxyUnreachable
from borealis.endpoints.haproxy import CUT_SECONDS, Endpoint, Moves, ProxySpec, first_line, moves, render
from borealis.endpoints.runtime import Runtime
from borealis.host.errors import HostError
from borealis.host.records import ProcessSpec
from borealis.logs import get_logger
from borealis.paths import RegionPaths
from borealis.rpc import RpcError

START_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.01
STOP_SECONDS: Final = 2.0
CONNECTIONS_MAX: Final = 10_000
SPARE_FILES: Final = 200
USERS: Final = ("haproxy", "nobody")
PROGRAM_PLACES: Final = ("/usr/sbin/haproxy", "/usr/local/sbin/haproxy")

log = get_logger(__name__)


class ProcessAgent(Protocol):
    """What is needed of the host agent (`host.client.HostClient` has it)."""

    async def spawn(self, spec: ProcessSpec) -> int: ...
    async def stop(self, name: str, signal: str | None = None, wait: float = 10.0) -> int | None: ...
    async def forget(self, name: str) -> None: ...


def program() -> str:
    """The HAProxy of this machine. Raises EndpointError."""
    found = shutil.which("haproxy") or next((p for p in PROGRAM_PLACES if os.access(p, os.X_OK)), None)
    if found is None:
        raise EndpointError(
            "haproxy was not found: install it (Debian: apt-get install haproxy; 2.4 or later) "
            "or put it on PATH"
        )
    return found


def connections_max() -> int:
    """How many connections one proxy takes: each needs two files."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return max(100, min(CONNECTIONS_MAX, (limit - SPARE_FILES) // 2))


def unprivileged() -> tuple[str, str] | None:
    """User and group that a proxy of root runs as; None: this process is not root's."""
    if os.getuid() != 0:
        return None
    for name in USERS:
        try:
            return name, _group_name(pwd.getpwnam(name).pw_gid)
        except KeyError:
            continue
    raise EndpointError(f"none of the users {', '.join(USERS)} exists: make one that proxies can run as")


def _group_name(gid: int) -> str:
    import grp

    return grp.getgrgid(gid).gr_name


class Proxy:
    """One process by name. Calls for the same name must not overlap."""

    def __init__(self, paths: RegionPaths, agent: ProcessAgent, name: str) -> None:
        self._paths = paths
        self._agent = agent
        self._name = name
        self._directory = paths.proxy_dir(name)
        self._config = self._directory / "haproxy.cfg"
        # Short, because a Unix socket's path is; HAProxy binds it under a longer name at first.
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        self.socket = paths.run_dir / "x" / f"{digest}.sock"
        self._runtime = Runtime(self.socket)

    @property
    def process(self) -> str:
        """The name of the process at the host agent."""
        return f"proxy-{self._name}"

    def spec(self, endpoints: tuple[Endpoint, ...]) -> ProxySpec:
        """The whole configuration with these endpoints. Raises EndpointError."""
        return ProxySpec(self._name, self.socket, connections_max(), unprivileged(), endpoints)

    async def ensure(
        self, endpoints: tuple[Endpoint, ...], owner: str, cut: Callable[[str, str], bool]
    ) -> None:
        """Make the process run with these endpoints and their targets. Raises EndpointError.

        `owner`: the key of the cluster. `cut` (section, address): whether the sessions to an address that
        is left end.
        """
        spec = self.spec(endpoints)
        known = await asyncio.to_thread(self._read)
        if known.startswith(first_line(spec)):
            try:
                await self._change(spec, cut)
            except ProxyUnreachable:
                # Being started by the agent, or never started since the machine was.
                await self._run(spec)
                await self._change(spec, cut)
            await asyncio.to_thread(self._write, spec, owner, known)
            return
        await asyncio.to_thread(self._write, spec, owner, known)
        if known:
            await self._end()
        await self._run(spec)

    async def move(self, endpoint: Endpoint, cut: Callable[[str, str], bool]) -> None:
        """Change the targets of one endpoint, as fast as can be; `ensure` follows.

        Returns when sessions to former targets are cut, a moment after new ones go through. Raises
        EndpointError.
        """
        slots = (await self._runtime.state()).get(endpoint.name)
        if slots is None or len(slots) != endpoint.slots:
            raise EndpointError(f"the proxy {self._name} has no endpoint {endpoint.name} as expected")
        await self._carry_out([moves(endpoint, slots, connections_max(), lambda a: cut(endpoint.name, a))])

    async def remove(self) -> None:
        """End the process and remove its files; again and again if need be."""
        await self._end()
        await asyncio.to_thread(shutil.rmtree, self._directory, True)
        self.socket.unlink(missing_ok=True)

    async def _change(self, spec: ProxySpec, cut: Callable[[str, str], bool]) -> None:
        state = await self._runtime.state()
        wanted: list[Moves] = []
        for endpoint in spec.endpoints:
            slots = state.get(endpoint.name, [])
            if len(slots) != endpoint.slots:
                raise ProxyUnreachable(f"the proxy {self._name} runs with another configuration")
            wanted.append(moves(endpoint, slots, spec.maxconn, lambda a, e=endpoint: cut(e.name, a)))  # type: ignore[misc]
        await self._carry_out(wanted)

    async def _carry_out(self, wanted: Sequence[Moves]) -> None:
        await self._runtime.run([command for part in wanted for command in part.now])
        cuts = [command for part in wanted for command in part.later]
        if cuts:
            await asyncio.sleep(CUT_SECONDS)
            await self._runtime.run(cuts)

    async def _run(self, spec: ProxySpec) -> None:
        process = ProcessSpec(
            name=self.process,
            argv=(program(), "-db", "-f", str(self._config)),
            log=str(self._paths.log_file(self.process)),
            restart="always",
        )
        try:
            await self._agent.spawn(process)
        except (HostError, RpcError) as error:
            raise EndpointError(f"the proxy {self._name} could not be started: {error.message}") from error
        await self._answering(spec)

    async def _answering(self, spec: ProxySpec) -> None:
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while True:
            try:
                state = await self._runtime.state()
            except ProxyUnreachable:
                state = {}
            if all(endpoint.name in state for endpoint in spec.endpoints):
                return
            if asyncio.get_running_loop().time() > deadline:
                raise ProxyUnreachable(
                    f"the proxy {self._name} did not start within {START_SECONDS:.0f} s: most likely an "
                    f"address cannot be listened on; see {self._paths.log_file(self.process)}"
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _end(self) -> None:
        try:
            await self._agent.stop(self.process, wait=STOP_SECONDS)
            await self._agent.forget(self.process)
        except (HostError, RpcError) as error:
            # Unknown to the agent is what is wanted; anything else shows when it is started again.
            log.debug("proxy %s was not stopped: %s", self._name, error.message)

    # ---- files (blocking) ----------------------------------------------

    def _read(self) -> str:
        try:
            return self._config.read_text()
        except FileNotFoundError:
            return ""

    def _write(self, spec: ProxySpec, owner: str, known: str) -> None:
        text = render(spec)
        if text == known:
            return
        for directory in (self._directory, self.socket.parent):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in (("owner", owner), ("haproxy.cfg", text)):
            fresh = self._directory / f".{name}.new"
            fresh.write_text(content)
            fresh.chmod(0o600)
            fresh.replace(self._directory / name)


def proxies_on_disk(paths: RegionPaths) -> Iterator[tuple[str, str]]:
    """(name, key of its cluster) of each proxy that has files. Blocking."""
    folder = paths.proxy_dir("x").parent
    if not folder.is_dir():
        return
    for directory in sorted(folder.iterdir()):
        owner = directory / "owner"
        if owner.is_file():
            yield directory.name, owner.read_text()
