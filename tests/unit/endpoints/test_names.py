"""Names: patterns, the hosts file, the name server, and what clients are told."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from dnslib import QTYPE, RCODE, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from borealis.endpoints import names as names_module
from borealis.endpoints import published
from borealis.endpoints.dns import NameServer
from borealis.endpoints.errors import EndpointError
from borealis.endpoints.names import HostsFile, NamePatterns, NameTable
from borealis.endpoints.published import PublishedNames

PATTERNS = NamePatterns("us-east-1", "rds.borealis.internal")
NAMES = {"a.b.internal": "127.9.0.2", "c.b.internal": "127.9.0.3"}


@pytest.fixture
def hosts(tmp_path: Path) -> HostsFile:
    (tmp_path / "hosts").write_text("127.0.0.1\tlocalhost\n")
    return HostsFile(tmp_path / "region", tmp_path / "hosts", tmp_path / "lock")


def test_patterns() -> None:
    assert PATTERNS.cluster("Demo", "abc123") == "demo.cluster-abc123.us-east-1.rds.borealis.internal"
    assert PATTERNS.reader("demo", "abc123") == "demo.cluster-ro-abc123.us-east-1.rds.borealis.internal"
    assert PATTERNS.custom("bi", "abc123") == "bi.cluster-custom-abc123.us-east-1.rds.borealis.internal"
    assert PATTERNS.instance("demo-1", "abc123") == "demo-1.abc123.us-east-1.rds.borealis.internal"


def test_table() -> None:
    table = NameTable()
    assert table.put("c1", {"b": "127.9.0.2", "a": "127.9.0.3"})
    assert not table.put("c1", {"a": "127.9.0.3", "b": "127.9.0.2"})
    assert table.put("c2", {"c": "127.9.0.4"})
    assert list(table.all()) == ["a", "b", "c"]
    assert (table.address("c"), table.address("d")) == ("127.9.0.4", None)
    assert table.put("c1", {})
    assert not table.put("c1", {})
    assert table.all() == {"c": "127.9.0.4"}


def test_the_block_comes_and_goes(hosts: HostsFile, tmp_path: Path) -> None:
    assert not hosts.present()
    hosts.write(NAMES)
    assert hosts.present()
    text = (tmp_path / "hosts").read_text()
    assert text.startswith("127.0.0.1\tlocalhost\n# BEGIN Borealis region")
    assert "127.9.0.2\ta.b.internal\n127.9.0.3\tc.b.internal\n" in text
    hosts.write({"a.b.internal": "127.9.0.9"})
    assert "127.9.0.2" not in (tmp_path / "hosts").read_text()
    hosts.remove()
    assert (tmp_path / "hosts").read_text() == "127.0.0.1\tlocalhost\n"


def test_two_regions_leave_each_other_alone(hosts: HostsFile, tmp_path: Path) -> None:
    other = HostsFile(tmp_path / "region-2", tmp_path / "hosts", tmp_path / "lock")
    threads = [
        threading.Thread(target=lambda one=one, n=n: one.write({f"n{n}.internal": f"127.9.0.{n}"}))  # type: ignore[misc]
        for n in range(1, 11)
        for one in (hosts, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.remove()
    assert hosts.present()
    assert not other.present()
    hosts.remove()
    assert (tmp_path / "hosts").read_text() == "127.0.0.1\tlocalhost\n"


@given(st.lists(st.sampled_from(["127.0.0.1 x", "", "# a comment", "::1 localhost"])))
def test_other_lines_stay(lines: list[str]) -> None:
    hosts = HostsFile(Path("/r"))
    text = "".join(line + "\n" for line in lines)
    block = ["# BEGIN Borealis region /r", "127.9.0.2\ta", "# END Borealis region /r"]
    assert hosts._with(hosts._with(text, block), []) == text


def test_a_lost_end_marker_costs_no_lines(hosts: HostsFile) -> None:
    text = f"{hosts._begin}\n127.9.0.2\ta\n127.0.0.1\tlocalhost\n"
    assert "127.0.0.1\tlocalhost" in hosts._with(text, [])


def test_a_file_that_cannot_be_replaced_is_written_in_place(
    hosts: HostsFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(_source: object, _target: object) -> None:
        raise OSError(16, os.strerror(16))

    monkeypatch.setattr(names_module.os, "rename", busy)
    inode = (tmp_path / "hosts").stat().st_ino
    hosts.write(NAMES)
    assert "a.b.internal" in (tmp_path / "hosts").read_text()
    assert (tmp_path / "hosts").stat().st_ino == inode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hosts", "lock"]


def test_mode_and_owner_stay(hosts: HostsFile, tmp_path: Path) -> None:
    (tmp_path / "hosts").chmod(0o644)
    hosts.write(NAMES)
    assert (tmp_path / "hosts").stat().st_mode & 0o777 == 0o644


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    hosts = HostsFile(tmp_path, tmp_path / "missing", tmp_path / "lock")
    assert not hosts.writable()
    with pytest.raises(EndpointError, match="cannot write names"):
        hosts.write(NAMES)


class Client(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.answers.put_nowait(data)


async def test_name_server() -> None:
    table = NameTable()
    table.put("c", {PATTERNS.cluster("demo", "x"): "127.9.0.2"})
    server = NameServer(table, PATTERNS.domain)
    port = await server.start("127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_datagram_endpoint(Client, remote_addr=("127.0.0.1", port))

    async def ask(name: str, kind: str = "A") -> DNSRecord:
        transport.sendto(DNSRecord.question(name, kind).pack())
        return DNSRecord.parse(await asyncio.wait_for(client.answers.get(), 10))

    try:
        transport.sendto(b"noise")
        reply = await ask("DEMO.cluster-x.us-east-1.rds.borealis.internal")
        assert reply.header.rcode == RCODE.NOERROR
        assert [(QTYPE[rr.rtype], str(rr.rdata)) for rr in reply.rr] == [("A", "127.9.0.2")]
        reply = await ask("demo.cluster-x.us-east-1.rds.borealis.internal", "AAAA")
        assert (reply.header.rcode, reply.rr) == (RCODE.NOERROR, [])
        assert (await ask("other.rds.borealis.internal")).header.rcode == RCODE.NXDOMAIN
        assert (await ask("example.com")).header.rcode == RCODE.REFUSED
        table.put("c", {})
        assert (await ask("demo.cluster-x.us-east-1.rds.borealis.internal")).header.rcode == RCODE.NXDOMAIN
    finally:
        transport.close()
        server.close()


@given(st.binary(max_size=80))
def test_the_name_server_survives_noise(data: bytes) -> None:
    NameServer(NameTable(), PATTERNS.domain).answer(data)


@dataclass
class Addresses:
    writer: str
    reader: str


@dataclass
class Record:
    identifier: str
    address: str = ""
    hash12: str = "abc"
    addresses: Addresses = None  # type: ignore[assignment]


async def test_clients_are_told_only_names_that_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Record("demo", addresses=Addresses("127.9.0.2", "127.9.0.3"))
    instance = Record("demo-1", "127.9.0.4")
    good = {PATTERNS.cluster("demo", "abc"), PATTERNS.instance("demo-1", "abc")}
    monkeypatch.setattr(published, "resolves", lambda name, address: name in good)
    names = PublishedNames(PATTERNS)
    try:
        assert names.writer(cluster) == "127.9.0.2", "nobody has looked so far"
        table = {
            PATTERNS.cluster("demo", "abc"): "127.9.0.2",
            PATTERNS.reader("demo", "abc"): "127.9.0.3",
            PATTERNS.instance("demo-1", "abc"): "127.9.0.4",
        }
        await names.look(table)
        assert names.writer(cluster) == PATTERNS.cluster("demo", "abc")
        assert names.reader(cluster) == "127.9.0.3"
        assert names.instance(cluster, instance) == PATTERNS.instance("demo-1", "abc")
        assert names.custom(cluster, Record("bi", "127.9.0.5")) == "127.9.0.5"
        assert names.instance(cluster, Record("new")) is None
        instance.address = "127.9.0.9"
        assert names.instance(cluster, instance) == "127.9.0.9", "the name still means the old address"
    finally:
        names.close()


def test_resolves() -> None:
    assert published.resolves("localhost", "127.0.0.1")
    assert not published.resolves("localhost", "127.0.0.9")
    assert not published.resolves("no such name", "127.0.0.1")
