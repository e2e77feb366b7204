"""Parsing, help and the small decisions of commands, without any process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from borealis import __version__
from borealis.cli.chaos import Instance, resolve
from borealis.cli.common import CliError
from borealis.cli.connect import CLIENTS, Target, Wanted, arguments, find_target
from borealis.cli.down import stop_order
from borealis.cli.main import app
from borealis.host.client import ProcessInfo

from .conftest import Terminal

COMMANDS = ("up", "down", "status", "env", "connect", "demo", "logs", "chaos")


def info(name: str, *argv: str) -> ProcessInfo:
    return ProcessInfo(
        name=name, pid=1, alive=True, wanted=True, status=None, started_at=0.0, starts=1, restart="never",
        user=None, argv=argv, cwd=None, log="", sweep_dir=None,
    )  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command: str) -> None:
    said = CliRunner().invoke(app, [command, "--help"]).output
    assert "Examples" in said
    assert f"borealis {command}" in said or "env --json" in said


def test_version_and_no_arguments() -> None:
    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"borealis {__version__}"
    assert all(command in CliRunner().invoke(app, []).output for command in COMMANDS)


@pytest.mark.parametrize(
    "words",
    [
        ["up", "--port", "0"],
        ["up", "--port", "99999"],
        ["up", "--region", "Mars"],
        ["up", "--set", "lease_seconds"],
        ["up", "--set", "lease_seconds=soon"],
        ["chaos", "hug", "n1"],
        ["chaos", "kill"],
        ["connect"],
        ["nonsense"],
    ],
)
def test_wrong_usage(terminal: Terminal, words: list[str]) -> None:
    terminal(*words, code=2)
    assert not terminal.paths.root.exists()


@pytest.mark.parametrize("words", [["status"], ["env"], ["down"], ["logs"], ["demo"], ["connect", "x"]])
def test_without_a_region(terminal: Terminal, words: list[str]) -> None:
    assert "there is no region in" in terminal(*words, code=3)
    assert not terminal.paths.root.exists()


def test_data_may_stand_before_or_after_the_command(terminal: Terminal, tmp_path: Path) -> None:
    assert f"no region in {tmp_path}/a" in terminal("--data", str(tmp_path / "a"), "env", code=3)
    assert f"no region in {tmp_path}/b" in terminal("env", "--data", str(tmp_path / "b"), code=3)


# ---------------------------------------------------------------------- chaos
NODES = [
    info("n1", "python", "--node-id", "n1", "--az", "us-east-1a"),
    info("n3", "python", "--node-id", "n3", "--az", "us-east-1b"),
]
LIVES = [
    info("engine-i1", "postgres"),
    info("driver-i1", "python"),
    info("engine-i11", "postgres"),
    info("control"),
]
INSTANCES = [Instance("shop-1", "us-east-1b", "i1")]


@pytest.mark.parametrize(
    ("victim", "storage", "names"),
    [
        ("n1", False, ["n1"]),
        ("control", False, ["control"]),
        ("shop-1", False, ["engine-i1"]),
        ("driver:shop-1", False, ["driver-i1"]),
        ("us-east-1a", False, ["n1"]),
        ("us-east-1b", False, ["n3", "engine-i1", "driver-i1"]),
        ("us-east-1b", True, ["n3"]),
    ],
)
def test_victims(victim: str, storage: bool, names: list[str]) -> None:
    assert resolve(victim, NODES + LIVES, INSTANCES, storage) == names


@pytest.mark.parametrize("victim", ["shop-2", "driver:n1", "us-west-2a", "", "driver:"])
def test_no_such_victim(victim: str) -> None:
    with pytest.raises(CliError, match="there is no"):
        resolve(victim, NODES + LIVES, INSTANCES, False)


def test_order_of_stopping() -> None:
    names = ["n1", "haproxy-c1", "driver-i1", "engine-i1", "control", "dns", "n10", "engine-i2"]
    order = [[process.name for process in group] for group in stop_order(info(name) for name in names)]
    assert order == [
        ["control"],
        ["engine-i1", "engine-i2"],
        ["driver-i1"],
        ["haproxy-c1"],
        ["dns"],
        ["n1", "n10"],
    ]


# ---------------------------------------------------------------------- connect
class FakeRds:
    def describe_db_clusters(self, **_: str) -> Any:
        cluster = {"Engine": "aurora-postgresql", "Port": 5432, "MasterUsername": "me", "Endpoint": "w",
                   "ReaderEndpoint": "r", "Status": "available"}  # fmt: skip
        return {"DBClusters": [cluster]}

    def describe_db_instances(self, **_: str) -> Any:
        return {"DBInstances": [{"Endpoint": {"Address": "127.0.0.9"}}]}


@pytest.mark.parametrize(
    ("wanted", "host"),
    [
        (Wanted("c", False, None, None, None, ()), "w"),
        (Wanted("c", True, None, None, None, ()), "r"),
        (Wanted("c", False, "i", None, None, ()), "127.0.0.9"),
    ],
)
def test_endpoints(wanted: Wanted, host: str) -> None:
    target = find_target(FakeRds(), wanted)
    assert (target.host, target.user, target.database) == (host, "me", None)


def test_arguments_of_clients() -> None:
    target = Target("aurora-postgresql", "h", 5432, "me", None)
    assert arguments(CLIENTS[target.engine], target) == [
        "--host=h", "--port=5432", "--username=me", "--dbname=postgres",
    ]  # fmt: skip
    target = Target("aurora-mysql", "h", 3306, "me", None)
    general = ["--host=h", "--port=3306", "--user=me", "--default-character-set=utf8mb4"]
    assert arguments(CLIENTS[target.engine], target) == general
    target = Target("aurora-mysql", "h", 3306, "me", "shop")
    assert arguments(CLIENTS[target.engine], target) == [*general, "--database=shop"]
