"""From reader to writer: opening the volume at new terms, and promoting the engine into it.

Owns the order of the steps on this instance, and which failures are harmless: until the device is armed the
instance is a reader and stays one; after that it becomes the writer, or its engine ends. Nothing is
acknowledged to a client before the last step. The rules of the log are in `borealis.log.opening`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from borealis.errors import BorealisError
from borealis.log.opening import OpenedVolume, RecoveredLog
from borealis.logs import get_logger
from borealis.volume.context import DriverContext
from borealis.volume.enginelog import EngineLog
from borealis.volume.lease import Lease
from borealis.volume.link import Links
from borealis.volume.opening import Opening
from borealis.volume.reader import ReaderRole
from borealis.volume.state import DriverState, Role, save_state
from borealis.volume.writer import Writer

log = get_logger(__name__)

RECOVER_SECONDS = 10.0
REPLAY_SECONDS = 60.0
PROMOTE_SECONDS = 30.0
OPEN_SECONDS = 10.0
WRITABLE_SECONDS = 30.0
CANARY_SECONDS = 5.0


class PromotionFailed(BorealisError):
    """This instance cannot be the writer now; it is still a reader."""

    code = "PromotionFailed"


class PromotionFatal(BorealisError):
    """The engine was promoted, or may have been, and the volume was not opened for it: it has to end."""

    code = "PromotionFatal"


@dataclass(frozen=True)
class Promoted:
    """A writer: its shipping goes on in `task`, over the connections that `links_task` keeps."""

    writer: Writer
    task: asyncio.Task[None]
    links_task: asyncio.Task[None]
    timeline: int
    timings: dict[str, float]
    """Step -> milliseconds, and `total`."""


class _Clock:
    """Milliseconds that each step took."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()
        self.timings: dict[str, float] = {}

    def mark(self, step: str) -> None:
        now = time.monotonic()
        self.timings[step] = round((now - self._last) * 1000, 2)
        self.timings["total"] = round((now - self._began) * 1000, 2)
        self._last = now


