"""Settings: what is locked, what follows from the size, what a user may change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from borealis.engines.base import EngineError, EngineVersion, InstanceSettings
from borealis.engines.postgres import settings as pg
from borealis.engines.postgres.prepare import start_command

GIB = 1 << 30
VERSION = EngineVersion("aurora-postgresql", "15.20", "15", Path("/nowhere/bin"), "aurora-postgresql15")
SETTINGS = InstanceSettings(
    instance_id="one",
    cluster_id="c",
    listen_address="127.1.2.3",
    port=5432,
    socket_dir=Path("/r/i/i1"),
    upstream_dir=Path("/r/it's/up"),
    shm=Path("/r/i/i1/log.shm"),
    lib_path=Path("/r/lib/libborealis_volume.so"),
    memory_bytes=16 * GIB,
    vcpu=2,
    parameters={},
)


def test_the_promise_is_on_the_command_line() -> None:
    command = start_command(VERSION, Path("/r/data"), SETTINGS)
    assert command.argv[:3] == ("/nowhere/bin/postgres", "-D", "/r/data")
    for name, value in pg.PROMISED.items():
        assert f"{name}={value}" in command.argv
    assert "primary_conninfo=" + pg.primary_conninfo(SETTINGS) in command.argv
    assert "host='/r/it\\'s/up'" in pg.primary_conninfo(SETTINGS)
    assert command.env["LD_PRELOAD"] == "/r/lib/libborealis_volume.so"
    assert command.env["BOREALIS_LOG_DEVICE"] == "/r/i/i1/log.shm"
    assert command.env["BOREALIS_LOG_KIND"] == "pgwal"


def test_later_versions_have_more_to_lock() -> None:
    old = pg.locked_settings(VERSION, SETTINGS, "")
    new = pg.locked_settings(replace(VERSION, major="18"), SETTINGS, "")
    assert "allow_alter_system" not in old
    assert new["allow_alter_system"] == "off"
    assert new["io_method"] == "worker"


@pytest.mark.parametrize(
    "name", ["fsync", "FSYNC", "primary_conninfo", "restore_command", "hba_file", "aurora.version"]
)
def test_a_locked_setting_is_refused(name: str) -> None:
    with pytest.raises(EngineError, match="belongs to Borealis"):
        pg.tunable_settings(replace(SETTINGS, parameters={name: "x"}), {})


@pytest.mark.parametrize("name", ["", "a b", "x=1", "a.b.c", "a'"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(EngineError, match="not the name"):
        pg.tunable_settings(replace(SETTINGS, parameters={name: "x"}), {})


def test_a_value_of_two_lines_is_refused() -> None:
    with pytest.raises(EngineError, match="one line"):
        pg.tunable_settings(replace(SETTINGS, parameters={"work_mem": "1MB'\nfsync = off"}), {})


def test_a_users_setting_wins_over_our_default() -> None:
    chosen = pg.tunable_settings(replace(SETTINGS, parameters={"Work_Mem": "8MB", "jit": "on"}), {})
    assert chosen["work_mem"] == "8MB"
    assert chosen["jit"] == "on"


def test_a_reader_has_as_many_connections_as_its_writer() -> None:
    small = replace(SETTINGS, memory_bytes=GIB, max_connections=100)
    assert pg.tunable_settings(small, {})["max_connections"] == "100"
    assert pg.tunable_settings(small, {"max_connections": 500})["max_connections"] == "500"
    assert pg.tunable_settings(SETTINGS, {})["max_connections"] == "1802"


@pytest.mark.parametrize(
    ("memory", "connections"), [(0, 100), (4 * GIB, 450), (16 * GIB, 1802), (1 << 40, 5000)]
)
def test_connections_by_memory(memory: int, connections: int) -> None:
    assert pg.default_max_connections(memory) == connections


@pytest.mark.parametrize(
    ("memory", "machine", "expected"),
    [
        (16 * GIB, 16 * GIB, GIB),
        (2 * GIB, 64 * GIB, GIB // 2),
        (GIB // 4, GIB, 128 << 20),
        (64 * GIB, GIB, 128 << 20),
    ],
)
def test_shared_buffers(memory: int, machine: int, expected: int) -> None:
    assert pg.shared_buffers_bytes(memory, machine) == expected


def test_configuration_is_quoted() -> None:
    assert "log_line_prefix = 'it\\'s \\\\ %m'\n" in pg.render_conf({"log_line_prefix": "it's \\ %m"})


def test_who_comes_in_where() -> None:
    rules = [line.split() for line in pg.render_hba().splitlines() if not line.startswith("#")]
    assert rules[0] == ["local", "all", "rdsadmin", "peer", "map=borealis"]
    assert rules[-1] == ["host", "all", "all", "all", "scram-sha-256"]
    assert not any("trust" in rule for rule in rules)
    assert pg.render_ident({"root", "postgres"}) == 'borealis "postgres" rdsadmin\nborealis "root" rdsadmin\n'
