"""Images on real storage nodes: stored on a quorum, found, fetched, attached, removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from borealis.log.wire import Create, Purpose
from borealis.storage.client import NodeConnection
from borealis.volume import images
from borealis.volume.images import ImageError, connector
from tests.unit.storage.support import SEED, VOLUME, NodeProcess, running_nodes


async def create_volume(nodes: list[NodeProcess]) -> list[str]:
    for node in nodes:
        connection = await NodeConnection.connect(node.address, VOLUME, Purpose.CONTROL)
        await connection.request(Create(VOLUME, SEED))
        await connection.close()
    return [node.address for node in nodes]


async def test_from_one_folder_to_another(tmp_path: Path) -> None:
    source = tmp_path / "data"
    (source / "base").mkdir(parents=True)
    (source / "base" / "file").write_bytes(bytes(range(256)) * 20_000)
    async with running_nodes(tmp_path, "a", "b", "c") as nodes:
        addresses = await create_volume(nodes)
        connect = connector(VOLUME)
        with pytest.raises(ImageError, match="no node"):
            await images.find(connect, addresses)
        manifests = []
        for lsn in (0x1000, 0x2000):
            archive = tmp_path / f"{lsn}.tar.zst"
            manifest = await images.pack(
                source, archive, system_id="42", timeline=1, lsn=lsn, engine="e", engine_version="15.1"
            )
            manifests.append(manifest)
            assert await images.store(connect, addresses, archive, manifest, quorum=2) == 3
            assert await images.store(connect, addresses, archive, manifest, quorum=2) == 3
        assert await images.find(connect, addresses) == manifests[1]
        assert await images.find(connect, addresses, at_most=0x1FFF) == manifests[0]
        with pytest.raises(ImageError, match="FFF"):
            await images.find(connect, addresses, at_most=0xFFF)

        await nodes[0].kill()
        cache = await images.attach(connect, addresses, tmp_path / "cache" / "image", manifests[1])
        assert (cache / "base" / "file").read_bytes() == (source / "base" / "file").read_bytes()
        assert [path.name for path in (tmp_path / "cache").iterdir()] == ["image"]
        assert await images.attach(connect, addresses, cache, manifests[1]) == cache

        assert await images.remove(connect, addresses, manifests[1]) == 2
        assert await images.find(connect, addresses[1:]) == manifests[0]


async def test_too_few_nodes_to_store(tmp_path: Path) -> None:
    source = tmp_path / "data"
    source.mkdir()
    async with running_nodes(tmp_path, "a", "b") as nodes:
        addresses = await create_volume(nodes)
        archive = tmp_path / "image.tar.zst"
        manifest = await images.pack(
            source, archive, system_id="42", timeline=1, lsn=1, engine="e", engine_version="15.1"
        )
        await nodes[1].kill()
        with pytest.raises(ImageError, match="on 1 nodes, expected at least 2"):
            await images.store(connector(VOLUME), addresses, archive, manifest, quorum=2)
        with pytest.raises(ImageError, match="cannot be had from any node"):
            await images.fetch(connector(VOLUME), addresses[1:], manifest, tmp_path / "fetched")
