"""Storage nodes as real processes, and a small writer and reader, for the tests of the storage node."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from borealis.log.history import TermHistory
from borealis.log.types import TermEntry
from borealis.log.wire import (
    Ack,
    Append,
    Commit,
    Create,
    Created,
    Data,
    Message,
    NewTerm,
    NewTermReply,
    Purpose,
    Read,
    Refused,
    Status,
    StatusReply,
)
from borealis.storage.client import NodeConnection

VOLUME = "vol-0123456789ab"
WAIT_SECONDS = 30.0
SEED = TermHistory((TermEntry(1, 1, 0, "", "seed"),))


def log_bytes(start: int, end: int, seed: int = 0) -> bytes:
    """The bytes [start, end) of one endless random log."""
    block = 4096
    first = start // block
    parts = [
        random.Random(f"{seed}/{number}").randbytes(block)
        for number in range(first, (end + block - 1) // block)
    ]
    return b"".join(parts)[start - first * block : end - first * block]


async def until(condition: Callable[[], Any]) -> Any:
    """Waits until `condition` (a function or coroutine function) gives something true, and returns that."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            result = condition()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return result
            await asyncio.sleep(0.01)


class NodeProcess:
    """One storage node process below `root`."""

    def __init__(
        self,
        root: Path,
        node: str,
        file_bytes: int = 1 << 20,
        options: Sequence[str] = (),
        **environment: str,
    ) -> None:
        self.node = node
        self.directory = root / node
        self.address = str(root / f"{node}.sock")
        self.log = root / f"{node}.log"
        self.peers = root / "peers.json"
        self.file_bytes = file_bytes
        self.options = options
        self.environment = environment
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        Path(self.address).unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "borealis.storage.main", "--node-id", self.node, "--az", "az-1",
                "--dir", str(self.directory), "--socket", self.address, "--peers", str(self.peers),
                "--file-bytes", str(self.file_bytes), *self.options,
                stderr=log, env={**os.environ, **self.environment},
            )  # fmt: skip
        await until(self._is_up)

    def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, self.log.read_text()
        return Path(self.address).exists()

    async def kill(self) -> None:
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """Ends it cleanly; returns its exit code."""
        return await self._end(signal.SIGTERM)

    async def _end(self, number: int) -> int:
        process = self.process
        assert process is not None
        if process.returncode is None:
            process.send_signal(number)
        async with asyncio.timeout(WAIT_SECONDS):
            return await process.wait()

    async def connect(self, purpose: str = "control", volume: str = VOLUME) -> NodeConnection:
        return await NodeConnection.connect(self.address, volume, Purpose(purpose))

    async def status(self, volume: str = VOLUME) -> StatusReply:
        connection = await self.connect(volume=volume)
        try:
            return cast(StatusReply, await connection.request(Status()))
        finally:
            await connection.close()

    async def read(self, start: int, end: int) -> bytes:
        """[start, end) of the log, as far as the node has it."""
        connection = await self.connect()
        parts: list[bytes] = []
        try:
            while start < end:
                data = cast(Data, await connection.request(Read(start, end))).data
                if not data:
                    break
                parts.append(data)
                start += len(data)
        finally:
            await connection.close()
        return b"".join(parts)


@asynccontextmanager
async def running_nodes(
    root: Path, *names: str, file_bytes: int = 1 << 20, options: Sequence[str] = ()
) -> AsyncIterator[list[NodeProcess]]:
    """Nodes that are each other's peers; none is left behind."""
    nodes = [NodeProcess(root, name, file_bytes, options) for name in names]
    book = {node.node: {"az": "az-1", "address": node.address} for node in nodes}
    (root / "peers.json").write_text(json.dumps(book))
    try:
        for node in nodes:
            await node.start()
        yield nodes
    finally:
        for node in nodes:
            if node.process is not None and node.process.returncode is None:
                await node.stop()


class Writer:
    """A leader of one term that writes to one node, and knows what was acknowledged."""

    def __init__(self, connection: NodeConnection, history: TermHistory, end: int) -> None:
        self.connection = connection
        self.history = history
        self.term = history.newest_term
        self.sent = self.acked = end
        self.refused: Message | None = None
        self.vdl = 0

    @classmethod
    async def create(cls, node: NodeProcess, volume: str = VOLUME) -> Writer:
        """The seed's writer."""
        connection = await node.connect("writer", volume)
        created = cast(Created, await connection.request(Create(volume, SEED)))
        return cls(connection, SEED, created.end)

    @classmethod
    async def take_over(cls, node: NodeProcess, history: TermHistory) -> Writer:
        connection = await node.connect("writer")
        reply = cast(NewTermReply, await connection.request(NewTerm(history.newest_term, history)))
        assert reply.ok, reply
        return cls(connection, history, reply.end)

    def send(self, data: bytes) -> None:
        self.connection.send(Append(self.term, self.sent, self.vdl, 1, data))
        self.sent += len(data)

    async def answer(self) -> Message:
        """The next answer to an APPEND; notes what it says."""
        async with asyncio.timeout(WAIT_SECONDS):
            async for message in self.connection.messages():
                if isinstance(message, Ack):
                    self.acked = max(self.acked, message.end)
                elif isinstance(message, Refused):
                    self.refused = message
                return message
        raise ConnectionError("the node has gone")

    async def write(self, data: bytes) -> Message:
        self.send(data)
        return await self.answer()

    async def write_log(self, end: int, piece: int = 10_000, seed: int = 0) -> None:
        """Writes `log_bytes` up to `end`, several pieces in flight; returns when all is acknowledged."""
        while self.sent < end:
            upto = min(end, self.sent + piece)
            self.send(log_bytes(self.sent, upto, seed))
            if self.sent - self.acked > 16 * piece:
                await self._acknowledged()
        while self.acked < end:
            await self._acknowledged()

    async def _acknowledged(self) -> None:
        message = await self.answer()
        assert isinstance(message, Ack), message

    def commit(self, vdl: int) -> None:
        self.vdl = vdl
        self.connection.send(Commit(self.term, vdl))
