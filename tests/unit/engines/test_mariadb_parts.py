"""The MariaDB engine without a running server: settings, discovery, accounts, images, refusals."""

from __future__ import annotations

import itertools
import os
import re
import string
from dataclasses import replace
from pathlib import Path

import pytest

from borealis.engines.base import BootstrapSpec, EngineError, EngineVersion, InstanceSettings
from borealis.engines.mariadb import image, ownlog
from borealis.engines.mariadb import settings as my
from borealis.engines.mariadb.administrator import Administrator
from borealis.engines.mariadb.bootstrap import bootstrap
from borealis.engines.mariadb.discover import SYSTEM_TABLES, discover
from borealis.engines.mariadb.engine import MariadbEngine
from borealis.engines.mariadb.grants import customer_databases, quote_identifier, quote_literal
from borealis.engines.mariadb.history import LogPoint
from borealis.engines.mariadb.passwords import is_verifier, native_verifier
from borealis.engines.mariadb.prepare import prepare, start_command

from .real import engine_user

GIB = 1 << 30


@pytest.fixture
def version(tmp_path: Path) -> EngineVersion:
    """An installation that only looks like one."""
    _install(tmp_path / "usr", "mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64")
    return EngineVersion("aurora-mysql", "10.11.19", "10.11", tmp_path / "usr" / "sbin", "aurora-mysql10.11")


def _install(root: Path, says: str, name: str = "mariadbd") -> Path:
    for directory in (root / "sbin", root / "share" / "mysql"):
        directory.mkdir(parents=True)
    for table in SYSTEM_TABLES:
        (root / "share" / "mysql" / table).touch()
    program = root / "sbin" / name
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return root / "sbin"


@pytest.fixture
def settings(tmp_path: Path) -> InstanceSettings:
    home = tmp_path / "home"
    (home / "up").mkdir(parents=True)
    return InstanceSettings(
        instance_id="one",
        cluster_id="c",
        listen_address="127.1.2.3",
        port=3306,
        socket_dir=home,
        upstream_dir=home / "up",
        shm=home / "log.shm",
        lib_path=Path("/lib/libborealis_volume.so"),
        memory_bytes=16 * GIB,
        vcpu=2,
        server_number=7,
    )


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    image.write_image_file(directory, "system-1", LogPoint(4096, None))
    return directory


# ---------------------------------------------------------------------- settings
def test_the_promise_is_on_the_command_line(
    version: EngineVersion, data_dir: Path, settings: InstanceSettings
) -> None:
    command = start_command(version, data_dir, settings)
    assert command.argv[1] == f"--defaults-file={data_dir}/my.cnf"
    for name, value in my.PROMISED.items():
        given = "binlog" if name == "log_bin" else value
        assert f"--{name.replace('_', '-')}={given}" in command.argv
    assert "--server-id=7" in command.argv
    assert "--read-only=1" in command.argv
    assert command.env["LD_PRELOAD"] == "/lib/libborealis_volume.so"
    assert command.env["BOREALIS_LOG_KIND"] == "binlog:binlog"
    assert "LD_PRELOAD" not in start_command(version, data_dir, replace(settings, lib_path=None)).env


def test_an_instance_without_an_address_is_on_no_network(
    version: EngineVersion, data_dir: Path, settings: InstanceSettings
) -> None:
    hidden = start_command(version, data_dir, replace(settings, listen_address="")).argv
    assert "--skip-networking=1" in hidden
    assert not [argument for argument in hidden if argument.startswith("--bind-address")]
    assert "--skip-networking=1" not in start_command(version, data_dir, settings).argv


@pytest.mark.parametrize(
    "name",
    [
        "sync_binlog", "SYNC-BINLOG", "loose_sync_binlog", "skip_log_bin", "loose-skip-log-bin", "log_bin",
        "binlog_format", "init_slave", "init_file", "plugin_load_add", "secure_file_priv", "datadir",
        "replicate_do_db", "gtid_domain_id", "wsrep_on", "skip_grant_tables", "skip_networking", "read_only",
        "enforce_storage_engine", "server_id", "symbolic_links", "aurora_server_id", "skip_slave_start",
        "innodb_force_recovery", "lower_case_table_names",
    ],
)  # fmt: skip
def test_a_locked_setting_is_refused(name: str, settings: InstanceSettings) -> None:
    with pytest.raises(EngineError, match="belongs to Borealis"):
        my.tunable_settings(replace(settings, parameters={name: "x"}))


@pytest.mark.parametrize("name", ["", "a b", "x=1", "a'", "a\nb", "[mysqld]"])
def test_what_is_no_name_is_refused(name: str, settings: InstanceSettings) -> None:
    with pytest.raises(EngineError, match="not the name"):
        my.tunable_settings(replace(settings, parameters={name: "x"}))


