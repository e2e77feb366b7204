"""The client: TCP and Unix addresses, answers in order, time-outs, cancelled requests, bounded receiving."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from borealis.log.wire import Ack, Append, Create, Created, Data, Read, Status, StatusReply, Subscribe, Vote
from borealis.storage.address import split_address
from borealis.storage.client import UNTAKEN_BYTES_MAX, NodeConnection
from borealis.storage.errors import NodeRefused, NodeUnreachable, StorageError
from borealis.storage.logfile import LogConfig
from borealis.storage.node import NodeSettings, StorageNode
from tests.unit.storage.support import SEED, VOLUME, Writer, log_bytes


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    """A node that listens on TCP."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = NodeSettings(
        "n1", "az-1", tmp_path / "n1", address, tmp_path / "peers", LogConfig(1 << 20, 1 << 20)
    )
    node = StorageNode(settings)
    await node.start()
    yield address
    await node.stop()


async def test_requests_over_tcp(address: str) -> None:
    connection = await NodeConnection.connect(address, VOLUME, "control")
    assert (connection.node, connection.az, connection.exists) == ("n1", "az-1", False)
    assert len(cast(StatusReply, await connection.request(Status())).history) == 0
    with pytest.raises(NodeRefused) as caught:
        await connection.request(Vote(2, "x"))
    assert caught.value.code == "SegmentNotFound"
    assert isinstance(await connection.request(Create(VOLUME, SEED)), Created)
    assert connection.exists
    with pytest.raises(NodeRefused, match="say HELLO anew"):
        await connection.request(Create("vol-other", SEED))
    again = await NodeConnection.connect(address, VOLUME, "control")
    assert again.exists
    answers = await asyncio.gather(*(again.request(Read(0, n)) for n in range(20)), again.request(Status()))
    assert all(isinstance(answer, Data) for answer in answers[:20])
    assert isinstance(answers[20], StatusReply)
    await connection.close()
    with pytest.raises(NodeUnreachable):
        connection.send(Status())


async def test_a_cancelled_request_leaves_the_connection_in_order(address: str) -> None:
    connection = await NodeConnection.connect(address, VOLUME, "control")
    await connection.request(Create(VOLUME, SEED))
    task = asyncio.create_task(connection.request(Status()))
    await asyncio.sleep(0)
    task.cancel()
    assert isinstance(await connection.request(Read(0, 1)), Data)


async def test_what_is_not_taken_is_bounded(address: str) -> None:
    connection = await NodeConnection.connect(address, VOLUME, "writer")
    await connection.request(Create(VOLUME, SEED))
    writer = Writer(connection, SEED, 0)
    end = 4 * UNTAKEN_BYTES_MAX
    await writer.write_log(end, piece=500_000)
    reader = await NodeConnection.connect(address, VOLUME, "reader")
    reader.send(Subscribe(0))
    with pytest.raises(StorageError, match="streams DATA"):
        await reader.request(Read(0, 1))
    # Once the writer's next append is acknowledged, the reader was given all that it lets in.
    assert isinstance(await writer.write(b"x"), Ack)
    log = bytearray()
    async for message in reader.messages():
        assert reader._untaken_bytes <= UNTAKEN_BYTES_MAX + (1 << 20)
        if isinstance(message, Data):
            log += message.data
        if len(log) > end:
            break
    assert bytes(log) == log_bytes(0, end) + b"x"


async def test_a_node_that_does_not_answer(tmp_path: Path) -> None:
    path = str(tmp_path / "mute.sock")
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(path)
        with pytest.raises(NodeUnreachable, match="cannot connect"):
            await NodeConnection.connect(path, VOLUME, "control")
        mute.listen()
        with pytest.raises(NodeUnreachable, match="did not answer"):
            await NodeConnection.connect(path, VOLUME, "control", timeout=0.1)


async def test_on_message_gets_what_answers_no_request(address: str) -> None:
    got: asyncio.Queue[object] = asyncio.Queue()
    connection = await NodeConnection.connect(address, VOLUME, "writer", on_message=got.put_nowait)
    await connection.request(Create(VOLUME, SEED))
    connection.send_bytes(Append(1, 0, 0, 42, b"abc").encode() + Append(1, 3, 0, 43, b"d").encode())
    assert [await got.get(), await got.get()] == [Ack(1, 3, 42, False), Ack(1, 4, 43, False)]


@pytest.mark.parametrize("bad", ["", "nothing", "host:", "host:http", ":80", "host:70000", "/" + "x" * 120])
def test_bad_addresses(bad: str) -> None:
    with pytest.raises(StorageError):
        split_address(bad)


def test_addresses() -> None:
    assert split_address("/run/a.sock") is None
    assert split_address("10.0.0.1:7000") == ("10.0.0.1", 7000)
    assert split_address("[::1]:7000") == ("::1", 7000)
