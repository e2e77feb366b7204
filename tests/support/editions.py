"""The two editions as tests see them: how a client connects, and what is said differently in their SQL.

Owns sessions of stock clients (psycopg, PyMySQL) behind one small interface, and dialects. Everything that
both understand is said in the tests themselves; parameters are `%s` in both.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import psycopg
import pymysql
import pymysql.constants.CLIENT

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Target:
    """Where a client connects, and as whom."""

    edition: Edition
    host: str
    port: int
    user: str
    database: str
    password: str = field(repr=False)

    def but(self, **changes: Any) -> Target:
        """The same with these fields changed."""
        return replace(self, **changes)

    def connect(self, timeout: int = 15) -> Session:
        """A new session. `timeout`: of connecting, in seconds."""
        return self.edition.connect(self, timeout)

    def sql(self, statement: str, parameters: Sequence[object] | None = None) -> list[Row]:
        """Run one statement in a session of its own; its rows, or none."""
        with self.connect() as session:
            return session.execute(statement, parameters)


class Session(ABC):
    """One connection of a stock client, in autocommit mode."""

    @abstractmethod
    def execute(self, statement: str, parameters: Sequence[object] | None = None) -> list[Row]:
        """Run a statement; its rows, or none."""

    @property
    @abstractmethod
    def id(self) -> int:
        """What the server calls this session (for `Edition.cancel`)."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection, whatever state it is in."""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Edition(ABC):
    """What is particular to one engine."""

    name: ClassVar[str]
    engine: ClassVar[str]
    user: ClassVar[str]
    """The master user of tests."""
    Error: ClassVar[type[Exception]]
    """Every error of the client."""
    who: ClassVar[str]
    """Query for the identifier of the instance that answers."""
    reader: ClassVar[str]
    """Query for whether the instance that answers is a reader."""
    max_connections: ClassVar[str]
    tables: ClassVar[str]
    """Query for the names of the database's tables."""
    forbidden: ClassVar[tuple[str, ...]]
    """Statements that would get around the promises: the master user may not run them."""
    durable: ClassVar[tuple[str, Row]]
    """A query that shows a setting that durability hangs on, and its answer."""
    orders: ClassVar[tuple[str, ...]]
    """The example's table and rows."""
    orders_by_user: ClassVar[str]
    orders_by_city: ClassVar[str]
    city: ClassVar[str]
    """What `orders_by_city` gives as the city."""

    @abstractmethod
    def connect(self, target: Target, timeout: int) -> Session:
        """A new session. `timeout`: of connecting, in seconds."""

    @abstractmethod
    def cancel(self, session: int) -> str:
        """The statement that breaks off what another session runs."""

    @abstractmethod
    def terminate(self, session: int) -> str:
        """The statement that ends another session."""

    @abstractmethod
    def refused_as_read_only(self, error: Exception) -> bool:
        """Whether a write failed because the instance is a reader."""

    @abstractmethod
    def wrong_password(self, error: Exception) -> bool:
        """Whether a connection was refused for its password."""

    @abstractmethod
    def client(self, target: Target, statement: str) -> tuple[list[str], Mapping[str, str]]:
        """The engine's own command line client: arguments that print bare values, and its environment."""

    def is_reader(self, session: Session) -> bool:
        """Whether this session's instance is a reader."""
        return bool(session.execute(self.reader)[0][0])


# ---------------------------------------------------------------------- PostgreSQL
class PostgresSession(Session):
    """A connection of psycopg."""

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self._connection = connection

    def execute(self, statement: str, parameters: Sequence[object] | None = None) -> list[Row]:
        cursor = self._connection.execute(statement, parameters)  # type: ignore[call-overload]
        return cursor.fetchall() if cursor.description else []

    @property
    def id(self) -> int:
        return self._connection.info.backend_pid

    def close(self) -> None:
        self._connection.close()


class PostgresEdition(Edition):
    """aurora-postgresql with psycopg and psql."""

    name = "postgresql"
    engine = "aurora-postgresql"
    user = "postgres"
    Error = psycopg.Error
    who = "SELECT pg_catalog.aurora_db_instance_identifier()"
    reader = "SELECT pg_is_in_recovery()"
    max_connections = "SELECT current_setting('max_connections')::int"
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    forbidden = ("ALTER ROLE postgres SUPERUSER", "ALTER SYSTEM SET fsync = off")
    durable = ("SHOW fsync", ("on",))
    orders = (
        "CREATE TABLE IF NOT EXISTS orders (order_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
        " user_id bigint NOT NULL, status varchar(32) NOT NULL, total_amount numeric(12,2) NOT NULL,"
        " created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(),"
        " shipping_address jsonb)",
        "INSERT INTO orders (user_id, status, total_amount, shipping_address) VALUES"
        " (1001, 'PLACED', 199.99,"
        " jsonb_build_object('street', '123 Main St', 'city', 'Bengaluru', 'zip', '560001')),"
        " (1002, 'SHIPPED', 49.50,"
        " jsonb_build_object('street', '45 Park Ave', 'city', 'Mumbai', 'zip', '400001'))",
    )
    orders_by_user = (
        "SELECT order_id, total_amount, created_at FROM orders"
        " WHERE user_id = 1001 ORDER BY created_at DESC LIMIT 10"
    )
    orders_by_city = (
        "SELECT order_id, shipping_address->>'city' AS city FROM orders"
        " WHERE shipping_address->>'city' = 'Bengaluru'"
    )
    city = "Bengaluru"

    def connect(self, target: Target, timeout: int) -> Session:
        connection = psycopg.connect(
            host=target.host,
            port=target.port,
            user=target.user,
            password=target.password,
            dbname=target.database,
            connect_timeout=timeout,
            application_name="test",
            autocommit=True,
        )
        return PostgresSession(connection)

    def cancel(self, session: int) -> str:
        return f"SELECT pg_cancel_backend({session})"

    def terminate(self, session: int) -> str:
        return f"SELECT pg_terminate_backend({session})"

    def refused_as_read_only(self, error: Exception) -> bool:
        return isinstance(error, psycopg.errors.ReadOnlySqlTransaction)

    def wrong_password(self, error: Exception) -> bool:
        return "password authentication failed" in str(error)

    def client(self, target: Target, statement: str) -> tuple[list[str], Mapping[str, str]]:
        where = ["-h", target.host, "-p", str(target.port), "-U", target.user, "-d", target.database]
        return ["psql", *where, "-Atc", statement], {**os.environ, "PGPASSWORD": target.password}


