"""The other nodes of the region, as this node was told.

Owns the reading of peers.json; it is read again when it changes, so nodes may come and go.

FORMAT (peers.json): {"<node id>": {"az": "<availability zone>", "address": "<socket path or host:port>"}}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from borealis.logs import get_logger
from borealis.storage.address import split_address
from borealis.storage.errors import StorageError

log = get_logger(__name__)


class Peer(NamedTuple):
    node: str
    az: str
    address: str


class PeerBook:
    """Who the peers are. A missing file means none; a faulty one leaves the last good state."""

    def __init__(self, path: Path, own_node: str) -> None:
        self._path = path
        self._own_node = own_node
        self._stamp: tuple[int, int] | None = None
        self._peers: tuple[Peer, ...] = ()

    def peers(self) -> tuple[Peer, ...]:
        """The other nodes, by id."""
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino)
            if stamp != self._stamp:
                self._stamp = stamp
                self._peers = self._read()
        except FileNotFoundError:
            self._peers = ()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, StorageError) as error:
            log.error("%s cannot be used, going on with the peers known before: %s", self._path, error)
        return self._peers

    def _read(self) -> tuple[Peer, ...]:
        body = json.loads(self._path.read_text())
        peers = [Peer(node, str(item["az"]), str(item["address"])) for node, item in sorted(body.items())]
        for peer in peers:
            split_address(peer.address)
        return tuple(peer for peer in peers if peer.node != self._own_node)
