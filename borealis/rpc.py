"""Calls between the processes of one machine: JSON lines over a Unix socket, both ways, many in flight.

Owns framing, matching of answers to calls, time-outs and events. It never retries a call and never
reconnects: the caller knows whether a call may be repeated. Who may connect is decided by the file system:
the socket has mode 0600.

FORMAT (version 1; each line one JSON object, UTF-8, at most 16 MiB)
    call     {"id": 7, "method": "status", "params": {…}}
    answer   {"id": 7, "result": …}   or   {"id": 7, "error": {"code": "NotFound", "message": "…"}}
    event    {"event": "exited", "data": {…}}            server to every client, unasked
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from borealis.errors import BorealisError
from borealis.logs import get_logger

LINE_BYTES_MAX = 16 * 1024 * 1024
"""The longest line, in bytes: whoever sends more is cut off."""

BACKLOG_BYTES_MAX = 4 * 1024 * 1024
"""A client that leaves this much unread, in bytes, is cut off: events must not pile up in the server."""

Handler = Callable[..., Awaitable[object]]
EventHandler = Callable[[str, dict[str, Any]], None]

log = get_logger(__name__)


class RpcError(BorealisError):
    """The other side answered with an error. `code` is its code, or the name of its exception class."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class RpcConnectionLost(RpcError):
    """There is no connection (any more): the call may or may not have been carried out."""

    def __init__(self, message: str) -> None:
        super().__init__("ConnectionLost", message)


class RpcTimeout(RpcError):
    """No answer in time: the call may or may not have been carried out."""

    def __init__(self, message: str) -> None:
        super().__init__("Timeout", message)


def _line(message: dict[str, object]) -> bytes:
    try:
        return msgspec.json.encode(message) + b"\n"
    except (TypeError, msgspec.MsgspecError):
        # Exotic values (an Exception in `data`, say) must not end a server: they are sent as their text.
        return json.dumps(message, default=str).encode() + b"\n"


class RpcServer:
    """Serves `handlers` (method name → coroutine function, called with the call's params as keywords)."""

    def __init__(self, path: Path | str, handlers: Mapping[str, Handler]) -> None:
        self.path = Path(path)
        self._handlers = handlers
        self._server: asyncio.Server | None = None
        self._connections: set[_ServerConnection] = set()

    async def start(self) -> None:
        """Listens. Raises RpcError(code AddressInUse) if a living process serves this socket already."""
        if await asyncio.to_thread(_is_served, self.path):
            raise RpcError("AddressInUse", f"another process already serves {self.path}: stop it first")
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        # Bound under a private name and renamed when it listens: no one ever finds a socket that refuses.
        private = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            private.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            listener.bind(str(private))
            private.chmod(0o600)
            self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=LINE_BYTES_MAX)
            private.rename(self.path)
        except BaseException:
            listener.close()
            raise

    async def close(self) -> None:
        """Stops listening, ends all connections and running calls, removes the socket."""
        if self._server is None:
            return
        server, self._server = self._server, None
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        server.close()
        await asyncio.gather(*(connection.close() for connection in list(self._connections)))
        await server.wait_closed()

    def broadcast(self, event: str, **data: object) -> None:
        """Sends an event to every client connected now; never waits: one that does not read is cut off."""
        line = _line({"event": event, "data": data})
        for connection in list(self._connections):
            connection.send(line)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _ServerConnection(reader, writer, self._handlers)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


