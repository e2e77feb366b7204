"""Image archives: what goes in comes out; damage and hostile names are refused."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
import zstandard

from borealis.volume.archive import ArchiveError, pack_directory, unpack_archive


def make_tree(root: Path) -> None:
    (root / "base" / "1").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "base" / "1" / "1259").write_bytes(b"\0" * 100_000 + b"page")
    (root / "base" / "1" / "PG_VERSION").write_text("15\n")
    (root / "link").symlink_to("base/1")


def test_round_trip(tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_tree(source)
    target = tmp_path / "image.tar.zst"
    info = pack_directory(source, target)
    assert info.size == target.stat().st_size
    assert info.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    made: list[Path] = []
    unpack_archive(target, tmp_path / "copy", made.append)
    copy = tmp_path / "copy"
    assert (copy / "base/1/1259").read_bytes() == (source / "base/1/1259").read_bytes()
    assert (copy / "link").readlink() == Path("base/1")
    assert (copy / "empty").is_dir()
    assert copy.stat().st_mode & 0o777 == 0o700
    assert (copy / "base/1/1259").stat().st_mode & 0o777 == 0o600
    assert len(made) == 7


def test_same_tree_same_archive(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_tree(tmp_path / name)
    first = pack_directory(tmp_path / "a", tmp_path / "a.tar.zst")
    second = pack_directory(tmp_path / "b", tmp_path / "b.tar.zst")
    assert first == second


def test_damage_leaves_nothing_behind(tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_tree(source)
    target = tmp_path / "image.tar.zst"
    pack_directory(source, target)
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 0xFF
    target.write_bytes(data)
    with pytest.raises(ArchiveError, match="damaged"):
        unpack_archive(target, tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.tar.zst", "source"]


@pytest.mark.parametrize("name", ["../escape", "/etc/escape", "a/../../escape"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    target = tmp_path / "image.tar.zst"
    target.write_bytes(zstandard.compress(plain.getvalue()))
    with pytest.raises(ArchiveError, match="below its root"):
        unpack_archive(target, tmp_path / "deep" / "copy")
    assert not (tmp_path / "deep" / "copy").exists()
