"""What the machine may lack: each has words of its own, and nothing is started."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from borealis import _native
from borealis.cli import preflight
from borealis.engines import registry
from borealis.engines.base import EngineVersion
from borealis.paths import RegionPaths

from .conftest import Terminal, pids_of

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def test_port_in_use(terminal: Terminal) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        terminal.port = listener.getsockname()[1]
        said = terminal("up", "--detach", "--port", str(terminal.port), code=1)
    assert "another process listens there already. Choose another port with --port" in said
    assert not pids_of(terminal.paths.root)


def test_path_too_long(terminal: Terminal) -> None:
    said = terminal("up", "--data", "/tmp/" + "x" * 90, code=1)
    assert "too long" in said


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(preflight.Unfit, match=r"mounted read-only|is full"):
        preflight.check_disk(RegionPaths(tmp_path))
    assert not list(tmp_path.iterdir())


def test_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "FREE_BYTES_MIN", 1 << 60)
    with pytest.raises(preflight.Unfit, match="MiB free"):
        preflight.check_disk(RegionPaths(tmp_path))


def test_data_is_a_file(terminal: Terminal) -> None:
    terminal.paths.root.write_text("")
    assert "Not a directory" in terminal("up", "--detach", code=1)


@root_only
def test_engine_user_may_not_pass(terminal: Terminal) -> None:
    closed = terminal.paths.root.parent / "closed"
    closed.mkdir(mode=0o700)
    said = terminal("up", "--detach", "--data", str(closed / "r"), code=1)
    assert f"may not pass through {closed} " in said


@root_only
@pytest.mark.parametrize(
    ("user", "words"), [("root", "refuse to run as root"), ("nobody-here", "does not exist")]
)
def test_engine_users(terminal: Terminal, user: str, words: str) -> None:
    assert words in terminal("up", "--detach", "--engine-user", user, code=1)


def test_no_engine(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "installed_versions", lambda: ())
    assert "no database engine was found: install one" in terminal("up", "--detach", code=1)


def test_engines_that_are_there_and_those_that_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    one = EngineVersion("aurora-postgresql", "15.20", "15", Path("/pg"), "aurora-postgresql15")
    monkeypatch.setattr(registry, "installed_versions", lambda: (one,))
    monkeypatch.setattr(registry, "engines", lambda: dict.fromkeys(preflight.PACKAGES))
    found = preflight.find_engines()
    assert found.present == "aurora-postgresql 15.20"
    [words] = found.missing
    assert words.startswith("aurora-mysql is not offered")
    assert "apt-get install mariadb-server-core" in words
    preflight.check_programs()


@root_only
def test_the_first_user_that_there_is_runs_the_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "ENGINE_USERS", ("nobody-here", "nobody"))
    assert preflight.choose_engine_user(None) == "nobody"


def test_every_engine_has_a_package_to_install() -> None:
    assert set(registry.engines()) <= set(preflight.PACKAGES)


def test_no_haproxy(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.shutil, "which", lambda *a, **k: None)
    assert "haproxy was not found" in terminal("up", "--detach", code=1)


def test_no_native_library(terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_native, "__file__", str(tmp_path / "__init__.py"))
    said = terminal("up", "--detach", code=1)
    assert "C compiler" in said
    assert "make setup" in said


def test_a_library_that_cannot_be_preloaded(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / preflight.VOLUME_LIBRARY).write_bytes(b"not a library")
    monkeypatch.setattr(_native, "__file__", str(tmp_path / "__init__.py"))
    assert "cannot be preloaded" in terminal("up", "--detach", code=1)


def test_the_library_is_replaced_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_check_preload", lambda *a: None)
    monkeypatch.setattr(_native, "__file__", str(tmp_path / "__init__.py"))
    paths = RegionPaths(tmp_path / "r")
    paths.lib_dir.mkdir(parents=True)
    (tmp_path / preflight.VOLUME_LIBRARY).write_bytes(b"old")
    target = preflight.install_library(paths, None)
    before = target.stat().st_ino
    assert preflight.install_library(paths, None).stat().st_ino == before
    (tmp_path / preflight.VOLUME_LIBRARY).write_bytes(b"new")
    assert preflight.install_library(paths, None).stat().st_ino != before
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o755


def test_broken_region_files(terminal: Terminal) -> None:
    terminal.paths.root.mkdir(parents=True)
    terminal.paths.region_json.write_text(
        '{"version": 9, "account": "1", "created_at": "2026-01-01T00:00:00Z"}'
    )
    assert "has version 9" in terminal("up", "--detach", code=1)
    terminal.paths.region_json.write_text("{")
    assert "is not a valid region.json" in terminal("env", code=1)
