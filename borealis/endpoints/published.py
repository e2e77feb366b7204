"""What clients are told: the name of an endpoint when it resolves on this machine, else its address.

Owns the knowledge of which names resolve. A name counts when the machine's own resolver answers exactly the
endpoint's address; that depends on the hosts file or on a resolver that asks the region's name server.
Looking is done in threads, after each change of names; what the API asks is answered from memory.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from borealis.endpoints.names import NamePatterns

THREADS: Final = 4


class ClusterAddresses(Protocol):
    @property
    def writer(self) -> str: ...
    @property
    def reader(self) -> str: ...


class ClusterRecord(Protocol):
    """What is needed of a cluster's record."""

    @property
    def identifier(self) -> str: ...
    @property
    def hash12(self) -> str: ...
    @property
    def addresses(self) -> ClusterAddresses: ...


class AddressedRecord(Protocol):
    """What is needed of the record of an instance or a custom endpoint."""

    @property
    def identifier(self) -> str: ...
    @property
    def address(self) -> str: ...


def resolves(name: str, address: str) -> bool:
    """Whether this machine's resolver answers the name with the address alone. Blocking."""
    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return False
    return {entry[4][0] for entry in found} == {address}


class PublishedNames:
    """Hosts of endpoints as the API gives them out: each is connectable on this machine as it is."""

    def __init__(self, patterns: NamePatterns) -> None:
        self._patterns = patterns
        self._looked: dict[str, tuple[str, bool]] = {}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="resolve")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def look(self, names: Mapping[str, str]) -> None:
        """Of all the region's names, find out which of the new ones resolve to their addresses.

        A name that does not resolve is not tried again before it changes: without the hosts file it hardly
        will.
        """
        known = {name: seen for name, seen in self._looked.items() if names.get(name) == seen[0]}
        fresh = [(name, address) for name, address in names.items() if name not in known]
        loop = asyncio.get_running_loop()
        answers = await asyncio.gather(
            *(loop.run_in_executor(self._threads, resolves, name, address) for name, address in fresh)
        )
        known.update({name: (address, good) for (name, address), good in zip(fresh, answers, strict=True)})
        self._looked = known

    def host(self, name: str, address: str) -> str | None:
        """The name, or the address; None while there is no address."""
        if not address:
            return None
        return name if self._looked.get(name) == (address, True) else address

    def writer(self, cluster: ClusterRecord) -> str | None:
        """The cluster endpoint."""
        return self.host(self._patterns.cluster(cluster.identifier, cluster.hash12), cluster.addresses.writer)

    def reader(self, cluster: ClusterRecord) -> str | None:
        """The reader endpoint."""
        return self.host(self._patterns.reader(cluster.identifier, cluster.hash12), cluster.addresses.reader)

    def custom(self, cluster: ClusterRecord, endpoint: AddressedRecord) -> str | None:
        """A custom endpoint."""
        return self.host(self._patterns.custom(endpoint.identifier, cluster.hash12), endpoint.address)

    def instance(self, cluster: ClusterRecord, instance: AddressedRecord) -> str | None:
        """An instance endpoint."""
        return self.host(self._patterns.instance(instance.identifier, cluster.hash12), instance.address)
