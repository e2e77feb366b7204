"""The administrator's connections to one running MariaDB, over its Unix socket.

Owns how they are made, that nothing said over them is logged unless it must be, the one that is kept, and the
way back in when the administrator was shut out. Never: what is asked of the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiomysql
from pymysql.err import MySQLError

from borealis.engines.base import EngineError, EngineUnavailable
from borealis.engines.mariadb.administrator import Administrator
from borealis.logs import get_logger

log = get_logger(__name__)

Row = tuple[Any, ...]

_BEGIN = (
    "SET sql_log_bin = 0, sql_mode = '', wait_timeout = 31536000, max_statement_time = 0,"
    " time_zone = '+00:00', lock_wait_timeout = 20, innodb_lock_wait_timeout = 20"
)
"""Nothing that an administrator does is for others, except where it says so; a customer's global settings do
not reach it."""
_REFUSED = frozenset({1044, 1045, 1524, 1698, 1862, 4151})
"""Errors of an account that is not there, not this one, or locked."""
_GONE = frozenset({1040, 1053, 1077, 1152, 1184, 1927})
"""Server errors that end a connection, or keep it from being made: shut down, killed, too many."""


def words(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, MySQLError) and len(error.args) > 1:
        return f"{' '.join(str(error.args[1]).split())} (error {error.args[0]})"
    return " ".join(str(error).split()) or type(error).__name__


def error_number(error: BaseException) -> int:
    """The server's, or the client's from 2000 to 2999; 0: none."""
    number = error.args[0] if isinstance(error, MySQLError) and error.args else 0
    return number if isinstance(number, int) else 0


class Connection:
    """One connection."""

    def __init__(self, connection: aiomysql.Connection) -> None:
        self._connection = connection

    @property
    def closed(self) -> bool:
        return bool(self._connection.closed)

    async def rows(self, sql: str, params: Sequence[object] | None = None) -> list[Row]:
        """Run one statement. Raises MySQLError."""
        async with self._connection.cursor() as cursor:
            await cursor.execute(sql, params)
            return list(await cursor.fetchall()) if cursor.description else []

    async def named(self, sql: str) -> dict[str, Any] | None:
        """The first row of a statement, by column; None: it has none. Raises MySQLError."""
        async with self._connection.cursor(aiomysql.DictCursor) as cursor:
            await cursor.execute(sql)
            row = await cursor.fetchone()
            return dict(row) if row is not None else None

    @contextlib.asynccontextmanager
    async def logged(self) -> AsyncIterator[None]:
        """What is done in here is for all instances: it goes into the log."""
        await self.rows("SET sql_log_bin = 1")
        try:
            yield
        finally:
            if not self.closed:
                await self.rows("SET sql_log_bin = 0")

    async def quit(self) -> None:
        """Say good-bye and close: a connection that is only dropped costs a line in the engine's log."""
        await self._connection.ensure_closed()

    def drop(self) -> None:
        """Close at once, whatever it is doing; the server ends what it ran."""
        self._connection.close()


class AdminLink:
    """All connections of one session. Methods may be called at the same time."""

    def __init__(self, name: str, data_dir: Path, socket: Path) -> None:
        self._name = name
        self._data_dir = data_dir
        self._socket = socket
        self._kept: Connection | None = None
        self._lock = asyncio.Lock()

    async def connect(self, timeout: float = 10.0) -> Connection:
        """A new connection. Raises EngineUnavailable."""
        try:
            async with asyncio.timeout(timeout):
                try:
                    return await self._log_in(timeout)
                except MySQLError as error:
                    if error_number(error) not in _REFUSED or not await self._let_in():
                        raise
                return await self._log_in(timeout)
        except (MySQLError, OSError, TimeoutError) as error:
            raise EngineUnavailable(f"{self._name} does not answer: {words(error)}") from error

    async def _log_in(self, timeout: float) -> Connection:
        administrator = Administrator.load(self._data_dir)
        if administrator is None:
            raise EngineUnavailable(f"{self._name} has no administrator yet: it was not prepared")
        connection = await aiomysql.connect(
            unix_socket=str(self._socket),
            user=administrator.user,
            password=administrator.password,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=timeout,
            init_command=_BEGIN,
        )
        return Connection(connection)

    async def _let_in(self) -> bool:
        """An account of a customer's stands before the administrator's: make another one, over the connection
        that is still there. False: there is none."""
        kept = self._kept
        if kept is None or kept.closed or self._lock.locked():
            return False
        administrator = Administrator.make()
        async with self.kept() as connection:
            for statement in administrator.sql():
                await connection.rows(statement)
        await asyncio.to_thread(administrator.save, self._data_dir)
        log.warning("%s refused its administrator: it has another one now", self._name)
        return True

    @contextlib.asynccontextmanager
    async def own(self, timeout: float = 10.0) -> AsyncIterator[Connection]:
        """A connection for something that takes long. Raises EngineUnavailable and EngineError."""
        connection = await self.connect(timeout)
        try:
            yield connection
            await connection.quit()
        except (MySQLError, OSError) as error:
            raise self.failure(error) from error
        finally:
            connection.drop()

    @contextlib.asynccontextmanager
    async def kept(self, timeout: float = 10.0) -> AsyncIterator[Connection]:
        """The kept connection, for one caller at a time; dropped when it fails."""
        async with self._lock:
            if self._kept is None or self._kept.closed:
                self._kept = await self.connect(timeout)
            connection = self._kept
            try:
                yield connection
            except BaseException as error:
                failure = self.failure(error) if isinstance(error, MySQLError | OSError) else None
                if not isinstance(error, EngineError | MySQLError) or isinstance(failure, EngineUnavailable):
                    self._drop()
                if failure is not None:
                    raise failure from error
                raise

    def failure(self, error: MySQLError | OSError) -> EngineError:
        """The error as the interface tells it."""
        number = error_number(error)
        gone = isinstance(error, OSError) or number == 0 or 2000 <= number < 3000 or number in _GONE
        kind = EngineUnavailable if gone else EngineError
        return kind(f"{self._name}: {words(error)}")

    def _drop(self) -> None:
        connection, self._kept = self._kept, None
        if connection is not None:
            connection.drop()

    async def close(self) -> None:
        """Close the kept connection; the next call makes another."""
        async with self._lock:
            self._drop()
