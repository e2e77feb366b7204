"""What a killed PostgreSQL leaves on the machine outside its data directory.

Owns the removal of its System V shared memory segment: 56 bytes that only mark the directory as in use, but a
machine has room for 4096 of them. Never touches a segment that a process is attached to, or another one's.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from borealis.logs import get_logger

log = get_logger(__name__)

_SEGMENTS = Path("/proc/sysvipc/shm")
_IPC_RMID = 0
_MEMORY_LINE = 6
"""Line of postmaster.pid (from 0) with the segment's key and id."""


def release(data_dir: Path) -> None:
    """See `Engine.release`."""
    try:
        lines = (data_dir / "postmaster.pid").read_text().splitlines()
        pid = int(lines[0])
        key, identifier = (int(word) for word in lines[_MEMORY_LINE].split())
        segments = _SEGMENTS.read_text().splitlines()[1:]
    except (OSError, ValueError, IndexError):
        return  # Not running, never got that far, or no such memory on this system.
    for fields in (line.split() for line in segments):
        found_key, found_id, creator, attached = (int(fields[at]) for at in (0, 1, 4, 6))
        # The key may come as a signed number in one place and as an unsigned one in the other.
        same = found_id == identifier and (found_key - key) % (1 << 32) == 0
        if same and creator == pid and attached == 0:
            _remove(identifier)


def _remove(identifier: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.shmctl(identifier, _IPC_RMID, None) != 0:
        log.warning("cannot remove shared memory segment %d: error %d", identifier, ctypes.get_errno())
