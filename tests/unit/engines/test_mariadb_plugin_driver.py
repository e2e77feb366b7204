"""AWS's own driver against stock MariaDB servers with the plugin.

A writer and a replica become an Aurora cluster in its eyes.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from borealis.engines.mariadb.plugin import plugin_settings

from .real import short_directory
from .stock_mariadb import (
    NATIVE,
    StockMariaDB,
    StockServer,
    build_plugin,
    free_port,
    has_1011,
    member,
    topology,
    write_topology,
)

wrapper = pytest.importorskip("aws_advanced_python_wrapper")
connector = pytest.importorskip("mysql.connector")

pytestmark = pytest.mark.skipif(not has_1011(), reason="MariaDB 10.11 is not installed on this machine")

DOMAIN = "example.test"
ADDRESSES = {"one": "127.61.7.1", "two": "127.61.7.2"}
PASSWORD = "a secret"
WAIT_SECONDS = 60

BINLOG = {
    "log_bin": "binlog",
    "binlog_format": "ROW",
    "gtid_strict_mode": "1",
    "log_slave_updates": "0",
    "sync_binlog": "0",
    "read_only": "1",
}


@dataclass
class Pair:
    one: StockServer
    two: StockServer

    def write_topology(self, writer: str) -> None:
        """What the drivers of both instances would write."""
        members = [
            member(
                name,
                "writer" if name == writer else "reader",
                lag_ms=None if name == writer else 3.5,
                cpu=2.0,
            )
            for name in ADDRESSES
        ]
        for server in (self.one, self.two):
            write_topology(server, topology(*members))


def follow(replica: StockServer, source: StockServer) -> None:
    replica.ask(
        f"CHANGE MASTER TO MASTER_HOST='{source.address}', MASTER_PORT={source.port}, MASTER_USER='repl', "
        f"MASTER_PASSWORD='{PASSWORD}', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1",
        "START SLAVE",
    )


def wait_replayed(replica: StockServer, source: StockServer) -> None:
    position = source.ask("SELECT @@gtid_binlog_pos")[0][0]
    assert replica.ask(f"SELECT MASTER_GTID_WAIT('{position}', {WAIT_SECONDS})") == [(0,)]


def promote(replica: StockServer) -> None:
    replica.ask("STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = 0")


@pytest.fixture(scope="module")
def stock() -> Iterator[tuple[StockMariaDB, Path]]:
    root = short_directory()
    made = StockMariaDB(root)
    try:
        yield made, build_plugin(NATIVE, root / "plugin")
    finally:
        made.stop_all()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def pair(stock: tuple[StockMariaDB, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """A writer and its replica at two addresses and one port, whose names resolve in this process only."""
    made, library = stock
    port = free_port(ADDRESSES["one"])
    servers = [
        made.server(
            address, port, server_id=str(number), **BINLOG, **plugin_settings(name, "10.11.0", library)
        )
        for number, (name, address) in enumerate(ADDRESSES.items(), 1)
    ]
    both = Pair(*servers)
    names = {f"{name}.{DOMAIN}": address for name, address in ADDRESSES.items()}
    look_up = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *more, **named: look_up(names.get(host, host), *more, **named)
    )
    try:
        for server in servers:
            server.start()
        promote(both.one)
        follow_as = f"CREATE USER repl@'%' IDENTIFIED BY '{PASSWORD}'"
        both.one.ask(
            follow_as,
            "GRANT REPLICATION SLAVE ON *.* TO repl@'%'",
            f"CREATE USER app@'%' IDENTIFIED BY '{PASSWORD}'",
            "CREATE DATABASE shop",
            "GRANT ALL ON shop.* TO app@'%'",
            "CREATE TABLE shop.sold (n int PRIMARY KEY)",
        )
        follow(both.two, both.one)
        wait_replayed(both.two, both.one)
        both.write_topology(writer="one")
        yield both
    finally:
        wrapper.release_resources()
        for server in servers:
            server.stop(signal.SIGKILL)


@contextlib.contextmanager
def driver(pair: Pair, name: str, **options: Any) -> Iterator[Any]:
    """A connection of the driver to an instance by its name. The dialect is left to it."""
    connection = wrapper.AwsWrapperConnection.connect(
        connector.Connect,
        host=f"{name}.{DOMAIN}",
        port=pair.one.port,
        user="app",
        password=PASSWORD,
        database="shop",
        use_pure=True,
        autocommit=True,
        cluster_instance_host_pattern=f"?.{DOMAIN}",
        **{"plugins": "failover", **options},
    )
    try:
        yield connection
    finally:
        connection.close()


def ask(connection: Any, statement: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


def roles(connection: Any) -> dict[str, str]:
    service = connection._plugin_service
    service.force_refresh_host_list(service.current_connection)
    return {host.host: host.role.name for host in service.all_hosts}


def test_the_driver_detects_an_aurora_cluster(pair: Pair) -> None:
    for name, role in (("one", "WRITER"), ("two", "READER")):
        with driver(pair, name) as connection:
            service = connection._plugin_service
            assert type(service.database_dialect).__name__ == "AuroraMysqlDialect"
            assert service.get_host_role(service.current_connection).name == role
            assert ask(connection, "SELECT @@aurora_server_id") == name
            assert roles(connection) == {f"one.{DOMAIN}": "WRITER", f"two.{DOMAIN}": "READER"}


def test_the_driver_sends_readers_to_a_reader(pair: Pair) -> None:
    with driver(pair, "one", plugins="read_write_splitting,failover") as connection:
        assert ask(connection, "SELECT @@aurora_server_id") == "one"
        connection.read_only = True
        assert ask(connection, "SELECT @@aurora_server_id") == "two"
        connection.read_only = False
        assert ask(connection, "SELECT @@aurora_server_id") == "one"


def test_the_driver_follows_a_failover(pair: Pair) -> None:
    from aws_advanced_python_wrapper.errors import FailoverSuccessError

    with driver(pair, "one", failover_timeout_sec=WAIT_SECONDS) as connection:
        ask(connection, "INSERT INTO sold VALUES (1)")
        wait_replayed(pair.two, pair.one)
        pair.one.stop(signal.SIGKILL)
        promote(pair.two)
        pair.write_topology(writer="two")
        with pytest.raises(FailoverSuccessError):
            ask(connection, "INSERT INTO sold VALUES (2)")
        assert ask(connection, "SELECT @@aurora_server_id") == "two"
        assert ask(connection, "SELECT @@innodb_read_only") == 0
        ask(connection, "INSERT INTO sold VALUES (3)")
        assert ask(connection, "SELECT count(*) FROM sold") == 2


def test_the_driver_sees_a_change_of_roles(pair: Pair) -> None:
    with driver(pair, "two") as connection:
        service = connection._plugin_service
        assert service.get_host_role(service.current_connection).name == "READER"
        pair.one.ask("SET GLOBAL read_only = 1")
        wait_replayed(pair.two, pair.one)
        promote(pair.two)
        follow(pair.one, pair.two)
        pair.write_topology(writer="two")
        assert service.get_host_role(service.current_connection).name == "WRITER"
        deadline = time.monotonic() + WAIT_SECONDS
        wanted = {f"one.{DOMAIN}": "READER", f"two.{DOMAIN}": "WRITER"}
        while roles(connection) != wanted:
            assert time.monotonic() < deadline, roles(connection)
        ask(connection, "INSERT INTO sold VALUES (7)")
        wait_replayed(pair.one, pair.two)
        assert pair.one.ask("SELECT n FROM shop.sold") == [(7,)]
