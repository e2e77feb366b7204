"""SQL sessions of the demonstration: the stock Python client of each engine behind one small interface.

Owns connections only. What is said over them is in `editions` and `story`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pymysql

SQL_ERRORS: tuple[type[Exception], ...] = (psycopg.Error, pymysql.MySQLError)
"""Whatever goes wrong between a session and its server."""
CONNECT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Login:
    """Where to connect, and as whom."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str | None


@dataclass(frozen=True, slots=True)
class Rows:
    """The result of a query."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


class Session(ABC):
    """One connection in autocommit mode. Methods raise one of `SQL_ERRORS`."""

    @abstractmethod
    def run(self, statement: str, parameters: Sequence[object] | None = None) -> Rows:
        """Run a statement; without a result the rows are empty."""

    @abstractmethod
    def insert(self, statement: str, parameters: Sequence[object]) -> int:
        """Run an INSERT of one row; the key that it was given."""

    @abstractmethod
    def close(self) -> None:
        """End the session."""

    def one(self, statement: str) -> tuple[Any, ...]:
        """The only row of a query."""
        return self.run(statement).rows[0]

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PostgresSession(Session):
    """psycopg. An INSERT must end in RETURNING."""

    def __init__(self, login: Login) -> None:
        self._connection = psycopg.connect(
            host=login.host,
            port=login.port,
            user=login.user,
            password=login.password,
            dbname=login.database,
            application_name="borealis-demo",
            connect_timeout=CONNECT_SECONDS,
            autocommit=True,
        )

    def run(self, statement: str, parameters: Sequence[object] | None = None) -> Rows:
        cursor = self._connection.execute(statement.encode(), parameters)
        if cursor.description is None:
            return Rows((), ())
        return Rows(tuple(column.name for column in cursor.description), tuple(cursor.fetchall()))

    def insert(self, statement: str, parameters: Sequence[object]) -> int:
        return int(self.run(statement, parameters).rows[0][0])

    def close(self) -> None:
        self._connection.close()


class MySqlSession(Session):
    """PyMySQL."""

    def __init__(self, login: Login) -> None:
        self._connection = pymysql.connect(
            host=login.host,
            port=login.port,
            user=login.user,
            password=login.password,
            database=login.database,
            connect_timeout=CONNECT_SECONDS,
            autocommit=True,
        )

    def run(self, statement: str, parameters: Sequence[object] | None = None) -> Rows:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            names = tuple(column[0] for column in cursor.description or ())
            return Rows(names, tuple(cursor.fetchall()))

    def insert(self, statement: str, parameters: Sequence[object]) -> int:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return int(cursor.lastrowid)

    def close(self) -> None:
        if self._connection.open:
            self._connection.close()
