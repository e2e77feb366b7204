"""Folder operations: repeatable, and never outside the region's folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from borealis.host.agent import keep_logs_small
from borealis.host.errors import FileFailed, OutsideRegion
from borealis.host.files import RegionFiles


@pytest.fixture
def files(tmp_path: Path) -> RegionFiles:
    (tmp_path / "region").mkdir()
    return RegionFiles(tmp_path / "region")


def test_make_copy_remove(tmp_path: Path, files: RegionFiles) -> None:
    root = tmp_path / "region"
    files.make_dir(f"{root}/a/b/c")
    files.make_dir(f"{root}/a/b/c")
    assert (root / "a/b/c").stat().st_mode & 0o777 == 0o700
    assert (root / "a/b").stat().st_mode & 0o777 == 0o711
    (root / "a/b/c/file").write_text("text")
    files.copy_tree(f"{root}/a/b", f"{root}/copy")
    (root / "copy/c/file").write_text("changed")
    files.copy_tree(f"{root}/a/b", f"{root}/copy")  # There already: complete, left alone.
    assert (root / "copy/c/file").read_text() == "changed"
    files.remove_tree(f"{root}/copy")
    files.remove_tree(f"{root}/copy")
    assert sorted(p.name for p in root.iterdir()) == ["a"]


def test_a_copy_that_was_cut_off_is_made_anew(tmp_path: Path, files: RegionFiles) -> None:
    root = tmp_path / "region"
    (root / "source").mkdir()
    (root / "source/file").write_text("text")
    (root / ".target.copying").mkdir()
    (root / ".target.copying/half").write_text("half")
    files.copy_tree(f"{root}/source", f"{root}/target")
    assert [p.name for p in (root / "target").iterdir()] == ["file"]


def test_links_are_removed_not_followed(tmp_path: Path, files: RegionFiles) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("keep")
    root = tmp_path / "region"
    (root / "folder").mkdir()
    (root / "folder/link").symlink_to(outside)
    (root / "link").symlink_to(outside)
    files.remove_tree(f"{root}/folder")
    files.remove_tree(f"{root}/link")
    assert (outside / "precious").read_text() == "keep"


@pytest.mark.parametrize(
    "path", ["/etc", "{root}", "{root}/../outside", "{root}/link/x", "relative", "{root}/.."]
)
def test_nothing_outside_is_touched(tmp_path: Path, files: RegionFiles, path: str) -> None:
    root = tmp_path / "region"
    (tmp_path / "outside/x").mkdir(parents=True)
    (root / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(OutsideRegion):
        files.remove_tree(path.format(root=root))
    assert (tmp_path / "outside/x").is_dir()


def test_errors_say_what_failed(tmp_path: Path, files: RegionFiles) -> None:
    root = tmp_path / "region"
    with pytest.raises(FileFailed, match="cannot copy"):
        files.copy_tree(f"{root}/none", f"{root}/target")
    (root / "file").write_text("")
    with pytest.raises(FileFailed, match="cannot make"):
        files.make_dir(f"{root}/file/x")


def test_logs_are_kept_small(tmp_path: Path) -> None:
    log = tmp_path / "n1.log"
    with log.open("ab") as writer:
        writer.write(b"x" * 1000)
        writer.flush()
        keep_logs_small(tmp_path, bytes_max=500)
        writer.write(b"more")
    assert log.read_bytes() == b"more"
    assert (tmp_path / "n1.log.1").stat().st_size == 1000
    assert os.stat(tmp_path / "n1.log.1").st_mode & 0o777 == 0o600
