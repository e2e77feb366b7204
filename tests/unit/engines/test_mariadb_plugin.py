"""The server plugin in stock MariaDB servers: what every account can ask an instance of its cluster."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest

from borealis.engines.mariadb.plugin import plugin_settings
from borealis.engines.topology import TOPOLOGY_FILE

from .real import short_directory
from .stock_mariadb import (
    NATIVE,
    StockMariaDB,
    StockServer,
    build_plugin,
    has_1011,
    member,
    topology,
    write_topology,
)

PASSWORD = "a secret"
APP = {"user": "app", "password": PASSWORD}
VERSION = "10.11.0"
ACCOUNT = (
    f"CREATE USER app@'%' IDENTIFIED BY '{PASSWORD}'",
    "CREATE DATABASE shop",
    "GRANT ALL ON shop.* TO app@'%'",
)


pytestmark = pytest.mark.skipif(not has_1011(), reason="MariaDB 10.11 is not installed on this machine")


@pytest.fixture(scope="module")
def built() -> Iterator[Path]:
    """A directory that servers can read, for builds of the plugin."""
    root = short_directory()
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def plain(built: Path) -> Path:
    return build_plugin(NATIVE, built / "plain")


@pytest.fixture(scope="module")
def stock() -> Iterator[StockMariaDB]:
    root = short_directory()
    made = StockMariaDB(root)
    try:
        yield made
    finally:
        made.stop_all()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def instance(stock: StockMariaDB, plain: Path) -> StockServer:
    """An instance called `one`, with an account that may do nothing but in its own database."""
    server = stock.server(read_only="1", **plugin_settings("one", VERSION, plain))
    server.start()
    server.ask(*ACCOUNT)
    return server


@pytest.fixture
def one(instance: StockServer) -> StockServer:
    """The instance, a reader that was told nothing."""
    (instance.data_dir / TOPOLOGY_FILE).unlink(missing_ok=True)
    instance.ask("SET GLOBAL read_only = 1")
    return instance


STATUS = "SELECT server_id, session_id FROM information_schema.replica_host_status"


def test_without_the_library_there_are_no_settings(tmp_path: Path) -> None:
    assert plugin_settings("one", VERSION, tmp_path) == {}


def test_every_account_sees_what_the_instance_is(one: StockServer) -> None:
    assert one.ask("SHOW VARIABLES LIKE 'aurora_version'", **APP) == [("aurora_version", VERSION)]
    assert one.ask("SHOW VARIABLES LIKE 'aurora%'", **APP) == [
        ("aurora_server_id", "one"),
        ("aurora_version", VERSION),
    ]
    assert one.ask("SELECT @@aurora_version, AURORA_VERSION(), @@aurora_server_id", **APP) == [
        (VERSION, VERSION, "one")
    ]
    with pytest.raises(pymysql.Error, match="Incorrect parameter count"):
        one.ask("SELECT AURORA_VERSION(1)", **APP)


def test_innodb_read_only_shows_the_role(one: StockServer) -> None:
    asked = ("SELECT @@innodb_read_only", "SELECT @@global.innodb_read_only")
    assert [one.ask(text, **APP) for text in asked] == [[(1,)]] * 2
    assert one.ask("SHOW VARIABLES LIKE 'innodb_read_only'", **APP) == [("innodb_read_only", "ON")]
    one.ask("SET GLOBAL read_only = 0")
    assert [one.ask(text, **APP) for text in asked] == [[(0,)]] * 2
    one.ask("CREATE TABLE shop.written (n int)", "INSERT INTO shop.written VALUES (1)", **APP)
    one.ask("SET GLOBAL read_only = 1")
    assert one.ask(asked[0], **APP) == [(1,)]
    with pytest.raises(pymysql.Error, match="--read-only"):
        one.ask("INSERT INTO shop.written VALUES (2)", **APP)
    one.ask("INSERT INTO shop.written VALUES (2)")  # InnoDB itself writes: the log is applied.


@pytest.mark.parametrize(
    "statement",
    [
        "SET GLOBAL innodb_read_only = 0",
        "SET GLOBAL aurora_server_id = 'two'",
        "SET GLOBAL aurora_version = '9'",
        "SET GLOBAL read_only = 0",
        "UNINSTALL PLUGIN replica_host_status",
        "INSERT INTO information_schema.replica_host_status (server_id) VALUES ('x')",
        "DELETE FROM information_schema.replica_host_status",
    ],
)
def test_a_customer_cannot_change_the_answers(one: StockServer, statement: str) -> None:
    with pytest.raises(pymysql.Error):
        one.ask(statement, **APP)
    assert one.ask(STATUS, **APP)[0][0] == "one"


def test_without_a_topology_an_instance_knows_itself(one: StockServer) -> None:
    ((name, session),) = one.ask(STATUS, **APP)
    assert name == "one"
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", session)
    assert one.ask(STATUS, **APP) == [("one", session)]
    one.ask("SET GLOBAL read_only = 0")
    assert one.ask(STATUS, **APP) == [("one", "MASTER_SESSION_ID")]


def test_the_members_are_those_of_the_topology(one: StockServer) -> None:
    write_topology(
        one,
        topology(
            member(
                "one",
                "reader",
                session_id="s1",
                lag_ms=12.5,
                cpu=3.5,
                durable_lsn=9,
                receive_lsn=8,
                replay_lsn=7,
            ),
            member("two", "writer", durable_lsn=4 << 40, cpu=None, log_kib_per_second=2.5),
            member("three", "reader", session_id="s3", updated_at=time.time() - 1000),
        ),
    )
    rows = one.ask(
        "SELECT server_id, session_id, cpu, durable_lsn, master_slave_latency_in_microseconds, "
        "replica_lag_in_milliseconds, log_stream_speed_in_kib_per_second, is_current, highest_lsn_received, "
        "current_read_lsn, current_replay_latency_in_microseconds "
        "FROM information_schema.replica_host_status",
        **APP,
    )
    assert rows == [
        ("two", "MASTER_SESSION_ID", 0, 4 << 40, 0, 0, 2.5, 1, 0, 4 << 40, 0),
        ("one", "s1", 3.5, 9, 12500, 12.5, 0, 1, 8, 7, 12500),
        ("three", "s3", 0, 0, 0, 0, 0, 0, 0, 0, 0),
    ]


def test_an_instance_knows_its_own_role_best(one: StockServer) -> None:
    before = topology(member("one", "reader"), member("two", "writer"))
    write_topology(one, before)
    masters = (
        "SELECT server_id FROM information_schema.replica_host_status WHERE session_id = 'MASTER_SESSION_ID'"
    )
    assert one.ask(masters, **APP) == [("two",)]
    one.ask("SET GLOBAL read_only = 0")
    assert one.ask(masters, **APP) == [("one",)]
    one.ask("SET GLOBAL read_only = 1")
    write_topology(one, topology(member("one", "writer"), member("two", "reader")))
    assert one.ask(masters, **APP) == []


def test_times_are_in_the_sessions_zone(one: StockServer) -> None:
    write_topology(one, topology(member("one", "reader"), member("two", "writer", updated_at=1790000000.25)))
    column = (
        "SELECT last_update_timestamp FROM information_schema.replica_host_status WHERE server_id = 'two'"
    )
    shown = [
        str(one.ask(f"SET time_zone = '{zone}'", column, **APP)[0][0])
        for zone in ("+00:00", "+05:30", "-11:00")
    ]
    assert shown == ["2026-09-21 14:13:20.250000", "2026-09-21 19:43:20.250000", "2026-09-21 03:13:20.250000"]
    age = (
        "SELECT max(abs(timestampdiff(SECOND, now(), last_update_timestamp))) FROM "
        "information_schema.replica_host_status WHERE server_id = @@aurora_server_id"
    )
    assert one.ask("SET time_zone = '-03:00'", age, **APP)[0][0] <= 60


def test_a_broken_topology_is_told_once(one: StockServer) -> None:
    write_topology(one, '{"members": [{"instance_id": "two"')
    before = one.log_text.count("cannot be read")
    for _ in range(3):
        assert [row[0] for row in one.ask(STATUS, **APP)] == ["one"]
    assert one.log_text.count("cannot be read") == before + 1
    write_topology(one, topology(member("one", "reader"), member("two", "writer")))
    assert [row[0] for row in one.ask(STATUS, **APP)] == ["two", "one"]


def test_a_topology_as_large_as_can_be(one: StockServer) -> None:
    write_topology(one, topology(*(member(f"i{n}", "reader") for n in range(200))))
    rows = one.ask(STATUS, **APP)
    assert len(rows) == 64
    assert "one" in [row[0] for row in rows]


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("SELECT count(*) FROM information_schema.replica_host_status", 2),
        ("SELECT 1 FROM information_schema.REPLICA_HOST_STATUS LIMIT 1", 1),
        (
            "SELECT count(*) FROM information_schema.replica_host_status a "
            "JOIN information_schema.replica_host_status b USING (server_id) WHERE a.cpu >= b.cpu",
            2,
        ),
        ("SELECT (SELECT max(cpu) FROM information_schema.replica_host_status WHERE server_id = 'two')", 50),
        (
            "SELECT table_type FROM information_schema.tables WHERE table_name = 'replica_host_status'",
            "SYSTEM VIEW",
        ),
        ("SELECT count(*) FROM information_schema.columns WHERE table_name = 'replica_host_status'", 12),
        ("SELECT server_id FROM information_schema.replica_host_status ORDER BY cpu DESC LIMIT 1", "two"),
    ],
)
def test_the_table_is_one_like_others(one: StockServer, query: str, answer: object) -> None:
    write_topology(one, topology(member("one", "reader", cpu=1), member("two", "writer", cpu=50)))
    assert one.ask(query, **APP) == [(answer,)]
    prepare = f"PREPARE asked FROM '{query.replace(chr(39), chr(39) * 2)}'"
    assert one.ask(prepare, "EXECUTE asked", "EXECUTE asked", **APP) == [(answer,)]


def test_views_routines_and_defaults_use_them(one: StockServer) -> None:
    one.ask("SET GLOBAL read_only = 0")
    rows = one.ask(
        "USE shop",
        "CREATE VIEW seen AS SELECT AURORA_VERSION() AS version, server_id "
        "FROM information_schema.replica_host_status",
        "CREATE FUNCTION version_of() RETURNS text RETURN AURORA_VERSION()",
        "CREATE TABLE noted (version varchar(20) DEFAULT (AURORA_VERSION()))",
        "INSERT INTO noted VALUES ()",
        "SELECT s.version, s.server_id, n.version, version_of() FROM seen s, noted n",
        **APP,
    )
    assert rows == [(VERSION, "one", VERSION, VERSION)]
    text = one.ask("SHOW CREATE VIEW shop.seen", **APP)[0][1]
    one.ask("DROP VIEW shop.seen", text, **APP)
    assert one.ask("SELECT version FROM shop.seen", **APP) == [(VERSION,)]


def test_under_the_sanitizers(stock: StockMariaDB, built: Path) -> None:
    runtime = [
        subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    if not all(Path(path).is_absolute() for path in runtime):
        pytest.skip("gcc has no AddressSanitizer here")
    flags = "-O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"
    settings = (f"CFLAGS={flags}", "LDFLAGS=-fsanitize=address,undefined -Wl,-z,undefs")
    library = build_plugin(NATIVE, built / "sanitized", *settings)
    server = stock.server(read_only="1", **plugin_settings("one", VERSION, library))
    server.start(LD_PRELOAD=":".join(runtime), ASAN_OPTIONS="detect_leaks=0:halt_on_error=1")
    write_topology(server, topology(member("one", "reader", cpu=1), member("two", "writer", lag_ms=1e17)))
    everything = "SELECT * FROM information_schema.replica_host_status"
    for _ in range(3):
        assert len(server.ask(everything)) == 2
        write_topology(server, "{" if _ else topology(member("one", "writer"), member("two", "reader")))
        assert server.ask("SELECT AURORA_VERSION(), @@innodb_read_only") == [(VERSION, 1)]
        server.ask(everything)
        write_topology(server, topology(member("one", "reader"), member("two", "writer")))
    assert server.stop() == 0, server.log_text


CHANGED = {
    "another server": ("server.c", '"10.11.%2d%n"', '"10.12.%2d%n"'),
    "a table's declaration": (
        "abi.h",
        "int index_1, index_2; /* -1 before init */\n    bool hidden;",
        "bool hidden;\n    int index_1, index_2;",
    ),
    "a column's declaration": (
        "abi.h",
        "struct text name; /* data == NULL: after the last column */\n    int nullable;",
        "int nullable;\n    struct text name;",
    ),
    "a query's table": ("abi.h", "LIST_TABLE = 264", "LIST_TABLE = 272"),
    "a query's declaration": ("abi.h", "LIST_SCHEMA_TABLE = 376", "LIST_SCHEMA_TABLE = 4096"),
    "a table's thread": ("abi.h", "TABLE_THREAD = 64", "TABLE_THREAD = 56"),
    "a table's fields": ("abi.h", "TABLE_FIELDS = 168", "TABLE_FIELDS = 160"),
    "a field's name": ("abi.h", "FIELD_NAME = 48", "FIELD_NAME = 56"),
    "a missing symbol": ("table.c", '"thd_gmt_sec_to_TIME"', '"thd_sec_to_TIME"'),
    "another variable": ("role.c", "(off by default)", "(off)"),
    "another builder": ("function.c", "18Create_native_func", "17Create_func_arg0"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_what_is_not_as_expected_is_left_out(stock: StockMariaDB, built: Path, what: str) -> None:
    name, old, new = CHANGED[what]
    source = built / "changed"
    shutil.copytree(NATIVE, source, ignore=shutil.ignore_patterns("build"))
    try:
        text = (source / "plugin" / name).read_text()
        assert old in text
        (source / "plugin" / name).write_text(text.replace(old, new))
        library = build_plugin(source, source / "out")
        server = stock.server(read_only="1", **plugin_settings("one", VERSION, library))
        server.start()
        has = {
            "variables": bool(server.ask("SHOW VARIABLES LIKE 'aurora_version'")),
            "function": answers(server, "SELECT AURORA_VERSION()"),
            "role": server.ask("SELECT @@innodb_read_only") == [(1,)],
            "table": answers(server, STATUS),
        }
        lost = {
            "another server": {"variables", "function", "role", "table"},
            "another variable": {"role"},
            "another builder": {"function"},
        }.get(what, {"table"})
        assert {feature for feature, there in has.items() if not there} == lost
        server.ask("CREATE TABLE mysql.goes_on (n int)", "SELECT * FROM mysql.goes_on")
        assert server.stop() == 0
    finally:
        shutil.rmtree(source)


def answers(server: StockServer, query: str) -> bool:
    try:
        return len(server.ask(query)) > 0
    except pymysql.Error:
        return False