def test_a_value_of_two_lines_is_refused(settings: InstanceSettings) -> None:
    with pytest.raises(EngineError, match="one line"):
        my.tunable_settings(replace(settings, parameters={"init_connect": "x\nsync_binlog = 0"}))


def test_a_users_setting_wins_over_our_default(settings: InstanceSettings) -> None:
    chosen = my.tunable_settings(replace(settings, parameters={"Max-Connections": "7"}))
    assert chosen["loose_max_connections"] == "7"
    assert "max_connections" not in chosen
    text = my.render_conf({"init_connect": 'a "b" \\c'})
    assert 'init_connect = "a \\"b\\" \\\\c"\n' in text
    assert text.splitlines()[1] == "[mariadbd]"


def test_events_run_unless_they_are_turned_off(settings: InstanceSettings) -> None:
    assert my.event_scheduler(settings) == "ON"
    off = replace(settings, parameters={"event-scheduler": "0"})
    assert my.event_scheduler(off) == "OFF"
    assert not [name for name in my.tunable_settings(off) if "event" in name]
    with pytest.raises(EngineError, match="expected ON or OFF"):
        my.tunable_settings(replace(settings, parameters={"event_scheduler": "DISABLED"}))


@pytest.mark.parametrize(
    ("memory", "connections"),
    [(0, 90), (4 * GIB, 90), (8 * GIB, 135), (16 * GIB, 1000), (32 * GIB, 2000), (1 << 50, 16_000)],
)
def test_connections_by_memory(memory: int, connections: int) -> None:
    assert my.default_max_connections(memory) == connections


