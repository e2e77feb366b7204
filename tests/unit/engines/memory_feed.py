"""A log in memory, as a reader server is fed from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from borealis.engines.base import EngineError


class MemoryFeed:
    """Implements `LogFeed`. `forgotten`: positions below it are not in memory and come through `read`."""

    def __init__(
        self, system_id: str = "7000000000000000001", start: int = 0x2000000, timeline: int = 1
    ) -> None:
        self.system_id = system_id
        self.start = start
        self.vdl = start
        self.timelines: dict[int, tuple[int, int | None, str]] = {timeline: (start, None, "")}
        self.log = bytearray()
        self.forgotten = 0
        self.reads: list[tuple[int, int]] = []
        self.failure: Exception | None = None
        self.unavailable = False
        self._listeners: list[Callable[[], None]] = []

    @property
    def end(self) -> int:
        return self.start + len(self.log)

    def buffered(self, start: int, end: int) -> bytes | None:
        if start < self.forgotten or end > self.end:
            return None
        return bytes(self.log[start - self.start : end - self.start])

    async def read(self, start: int, end: int) -> bytes:
        self.reads.append((start, end))
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        if self.unavailable:
            return b""
        return bytes(self.log[start - self.start : end - self.start])

    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        self._listeners.append(on_change)
        return lambda: self._listeners.remove(on_change)

    # -- what a test does
    def append(self, data: bytes, *, durable: bool = True) -> None:
        self.log += data
        if durable:
            self.advance(self.end)

    def advance(self, vdl: int) -> None:
        self.vdl = vdl
        self.announce()

    def cut(self, position: int) -> None:
        """Forget what lies at and above `position`; the VDL goes with it."""
        if position > self.end:
            raise EngineError("cannot cut above the end")
        del self.log[position - self.start :]
        self.vdl = min(self.vdl, position)

    def begin_timeline(self, number: int, start: int, history: str) -> None:
        newest = max(self.timelines)
        first, _, text = self.timelines[newest]
        self.timelines = {**self.timelines, newest: (first, start, text), number: (start, None, history)}
        self.announce()

    def announce(self) -> None:
        for listener in tuple(self._listeners):
            listener()
