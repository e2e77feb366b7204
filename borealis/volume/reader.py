"""The reader's role: the engine follows the volume through this process.

Owns the feed, the follower that fills it, the server from which the engine streams, the lag, and the way of
the engine's feedback to the writer. A candidate for writer keeps all of this until its term is open. It never
shows anything above the VDL: the feed sees to that.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

from borealis.engines.base import Feedback, ReaderProgress
from borealis.errors import BorealisError
from borealis.log.opening import RecoveredLog
from borealis.logs import get_logger
from borealis.rpc import RpcClient, RpcError
from borealis.volume.context import DriverContext
from borealis.volume.feed import VolumeFeed
from borealis.volume.follower import JUMP_BYTES, Follower
from borealis.volume.lag import LagMeter

log = get_logger(__name__)

LAG_LOOK_SECONDS = 0.1
FEEDBACK_SECONDS = 1.0
"""How often the writer is told what this reader's queries need, also when that has not changed."""


class ReaderRole:
    """Start with `start()`, run `run()` as a task, end with `close()`."""

    def __init__(self, context: DriverContext) -> None:
        config = context.config
        self._context = context
        self.feed = VolumeFeed(config.system_id, self._fetch)
        self.follower = Follower(config.volume, config.az, config.nodes, self.feed, context.source)
        self.server = context.engine.reader_server(
            context.version, context.settings, self.feed, on_progress=self._on_progress
        )
        self.lag = LagMeter()
        self.writer_socket: Path | None = None
        """The writer's driver, which takes feedback; None: not known, or this is the writer."""
        self._writer: RpcClient | None = None
        self.feed.subscribe(self._on_feed)

    async def start(self) -> None:
        """Listen for the engine. Raises OSError."""
        await self.server.start()

    async def run(self) -> None:
        """Follow the log until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.follower.run(), name="follower")
            group.create_task(self._watch_lag(), name="lag")
            group.create_task(self._send_feedback(), name="feedback")

    async def close(self) -> None:
        """Stop serving the engine."""
        await self.server.close()
        if self._writer is not None:
            await self._writer.close()

    # ------------------------------------------------------------------ the log
    async def _fetch(self, start: int, end: int) -> bytes:
        return await self._context.source.read(start, end, log_term=self.feed.history.newest_term)

    async def catch_up(self, recovered: RecoveredLog) -> None:
        """Bring the feed to the end that an opening has found, which is durable in its first term."""
        feed = self.feed
        far_off = not feed.known or recovered.end - feed.end > JUMP_BYTES
        # Said again after each wait: the follower may have heard an older history from its node meanwhile.
        feed.set_history(recovered.history)
        if far_off:  # The engine reads what lies in between from the nodes.
            feed.restart(recovered.end)
        while feed.end < recovered.end:
            start = feed.end
            data = await self._context.source.read(start, recovered.end, log_term=recovered.term)
            feed.set_history(recovered.history)
            if not data or not feed.append(start, data):
                await asyncio.sleep(0.005)
                feed.set_history(recovered.history)
        feed.commit(recovered.term, recovered.end)

    # ------------------------------------------------------------------ lag
    @property
    def applied(self) -> int:
        """How far the engine has replayed, as it said last."""
        progress = self.server.progress
        return progress.applied if progress is not None else 0

    @property
    def lag_ms(self) -> float:
        return round(self.lag.lag_seconds(time.monotonic()) * 1000, 3)

    def _on_feed(self) -> None:
        self.lag.heard(self.feed.vdl, time.monotonic())

    def _on_progress(self, progress: ReaderProgress) -> None:
        self.lag.replayed(progress.applied)

    async def _watch_lag(self) -> None:
        while True:
            await asyncio.sleep(LAG_LOOK_SECONDS)
            if self.lag.behind:
                self.server.request_progress()

    # ------------------------------------------------------------------ feedback
    async def _send_feedback(self) -> None:
        while True:
            try:
                await self._tell_writer(self.server.feedback)
            except (RpcError, OSError) as error:
                log.debug("feedback not sent: %s", error)
                await self._drop_writer()
            await asyncio.sleep(FEEDBACK_SECONDS)

    async def _tell_writer(self, feedback: Feedback) -> None:
        if self._writer is not None and (
            self._writer.closed.is_set() or self._writer.path != self.writer_socket
        ):
            await self._drop_writer()
        if self.writer_socket is None:
            return
        if self._writer is None:
            self._writer = await RpcClient.connect(self.writer_socket, timeout=1)
        await self._writer.call(
            "feedback",
            instance_id=self._context.config.instance_id,
            xmin=feedback.xmin,
            catalog_xmin=feedback.catalog_xmin,
            timeout=5,
        )

    async def _drop_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(BorealisError, OSError):
                await writer.close()