class _ServerConnection:
    """One client of a server: reads calls and runs each in a task of its own."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handlers: Mapping[str, Handler]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._handlers = handlers
        self._calls: set[asyncio.Task[None]] = set()
        self._main = asyncio.current_task()

    async def run(self) -> None:
        try:
            while line := await self._reader.readline():
                call = asyncio.create_task(self._answer(line))
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)
        except (ConnectionError, ValueError) as error:  # ValueError: a line beyond the limit.
            log.warning("connection ended: %s", error)
        except asyncio.CancelledError:
            pass  # Only `close` cancels; nothing is left to do but to clean up.
        finally:
            for call in list(self._calls):
                call.cancel()
            await asyncio.gather(*self._calls, return_exceptions=True)
            self._writer.close()

    async def close(self) -> None:
        if self._main is not None and not self._main.done():
            self._main.cancel()
            await asyncio.wait([self._main])

    def send(self, line: bytes) -> None:
        if self._writer.is_closing():
            return
        if self._writer.transport.get_write_buffer_size() > BACKLOG_BYTES_MAX:
            log.warning("a client does not read what it is sent: cut off")
            self._writer.transport.abort()
            return
        self._writer.write(line)

    async def _answer(self, line: bytes) -> None:
        number: object = None
        try:
            message = msgspec.json.decode(line)
            number = message.get("id")
            method = str(message.get("method"))
            handler = self._handlers.get(method)
            if handler is None:
                raise RpcError(
                    "UnknownMethod", f"there is no method {method!r}; there are {sorted(self._handlers)}"
                )
            result = await handler(**(message.get("params") or {}))
            self.send(_line({"id": number, "result": result}))
        except asyncio.CancelledError:
            raise
        except BorealisError as error:
            self._fail(number, error.code, error.message)
        except Exception as error:
            log.exception("a call failed")
            self._fail(number, type(error).__name__, str(error) or repr(error))

    def _fail(self, number: object, code: str, message: str) -> None:
        self.send(_line({"id": number, "error": {"code": code, "message": message}}))


class RpcClient:
    """A connection to an RpcServer. Made by `connect`; not reusable once `closed` is set."""

    def __init__(
        self,
        path: Path,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_event: EventHandler | None,
    ) -> None:
        self.path = path
        self.closed = asyncio.Event()
        self._reader = reader
        self._writer = writer
        self._on_event = on_event
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def connect(
        cls, path: Path | str, on_event: EventHandler | None = None, timeout: float = 5
    ) -> RpcClient:
        """Connects within `timeout` seconds, waiting for a server that is just starting.

        `on_event(name, data)` is called on the event loop and must not block. Raises RpcConnectionLost.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(path), limit=LINE_BYTES_MAX)
                return cls(Path(path), reader, writer, on_event)
            except OSError as error:
                # ENOENT and ECONNREFUSED pass when the server comes up.
                if asyncio.get_running_loop().time() >= deadline:
                    raise RpcConnectionLost(f"cannot connect to {path}: {error.strerror or error}") from error
                await asyncio.sleep(0.01)

    async def call(self, method: str, *, timeout: float | None = 30, **params: object) -> Any:
        """Calls `method` and returns its result; `timeout` in seconds, None waits for as long as it takes.

        Raises RpcError with the server's code, RpcTimeout, RpcConnectionLost.
        """
        if self.closed.is_set():
            raise RpcConnectionLost(f"the connection to {self.path} is closed")
        number = next(self._numbers)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._writer.write(_line({"id": number, "method": method, "params": params}))
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError as error:
            raise RpcTimeout(f"{self.path.name}: no answer to {method!r} within {timeout} s") from error
        finally:
            self._waiting.pop(number, None)

    async def close(self) -> None:
        """Ends the connection; calls in flight fail with RpcConnectionLost."""
        self._task.cancel()
        await asyncio.wait([self._task])
        self._end()

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                self._take(msgspec.json.decode(line))
        except (OSError, ValueError, msgspec.DecodeError) as error:
            log.warning("connection to %s ended: %s", self.path, error)
        finally:
            self._end()

    def _take(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self._deliver(str(message["event"]), message.get("data") or {})
            return
        future = self._waiting.get(message.get("id", 0))
        if future is None or future.done():
            return  # The caller gave up waiting.
        if "error" in message:
            future.set_exception(RpcError(str(message["error"]["code"]), str(message["error"]["message"])))
        else:
            future.set_result(message.get("result"))

    def _deliver(self, event: str, data: dict[str, Any]) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event, data)
        except Exception:
            log.exception("the handler of event %s failed", event)

    def _end(self) -> None:
        self.closed.set()
        self._writer.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(RpcConnectionLost(f"the connection to {self.path} was lost"))


def _is_served(path: Path) -> bool:
    """Whether a living process listens on this socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
