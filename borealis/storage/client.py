"""The asyncio client of one segment on one storage node.

Owns one connection: framing, answers in the order of requests, streams, and a bound on what is received but
not yet taken. It never reconnects and never retries: a lost connection ends it for good (`closed`), and
whoever owns it knows what to send again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import cast

from borealis.log.types import WireError
from borealis.log.wire import (
    BlobData,
    BlobDelete,
    BlobGet,
    BlobOk,
    BlobPut,
    Create,
    Created,
    Data,
    Drop,
    Dropped,
    Error,
    FrameReader,
    Hello,
    HelloReply,
    Message,
    NewTerm,
    NewTermReply,
    Purpose,
    Read,
    Status,
    StatusReply,
    Subscribe,
    Trim,
    Trimmed,
    Vote,
    VoteReply,
    decode,
)
from borealis.storage.address import split_address
from borealis.storage.errors import NodeRefused, NodeUnreachable, StorageError

UNTAKEN_BYTES_MAX = 4 * 1024 * 1024
"""Reading stops while this many bytes, received, were not taken from `messages`."""

_REPLIES: dict[type[Message], type[Message]] = {
    Hello: HelloReply,
    Create: Created,
    Drop: Dropped,
    Status: StatusReply,
    Vote: VoteReply,
    NewTerm: NewTermReply,
    Read: Data,
    BlobPut: BlobOk,
    BlobGet: BlobData,
    BlobDelete: BlobOk,
    Trim: Trimmed,
}


class NodeConnection(asyncio.Protocol):
    """A connection to the segment of one volume. Make it with `connect`."""

    def __init__(self, on_message: Callable[[Message], None] | None = None) -> None:
        self.node = ""
        self.az = ""
        self.exists = False
        """The node had a segment of the volume when it answered the HELLO (or CREATE)."""
        self.closed = asyncio.Event()
        self._on_message = on_message
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._waiting: deque[tuple[type[Message], asyncio.Future[Message]]] = deque()
        self._untaken: deque[tuple[Message, int]] = deque()
        self._untaken_bytes = 0
        self._paused = False
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._subscribed = False
        self._reason = "the connection was closed"

    @classmethod
    async def connect(
        cls,
        address: str,
        volume: str,
        purpose: Purpose | str,
        *,
        timeout: float = 5.0,
        on_message: Callable[[Message], None] | None = None,
    ) -> NodeConnection:
        """Connects to the node at `address` and says HELLO; at most `timeout` seconds.

        With `on_message`, messages that answer no `request` are handed to it as they arrive, on the event
        loop (it must not block); without, they wait in `messages`. Raises NodeUnreachable, NodeRefused.
        """
        try:
            async with asyncio.timeout(timeout):
                connection = await cls._dial(address, on_message)
                try:
                    reply = await connection.request(Hello(volume, Purpose(purpose)), timeout=None)
                except BaseException:
                    connection.abort()
                    raise
        except TimeoutError as error:
            raise NodeUnreachable(f"the node at {address} did not answer within {timeout} s") from error
        except OSError as error:
            raise NodeUnreachable(f"cannot connect to the node at {address}: {error}") from error
        hello = cast(HelloReply, reply)
        connection.node, connection.az, connection.exists = hello.node, hello.az, hello.exists
        return connection

    @classmethod
    async def _dial(cls, address: str, on_message: Callable[[Message], None] | None) -> NodeConnection:
        loop = asyncio.get_running_loop()
        target = split_address(address)
        if target is None:
            _, connection = await loop.create_unix_connection(lambda: cls(on_message), address)
        else:
            _, connection = await loop.create_connection(lambda: cls(on_message), *target)
        return connection

    # -- sending --------------------------------------------------------------------------------------------

    async def request(self, message: Message, *, timeout: float | None = 30.0) -> Message:
        """Sends a request and waits for its answer, at most `timeout` seconds (None: for ever).

        Several may be in flight; answers come in order. Raises NodeRefused when the node answers ERROR,
        NodeUnreachable when the connection is lost or the time is over (it is then closed: what is late could
        be taken for the answer to another request). A caller that is cancelled leaves the connection usable.
        """
        expected = _REPLIES.get(type(message))
        if expected is None:
            raise StorageError(f"a {type(message).__name__} has no single answer: use send and messages")
        if expected is Data and self._subscribed:
            raise StorageError("this connection streams DATA: use another one for READ")
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self.send(message)
        self._waiting.append((expected, future))
        try:
            async with asyncio.timeout(timeout):
                reply = await future
        except TimeoutError as error:
            self.abort(f"no answer to {type(message).__name__} within {timeout} s")
            raise NodeUnreachable(f"node {self.node}: {self._reason}") from error
        if isinstance(reply, Error):
            raise NodeRefused(reply.code, f"node {self.node}: {reply.message}")
        if isinstance(reply, Created):
            self.exists = True
        return reply

    def send(self, message: Message) -> None:
        """Sends a message without waiting. Raises NodeUnreachable when the connection is lost."""
        if isinstance(message, Subscribe):
            self._subscribed = True
        self.send_bytes(message.encode())

    def send_bytes(self, frames: bytes) -> None:
        """Sends whole frames, encoded by the caller (once, for many nodes)."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise NodeUnreachable(f"node {self.node}: {self._reason}")
        transport.write(frames)

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait for the node to read them."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    async def drain(self) -> None:
        """Waits while the node is far behind in reading. Raises NodeUnreachable when it is lost."""
        await self._writable.wait()
        if self.closed.is_set():
            raise NodeUnreachable(f"node {self.node}: {self._reason}")

    # -- receiving ------------------------------------------------------------------------------------------

    async def messages(self) -> AsyncIterator[Message]:
        """What arrives and answers no request, in order; ends when the connection is lost."""
        while True:
            while self._untaken:
                message, size = self._untaken.popleft()
                self._untaken_bytes -= size
                if self._paused and self._untaken_bytes < UNTAKEN_BYTES_MAX // 2 and self._transport:
                    self._paused = False
                    self._transport.resume_reading()
                yield message
            if self.closed.is_set():
                return
            self._arrived.clear()
            await self._arrived.wait()

    async def close(self) -> None:
        """Ends the connection; what was sent is still delivered, if the node reads it."""
        if self._transport is not None:
            self._transport.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self.closed.wait()
                return
            self._transport.abort()
        await self.closed.wait()

    def abort(self, reason: str = "the connection was closed") -> None:
        """Ends the connection at once."""
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.Protocol -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=1024 * 1024)

    def data_received(self, data: bytes) -> None:
        try:
            for kind, payload in self._reader.feed(data):
                self._take(decode(kind, payload), len(payload))
        except WireError as error:
            self.abort(f"it sent what is not the protocol: {error.message}")

    def _take(self, message: Message, size: int) -> None:
        if self._waiting and isinstance(message, (self._waiting[0][0], Error)):
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_result(message)
            return
        if self._on_message is not None:
            self._on_message(message)
            return
        self._untaken.append((message, size))
        self._untaken_bytes += size
        if self._untaken_bytes > UNTAKEN_BYTES_MAX and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._arrived.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._reason = f"the connection was lost: {exc}"
        self.closed.set()
        self._writable.set()
        self._arrived.set()
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(NodeUnreachable(f"node {self.node}: {self._reason}"))