class Promotion:
    """One attempt. `spawn` starts a task that the driver supervises."""

    def __init__(
        self,
        context: DriverContext,
        reader: ReaderRole,
        first_term: int,
        second_term: int,
        on_end: Callable[[BorealisError], None],
        *,
        checked_pid: int | None = None,
    ) -> None:
        """`checked_pid`: the engine process whose settings were found to be safe since it started."""
        self._context = context
        self._checked_pid = checked_pid
        self._reader = reader
        self._terms = first_term, second_term
        self._on_end = on_end
        self._armed = False
        self._clock = _Clock()

    async def run(self) -> Promoted:
        """Raises Superseded, NoQuorum, LogMoved, PromotionFailed or an engine's error while this is still a
        reader; PromotionFatal when it is not."""
        context = self._context
        opening_links = Links(context.config.volume, context.config.nodes, _Nobody())
        writer_name = f"{context.config.incarnation}/{self._terms[1]}"
        opening = Opening(context.quorum, *self._terms, writer_name, opening_links)
        opening.begin()
        links_task = asyncio.create_task(opening_links.run(), name="links")
        try:
            return await self._run(opening, opening_links, links_task)
        except BaseException as error:
            links_task.cancel()
            await asyncio.gather(links_task, return_exceptions=True)
            if self._armed:
                raise PromotionFatal(f"promotion broke off, the engine must end: {error!r}") from error
            raise

    async def _run(self, opening: Opening, links: Links, links_task: asyncio.Task[None]) -> Promoted:
        await self._check_instance()
        self._clock.mark("check")
        recovered = await opening.recovered(RECOVER_SECONDS)
        self._clock.mark("recover")
        await self._replay(recovered)
        self._clock.mark("replay")
        self._arm()
        self._clock.mark("arm")
        opened = await self._promote(opening, recovered)
        timeline = opened.history.entries[-1].timeline
        self._remember(opened, timeline)
        self._clock.mark("remember")
        writer, task = self._ship(opened, timeline, links)
        try:
            await self._prove(writer, task)
        except BaseException:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        self._clock.mark("prove")
        log.info("term %d is open at %X: %s", opened.term, opened.vdl, self._clock.timings)
        return Promoted(writer, task, links_task, timeline, dict(self._clock.timings))

    # ------------------------------------------------------------------ still a reader
    async def _check_instance(self) -> None:
        """Fail closed: an engine whose log writes would pass by the device is not promoted."""
        context = self._context
        pid, registered = context.session.process_id(), context.device.engine_pid
        if pid is None or pid != registered:
            raise PromotionFailed(
                f"the engine runs as pid {pid}, the volume library registered {registered}: expected the "
                "same; start the engine with the volume library preloaded"
            )
        if pid != self._checked_pid:
            await context.session.check_settings()

    async def _replay(self, recovered: RecoveredLog) -> None:
        async with asyncio.timeout(REPLAY_SECONDS):
            await self._reader.catch_up(recovered)
            await self._context.session.wait_replayed(recovered.end, REPLAY_SECONDS)

    # ------------------------------------------------------------------ no way back
    def _arm(self) -> None:
        """From here on no log write of the engine passes without a write quorum."""
        self._armed = True
        save_state(self._context.state_file, DriverState(role=Role.OPENING, term=self._terms[0]))
        self._context.device.arm()

    async def _promote(self, opening: Opening, recovered: RecoveredLog) -> OpenedVolume:
        session = self._context.session
        await session.request_promote()
        switch = await session.promoted_timeline(recovered.timeline, PROMOTE_SECONDS)
        self._clock.mark("promote")
        opening.promoted(switch.lsn, switch.timeline, switch.history)
        opened = await opening.opened(OPEN_SECONDS)
        self._clock.mark("open")
        return opened

    def _remember(self, opened: OpenedVolume, timeline: int) -> None:
        state = DriverState(
            role=Role.WRITER,
            term=opened.term,
            timeline=timeline,
            start=opened.start,
            engine_start=opened.vdl,
            history=opened.history.to_json(),
        )
        save_state(self._context.state_file, state)

    def _ship(self, opened: OpenedVolume, timeline: int, links: Links) -> tuple[Writer, asyncio.Task[None]]:
        context = self._context
        writer = Writer(
            context.quorum,
            opened.history,
            EngineLog(context.engine, context.data_dir, opened.vdl, timeline),
            context.device,
            links,
            Lease(context.config.lease_seconds),
            self._on_end,
        )
        return writer, asyncio.create_task(writer.run(opened.ends), name="writer")

    async def _prove(self, writer: Writer, task: asyncio.Task[None]) -> None:
        """The engine writes, and a commit of its own arrives on a write quorum before it is called done."""
        session = self._context.session
        proof = asyncio.ensure_future(self._canary(writer))
        await asyncio.wait({proof, task}, return_when=asyncio.FIRST_COMPLETED)
        if not proof.done():
            proof.cancel()
            await asyncio.gather(proof, return_exceptions=True)
            raise PromotionFailed("the writer was superseded before its first commit")
        proof.result()
        if session.process_id() != self._context.device.engine_pid:
            raise PromotionFailed("another engine process than the registered one answers")

    async def _canary(self, writer: Writer) -> None:
        await self._context.session.wait_writable(WRITABLE_SECONDS)
        self._clock.mark("writable")
        device = self._context.device
        before = device.sync_wanted_seq
        end = await self._context.session.canary()
        if device.sync_wanted_seq == before:
            raise PromotionFailed(
                "a commit returned without a log sync through the device: the engine's log passes by the "
                "volume; check the preloaded library and the engine's settings"
            )
        # The position may lie in a record that is still being written; it is durable in a moment.
        await writer.wait_durable(end, CANARY_SECONDS)


class _Nobody:
    """Hears the links until the opening takes them over."""

    def link_connected(self, node: str) -> None: ...
    def link_lost(self, node: str) -> None: ...
    def link_received(self, node: str, message: object) -> None: ...
    def link_acknowledged(self, node: str, ack: object) -> None: ...
    def links_closing(self) -> None: ...
