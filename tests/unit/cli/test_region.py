"""A region's life on the command line: up, again, status, env, chaos, logs, down."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from borealis.host.client import HostClient
from borealis.host.records import ProcessSpec

from .conftest import FAKE, Terminal, pids_of


async def spawn_node(terminal: Terminal, name: str, zone: str) -> int:
    agent = await HostClient.connect(terminal.paths)
    script = "while :; do sleep 1; done"
    argv = ("/bin/sh", "-c", script, str(terminal.paths.root), "--node-id", name, "--az", zone)
    try:
        return await agent.spawn(ProcessSpec(name=name, argv=argv, log=str(terminal.paths.log_file(name))))
    finally:
        await agent.close()


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "-"


def wait_state(pid: int, states: str) -> None:
    while state_of(pid) not in states:
        pass


def test_first_start_and_everything_after(terminal: Terminal) -> None:
    said = terminal.up("--region", "eu-west-1")
    assert "The region eu-west-1 is up" in said
    assert f"http://127.0.0.1:{terminal.port}" in said

    region = json.loads(terminal.paths.region_json.read_text())
    assert re.fullmatch(r"[1-9]\d{11}", region["account"])
    key = json.loads(terminal.paths.credentials.read_text())["keys"][0]
    assert re.fullmatch(r"AKIA[A-Z2-7]{16}", key["access_key_id"])
    assert len(key["secret_access_key"]) == 40
    for secret in (
        terminal.paths.credentials,
        terminal.paths.region_json,
        terminal.paths.log_file("control"),
    ):
        assert secret.stat().st_mode & 0o777 == 0o600
    assert terminal.paths.nodes_dir.stat().st_mode & 0o777 == 0o700
    assert key["secret_access_key"] not in said

    assert "runs already" in terminal.up()
    assert "runs already" in terminal("up", "--detach")
    assert f"with port {terminal.port} and not 1" in terminal("up", "--detach", "--port", "1", code=1)
    assert "runs already" in terminal("up", code=1)

    variables = terminal.json("env")
    assert variables["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{terminal.port}"
    assert variables["AWS_DEFAULT_REGION"] == "eu-west-1"
    printed = terminal.run("env").stdout
    assert '# aws --endpoint-url "$AWS_ENDPOINT_URL" rds ' in printed.splitlines()[-1]
    for evaluated in ('eval "$BOREALIS_ENV"', "eval $BOREALIS_ENV"):
        shell = subprocess.run(
            ["/bin/sh", "-c", f'{evaluated}; echo "$AWS_SECRET_ACCESS_KEY"'],
            env={"BOREALIS_ENV": printed},
            capture_output=True,
            text=True,
        )
        assert shell.stdout.strip() == key["secret_access_key"]
        assert not shell.stderr

    assert terminal.json("status")["clusters"][0]["identifier"] == "shop"
    shown = terminal("status")
    for word in ("shop-1", "writer", "us-east-1b", "0/3000028", "2 KiB", "term 2", "1.2 ms", "n1"):
        assert word in shown

    assert "control" in {entry["process"] for entry in terminal.json("logs")}
    assert "serving" in terminal("logs", "host")
    assert "there is no log of 'nobody'" in terminal("logs", "nobody", code=1)

    assert "is down" in terminal("down")
    assert not pids_of(terminal.paths.root)
    assert not list(terminal.paths.run_dir.glob("**/*.sock"))
    assert "does not run" in terminal("down")
    assert "does not answer" in terminal("status", code=3)

    terminal.up()
    assert json.loads(terminal.paths.credentials.read_text())["keys"][0] == key
    assert "holds the region eu-west-1" in _after_down(terminal, "--region", "us-east-1")


def _after_down(terminal: Terminal, *more: str) -> str:
    terminal("down")
    return terminal("up", "--detach", *more, code=1)


def test_down_works_after_the_agent_and_the_control_plane_were_killed(terminal: Terminal) -> None:
    terminal.up()
    node = asyncio.run(spawn_node(terminal, "n1", "us-east-1a"))
    terminal("chaos", "stop", "n1")
    terminal("chaos", "kill", "host", "control")
    for pid in pids_of(terminal.paths.root):
        if pid != node:
            os.kill(pid, signal.SIGKILL)
    assert "is down" in terminal("down")
    assert not pids_of(terminal.paths.root)


def test_chaos(terminal: Terminal) -> None:
    terminal.up()
    first = asyncio.run(spawn_node(terminal, "n1", "us-east-1a"))
    second = asyncio.run(spawn_node(terminal, "n3", "us-east-1b"))
    assert f"n1 frozen (pid {first})" in terminal("chaos", "stop", "n1")
    wait_state(first, "T")
    terminal("chaos", "cont", "n1")
    wait_state(first, "SR")
    terminal("chaos", "kill", "us-east-1b", "--storage")
    wait_state(second, "-Z")
    assert state_of(first) in "SR"
    assert "there is no 'n9' here; there are: shop-1, control, n1, n3" in terminal(
        "chaos", "kill", "n9", code=1
    )
    assert "does not run" in terminal("chaos", "kill", "shop-1", code=1)
    terminal("down")


def test_a_frozen_agent_can_be_thawed(terminal: Terminal) -> None:
    terminal.up()
    terminal("chaos", "stop", "host")
    control = next(pid for pid in pids_of(terminal.paths.root) if str(FAKE) in _line(pid))
    os.kill(control, signal.SIGKILL)
    wait_state(control, "-Z")
    terminal("chaos", "cont", "host")
    terminal("status")  # The agent starts the control plane again; the command waits for it.
    terminal("down")


def _line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def test_foreground_stops_on_a_signal(terminal: Terminal, tmp_path: Path) -> None:
    script = tmp_path / "foreground.py"
    script.write_text(
        "import sys\n"
        "from borealis.cli import main, up\n"
        "from borealis.host.records import ProcessSpec\n"
        f"up.control_spec = lambda paths: ProcessSpec(name='control', argv=(sys.executable, {str(FAKE)!r}, "
        "str(paths.root)), log=str(paths.log_file('control')), restart='always',"
        f" env={{'PYTHONPATH': {os.getcwd()!r}}})\n"
        "main.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script), "--data", str(terminal.paths.root), "up", "--port", str(terminal.port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C" in line:
            process.send_signal(signal.SIGINT)
    assert process.wait() == 0, "".join(lines)
    assert "is down" in lines[-1]
    assert not pids_of(terminal.paths.root)


def test_a_control_plane_that_does_not_come_up_says_why(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    from borealis.cli import up

    def crashing(paths: object) -> ProcessSpec:
        argv = (sys.executable, str(FAKE), str(terminal.paths.root), "crash")
        return ProcessSpec(
            name="control", argv=argv, log=str(terminal.paths.log_file("control")), restart="always",
            env={"PYTHONPATH": os.getcwd()},
        )  # fmt: skip

    monkeypatch.setattr(up, "control_spec", crashing)
    said = terminal("up", "--detach", "--port", str(terminal.port), code=1)
    assert "says why it cannot start" in said
    assert not pids_of(terminal.paths.root)
