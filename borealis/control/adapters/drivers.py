"""Calls to drivers over connections that are kept, by incarnation id.

Owns the connections. It repeats nothing: a caller that loses the connection asks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from borealis.control.ports import Opened
from borealis.control.view import DriverStatus
from borealis.paths import RegionPaths
from borealis.rpc import RpcClient

EventSink = Callable[[str, str, dict[str, Any]], None]
CONNECT_SECONDS = 0.3


class DriverLinks:
    """Implements `ports.Drivers`. `on_event(incarnation, event, data)` hears the drivers' events."""

    def __init__(self, paths: RegionPaths, on_event: EventSink) -> None:
        self._paths = paths
        self._on_event = on_event
        self._clients: dict[str, RpcClient] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def close(self) -> None:
        """Close all connections."""
        clients, self._clients = list(self._clients.values()), {}
        await asyncio.gather(*(client.close() for client in clients))

    async def status(self, incarnation: str, seconds: float) -> DriverStatus:
        client = await self._client(incarnation)
        return DriverStatus.of(await client.call("status", timeout=seconds))

    async def open_volume(self, incarnation: str, term1: int, term2: int, seconds: float) -> Opened:
        client = await self._client(incarnation)
        answer = await client.call("open_volume", timeout=seconds, term1=term1, term2=term2, fresh=False)
        return Opened(term=answer["term"], timeline=answer["timeline"], vdl=answer["vdl"])

    async def renew(self, incarnation: str, term: int, seconds: float) -> None:
        client = await self._client(incarnation)
        await client.call("renew", timeout=seconds, term=term, seconds=seconds)

    async def set_topology(self, incarnation: str, topology: Mapping[str, Any]) -> None:
        client = await self._client(incarnation)
        await client.call("set_topology", timeout=5, topology=dict(topology))

    async def set_master_password(self, incarnation: str, username: str, verifier: str) -> None:
        client = await self._client(incarnation)
        await client.call("set_master_password", username=username, verifier=verifier)

    async def checkpoint(self, incarnation: str) -> None:
        client = await self._client(incarnation)
        await client.call("checkpoint", timeout=600)

    async def prepare_image(self, incarnation: str) -> int:
        client = await self._client(incarnation)
        return int((await client.call("prepare_image", timeout=600))["timeline"])

    async def release(self, incarnation: str) -> None:
        self._locks.pop(incarnation, None)
        client = self._clients.pop(incarnation, None)
        if client is not None:
            await client.close()

    async def _client(self, incarnation: str) -> RpcClient:
        client = self._clients.get(incarnation)
        if client is not None and not client.closed.is_set():
            return client
        async with self._locks.setdefault(incarnation, asyncio.Lock()):
            client = self._clients.get(incarnation)
            if client is not None and not client.closed.is_set():
                return client
            if client is not None:
                await client.close()

            def heard(event: str, data: dict[str, Any]) -> None:
                self._on_event(incarnation, event, data)

            path = self._paths.driver_socket(incarnation)
            client = await RpcClient.connect(path, heard, CONNECT_SECONDS)
            self._clients[incarnation] = client
            return client
