"""What an instance knows of its cluster, in the file that Aurora's SQL functions read.

Owns `aurora_topology.json` in the data directory. Never decides who is what: it is told.

FORMAT (aurora_topology.json): UTF-8 JSON, at most 1 MiB, replaced as a whole.
    {"version": 1,
     "members": [{"instance_id": text, "role": "writer" | "reader",
                  "session_id": uuid text, "durable_lsn": int, "receive_lsn": int, "replay_lsn": int (bytes),
                  "lag_ms": number, "active_txns": int, "feedback_xmin": int (64 bit),
                  "log_kib_per_second": number, "cpu": percent, "updated_at": Unix seconds}, ...]}
All of a member but `instance_id` and `role` may be missing or null; unknown keys are ignored.
It carries no checksum: it is a view, made again every second, and a server without it still knows itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

TOPOLOGY_FILE = "aurora_topology.json"
VERSION = 1


def write_topology(data_dir: Path, topology: Mapping[str, object]) -> None:
    """Replace the file atomically; it belongs to the owner of the data directory. Raises OSError."""
    path = data_dir / TOPOLOGY_FILE
    temporary = path.with_name(TOPOLOGY_FILE + ".new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump({**topology, "version": VERSION}, file)
    if os.getuid() == 0:
        owner = data_dir.stat()
        os.chown(temporary, owner.st_uid, owner.st_gid)
    temporary.replace(path)
