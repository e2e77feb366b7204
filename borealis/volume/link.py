"""The writer's connections to the storage nodes: plain non-blocking sockets on the event loop.

Owns the sockets, their framing and their reconnection. On the way of a commit every wake-up counts, so there
is no transport or stream object between the socket and the loop, one frame goes to all nodes without being
copied, and acknowledgements are taken apart here. It knows nothing of terms: what messages mean is for the
`LinkUser` (the opening, then the writer).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from borealis.errors import BorealisError
from borealis.log.frames import FrameReader, Kind
from borealis.log.types import WireError
from borealis.log.wire import Ack, Error, Hello, HelloReply, Message, Purpose, decode
from borealis.logs import get_logger
from borealis.storage.address import split_address
from borealis.volume.config import NodeAddress

log = get_logger(__name__)

RECEIVE_BYTES = 256 << 10
SEND_BUFFER_BYTES = 4 << 20
"""What the kernel holds for a node that is slow to read; the rest, a window's worth at most, waits here."""
DIAL_SECONDS = 2.0
REDIAL_SECONDS = (0.05, 1.0)
"""First and longest pause between two attempts to reach a node."""

_FRAME_HEAD_BYTES = 5
_ACK_FRAME = struct.Struct(">IBQQQB")
_ACK_HEAD = struct.pack(">IB", _ACK_FRAME.size - 4, Kind.ACK)


class LinkUser(Protocol):
    """Who the links work for. Called on the event loop; must not block."""

    def link_connected(self, node: str) -> None:
        """A connection to the node's segment stands."""

    def link_lost(self, node: str) -> None:
        """It is gone, or could not be made. The next attempt follows by itself."""

    def link_received(self, node: str, message: Message) -> None:
        """A message that is no acknowledgement."""

    def link_acknowledged(self, node: str, ack: Ack) -> None:
        """The newest of the acknowledgements that have come together."""

    def links_closing(self) -> None:
        """All connections are about to be closed for good: lent sockets must be given back now."""


class _Socket:
    """One connected socket: frames out, messages in."""

    def __init__(self, links: Links, node: str, connected: socket.socket) -> None:
        self.closed = asyncio.Event()
        self._links = links
        self._node = node
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[memoryview] = deque()
        self._reader = FrameReader()
        self._lent = False
        self._unfinished = 0
        """Bytes received of a frame that is not complete yet."""
        self._loop.add_reader(connected, self._on_readable)

    def send(self, parts: Sequence[bytes | memoryview]) -> None:
        """Sends one frame made of `parts`; what the kernel does not take now is kept and sent later."""
        if self._unsent:
            self._unsent.extend(map(memoryview, parts))
            return
        try:
            sent = self._socket.sendmsg(parts)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self.close(str(error))
            return
        for part in parts:
            size = len(part)
            if sent < size:
                self._unsent.append(memoryview(part)[sent:])
                sent = 0
            else:
                sent -= size
        if self._unsent:
            self._loop.add_writer(self._socket, self._on_writable)

    def _on_writable(self) -> None:
        try:
            while self._unsent:
                part = self._unsent[0]
                sent = self._socket.send(part)
                if sent < len(part):
                    self._unsent[0] = part[sent:]
                    return
                self._unsent.popleft()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.close(str(error))
            return
        self._loop.remove_writer(self._socket)

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.close(str(error))
            return
        if not data:
            self.close("the node closed the connection")
            return
        # The usual case: one acknowledgement, and nothing else.
        if len(data) == _ACK_FRAME.size and not self._unfinished and data.startswith(_ACK_HEAD):
            _, _, term, end, sent_ns, flags = _ACK_FRAME.unpack(data)
            self._links.user.link_acknowledged(self._node, Ack(term, end, sent_ns, bool(flags & 1)))
            return
        self._receive(data)

    def _receive(self, data: bytes) -> None:
        try:
            self._take(data)
        except WireError as error:
            self.close(f"it sent what is not the protocol: {error}")

    # ------------------------------------------------------------------ lending
    @property
    def quiet(self) -> bool:
        """No frame is half sent or half received."""
        return not self._unsent and not self._unfinished

    def lend(self) -> int:
        """The socket's descriptor, for somebody else to use until `take_back`."""
        self._loop.remove_reader(self._socket)
        self._lent = True
        return self._socket.fileno()

    def take_back(self, unsent: bytes, received: bytes, broken: bool) -> None:
        """Go on where the borrower left: what it could not send, and what came that was not for it."""
        self._lent = False
        if broken:
            self.close("the connection broke")
            return
        self._loop.add_reader(self._socket, self._on_readable)
        if unsent:
            self._unsent.append(memoryview(unsent))
            self._loop.add_writer(self._socket, self._on_writable)
        if received:
            self._receive(received)

    def _take(self, data: bytes) -> None:
        newest: Ack | None = None
        frames = self._reader.feed(data)
        self._unfinished += len(data) - sum(_FRAME_HEAD_BYTES + len(payload) for _, payload in frames)
        for kind, payload in frames:
            message = decode(kind, payload)
            if isinstance(message, Ack):
                newest = message
                continue
            if newest is not None:
                # In the order in which they came: what was said later must be heard later.
                self._links.user.link_acknowledged(self._node, newest)
                newest = None
            self._links.user.link_received(self._node, message)
            if self.closed.is_set():
                return
        if newest is not None:
            self._links.user.link_acknowledged(self._node, newest)

    def close(self, reason: str) -> None:
        if self.closed.is_set():
            return
        # Its number could be given to another file while the borrower still writes to it.
        assert not self._lent, "the socket is lent"
        self.closed.set()
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._unsent.clear()
        self._links.dropped(self._node, reason)


