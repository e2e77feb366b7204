"""The process table: starts, adopts, watches, restarts and ends the processes of a region.

Owns the records in run/p and a pidfd of each living process. A process is never assumed to be a child of this
agent: the agent may have been killed and started again, so that most are only found (adopted). It never ends
a process of its own accord, and an agent that ends leaves all of them running.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from borealis.host import proc
from borealis.host.errors import HostError, InvalidSpec, KillFailed, ProcessConflict, UnknownProcess
from borealis.host.launch import TOKEN_VARIABLE, find_user, launch
from borealis.host.records import ProcessRecord, ProcessSpec, RecordFolder, check_spec
from borealis.logs import get_logger

BACKOFF_FIRST_SECONDS = 0.05
BACKOFF_LAST_SECONDS = 5.0
HEALTHY_AFTER_SECONDS = 10.0
"""A process that lived this long did not fail at its start: the next backoff is the first one again."""

KILL_WAIT_SECONDS = 10.0
SWEEP_PAUSE_SECONDS = 0.002

Notify = Callable[[str, dict[str, Any]], None]

log = get_logger(__name__)


class _Process:
    """A record together with what this agent holds of the living process."""

    def __init__(self, record: ProcessRecord) -> None:
        self.record = record
        self.descriptor: int | None = None  # A pidfd, open as long as the process lives.
        self.child: subprocess.Popen[bytes] | None = (
            None  # None for an adopted one: its status stays unknown.
        )
        self.ended = asyncio.Event()
        self.ended.set()
        self.failures = 0  # Ends in a row that came soon after a start.
        self.restart: asyncio.Task[None] | None = None
        # Held while a start is under way or the state is changed; never while waiting for an end.
        self.lock = asyncio.Lock()

    @property
    def alive(self) -> bool:
        return self.descriptor is not None


class ProcessTable:
    """All processes of the region on this machine, by name."""

    def __init__(self, root: Path, records: RecordFolder, notify: Notify, hold: bool = False) -> None:
        """`notify(event, data)` hears of "exited", "started" and "restarted"; `hold` restarts nothing."""
        self._root = root
        self._records = records
        self._notify = notify
        self._hold = hold
        self._processes: dict[str, _Process] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------ life of the table
    async def adopt(self) -> None:
        """Finds the processes that an earlier agent started, and starts again those that should run and do
        not.
        """
        for record in self._records.load():
            process = _Process(record)
            self._processes[record.spec.name] = process
            if await asyncio.to_thread(_find, record):
                self._watch(process)
            if process.alive:
                self._records.save(record)
                log.info("adopted %s pid=%s", record.spec.name, record.pid)
            else:
                self._restart_if_wanted(process)

    async def close(self) -> None:
        """Lets go of all processes; they run on."""
        for process in self._processes.values():
            if process.restart is not None:
                process.restart.cancel()
            self._release(process)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ------------------------------------------------------------------ what callers ask for
    async def spawn(self, spec: ProcessSpec, stdin: str | None = None) -> int:
        """Starts a process and returns its pid; one that runs already with the same spec is left as it is.

        Raises InvalidSpec, SpawnFailed, ProcessConflict.
        """
        check_spec(spec, self._root)
        find_user(spec.user)
        process = self._processes.get(spec.name)
        if process is None:
            process = self._processes[spec.name] = _Process(ProcessRecord(spec=spec, token=""))
        async with process.lock:
            if process.alive and process.record.spec != spec:
                raise ProcessConflict(
                    f"process {spec.name} (pid {process.record.pid}) runs another command: stop it first"
                )
            process.record.wanted = True
            if not process.alive:
                process.failures = 0
                process.record = ProcessRecord(spec=spec, token="", starts=process.record.starts)
                try:
                    await self._start(process, stdin)
                except HostError:
                    # The caller hears of it and decides; it is not tried again behind its back.
                    process.record.wanted = False
                    self._records.save(process.record)
                    raise
            return self._pid(process)

    async def stop(self, name: str, sig: str | None = None, timeout: float = 10.0) -> int | None:
        """Asks a process to end and waits `timeout` seconds, then kills it. Returns its status, None if
        unknown.
        """
        process = self._get(name)
        async with process.lock:
            self._unwant(process)
            if process.alive:
                self._send(process, _signal_number(sig or process.record.spec.stop_signal))
                self._send(process, signal.SIGCONT)  # A stopped one could not hear it.
        try:
            async with asyncio.timeout(timeout):
                await process.ended.wait()
        except TimeoutError:
            log.warning("%s did not end within %s s: killed", name, timeout)
        await self.kill(name)
        return process.record.status

    async def kill(self, name: str) -> int | None:
        """Kills a process and everything that works in its sweep_dir; returns when none of them is left.

        Raises KillFailed.
        """
        process = self._get(name)
        async with process.lock:
            self._unwant(process)
            self._send(process, signal.SIGKILL)
        try:
            async with asyncio.timeout(KILL_WAIT_SECONDS):
                await self._sweep(process)
                await process.ended.wait()
        except TimeoutError:
            raise KillFailed(
                f"process {name} (pid {process.record.pid}) or one that works in "
                f"{process.record.spec.sweep_dir} is still there {KILL_WAIT_SECONDS:.0f} s after SIGKILL: it "
                "hangs in the kernel, on a dead disk perhaps"
            ) from None
        return process.record.status

    async def signal(self, name: str, sig: str, tree: bool = False) -> list[int]:
        """Sends a signal, with `tree` also to what works in its sweep_dir. Returns the pids that it
        reached.
        """
        process = self._get(name)
        number = _signal_number(sig)
        reached = [self._pid(process)] if self._send(process, number) else []
        sweep_dir = process.record.spec.sweep_dir
        if tree and sweep_dir is not None:
            uid = _uid(process.record.spec)
            reached += await asyncio.to_thread(proc.signal_working_in, Path(sweep_dir), number, uid)
        return sorted(set(reached))

    async def forget(self, name: str) -> None:
        """Removes the record of a process that has ended; one that is not there is no error."""
        process = self._processes.get(name)
        if process is None:
            return
        async with process.lock:
            if process.alive:
                raise ProcessConflict(
                    f"process {name} (pid {process.record.pid}) still runs: stop or kill it first"
                )
            self._unwant(process)
            self._records.remove(name)
            self._processes.pop(name, None)

    def pids(self) -> dict[str, int]:
        """Name → pid of those that run."""
        found = ((name, process.record.pid) for name, process in self._processes.items() if process.alive)
        return {name: pid for name, pid in found if pid is not None}

    def describe(self) -> list[dict[str, Any]]:
        """All processes as plain data, by name."""
        return [_described(self._processes[name]) for name in sorted(self._processes)]

    # ------------------------------------------------------------------ starting
    async def _start(self, process: _Process, stdin: str | None = None) -> None:
        """Starts the process of a record. The caller holds its lock."""
        record = process.record
        record.token = f"{record.spec.name}:{secrets.token_hex(8)}"
        record.pid = record.start_time = record.status = None
        record.boot, record.started_at = proc.boot_id(), time.time()
        record.starts += 1
        self._records.save(record)
        child = await asyncio.to_thread(launch, record.spec, record.token, self._root, stdin)
        process.child = child
        record.pid = child.pid
        stat = proc.read_stat(child.pid)
        record.start_time = stat.start_time if stat is not None else None
        self._records.save(record)
        self._watch(process)
        log.info("started %s pid=%s", record.spec.name, record.pid)
        self._notify("started", {"name": record.spec.name, "pid": record.pid})

    def _watch(self, process: _Process) -> None:
        """Waits for the end of the record's process, whoever its parent is."""
        pid = process.record.pid
        assert pid is not None
        if process.child is not None:
            # An own child that is not waited for keeps its pid: no one else can have it.
            process.descriptor = os.pidfd_open(pid)
        else:
            process.descriptor = proc.open_process(pid, process.record.start_time)
        if process.descriptor is not None:
            process.ended.clear()
            asyncio.get_running_loop().add_reader(process.descriptor, self._on_end, process)

    # ------------------------------------------------------------------ ends
    def _on_end(self, process: _Process) -> None:
        if process.child is not None:
            # A pidfd turns readable when the process can be waited for, so this does not block.
            process.record.status = process.child.wait()
            process.child = None
        self._release(process)
        self._ended(process)

    def _release(self, process: _Process) -> None:
        if process.descriptor is not None:
            asyncio.get_running_loop().remove_reader(process.descriptor)
            os.close(process.descriptor)
            process.descriptor = None

    def _ended(self, process: _Process) -> None:
        """Tells of an end, and starts the process again when it should run."""
        record = process.record
        process.ended.set()
        self._records.save(record)
        level = log.warning if record.wanted else log.info
        level("%s ended pid=%s status=%s", record.spec.name, record.pid, record.status)
        self._notify("exited", {"name": record.spec.name, "pid": record.pid, "status": record.status})
        lived = time.time() - record.started_at
        process.failures = 0 if lived > HEALTHY_AFTER_SECONDS else process.failures + 1
        self._restart_if_wanted(process)

    def _restart_if_wanted(self, process: _Process) -> None:
        record = process.record
        if record.wanted and record.spec.restart == "always" and not self._hold:
            process.restart = self._own(self._restart(process))

    async def _restart(self, process: _Process) -> None:
        while True:
            await asyncio.sleep(_backoff(process.failures))
            async with process.lock:
                if not process.record.wanted or process.alive:
                    return
                try:
                    await self._start(process)
                except (HostError, OSError) as error:
                    process.failures += 1
                    log.error("%s could not be started again: %s", process.record.spec.name, error)
                    continue
            record = process.record
            self._notify("restarted", {"name": record.spec.name, "pid": record.pid, "starts": record.starts})
            return

    def _unwant(self, process: _Process) -> None:
        if process.record.wanted:
            process.record.wanted = False
            self._records.save(process.record)
        if process.restart is not None and process.restart is not asyncio.current_task():
            process.restart.cancel()
            process.restart = None

    async def _sweep(self, process: _Process) -> None:
        """Kills what works in the sweep_dir until a look around finds nothing: a dying parent may still
        fork.
        """
        spec = process.record.spec
        if spec.sweep_dir is None:
            return
        place, uid = Path(spec.sweep_dir), _uid(spec)
        while await asyncio.to_thread(proc.signal_working_in, place, signal.SIGKILL, uid):  # noqa: ASYNC110
            await asyncio.sleep(SWEEP_PAUSE_SECONDS)

    # ------------------------------------------------------------------ small helpers
    def _get(self, name: str) -> _Process:
        process = self._processes.get(name)
        if process is None:
            raise UnknownProcess(
                f"there is no process {name!r}; there are: {', '.join(sorted(self._processes)) or '-'}"
            )
        return process

    def _send(self, process: _Process, number: int) -> bool:
        return process.descriptor is not None and proc.send(process.descriptor, number)

    def _pid(self, process: _Process) -> int:
        assert process.record.pid is not None
        return process.record.pid

    def _own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _find(record: ProcessRecord) -> bool:
    """Whether the record's process may live; completes a record whose agent died while it started."""
    if record.boot != proc.boot_id():
        return False
    if record.pid is None or record.start_time is None:
        record.pid = proc.find_by_environment(TOKEN_VARIABLE, record.token)
        stat = proc.read_stat(record.pid) if record.pid is not None else None
        record.start_time = stat.start_time if stat is not None else None
        return stat is not None
    return record.status is None


def _uid(spec: ProcessSpec) -> int | None:
    user = find_user(spec.user)
    return user.pw_uid if user is not None else None


def _backoff(failures: int) -> float:
    return float(min(BACKOFF_LAST_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** min(max(failures - 1, 0), 20)))


def _signal_number(name: str) -> int:
    try:
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except KeyError:
        raise InvalidSpec(
            f"{name!r} is not a signal: expected a name such as TERM, KILL, STOP or CONT"
        ) from None


def _described(process: _Process) -> dict[str, Any]:
    record = process.record
    return {
        "name": record.spec.name,
        "pid": record.pid,
        "alive": process.alive,
        "wanted": record.wanted,
        "status": record.status,
        "started_at": record.started_at,
        "starts": record.starts,
        "restart": record.spec.restart,
        "user": record.spec.user,
        "argv": list(record.spec.argv),
        "cwd": record.spec.cwd,
        "log": record.spec.log,
        "sweep_dir": record.spec.sweep_dir,
    }
