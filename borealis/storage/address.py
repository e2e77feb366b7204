"""Where a node listens: a Unix socket's path, or host:port.

Owns the reading of addresses only. What contains a slash is a path.
"""

from __future__ import annotations

from borealis.storage.errors import StorageError

UNIX_PATH_BYTES_MAX = 107


def split_address(address: str) -> tuple[str, int] | None:
    """(host, port) of a TCP address, None for the path of a Unix socket. Raises StorageError when neither."""
    if "/" in address:
        if len(address.encode()) > UNIX_PATH_BYTES_MAX:
            raise StorageError(
                f"the socket path {address!r} is longer than {UNIX_PATH_BYTES_MAX} bytes: use a shorter one"
            )
        return None
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 <= int(port) < 65536:
        raise StorageError(f"{address!r} is no address: expected /path/of/a.sock or host:port")
    return host.strip("[]"), int(port)
