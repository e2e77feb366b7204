"""A small name server for the region's names: whoever cannot use the hosts file asks it.

Owns one UDP socket. It answers for the region's domain only, from memory, with addresses (A); it refuses
every other question and asks nobody itself.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from dnslib import CLASS, QTYPE, RCODE, RR, SOA, A, DNSError, DNSHeader, DNSRecord

from borealis.endpoints.errors import EndpointError
from borealis.endpoints.names import NameTable
from borealis.logs import get_logger

TTL_SECONDS: Final = 5
"""Addresses of endpoints never change while they live, but names may be used again."""

log = get_logger(__name__)


class NameServer(asyncio.DatagramProtocol):
    """Serves a table; the table may change at any time."""

    def __init__(self, table: NameTable, domain: str) -> None:
        self._table = table
        self._domain = domain.lower().rstrip(".")
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self, address: str, port: int) -> int:
        """Listen; returns the port (of use when `port` is 0). Raises EndpointError."""
        loop = asyncio.get_running_loop()
        try:
            await loop.create_datagram_endpoint(lambda: self, local_addr=(address, port))
        except OSError as error:
            raise EndpointError(
                f"the name server cannot listen on {address}:{port}/udp ({error.strerror}); "
                "choose another port with the setting dns_port, or 0 for none"
            ) from error
        assert self._transport is not None
        return int(self._transport.get_extra_info("sockname")[1])

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: not every event loop's datagram transport is a subclass.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self.answer(data)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)

    def answer(self, data: bytes) -> bytes | None:
        """The answer to a question; None: what was sent is not one."""
        try:
            question = DNSRecord.parse(data)
        except (DNSError, ValueError, IndexError) as error:
            log.debug("not a question: %s", error)
            return None
        if question.header.qr or not question.questions:
            return None
        reply = question.reply()
        reply.header.ra = 0
        self._fill(reply)
        return bytes(reply.pack())

    def _fill(self, reply: DNSRecord) -> None:
        header: DNSHeader = reply.header
        asked = str(reply.q.qname).rstrip(".").lower()
        kind = QTYPE[reply.q.qtype]
        if asked != self._domain and not asked.endswith("." + self._domain):
            header.aa = 0
            header.rcode = RCODE.REFUSED
            return
        header.aa = 1
        address = self._table.address(asked)
        if address is not None and kind in ("A", "ANY") and reply.q.qclass == CLASS.IN:
            reply.add_answer(RR(reply.q.qname, QTYPE.A, rdata=A(address), ttl=TTL_SECONDS))
            return
        if address is None and asked != self._domain:
            header.rcode = RCODE.NXDOMAIN
        # Says for how long the absence may be remembered.
        absence = SOA(f"ns.{self._domain}", f"root.{self._domain}", (1, 60, 60, 60, TTL_SECONDS))
        reply.add_auth(RR(self._domain, QTYPE.SOA, rdata=absence, ttl=TTL_SECONDS))