@pytest.mark.parametrize(
    ("memory", "machine", "expected"),
    [(16 * GIB, 16 * GIB, GIB), (GIB, 64 * GIB, 3 * GIB // 4), (GIB // 16, GIB, 128 << 20)],
)
def test_buffer_pool(memory: int, machine: int, expected: int) -> None:
    assert my.buffer_pool_bytes(memory, machine) == expected


# ---------------------------------------------------------------------- preparing
def test_preparing_again_changes_nothing(
    version: EngineVersion, data_dir: Path, settings: InstanceSettings
) -> None:
    prepare(version, data_dir, settings)
    first = {path: path.read_text() for path in data_dir.iterdir() if path.is_file()}
    prepare(version, data_dir, settings)
    assert {path: path.read_text() for path in data_dir.iterdir() if path.is_file()} == first
    attached = LogPoint.parse((settings.upstream_dir / "attached.json").read_text())
    assert attached == LogPoint(4096, None)


def test_an_image_of_another_volume_is_refused(
    version: EngineVersion, data_dir: Path, settings: InstanceSettings
) -> None:
    with pytest.raises(EngineError, match="image of database system system-1; expected other"):
        prepare(version, data_dir, replace(settings, system_id="other"))
    with pytest.raises(EngineError, match="server number"):
        prepare(version, data_dir, replace(settings, server_number=0))
    (data_dir / image.IMAGE_FILE).unlink()
    with pytest.raises(EngineError, match="not the image"):
        prepare(version, data_dir, settings)


def test_a_damaged_administrator_is_made_anew(data_dir: Path) -> None:
    assert Administrator.load(data_dir) is None
    made = Administrator.make()
    made.save(data_dir)
    assert Administrator.load(data_dir) == made
    for text in ("{", '{"version": 9}', '{"version": 1}'):
        (data_dir / "administrator.json").write_text(text)
        assert Administrator.load(data_dir) is None


# ---------------------------------------------------------------------- images
def test_an_image_holds_nothing_of_one_instance(data_dir: Path) -> None:
    kept = {"ibdata1", "aria_log_control", image.IMAGE_FILE}
    gone = {"binlog.000001", "binlog.index", "binlog.state", "relay.000001", "relay-log.info", "master.info"}
    gone |= {"my.cnf", "start.sql", "administrator.json", "aurora_topology.json", "general.log"}
    for name in kept | gone:
        (data_dir / name).touch() if name != image.IMAGE_FILE else None
    (data_dir / ".tmp").mkdir()
    (data_dir / ".tmp" / "x").touch()
    image.clean_image(data_dir)
    assert set(os.listdir(data_dir)) == kept


def test_a_noted_position_only_grows(data_dir: Path) -> None:
    image.note_position(data_dir, LogPoint(9000, None))
    image.note_position(data_dir, LogPoint(5000, None))
    assert MariadbEngine().image_position(None, data_dir) == 9000  # type: ignore[arg-type]
    assert image.read_image_file(data_dir)[0] == "system-1"


@pytest.mark.parametrize("name", ["engine.pid", "ibtmp1"])
def test_a_directory_in_use_is_no_image(data_dir: Path, name: str) -> None:
    (data_dir / name).touch()
    with pytest.raises(EngineError, match="shut it down cleanly"):
        image.clean_image(data_dir)


def test_a_log_that_is_not_there_is_told(data_dir: Path) -> None:
    log = ownlog.OwnLog(data_dir)
    assert log.end() is None
    with pytest.raises(EngineError, match="no log file"):
        log.newest()
    (data_dir / "binlog.000001").write_bytes(b"\xfebinwhat is this")
    with pytest.raises(EngineError, match="format description"):
        log.begin(2, 4096)


# ---------------------------------------------------------------------- accounts
def _fits(name: str, pattern: str) -> bool:
    """Whether a database's name lies within a pattern of rights."""
    expression, escaped = "", False
    for char in pattern:
        wild = not escaped and {"_": ".", "%": ".*"}.get(char)
        if not escaped and char == "\\":
            escaped = True
            continue
        expression, escaped = expression + (wild or re.escape(char)), False
    return re.fullmatch(expression, name) is not None


def test_the_master_users_databases_are_all_but_one() -> None:
    patterns = list(customer_databases())
    assert len(patterns) == len(set(patterns)) < 300
    assert not [pattern for pattern in patterns if _fits("mysql", pattern)]
    near = {
        "".join(("mysql"[:place], letter, "mysql"[place + 1 :]))
        for place, letter in itertools.product(range(5), string.ascii_lowercase + string.digits + "_")
    } - {"mysql"}
    short = {"mysql"[:length] for length in range(1, 5)}
    other = {"mysqlx", "mysql_", "MYSQL", "a", "zz", "orders", "my_db", "Email", "_x", "été", "sys"}
    for name in near | short | other:
        assert [pattern for pattern in patterns if _fits(name, pattern)], name


def test_quoting() -> None:
    assert quote_identifier("a`b") == "`a``b`"
    assert quote_literal("it's \\") == "'it''s \\\\'"


def test_passwords() -> None:
    assert native_verifier("password") == "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"
    assert MariadbEngine().password_verifier("x", "password") == native_verifier("password")
    assert is_verifier(native_verifier(""))
    assert not is_verifier("password")


# ---------------------------------------------------------------------- installations
def test_discovery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    good = _install(tmp_path / "good", "mariadbd  Ver 10.11.7-MariaDB-log for Linux on x86_64")
    mysql = _install(tmp_path / "mysql", "mysqld  Ver 8.0.36 for Linux on x86_64 (MySQL)", "mysqld")
    later = _install(tmp_path / "later", "mariadbd  Ver 11.4.2-MariaDB for Linux on x86_64")
    bare = _install(tmp_path / "bare", "mariadbd  Ver 10.11.8-MariaDB for Linux on x86_64")
    (tmp_path / "bare" / "share" / "mysql" / SYSTEM_TABLES[0]).unlink()
    empty = tmp_path / "empty"
    empty.mkdir()
    listed = os.pathsep.join(str(one) for one in (mysql, later, bare, empty, good, good))
    monkeypatch.setenv("BOREALIS_MARIADB_BIN", listed)
    (found,) = discover(())
    assert (found.version, found.major, found.family) == ("10.11.7", "10.11", "aurora-mysql10.11")
    assert found.bin_dir == good
    for refused in ("mysqld (mysqld  Ver 8.0.36", "mariadbd (mariadbd  Ver 11.4.2"):
        assert refused in caplog.text
    assert "no system tables' SQL" in caplog.text


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (BootstrapSpec("root", native_verifier("x")), "reserved"),
        (BootstrapSpec("rdsadmin_1", native_verifier("x")), "reserved"),
        (BootstrapSpec("a'b", native_verifier("x")), "not valid"),
        (BootstrapSpec("master", "secret"), "hash"),
        (BootstrapSpec("master", native_verifier("x"), "mysql"), "reserved"),
        (BootstrapSpec("master", native_verifier("x"), "a`b"), "not valid"),
    ],
)
def test_a_volume_that_cannot_be_is_refused(
    spec: BootstrapSpec, words: str, version: EngineVersion, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=words):
        bootstrap(version, tmp_path / "volume", engine_user(), spec)
    assert not (tmp_path / "volume").exists()


def test_a_bootstrap_that_fails_leaves_nothing(version: EngineVersion, tmp_path: Path) -> None:
    spec = BootstrapSpec("master", native_verifier("x"))
    with pytest.raises(EngineError):
        bootstrap(version, tmp_path / "volume", engine_user(), spec)
    assert not (tmp_path / "volume").exists()
    full = tmp_path / "full"
    full.mkdir()
    (full / "x").touch()
    with pytest.raises(EngineError, match="not empty"):
        bootstrap(version, full, engine_user(), spec)
