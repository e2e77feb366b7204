"""A real instance with the server that it follows and the session that drives it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg

from borealis.engines.base import Feedback, InstanceSettings, ReaderProgress
from borealis.engines.postgres.wal import PAGE_BYTES
from borealis.engines.postgres.walscan import WalScanner

from .memory_feed import MemoryFeed
from .real import Instance, Workshop


class Served:
    """An instance with the server that it follows and the session that drives it."""

    def __init__(
        self, workshop: Workshop, name: str, feed: MemoryFeed, settings: InstanceSettings | None = None
    ):
        self.workshop = workshop
        self.feed = feed
        self.settings = settings or workshop.settings(name)
        self.feedback: list[Feedback] = []
        self.progress: list[ReaderProgress] = []
        self.server = workshop.engine.reader_server(
            workshop.version, self.settings, feed, self.feedback.append, self.progress.append
        )
        self.instance: Instance
        self.session = workshop.engine.session(
            workshop.version, self.settings.socket_dir / "data", self.settings
        )

    async def __aenter__(self) -> Served:
        await self.server.start()
        self.instance = self.workshop.start(self.settings)
        try:
            await self.session.wait_ready(20)
        except BaseException:
            print(self.instance.log_text)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        await self.server.close()
        self.instance.stop()

    async def promote(self) -> None:
        """Promote at the end of the feed, and put the new timeline into it."""
        old = max(self.feed.timelines)
        await self.session.wait_replayed(self.feed.vdl)
        await self.session.request_promote()
        switch = await self.session.promoted_timeline(old)
        await self.session.wait_writable()
        self.feed.cut(min(switch.lsn, self.feed.end))
        self.feed.log += bytes(switch.lsn - self.feed.end)
        self.feed.begin_timeline(switch.timeline, switch.lsn, switch.history)

    def ship(self, timeline: int) -> None:
        """Take the writer's new log into the feed, as far as its records are whole."""
        scanner = WalScanner(self.feed.end, timeline)
        while True:
            page = scanner.position - scanner.position % PAGE_BYTES
            data = self.workshop.engine.log_read(self.instance.data_dir, timeline, page, page + (1 << 20))
            before = self.feed.end
            scanner.scan(data, page, page + len(data))
            if scanner.position <= before:
                return
            self.feed.append(data[before - page : scanner.position - page])


def seeded_feed(workshop: Workshop) -> MemoryFeed:
    feed = MemoryFeed(workshop.seed.system_id, workshop.seed.start_lsn, workshop.seed.timeline)
    feed.append(workshop.seed.log)
    return feed


async def visible(reader: Served, sql: str, expected: object) -> None:
    """Wait until a query on the reader gives the expected value."""
    async with asyncio.timeout(20):
        while True:
            try:
                with reader.instance.connect() as connection:
                    if connection.execute(sql).fetchone() == (expected,):
                        return
            except psycopg.errors.UndefinedTable:
                pass
            await asyncio.sleep(0.01)


async def until(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    """Wait for something that happens outside this process."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)
