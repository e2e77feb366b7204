"""A reader: the real ReaderCursor, following one segment after the other.

Owns the bytes that it has received; what it may show of them is checked by the oracle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from borealis.log import wire
from borealis.log.reading import ReaderCursor
from tests.simulation.engine import LOG_START
from tests.simulation.network import Channel

if TYPE_CHECKING:
    from tests.simulation.world import World


class SimReader:
    """Begins at the start of the log."""

    frozen = False

    def __init__(self, world: World, name: str) -> None:
        self._world, self.name = world, name
        self.cursor = ReaderCursor(LOG_START)
        self._log = bytearray()
        self._channel: Channel | None = None

    def follow(self, node: str) -> None:
        if self._channel is not None:
            self._world.network.close(self._channel)
        self._channel = self._world.network.open(self.name, self, node)
        self._subscribe()

    def _subscribe(self) -> None:
        self.cursor.resubscribed()
        if self._channel is not None:
            self._channel.send(wire.Subscribe(self.cursor.end))

    def on_lost(self, _: str) -> None:
        self._channel = None

    def on_message(self, _: str, message: wire.Message) -> None:
        before = self.cursor.visible
        match message:
            case wire.History():
                end = self.cursor.end
                if self.cursor.on_history(message.history) and self.cursor.end < end:
                    del self._log[self.cursor.end - LOG_START :]
            case wire.Data():
                skip = self.cursor.on_data(message.start, len(message.data))
                if skip is not None:
                    self._log += message.data[skip:]
                elif self.cursor.following:
                    self._subscribe_again()
            case wire.Commit():
                self.cursor.on_commit(message.term, message.vdl)
        assert self.cursor.end == LOG_START + len(self._log)
        if self.cursor.visible != before:
            self._world.oracle.read(self.name, bytes(self._log[: self.cursor.visible - LOG_START]))

    def _subscribe_again(self) -> None:
        if self._channel is not None:
            self.follow(self._channel.node)
