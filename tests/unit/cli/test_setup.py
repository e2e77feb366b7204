"""Installing on a machine that lacks something: it is named, with the command that brings it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[3]
NO_COMPILER = {**os.environ, "CC": "no-such-compiler"}


def somebody() -> dict[str, Any]:
    """Who is not root, for a process that is started."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that somebody else may read, too; pytest's own may not be."""
    with tempfile.TemporaryDirectory(prefix="bor-setup-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_setup_without_a_compiler_and_without_root_rights(public_folder: Path) -> None:
    shutil.copytree(PROJECT / "scripts", public_folder / "scripts")
    done = subprocess.run(
        ["sh", str(public_folder / "scripts" / "setup.sh")],
        capture_output=True,
        text=True,
        env=NO_COMPILER,
        cwd="/",
        **somebody(),
    )
    assert done.returncode == 1
    assert "these Debian packages are missing:" in done.stderr
    assert "apt-get install" in done.stderr
    assert " gcc" in done.stderr
    assert not (public_folder / ".venv").exists()


def test_building_without_a_compiler(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "-q", "build_ext", f"--build-lib={tmp_path}"]
    done = subprocess.run(
        [*command, f"--build-temp={tmp_path / 'temp'}"],
        capture_output=True,
        text=True,
        env=NO_COMPILER,
        cwd=PROJECT,
    )
    assert done.returncode != 0
    assert "`no-such-compiler` was not found: install it" in done.stderr
    assert not list(tmp_path.rglob("*.so"))
