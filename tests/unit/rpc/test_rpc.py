"""Calls over a Unix socket: answers, errors, events, and connections that end at the worst moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from borealis.errors import BorealisError
from borealis.rpc import RpcClient, RpcConnectionLost, RpcError, RpcServer, RpcTimeout


class Refused(BorealisError):
    code = "Refused"


async def echo(**params: Any) -> Any:
    return params


async def fail(kind: str) -> None:
    raise Refused("not this way: try another") if kind == "own" else ValueError("odd")


async def sleep(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


HANDLERS = {"echo": echo, "fail": fail, "sleep": sleep}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RpcServer]:
    made = RpcServer(tmp_path / "s.sock", HANDLERS)
    await made.start()
    yield made
    await made.close()
    assert not (tmp_path / "s.sock").exists()


async def test_answers_come_in_any_order(server: RpcServer) -> None:
    client = await RpcClient.connect(server.path)
    slow = asyncio.create_task(client.call("sleep", seconds=0.2))
    assert await client.call("echo", text="ä\n€", number=1 << 60) == {"text": "ä\n€", "number": 1 << 60}
    assert not slow.done()
    assert await slow == 0.2
    await client.close()


async def test_socket_is_private(server: RpcServer) -> None:
    assert server.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("method", "params", "code", "text"),
    [
        ("fail", {"kind": "own"}, "Refused", "try another"),
        ("fail", {"kind": "other"}, "ValueError", "odd"),
        ("none", {}, "UnknownMethod", "there are"),
        ("sleep", {"wrong": 1}, "TypeError", "wrong"),
    ],
)
async def test_errors_keep_their_code(
    server: RpcServer, method: str, params: Any, code: str, text: str
) -> None:
    client = await RpcClient.connect(server.path)
    with pytest.raises(RpcError, match=text) as caught:
        await client.call(method, **params)
    assert caught.value.code == code
    assert await client.call("echo") == {}
    await client.close()


async def test_time_out_leaves_the_connection_usable(server: RpcServer) -> None:
    client = await RpcClient.connect(server.path)
    with pytest.raises(RpcTimeout):
        await client.call("sleep", timeout=0.05, seconds=30)
    assert await client.call("echo", a=1) == {"a": 1}
    await client.close()


async def test_events_reach_every_client(server: RpcServer) -> None:
    heard: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
    clients = [await RpcClient.connect(server.path, lambda *event: heard.put_nowait(event)) for _ in range(3)]
    for client in clients:
        await client.call("echo")  # Now the server knows it.
    server.broadcast("exited", name="n1", pid=7)
    for _ in clients:
        assert await heard.get() == ("exited", {"name": "n1", "pid": 7})
    for client in clients:
        await client.close()


async def test_a_bad_event_handler_does_not_end_the_connection(server: RpcServer) -> None:
    def broken(event: str, data: dict[str, Any]) -> None:
        raise RuntimeError(event)

    client = await RpcClient.connect(server.path, broken)
    await client.call("echo")
    server.broadcast("x")
    assert await client.call("echo", a=1) == {"a": 1}
    await client.close()


async def test_calls_in_flight_fail_when_the_server_ends(tmp_path: Path) -> None:
    server = RpcServer(tmp_path / "s.sock", HANDLERS)
    await server.start()
    client = await RpcClient.connect(server.path)
    call = asyncio.create_task(client.call("sleep", seconds=60, timeout=None))
    await client.call("echo")
    await server.close()
    with pytest.raises(RpcConnectionLost):
        await call
    await client.closed.wait()
    with pytest.raises(RpcConnectionLost):
        await client.call("echo")
    await client.close()


async def test_connect_waits_for_a_starting_server(tmp_path: Path) -> None:
    connecting = asyncio.create_task(RpcClient.connect(tmp_path / "s.sock", timeout=10))
    await asyncio.sleep(0)
    server = RpcServer(tmp_path / "s.sock", HANDLERS)
    await server.start()
    client = await connecting
    await client.close()
    await server.close()
    with pytest.raises(RpcConnectionLost, match=r"cannot connect to .*s\.sock"):
        await RpcClient.connect(tmp_path / "s.sock", timeout=0.05)


async def test_one_server_per_socket(server: RpcServer) -> None:
    with pytest.raises(RpcError) as caught:
        await RpcServer(server.path, HANDLERS).start()
    assert caught.value.code == "AddressInUse"
    client = await RpcClient.connect(server.path)
    await client.close()


async def test_a_socket_left_by_a_killed_server_is_taken_over(tmp_path: Path) -> None:
    import socket

    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "s.sock"))
    left.close()
    server = RpcServer(tmp_path / "s.sock", HANDLERS)
    await server.start()
    client = await RpcClient.connect(server.path)
    assert await client.call("echo") == {}
    await client.close()
    await server.close()


async def test_nonsense_is_answered_or_cut_off(server: RpcServer) -> None:
    reader, writer = await asyncio.open_unix_connection(str(server.path))
    writer.write(b"not json\n")
    assert b'"error"' in await reader.readline()
    writer.write(b"[1, 2]\n")
    assert b'"error"' in await reader.readline()
    writer.close()


async def test_a_client_that_does_not_read_is_cut_off(server: RpcServer) -> None:
    deaf = await RpcClient.connect(server.path)
    await deaf.call("echo")
    deaf._reader._transport.pause_reading()  # type: ignore[union-attr]
    for _ in range(200):
        server.broadcast("much", text="x" * 100_000)
        await asyncio.sleep(0)
    lively = await RpcClient.connect(server.path)
    assert await lively.call("echo", a=1) == {"a": 1}
    assert len(server._connections) <= 2
    await lively.close()
    await deaf.close()