class Links:
    """Connections to all nodes of a volume, made again whenever they break. Run `run()` as a task.

    `user` may be exchanged at any time: from then on, the new one is told. It asks `connected` for what
    stands already.
    """

    def __init__(self, volume: str, nodes: Sequence[NodeAddress], user: LinkUser) -> None:
        self.user = user
        self._volume = volume
        self._nodes = tuple(nodes)
        self._sockets: dict[str, _Socket] = {}

    @property
    def connected(self) -> frozenset[str]:
        """Nodes whose connection stands now."""
        return frozenset(self._sockets)

    def send(self, node: str, *parts: bytes | memoryview) -> None:
        """Sends one frame (or several) to a node; to one that is not connected, nothing."""
        link = self._sockets.get(node)
        if link is not None:
            link.send(parts)

    def quiet(self, node: str) -> bool:
        """The node is connected, and no frame is half sent or half received."""
        link = self._sockets.get(node)
        return link is not None and link.quiet

    def lend(self, node: str) -> int:
        """The descriptor of a quiet node's socket, which the links do not touch until `take_back`."""
        return self._sockets[node].lend()

    def take_back(self, node: str, unsent: bytes, received: bytes, broken: bool) -> None:
        """Go on with a socket that was lent: with what could not be sent, and what came meanwhile."""
        self._sockets[node].take_back(unsent, received, broken)

    def drop(self, node: str, reason: str) -> None:
        """Ends the connection to a node; it is made again soon."""
        link = self._sockets.get(node)
        if link is not None:
            link.close(reason)

    async def run(self) -> None:
        """Keep the connections up until cancelled; then close them."""
        try:
            async with asyncio.TaskGroup() as group:
                for node in self._nodes:
                    group.create_task(self._keep(node), name=f"link-{node.id}")
        finally:
            self.user.links_closing()
            for link in list(self._sockets.values()):
                link.close("the driver is closing")

    async def _keep(self, node: NodeAddress) -> None:
        pause = REDIAL_SECONDS[0]
        reported = False
        while True:
            try:
                async with asyncio.timeout(DIAL_SECONDS):
                    link = await self._dial(node)
            except (OSError, BorealisError, TimeoutError) as error:
                if not reported:
                    log.warning("cannot reach node %s: %s", node.id, error or "no answer")
                    reported = True
                self.user.link_lost(node.id)
                await asyncio.sleep(pause)
                pause = min(pause * 2, REDIAL_SECONDS[1])
                continue
            reported, pause = False, REDIAL_SECONDS[0]
            self._sockets[node.id] = link
            self.user.link_connected(node.id)
            await link.closed.wait()
            await asyncio.sleep(pause)

    async def _dial(self, node: NodeAddress) -> _Socket:
        loop = asyncio.get_running_loop()
        target = split_address(node.address)
        kind = socket.AF_UNIX if target is None else socket.AF_INET
        connected = socket.socket(kind, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            with contextlib.suppress(OSError):
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            if target is not None:
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(connected, node.address if target is None else target)
            await loop.sock_sendall(connected, Hello(self._volume, Purpose.WRITER).encode())
            reply = await _first_message(loop, connected)
            if isinstance(reply, Error):
                raise WireError(f"{reply.code}: {reply.message}")
            if not isinstance(reply, HelloReply) or not reply.exists:
                raise WireError(f"it has no segment of {self._volume}")
        except BaseException:
            connected.close()
            raise
        return _Socket(self, node.id, connected)

    def dropped(self, node: str, reason: str) -> None:
        """A socket has closed itself."""
        if self._sockets.pop(node, None) is not None:
            log.info("connection to node %s ended: %s", node, reason)
            self.user.link_lost(node)


async def _first_message(loop: asyncio.AbstractEventLoop, connected: socket.socket) -> Message:
    """The answer to HELLO: nothing else has been asked, so nothing follows it."""
    reader = FrameReader()
    while True:
        data = await loop.sock_recv(connected, RECEIVE_BYTES)
        if not data:
            raise WireError("it closed the connection")
        for kind, payload in reader.feed(data):
            return decode(kind, payload)
