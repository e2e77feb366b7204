"""Paths of a region: sockets that fit, and clear words when they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from borealis.paths import SOCKET_PATH_BYTES_MAX, DataFolderError, RegionPaths


def test_names() -> None:
    paths = RegionPaths(Path("/var/lib/borealis"))
    assert paths.node_socket("n1") == Path("/var/lib/borealis/run/n/n1.sock")
    assert paths.pgdata("i3") == Path("/var/lib/borealis/instances/i3/data")
    assert paths.driver_socket("i3") == Path("/var/lib/borealis/run/i/i3/driver.sock")
    assert paths.image_cache("vol-1", 0x2000028).name == "image-2000028"
    paths.check()


def test_longest_root_that_fits() -> None:
    for length in range(40, 110):
        root = "/" + "d" * (length - 1)
        paths = RegionPaths(Path(root))
        longest = paths.upstream_dir("i999999") / ".s.PGSQL.65535"
        if len(bytes(longest)) <= SOCKET_PATH_BYTES_MAX:
            paths.check()
        else:
            with pytest.raises(DataFolderError, match="too long"):
                paths.check()


@pytest.mark.parametrize("root", ["relative/folder", "/with blank", "/with'quote", "/with\nline"])
def test_folders_that_cannot_work(root: str) -> None:
    with pytest.raises(DataFolderError):
        RegionPaths(Path(root)).check()


def test_bytes_count_not_letters() -> None:
    with pytest.raises(DataFolderError, match="too long"):
        RegionPaths(Path("/" + "ä" * 40)).check()
