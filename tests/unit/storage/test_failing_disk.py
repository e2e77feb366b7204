"""A disk that fails under a living node: nothing is acknowledged that is not safe, and the node goes on."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from borealis.log.wire import Ack, Create, Data, Error, Read, Status, StatusReply
from borealis.storage.client import NodeConnection
from borealis.storage.errors import NodeRefused, NodeUnreachable
from borealis.storage.logfile import LogConfig
from borealis.storage.node import NodeSettings, StorageNode
from tests.unit.storage.support import SEED, VOLUME, Writer, until


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StorageNode]:
    # What these tests replace is Python's; see test_append_loop for the native loop's calls.
    monkeypatch.setenv("BOREALIS_NATIVE_LOOPS", "0")
    config = LogConfig(1 << 20, 1 << 20)
    node = StorageNode(
        NodeSettings("n1", "a", tmp_path / "n1", str(tmp_path / "s"), tmp_path / "peers.json", config)
    )
    await node.start()
    yield node
    await node.stop()


async def _writer(node: StorageNode) -> Writer:
    connection = await NodeConnection.connect(node.settings.address, VOLUME, "writer")
    await connection.request(Create(VOLUME, SEED))
    status = await _status(node)
    return Writer(connection, SEED, status.end)


async def _status(node: StorageNode) -> StatusReply:
    connection = await NodeConnection.connect(node.settings.address, VOLUME, "control")
    try:
        return cast(StatusReply, await connection.request(Status()))
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("call", "number", "code"),
    [
        ("fdatasync", errno.EIO, "StorageBroken"),
        ("pwritev", errno.EIO, "StorageBroken"),
        ("pwritev", errno.ENOSPC, "StorageFull"),
        ("pwritev", errno.EROFS, "ReadOnly"),
    ],
)
async def test_a_failed_write_is_never_acknowledged(
    node: StorageNode, monkeypatch: pytest.MonkeyPatch, call: str, number: int, code: str
) -> None:
    writer = await _writer(node)
    assert isinstance(await writer.write(b"safe"), Ack)
    with monkeypatch.context() as patch:

        def failing(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        patch.setattr(os, call, failing)
        answer = await writer.write(b"doubtful")
        assert isinstance(answer, Error)
        assert answer.code == code
        await until(writer.connection.closed.is_set)
    # The disk works again: the segment comes back by itself, with all that was acknowledged.
    status = await until(lambda: _usable(node))
    assert status.end >= 4
    assert status.end in (4, 12)
    again = await _writer(node)
    assert isinstance(await again.write(b"more"), Ack)
    reply = cast(Data, await again.connection.request(Read(0, 100)))
    assert reply.data in (b"safemore", b"safedoubtfulmore")


async def _usable(node: StorageNode) -> StatusReply | None:
    try:
        return await _status(node)
    except (NodeRefused, NodeUnreachable):
        return None


async def test_other_volumes_go_on(node: StorageNode, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = await _writer(node)
    await writer.write(b"x")
    other = await NodeConnection.connect(node.settings.address, "vol-other", "writer")
    await other.request(Create("vol-other", SEED))
    healthy = Writer(other, SEED, 0)
    real = os.fdatasync
    bad = os.stat(node.settings.directory / "segments" / VOLUME / "log" / "00000001.log").st_ino

    def failing(fd: int) -> None:
        if os.fstat(fd).st_ino == bad:
            raise OSError(errno.EIO, "Input/output error")
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing)
        assert isinstance(await writer.write(b"y"), Error)
        for _ in range(20):
            assert isinstance(await healthy.write(b"z" * 100), Ack)
        with pytest.raises(NodeRefused):
            await _status(node)
    assert (await until(lambda: _usable(node))).end >= 1
