"""The region's block of loopback addresses."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from borealis.endpoints import addresses
from borealis.endpoints.addresses import AddressBlock, can_listen
from borealis.endpoints.errors import NoAddress


def test_a_folder_has_always_the_same_block() -> None:
    assert list(AddressBlock.of(Path("/data/a"))) == list(AddressBlock.of(Path("/data/a")))
    assert AddressBlock.of(Path("/data/a")).region_address != AddressBlock.of(Path("/data/b")).region_address


def test_the_block(tmp_path: Path) -> None:
    block = AddressBlock.of(tmp_path)
    everything = list(block)
    assert len(everything) == len(set(everything)) == 4 * 254 - 1
    assert block.region_address not in everything
    assert all(address in block and address.startswith("127.") for address in everything)
    assert "127.0.0.1" not in block
    assert not any(address.startswith("127.0.") for address in everything)


def test_addresses_go_round() -> None:
    block = AddressBlock(77, 4)
    first = block.allocate(54329, set())
    second = block.allocate(54329, {first})
    assert first != second
    assert block.allocate(54329, {second}) not in (first, second), "a freed address rests"


def test_an_address_that_is_listened_on_is_passed_over() -> None:
    block = AddressBlock(77, 8)
    with socket.create_server(("127.77.8.2", 0)) as taken:
        port = taken.getsockname()[1]
        assert not can_listen("127.77.8.2", port)
        assert block.allocate(port, set()) == "127.77.8.3"
    assert can_listen("127.77.8.2", port)


def test_a_port_that_is_taken_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "can_listen", lambda address, port: False)
    with pytest.raises(NoAddress, match=r"another program listens on 0\.0\.0\.0:5432"):
        AddressBlock(77, 8).allocate(5432, set())


def test_no_block_is_outside_the_loopback_net() -> None:
    for second, third in ((0, 0), (255, 0), (1, 3), (1, 256)):
        with pytest.raises(ValueError):
            AddressBlock(second, third)