# ---------------------------------------------------------------------- MySQL
class MySqlSession(Session):
    """A connection of PyMySQL."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, statement: str, parameters: Sequence[object] | None = None) -> list[Row]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return list(cursor.fetchall()) if cursor.description else []

    @property
    def id(self) -> int:
        return int(self._connection.thread_id())

    def close(self) -> None:
        # Not `close`: that says goodbye first, and fails on a connection that is closed or broken.
        self._connection._force_close()


class MySqlEdition(Edition):
    """aurora-mysql with PyMySQL and the mariadb client."""

    name = "mysql"
    engine = "aurora-mysql"
    user = "admin"
    Error = pymysql.MySQLError
    who = "SELECT @@aurora_server_id"
    reader = "SELECT @@innodb_read_only"
    max_connections = "SELECT @@max_connections"
    tables = "SHOW TABLES"
    forbidden = (
        "SET GLOBAL read_only = 0",
        "SET GLOBAL sync_binlog = 0",
        "SET SESSION sql_log_bin = 0",
        "GRANT SUPER ON *.* TO CURRENT_USER()",
        "STOP SLAVE",
        "RESET MASTER",
    )
    durable = ("SELECT @@sync_binlog, @@binlog_format", (1, "ROW"))
    orders = (
        "CREATE TABLE orders (order_id BIGINT AUTO_INCREMENT PRIMARY KEY, user_id BIGINT NOT NULL,"
        " status VARCHAR(32) NOT NULL, total_amount DECIMAL(12,2) NOT NULL,"
        " created_at DATETIME DEFAULT CURRENT_TIMESTAMP,"
        " updated_at DATETIME DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,"
        " shipping_address JSON, INDEX (user_id), INDEX (status));",
        "INSERT INTO orders (user_id, status, total_amount, shipping_address) VALUES (1001,'PLACED',199.99,"
        " JSON_OBJECT('street','123 Main St','city','Bengaluru','zip','560001')), (1002,'SHIPPED',49.50,"
        " JSON_OBJECT('street','45 Park Ave','city','Mumbai','zip','400001'));",
    )
    orders_by_user = (
        "SELECT order_id, total_amount, created_at FROM orders WHERE user_id = 1001"
        " ORDER BY created_at DESC LIMIT 10;"
    )
    orders_by_city = (
        "SELECT order_id, JSON_EXTRACT(shipping_address, '$.city') AS city FROM orders"
        " WHERE JSON_EXTRACT(shipping_address, '$.city') = 'Bengaluru';"
    )
    city = '"Bengaluru"'

    def connect(self, target: Target, timeout: int) -> Session:
        connection = pymysql.connect(
            host=target.host,
            port=target.port,
            user=target.user,
            password=target.password,
            database=target.database,
            connect_timeout=timeout,
            local_infile=True,
            autocommit=True,
        )
        return MySqlSession(connection)

    def cancel(self, session: int) -> str:
        return f"KILL QUERY {session}"

    def terminate(self, session: int) -> str:
        return f"KILL {session}"

    def refused_as_read_only(self, error: Exception) -> bool:
        return "--read-only" in str(error)

    def wrong_password(self, error: Exception) -> bool:
        return isinstance(error, pymysql.OperationalError) and error.args[0] == 1045

    def client(self, target: Target, statement: str) -> tuple[list[str], Mapping[str, str]]:
        where = [f"--host={target.host}", f"--port={target.port}", f"--user={target.user}"]
        options = ["--no-defaults", "--batch", "--skip-column-names", f"--database={target.database}"]
        argv = ["mariadb", options[0], *where, *options[1:], f"--execute={statement}"]
        return argv, {**os.environ, "MYSQL_PWD": target.password}


def postgres_target(conninfo: str) -> Target:
    """The target that a connection string of libpq names."""
    parts = psycopg.conninfo.conninfo_to_dict(conninfo)
    return Target(
        edition=POSTGRESQL,
        host=str(parts["host"]),
        port=int(str(parts["port"])),
        user=str(parts["user"]),
        database=str(parts["dbname"]),
        password=str(parts["password"]),
    )


POSTGRESQL = PostgresEdition()
MYSQL = MySqlEdition()
EDITIONS: Mapping[str, Edition] = {edition.name: edition for edition in (POSTGRESQL, MYSQL)}


def series(count: int) -> str:
    """A query that gives the numbers from 1 to `count`, at most 1000, in either edition."""
    return (
        f"WITH RECURSIVE series (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < {count})"
        " SELECT n FROM series"
    )
