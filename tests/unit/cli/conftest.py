"""The command line in this process, on a region with a stand-in for the control plane."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from borealis.cli import common, up
from borealis.cli.main import app
from borealis.host.records import ProcessSpec
from borealis.paths import RegionPaths

FAKE = Path(__file__).with_name("fake_control.py")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Terminal:
    """Calls commands for one region."""

    def __init__(self, root: Path) -> None:
        self.paths = RegionPaths(root)
        self.port = free_port()

    def __call__(self, *arguments: str, code: int = 0) -> str:
        result = self.run(*arguments)
        said = result.output + str(getattr(result.exception, "message", result.exception or ""))
        assert exit_code(result) == code, said
        return " ".join(said.split())

    def run(self, *arguments: str) -> Result:
        common.chosen.data = None
        return CliRunner().invoke(app, list(arguments), env={"BOREALIS_DATA": str(self.paths.root)})

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)

    def up(self, *more: str) -> str:
        return self("up", "--detach", "--port", str(self.port), *more)


def exit_code(result: Result) -> int:
    """What `main` would exit with."""
    if result.exception is None or isinstance(result.exception, SystemExit):
        return result.exit_code
    return (
        3
        if getattr(result.exception, "code", "") == "NoRegion"
        else getattr(result.exception, "exit_code", 1)
    )


def pids_of(root: Path) -> list[int]:
    """Processes that were started for the region."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(root).encode() in words:
                found.append(int(entry.name))
    return found


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A command line whose `up` starts the stand-in."""
    root = Path(tempfile.mkdtemp(prefix="bor-cli-")).resolve()
    root.chmod(0o711)

    def fake_spec(paths: RegionPaths) -> ProcessSpec:
        return ProcessSpec(
            name="control",
            argv=(sys.executable, str(FAKE), str(paths.root)),
            env={**os.environ, "PYTHONPATH": os.getcwd()},
            log=str(paths.log_file("control")),
            restart="always",
        )

    monkeypatch.setattr(up, "control_spec", fake_spec)
    monkeypatch.setattr(common.out, "width", 200, raising=False)
    try:
        yield Terminal(root / "r")
    finally:
        for _ in range(3):
            for pid in pids_of(root):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(root, ignore_errors=True)
