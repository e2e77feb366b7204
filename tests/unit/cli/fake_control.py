"""Stands in for the control plane: the RPC socket and the API's port, with a fixed status.

`python fake_control.py DATA [crash]`
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from borealis.paths import RegionPaths
from borealis.region import load_region
from borealis.rpc import RpcServer

STATUS: dict[str, Any] = {
    "nodes": [{"id": "n1", "az": "us-east-1a", "connected": True}],
    "clusters": [
        {
            "identifier": "shop", "endpoints_current": True,
            "status": "available",
            "engine": "aurora-postgresql",
            "engine_version": "15.20",
            "port": 5432,
            "endpoints": [{"type": "WRITER", "name": "shop.cluster-x.us-east-1.rds.borealis.internal"}],
            "instances": [
                {"identifier": "shop-1", "status": "available", "role": "writer", "az": "us-east-1a",
                 "serving": True, "incarnation": "i1", "address": "127.1.2.3", "lag_ms": None,
                 "class": "db.r6g.large"},
                {"identifier": "shop-2", "status": "creating", "role": None, "az": "us-east-1b",
                 "serving": False, "incarnation": None, "lag_ms": 1.25},
            ],
            "volume": {
                "id": "vol-0123456789ab", "term": 2, "vdl": 0x3000028,
                "segments": [{"node": "n1", "az": "us-east-1a", "connected": True, "scl": 0x3000028,
                              "vdl": 0x3000028, "behind_bytes": 2048}],
            },
        }
    ],
}  # fmt: skip


async def status() -> dict[str, Any]:
    return STATUS


async def serve(paths: RegionPaths) -> None:
    config = load_region(paths)
    server = RpcServer(paths.control_socket, {"status": status})
    await server.start()
    api = await asyncio.start_server(lambda reader, writer: writer.close(), config.host, config.port)
    async with api:
        await api.serve_forever()


if __name__ == "__main__":
    if "crash" in sys.argv:
        sys.exit("the control plane says why it cannot start")
    asyncio.run(serve(RegionPaths(Path(sys.argv[1]))))
