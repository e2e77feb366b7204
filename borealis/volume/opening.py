"""Carries the messages of an opening (`borealis.log.opening`) over the links.

Owns nothing but the connection of the two, and the waiting. The engine's part of an opening is in
`promotion`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from borealis.errors import BorealisError
from borealis.log.opening import OpenedVolume, RecoveredLog, VolumeOpener
from borealis.log.quorum import Quorum
from borealis.log.wire import Ack, Message
from borealis.volume.link import Links


class Opening:
    """One attempt to open the volume. Implements `link.LinkUser`.

    The waiting methods raise Superseded, NoQuorum or LogMoved; after that the attempt is over.
    """

    def __init__(self, quorum: Quorum, first_term: int, second_term: int, writer: str, links: Links) -> None:
        self._opener = VolumeOpener(quorum, first_term, second_term, writer)
        self._links = links
        self._changed = asyncio.Event()
        self._error: BorealisError | None = None

    def begin(self) -> None:
        """Take the links over."""
        self._links.user = self
        for node in self._links.connected:
            self.link_connected(node)

    async def recovered(self, timeout: float) -> RecoveredLog:
        """The log, durable up to its end, which the engine must replay now."""
        await self._wait(lambda: self._opener.recovered is not None, timeout)
        assert self._opener.recovered is not None
        return self._opener.recovered

    def promoted(self, switch: int, timeline: int, history: str) -> None:
        """The engine goes on at `switch` on its new timeline."""
        self._step(lambda: self._opener.promoted(switch, timeline, history, time.monotonic()))

    async def opened(self, timeout: float) -> OpenedVolume:
        """The volume, open at the second term."""
        await self._wait(lambda: self._opener.opened is not None, timeout)
        assert self._opener.opened is not None
        return self._opener.opened

    async def _wait(self, reached: Callable[[], bool], timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not reached():
                    if self._error is not None:
                        raise self._error
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise self._opener.no_quorum() from None

    def _step(self, action: Callable[[], None]) -> None:
        if self._error is not None:
            return
        try:
            action()
        except BorealisError as error:
            self._error = error
        else:
            for node, message in self._opener.take_outbox():
                self._links.send(node, message.encode())
        self._changed.set()

    # ------------------------------------------------------------------ link.LinkUser
    def link_connected(self, node: str) -> None:
        self._step(lambda: self._opener.connected(node, time.monotonic()))

    def link_lost(self, node: str) -> None:
        self._step(lambda: self._opener.lost(node, time.monotonic()))

    def link_received(self, node: str, message: Message) -> None:
        self._step(lambda: self._opener.receive(node, message, time.monotonic()))

    def link_acknowledged(self, node: str, ack: Ack) -> None:
        self.link_received(node, ack)

    def links_closing(self) -> None:
        """Nothing is lent."""
