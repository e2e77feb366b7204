"""The region's own loopback addresses.

Owns the choice of the block, 127.B.C.x, and of free addresses in it. On Linux every address in 127.0.0.0/8
belongs to this machine without any set-up. It keeps no record of what was given away: the records of the
control plane do.

Two regions on one machine get different blocks, as their data folders differ; should their blocks meet all
the same, an address that somebody listens on is passed over.
"""

from __future__ import annotations

import errno
import hashlib
import socket
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Final

from borealis.endpoints.errors import NoAddress

NETS_PER_BLOCK: Final = 4
HOSTS_PER_NET: Final = 254
_UNUSABLE: Final = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)


class AddressBlock:
    """Four nets of 254 addresses. The first address is the region's own (its name server listens there)."""

    def __init__(self, second: int, third: int) -> None:
        """127.`second`.`third` is the first net; `third` is a multiple of four."""
        if not (1 <= second <= 254 and 0 <= third <= 252 and third % NETS_PER_BLOCK == 0):
            raise ValueError(f"no block of the loopback net begins at 127.{second}.{third}.0")
        self._nets = tuple(f"127.{second}.{third + net}" for net in range(NETS_PER_BLOCK))
        self._next = 0

    @classmethod
    def of(cls, data_root: Path) -> AddressBlock:
        """The block of the region with this data folder: always the same one."""
        digest = hashlib.sha256(str(data_root.resolve()).encode()).digest()
        return cls(1 + digest[0] % 254, digest[1] % 64 * NETS_PER_BLOCK)

    @property
    def region_address(self) -> str:
        """The region's own address; never given away."""
        return f"{self._nets[0]}.1"

    def __iter__(self) -> Iterator[str]:
        """All addresses that can be given away."""
        for net in self._nets:
            first = 2 if net == self._nets[0] else 1
            for host in range(first, HOSTS_PER_NET + 1):
                yield f"{net}.{host}"

    def __contains__(self, address: object) -> bool:
        return isinstance(address, str) and address.rpartition(".")[0] in self._nets

    def allocate(self, port: int, in_use: Set[str]) -> str:
        """An address outside `in_use` on which nobody listens at `port`.

        Goes round the block, so that an address rests for long before it means something else. Raises
        NoAddress.
        """
        addresses = list(self)
        for step in range(len(addresses)):
            address = addresses[(self._next + step) % len(addresses)]
            if address not in in_use and can_listen(address, port):
                self._next = (self._next + step + 1) % len(addresses)
                return address
        raise NoAddress(
            f"none of the region's {len(addresses)} loopback addresses ({self._nets[0]}.2 and on) can be "
            f"listened on at port {port}: most likely another program listens on 0.0.0.0:{port}; end it, "
            "or choose another port for the cluster"
        )


def can_listen(address: str, port: int) -> bool:
    """Whether a server could listen there now. Raises OSError for what has nothing to do with the address
    (a port that needs privileges)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections that linger from before are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in _UNUSABLE:
                return False
            raise
    return True
