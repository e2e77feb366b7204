"""Connections between clients (leaders, readers, gossiping segments) and segments.

Owns what a network does to messages: a connection is one ordered stream each way; different connections are
not ordered among each other. When a connection breaks, what was sent to the client is lost, and what was sent
to the segment is lost or still arrives, late, even after a new connection has been made. Messages may arrive
twice.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from borealis.log import wire


class Channel:
    """One connection. `client` hears `on_message(node, message)`, unless `frozen`, and `on_lost(node)`."""

    __slots__ = ("client", "closed", "node", "owner", "to_client", "to_node")

    def __init__(self, owner: str, client: Any, node: str) -> None:
        self.owner, self.client, self.node = owner, client, node
        self.to_node: deque[wire.Message] = deque()
        self.to_client: deque[wire.Message] = deque()
        self.closed = False

    def send(self, message: wire.Message) -> None:
        if not self.closed:
            self.to_node.append(message)


class Network:
    """All channels with something under way, and who cannot reach whom."""

    def __init__(
        self, rng: random.Random, deliver_to_node: Callable[[str, Channel, wire.Message], None]
    ) -> None:
        self._rng, self._deliver_to_node = rng, deliver_to_node
        self.channels: list[Channel] = []
        self.blocked: set[tuple[str, str]] = set()
        self.doubling = 0.02
        self.check_codec = True

    def open(self, owner: str, client: Any, node: str) -> Channel | None:
        """None: it cannot be reached."""
        if (owner, node) in self.blocked:
            return None
        channel = Channel(owner, client, node)
        self.channels.append(channel)
        return channel

    def close(self, channel: Channel) -> None:
        """Break it. The client is told; the segment finds out when it answers."""
        if channel.closed:
            return
        channel.closed = True
        channel.to_client.clear()
        if self._rng.random() < 0.5:
            keep = self._rng.randrange(len(channel.to_node) + 1)
            while len(channel.to_node) > keep:
                channel.to_node.pop()
        channel.client.on_lost(channel.node)

    def node_down(self, node: str) -> None:
        for channel in [channel for channel in self.channels if channel.node == node]:
            self.close(channel)
            channel.to_node.clear()

    def deliver_some(self, count: int) -> None:
        """Move `count` channels on by a few messages each, in one direction."""
        self.channels = [channel for channel in self.channels if not channel.closed or channel.to_node]
        busy = [
            channel
            for channel in self.channels
            if channel.to_node or (channel.to_client and not channel.client.frozen)
        ]
        for channel in self._rng.sample(busy, min(count, len(busy))):
            self._move(channel)

    def _move(self, channel: Channel) -> None:
        hears = channel.to_client and not channel.client.frozen
        to_node = bool(channel.to_node) and (not hears or self._rng.random() < 0.5)
        queue = channel.to_node if to_node else channel.to_client
        for _ in range(1 + int(self._rng.random() * 3)):
            if not queue:
                return
            message = queue.popleft()
            for _ in range(2 if self._rng.random() < self.doubling else 1):
                self._hand_over(channel, message, to_node)

    def _hand_over(self, channel: Channel, message: wire.Message, to_node: bool) -> None:
        if self.check_codec and self._rng.random() < 0.01:
            ((kind, payload),) = wire.FrameReader().feed(message.encode())
            assert wire.decode(kind, payload) == message
        if to_node:
            self._deliver_to_node(channel.node, channel, message)
        elif not channel.closed:
            channel.client.on_message(channel.node, message)
