"""Making an engine follow the reader server beside it.

Owns the replication settings of a reader, all but those in its configuration. Never: the server (see
`dumpserver`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from borealis.engines.base import EngineUnavailable
from borealis.engines.mariadb.dumpserver import UPSTREAM_NAME
from borealis.engines.mariadb.grants import quote_literal
from borealis.engines.mariadb.sessionlink import Connection

HEARTBEAT_SECONDS = 1
RETRY_SECONDS = 1


async def follow(connection: Connection, upstream_dir: Path) -> None:
    """See `EngineSession.follow`. Raises EngineUnavailable and MySQLError."""
    upstream = read_upstream(upstream_dir)
    replica = await connection.named("SHOW SLAVE STATUS")
    if replica is not None and _follows(replica, upstream):
        return
    if replica is not None:
        await connection.rows("STOP SLAVE")
    await connection.rows(_change_sql(upstream))
    await connection.rows("START SLAVE")


def read_upstream(upstream_dir: Path) -> Mapping[str, Any]:
    """Where the reader server listens. Raises EngineUnavailable."""
    try:
        content: Mapping[str, Any] = json.loads((upstream_dir / UPSTREAM_NAME).read_bytes())
        return content
    except (OSError, ValueError) as error:
        raise EngineUnavailable(f"the reader server of this instance is not up: {error}") from error


def _follows(replica: Mapping[str, Any], upstream: Mapping[str, Any]) -> bool:
    same = (replica["Master_Host"], replica["Master_Port"]) == (upstream["host"], int(upstream["port"]))
    return same and replica["Slave_IO_Running"] == "Yes" and replica["Slave_SQL_Running"] == "Yes"


def _change_sql(upstream: Mapping[str, Any]) -> str:
    texts = {
        "MASTER_HOST": str(upstream["host"]),
        "MASTER_USER": str(upstream["user"]),
        "MASTER_PASSWORD": str(upstream["password"]),
    }
    numbers = {
        "MASTER_PORT": int(upstream["port"]),
        "MASTER_CONNECT_RETRY": RETRY_SECONDS,
        "MASTER_HEARTBEAT_PERIOD": HEARTBEAT_SECONDS,
        "MASTER_SSL": 0,
        "MASTER_SSL_VERIFY_SERVER_CERT": 0,
    }
    parts = [f"{name} = {quote_literal(text)}" for name, text in texts.items()]
    parts += [f"{name} = {number}" for name, number in numbers.items()]
    return f"CHANGE MASTER TO {', '.join(parts)}, MASTER_USE_GTID = slave_pos"
