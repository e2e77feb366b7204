"""The agent's calls, as they are offered on run/host.sock.

Owns the process table, the folder operations and the keeping of logs within bounds. It decides nothing about
clusters: what should run is the control plane's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec

from borealis import __version__
from borealis.host.cpu import cpu_seconds
from borealis.host.errors import InvalidSpec
from borealis.host.files import PRIVATE, RegionFiles
from borealis.host.records import ProcessSpec, RecordFolder
from borealis.host.table import ProcessTable
from borealis.logs import get_logger
from borealis.paths import RegionPaths
from borealis.rpc import RpcServer

LOG_BYTES_MAX = 64 * 1024 * 1024
"""A log file that grew beyond this is kept once as name.log.1 and starts again, in bytes."""

LOG_LOOK_SECONDS = 30.0

log = get_logger(__name__)


class Agent:
    """The host agent of one region. `run` serves until `shutdown` is called or the task is cancelled."""

    def __init__(self, paths: RegionPaths, hold: bool = False) -> None:
        """`hold`: adopt what runs, but start nothing again by itself."""
        self._paths = paths
        self._files = RegionFiles(paths.root)
        self._table = ProcessTable(paths.root, RecordFolder(paths.process_dir), self._notify, hold)
        self._server = RpcServer(paths.host_socket, self._handlers())
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Adopts, then serves. Raises RpcError(AddressInUse) when another agent serves this region."""
        for folder in (self._paths.run_dir, self._paths.process_dir, self._paths.log_dir):
            folder.mkdir(mode=0o711 if folder == self._paths.run_dir else 0o700, parents=True, exist_ok=True)
        keeper = asyncio.create_task(self._keep_logs())
        try:
            await self._table.adopt()
            await self._server.start()
            log.info("serving %s pid=%s", self._paths.host_socket, os.getpid())
            await self._over.wait()
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            await self._server.close()
            await self._table.close()

    def end(self) -> None:
        """Makes `run` return; the processes run on."""
        self._over.set()

    def _notify(self, event: str, data: dict[str, Any]) -> None:
        self._server.broadcast(event, **data)

    # ------------------------------------------------------------------ calls
    def _handlers(self) -> dict[str, Any]:
        return {
            "ping": self._ping,
            "shutdown": self._shutdown,
            "spawn": self._spawn,
            "stop": self._stop,
            "kill": self._kill,
            "signal": self._signal,
            "list": self._list,
            "cpu_times": self._cpu_times,
            "forget": self._forget,
            "make_dir": self._make_dir,
            "remove_tree": self._remove_tree,
            "copy_tree": self._copy_tree,
            "chown": self._chown,
        }

    async def _ping(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "version": __version__, "root": str(self._paths.root)}

    async def _shutdown(self) -> None:
        # After the answer has been written.
        asyncio.get_running_loop().call_later(0.05, self.end)

    async def _spawn(self, stdin: str | None = None, **spec: Any) -> dict[str, int]:
        try:
            wanted = msgspec.convert(spec, ProcessSpec, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidSpec(f"the description of the process is wrong: {error}") from error
        return {"pid": await self._table.spawn(wanted, stdin)}

    async def _stop(self, name: str, signal: str | None = None, wait: float = 10.0) -> dict[str, int | None]:
        return {"status": await self._table.stop(name, signal, wait)}

    async def _kill(self, name: str) -> dict[str, int | None]:
        return {"status": await self._table.kill(name)}

    async def _signal(self, name: str, sig: str, tree: bool = False) -> dict[str, list[int]]:
        return {"pids": await self._table.signal(name, sig, tree)}

    async def _list(self) -> list[dict[str, Any]]:
        return self._table.describe()

    async def _cpu_times(self) -> dict[str, Any]:
        pids = self._table.pids()
        seconds = await asyncio.to_thread(cpu_seconds, list(pids.values()))
        return {
            "at": time.monotonic(),
            "seconds": {name: seconds[pid] for name, pid in pids.items() if pid in seconds},
        }

    async def _forget(self, name: str) -> None:
        await self._table.forget(name)

    async def _make_dir(self, path: str, mode: int = PRIVATE, user: str | None = None) -> None:
        await asyncio.to_thread(self._files.make_dir, path, mode, user)

    async def _remove_tree(self, path: str) -> None:
        await asyncio.to_thread(self._files.remove_tree, path)

    async def _copy_tree(self, source: str, target: str, user: str | None = None) -> None:
        await asyncio.to_thread(self._files.copy_tree, source, target, user)

    async def _chown(self, path: str, user: str | None = None) -> None:
        await asyncio.to_thread(self._files.give_tree, path, user)

    # ------------------------------------------------------------------ logs
    async def _keep_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_LOOK_SECONDS)
            try:
                await asyncio.to_thread(keep_logs_small, self._paths.log_dir)
            except OSError as error:
                log.warning("logs could not be kept small: %s", error)


def keep_logs_small(folder: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
    """Copies each log beyond `bytes_max` aside and empties it: the processes that write it keep it open."""
    for path in folder.glob("*.log"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > bytes_max:
                shutil.copyfile(path, path.with_suffix(".log.1"))
                path.with_suffix(".log.1").chmod(0o600)
                os.truncate(path, 0)
