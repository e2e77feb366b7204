"""The driver process: one instance's client of the storage.

Run as `python -m borealis.volume.driver CONFIG.json`. Owns the instance's role and its changes: reader (from
the start), writer (after `open_volume`), fenced (the end: its engine is killed, exit code 3). Every
background task is supervised: one that fails ends the process with exit code 1, the host agent starts it
again, and it goes on from its state file. It never decides to become writer, and never starts an engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import uvloop

from borealis.engines.base import EngineState, EngineUnavailable, Feedback
from borealis.errors import BorealisError
from borealis.log.history import TermHistory
from borealis.log.types import Superseded
from borealis.logs import get_logger, setup_logging
from borealis.rpc import RpcServer
from borealis.volume.config import DriverConfig, load_config
from borealis.volume.context import DriverContext, engine_owner, make_context
from borealis.volume.device import DeviceMode
from borealis.volume.enginelog import EngineLog
from borealis.volume.engineprocess import EngineProcess, kill_workers
from borealis.volume.feedback import FeedbackDesk
from borealis.volume.lease import Lease
from borealis.volume.link import Links
from borealis.volume.promotion import Promotion, PromotionFatal
from borealis.volume.reader import ReaderRole
from borealis.volume.resume import durable_position
from borealis.volume.service import DriverService
from borealis.volume.state import DriverState, Role, load_state, save_state
from borealis.volume.writer import Writer

log = get_logger(__name__)

EXIT_FAILED = 1
EXIT_FENCED = 3
PROBE_TIMEOUT_SECONDS = 5.0
LOOK_SECONDS = 0.05
"""How often it is looked for an engine that has not registered yet."""
FOLLOW_SECONDS = 60.0
"""So long an opening waits for an engine that does not follow its upstream yet."""


class RoleError(BorealisError):
    """The driver is not in the role that the call needs."""

    code = "WrongRole"


class Driver:
    """One driver. `run()` returns the process's exit code."""

    def __init__(self, context: DriverContext) -> None:
        self.context = context
        self.config = context.config
        self.started_at = time.time()
        self.state = load_state(context.state_file)
        self.reader: ReaderRole | None = None
        self.writer: Writer | None = None
        self.timeline = self.state.timeline
        self.engine_state = EngineState(up=False, error="not probed yet")
        self.feedback = FeedbackDesk(context.session)
        self._answered_at = time.monotonic()
        self.process: EngineProcess | None = None
        self._checked_pid: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._role_tasks: list[asyncio.Task[Any]] = []
        self._opening: asyncio.Task[dict[str, Any]] | None = None
        self._follows = asyncio.Event()
        """The engine process of now was told to follow its upstream."""
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._service = DriverService(self)
        self._rpc = RpcServer(Path(self.config.rpc_socket), self._service.handlers())

    # ------------------------------------------------------------------ life
    async def run(self) -> int:
        """Serve until stopped, fenced, or failed."""
        self.context.device.bind_notices(owner=engine_owner(self.context.data_dir))
        try:
            await self._rpc.start()
            await self._begin_role()
            self.spawn(self._watch_engine(), "engine-watch")
            self.spawn(self._probe(), "probe")
            return await self._exit
        finally:
            await self._close()

    def stop(self, code: int = 0) -> None:
        """End the process; the engine and the page live on."""
        if not self._exit.done():
            self._exit.set_result(code)

    async def _begin_role(self) -> None:
        log.info("role %s, term %d", self.state.role, self.state.term)
        if self.state.role is Role.WRITER:
            if self.context.device.mode is not DeviceMode.ON:
                self.fence(f"the log device is in mode {self.context.device.mode.name}, a writer's is on")
            else:
                self.spawn(self._resume_writer(), "resume")
        elif self.state.role is Role.OPENING or (
            self.state.role is Role.READER and self.context.device.mode is not DeviceMode.OFF
        ):
            self.fence("the driver was interrupted while it opened the volume")
        elif self.state.role is Role.READER:
            self.reader = ReaderRole(self.context)
            await self.reader.start()
            self._role_tasks.append(self.spawn(self.reader.run(), "reader"))

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task whose failure ends the process."""
        return self._supervise(asyncio.create_task(work, name=name))

    def _supervise(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("task %s failed", task.get_name(), exc_info=error)
        self.stop(EXIT_FAILED)

    async def _close(self) -> None:
        tasks = [*self._tasks, *([self._opening] if self._opening else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._rpc.close()
        if self.reader is not None:
            await self.reader.close()
        if self.process is not None:
            self.process.close()
        await self.context.close()

    # ------------------------------------------------------------------ the engine
    async def _watch_engine(self) -> None:
        """Note each engine process that registers with the device, and its end."""
        while True:
            pid = self.context.device.engine_pid
            if self.process is None and pid is not None and pid == self.context.session.process_id():
                with contextlib.suppress(ProcessLookupError):
                    self.process = EngineProcess(pid, self.context.data_dir, self._engine_ended)
                    log.info("engine is process %d", pid)
            if self.process is not None and self.reader is not None and not self._follows.is_set():
                await self._follow(self.process.pid)
            await asyncio.sleep(LOOK_SECONDS)

    async def _follow(self, pid: int) -> None:
        """Once for each engine process; it may still be starting."""
        try:
            await self.context.session.follow()
        except EngineUnavailable:
            return
        except BorealisError as error:
            log.warning("engine process %d does not follow its upstream: %s", pid, error)
        else:
            self._follows.set()

    def _engine_ended(self, pid: int) -> None:
        log.warning("engine process %d has ended", pid)
        self.process = None
        self._follows.clear()
        self._set_engine_state(EngineState(up=False, error="the process has ended"))

    @property
    def opening(self) -> bool:
        """An opening of the volume is under way: this may become the writer."""
        return self._opening is not None and not self._opening.done()

    @property
    def engine_silent_seconds(self) -> float:
        """Since the engine last answered a probe: a hung one shows long before its probe has timed out."""
        return time.monotonic() - self._answered_at

    async def _probe(self) -> None:
        while True:
            state = await self.context.session.probe(PROBE_TIMEOUT_SECONDS)
            if state.up:
                self._answered_at = time.monotonic()
            self._set_engine_state(state)
            if state.up and self.process is not None and self.process.pid != self._checked_pid:
                await self._check_engine(self.process.pid)
            await asyncio.sleep(self.config.probe_seconds)

    async def _check_engine(self, pid: int) -> None:
        """Once for each engine process, ahead of the promotion that may come: its settings cannot change any
        more. It also leaves the session with a connection, so that a promotion need not make one."""
        try:
            await self.context.session.check_settings()
        except BorealisError as error:
            log.warning("engine process %d cannot become a writer: %s", pid, error)
        else:
            self._checked_pid = pid

    def _set_engine_state(self, state: EngineState) -> None:
        before, self.engine_state = self.engine_state, state
        if state.up and self.reader is not None and state.replay_lsn is not None:
            self.reader.lag.replayed(state.replay_lsn)
        if before.up != state.up:
            event = "engine_up" if state.up else "engine_down"
            self._rpc.broadcast(event, instance_id=self.config.instance_id, error=state.error)

    # ------------------------------------------------------------------ becoming and being writer
    async def open_volume(self, first_term: int, second_term: int) -> dict[str, Any]:
        """Make this instance the writer. Goes on when the caller does not wait any more.

        Raises RoleError, Superseded, NoQuorum, LogMoved or PromotionFailed: it is still a reader;
        PromotionFatal: it is not.
        """
        if self.reader is None or self.opening:
            raise RoleError(f"the role is {self.state.role}: only a reader that opens no volume can open one")
        if not 0 < first_term < second_term:
            raise RoleError(f"terms {first_term} and {second_term}: the second must be the higher one")
        self._opening = asyncio.create_task(self._open(self.reader, first_term, second_term), name="opening")
        # A caller that hears of the failure is not the only one: without callers it must not stay unheard.
        self._opening.add_done_callback(_log_failure)
        return await asyncio.shield(self._opening)

    async def _open(self, reader: ReaderRole, first_term: int, second_term: int) -> dict[str, Any]:
        await self._until_it_follows()
        promotion = Promotion(
            self.context, reader, first_term, second_term, self._writer_ended, checked_pid=self._checked_pid
        )
        try:
            promoted = await promotion.run()
        except PromotionFatal as error:
            self.fence(str(error))
            raise
        self.writer, self.timeline = promoted.writer, promoted.timeline
        self.state = load_state(self.context.state_file)
        self.reader = None
        for task in self._role_tasks:
            task.cancel()
        self._role_tasks = [self._supervise(promoted.task), self._supervise(promoted.links_task)]
        self.spawn(self._retire(reader), "retire-reader")
        self.spawn(self.feedback.run(), "feedback-desk")
        self._rpc.broadcast("role_changed", instance_id=self.config.instance_id, role=Role.WRITER)
        return {
            "term": promoted.writer.term,
            "timeline": promoted.timeline,
            "vdl": promoted.writer.vdl,
            "timings": promoted.timings,
        }

    async def _until_it_follows(self) -> None:
        """Only then the engine gets the rest of the log; and no call to follow comes after the promotion."""
        deadline = time.monotonic() + FOLLOW_SECONDS
        while self.process is not None and not self._follows.is_set():
            if time.monotonic() > deadline:
                raise RoleError(f"the engine does not follow its upstream after {FOLLOW_SECONDS:g} s")
            await asyncio.sleep(LOOK_SECONDS)

    @staticmethod
    async def _retire(reader: ReaderRole) -> None:
        await reader.close()

    async def _resume_writer(self) -> None:
        """Go on as the writer of the remembered term, if it still is one."""
        state, context = self.state, self.context
        try:
            position = await durable_position(context.source, context.quorum, state.term, state.engine_start)
        except Superseded as error:
            self._writer_ended(error)
            return
        links = Links(self.config.volume, self.config.nodes, _Deaf())
        self.writer = Writer(
            context.quorum,
            TermHistory.from_json(state.history),
            EngineLog(context.engine, context.data_dir, position, state.timeline, resume=True),
            context.device,
            links,
            Lease(self.config.lease_seconds),
            self._writer_ended,
        )
        log.info("resuming term %d from %X", state.term, position)
        self._role_tasks = [self.spawn(self.writer.run(), "writer"), self.spawn(links.run(), "links")]
        self.spawn(self.feedback.run(), "feedback-desk")

    # ------------------------------------------------------------------ the end
    def _writer_ended(self, error: BorealisError) -> None:
        self.fence(str(error))

    def fence(self, reason: str) -> None:
        """Another writer has the volume, or this one cannot be trusted: end the engine at once. Final."""
        log.error("fenced: %s", reason)
        with contextlib.suppress(BorealisError):
            self.context.device.fence()
        if self.process is not None:
            self.process.kill()
        else:
            kill_workers(self.context.data_dir)
        self.state = DriverState(role=Role.FENCED, term=self.state.term, reason=reason)
        try:
            save_state(self.context.state_file, self.state)
        except OSError as error:
            # A full disk may be why. A driver that is started again finds out once more that it is fenced.
            log.warning("that this instance is fenced is not noted on disk: %s", error)
        self._rpc.broadcast("fenced", instance_id=self.config.instance_id, reason=reason)
        # Whoever called hears of it first.
        asyncio.get_running_loop().call_later(0.05, self.stop, EXIT_FENCED)

    def heard_feedback(self, instance_id: str, feedback: Feedback) -> None:
        """A reader's driver tells what its engine needs kept."""
        self.feedback.heard(instance_id, feedback)


class _Deaf:
    """Hears the links for the moment before the writer runs."""

    def link_connected(self, node: str) -> None: ...
    def link_lost(self, node: str) -> None: ...
    def link_received(self, node: str, message: object) -> None: ...
    def link_acknowledged(self, node: str, ack: object) -> None: ...
    def links_closing(self) -> None: ...


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("opening the volume failed: %s", error)


async def serve(config: DriverConfig) -> int:
    """Run a driver in this process; SIGTERM and SIGINT end it."""
    driver = Driver(make_context(config))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, driver.stop)
    return await driver.run()


def main(arguments: list[str]) -> int:
    """The process. Exit codes: 0 stopped, 1 failed, 2 wrong configuration, 3 fenced."""
    if len(arguments) != 1:
        print("usage: python -m borealis.volume.driver CONFIG.json", file=sys.stderr)
        return 2
    try:
        config = load_config(Path(arguments[0]))
    except BorealisError as error:
        print(error, file=sys.stderr)
        return 2
    setup_logging(f"driver-{config.incarnation}")
    return uvloop.run(serve(config))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
