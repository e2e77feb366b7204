"""The driver's way into one running PostgreSQL: administrator over the local socket.

Owns one kept connection (opened when first needed, again after a restart of the engine), probes, promotion,
and the few administrative statements. Never: processes, and the question whether the engine should be a
writer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import psycopg

from borealis.engines.base import (
    EngineError,
    EngineSession,
    EngineState,
    EngineTimeout,
    EngineUnavailable,
    EngineVersion,
    Feedback,
    InstanceSettings,
    TimelineSwitch,
    UnsafeSettings,
)
from borealis.engines.postgres import feedback as slot
from borealis.engines.postgres import wal
from borealis.engines.postgres.bootstrap import quote_identifier, quote_literal
from borealis.engines.postgres.controlfile import read_control_file
from borealis.engines.postgres.scram import is_verifier
from borealis.engines.postgres.settings import ADMIN_DATABASE, ADMIN_ROLE, PROMISED
from borealis.engines.postgres.walscan import WalScanner
from borealis.engines.topology import write_topology

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

POLL_SECONDS = 0.001
START_POLL_SECONDS = 0.005
CONFLICT_SECONDS = 0.3
"""How long replay may stand still in `wait_replayed` before transactions that may hold it up are ended."""

_OPTIONS = "-c synchronous_commit=on -c statement_timeout=0 -c default_transaction_read_only=off"
_POSITIONS = """
SELECT r, CASE WHEN r THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END - '0/0',
       CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0',
       r AND pg_get_wal_replay_pause_state() = 'paused'
FROM (SELECT pg_is_in_recovery() AS r) AS role"""
_PROBE = f"""
SELECT p.*, (SELECT timeline_id FROM pg_control_checkpoint()),
       (SELECT count(*) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND usename IS DISTINCT FROM '{ADMIN_ROLE}'),
       (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint - max(age(backend_xmin))
        FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()),
       extract(epoch FROM pg_postmaster_start_time())::float8
FROM ({_POSITIONS}) AS p"""
_END_CONFLICTS = f"""
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND xact_start IS NOT NULL AND usename IS DISTINCT FROM '{ADMIN_ROLE}'
"""


class PostgresSession(EngineSession):
    """Implements `engines.base.EngineSession`."""

    def __init__(self, version: EngineVersion, data_dir: Path, settings: InstanceSettings) -> None:
        self._version = version
        self._data_dir = data_dir
        self._settings = settings
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        self._feedback: Feedback | None = None

    # ------------------------------------------------------------------ connections
    async def _connect(self, timeout: float) -> Connection:
        try:
            async with asyncio.timeout(timeout):
                return await psycopg.AsyncConnection.connect(
                    host=str(self._settings.socket_dir),
                    port=self._settings.port,
                    user=ADMIN_ROLE,
                    dbname=ADMIN_DATABASE,
                    application_name="borealis",
                    connect_timeout=max(2, int(timeout) + 1),
                    options=_OPTIONS,
                    autocommit=True,
                    prepare_threshold=1,
                )
        except (psycopg.Error, OSError, TimeoutError) as error:
            raise EngineUnavailable(
                f"{self._settings.instance_id} does not answer: {_words(error)}"
            ) from error

    @contextlib.asynccontextmanager
    async def _kept(self, timeout: float = 10.0) -> AsyncIterator[Connection]:
        """The kept connection, for one caller at a time; dropped when it fails."""
        async with self._lock:
            if self._connection is None or self._connection.closed:
                self._connection = await self._connect(timeout)
            try:
                yield self._connection
            except BaseException as error:
                if not isinstance(error, psycopg.Error) or self._connection.broken:
                    await self._drop()
                if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
                    raise EngineUnavailable(f"{self._settings.instance_id}: {_words(error)}") from error
                if isinstance(error, psycopg.Error):
                    raise EngineError(f"{self._settings.instance_id}: {_words(error)}") from error
                raise

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def close(self) -> None:
        async with self._lock:
            await self._drop()

    async def run_sql(self, sql: str, params: Sequence[object] | None = None) -> list[tuple[Any, ...]]:
        async with self._kept() as connection:
            return await _rows(connection, sql, params)

    # ------------------------------------------------------------------ measuring
    async def probe(self, timeout: float = 5.0) -> EngineState:
        try:
            async with asyncio.timeout(timeout):
                connection = await self._connect(timeout)
                try:
                    (row,) = await _rows(connection, _PROBE)
                finally:
                    await connection.close()
        except (EngineUnavailable, psycopg.Error, OSError, TimeoutError) as error:
            return EngineState(up=False, error=_words(error))
        in_recovery, receive, replay, paused, timeline, connections, oldest_xmin, started_at = row
        return EngineState(
            up=True,
            in_recovery=in_recovery,
            receive_lsn=_lsn(receive),
            replay_lsn=_lsn(replay),
            replay_paused=paused,
            timeline=timeline,
            connections=connections,
            oldest_xmin=oldest_xmin,
            started_at=started_at,
        )

    async def positions(self) -> EngineState:
        async with self._kept() as connection:
            return await _positions(connection)

    async def wait_ready(self, timeout: float = 60.0) -> EngineState:
        deadline = time.monotonic() + timeout
        name, seen = self._settings.instance_id, False
        while True:
            if self._status() == "ready":
                state = await self.probe(max(1.0, deadline - time.monotonic()))
                if state.up:
                    return state
            running = self.process_id() is not None
            if seen and not running:
                raise EngineUnavailable(f"{name} ended while it was starting; see its log")
            seen = seen or running
            if time.monotonic() > deadline:
                raise EngineTimeout(f"{name} was not ready in {timeout:g} s; see its log")
            await asyncio.sleep(START_POLL_SECONDS)

    def _status(self) -> str:
        """What the server writes into its pid file: starting, stopping, ready or standby; empty: no file."""
        lines = self._pid_file()
        return lines[7].strip() if len(lines) > 7 else ""

    def _pid_file(self) -> list[str]:
        try:
            return (self._data_dir / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def process_id(self) -> int | None:
        lines = self._pid_file()
        if not lines or not lines[0].strip().isdigit():
            return None
        pid = int(lines[0])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return pid

    # ------------------------------------------------------------------ replay and promotion
    async def follow(self) -> None:
        """Its configuration says what it follows."""

    async def wait_replayed(self, lsn: int, timeout: float = 30.0) -> int:
        deadline = time.monotonic() + timeout
        watch = _ReplayWatch(self._data_dir, lsn)
        while not watch.reached(state := await self.positions()):
            if watch.stuck_seconds > CONFLICT_SECONDS:
                await self.run_sql(_END_CONFLICTS)
                watch.reset()
            if time.monotonic() > deadline:
                raise EngineTimeout(
                    f"{self._settings.instance_id} did not replay to {wal.format_lsn(lsn)} in {timeout:g} s: "
                    f"received {_told(state.receive_lsn)}, replayed {_told(state.replay_lsn)}"
                )
            await asyncio.sleep(POLL_SECONDS)
        return state.replay_lsn or 0

    async def request_promote(self) -> None:
        pid = self.process_id()
        if pid is None:
            raise EngineUnavailable(f"{self._settings.instance_id} is not running; it cannot be promoted")
        # The server's own way (pg_ctl does the same), which needs no connection.
        (self._data_dir / "promote").touch(mode=0o600)
        os.kill(pid, signal.SIGUSR1)

    async def promoted_timeline(self, after: int, timeout: float = 10.0) -> TimelineSwitch:
        deadline = time.monotonic() + timeout
        while True:
            switch = wal.newest_history(self._data_dir, after)
            if switch is not None:
                return switch
            if time.monotonic() > deadline:
                raise EngineTimeout(
                    f"{self._settings.instance_id} began no timeline after {after} in {timeout:g} s"
                )
            await asyncio.sleep(POLL_SECONDS)

    async def wait_writable(self, timeout: float = 10.0) -> None:
        deadline = time.monotonic() + timeout
        while (await self.positions()).in_recovery:
            if time.monotonic() > deadline:
                raise EngineTimeout(f"{self._settings.instance_id} did not become a writer in {timeout:g} s")
            await asyncio.sleep(POLL_SECONDS)

    async def canary(self) -> int:
        async with self._kept() as connection:
            await _rows(connection, "SELECT pg_logical_emit_message(true, 'borealis', 'canary')")
            ((position,),) = await _rows(connection, "SELECT pg_current_wal_flush_lsn() - '0/0'")
        return int(position)

    # ------------------------------------------------------------------ administration
    async def check_settings(self) -> None:
        found = dict(
            await self.run_sql(
                "SELECT name, setting FROM pg_show_all_settings() WHERE name = ANY(%s)", [list(PROMISED)]
            )
        )
        wrong = {name: found.get(name) for name, value in PROMISED.items() if found.get(name) != value}
        if wrong:
            told = ", ".join(
                f"{name} is {value!r}, must be {PROMISED[name]!r}" for name, value in wrong.items()
            )
            raise UnsafeSettings(f"{self._settings.instance_id} cannot be trusted with writes: {told}")

    async def apply_feedback(self, feedback: Feedback) -> None:
        if feedback == (self._feedback or Feedback()):
            return
        async with self._kept() as connection:
            there = await _rows(
                connection, "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", [slot.SLOT]
            )
            if not there:
                await _rows(connection, "SELECT pg_create_physical_replication_slot(%s)", [slot.SLOT])
            position = (await _positions(connection)).replay_lsn or 0
        await slot.set_slot_feedback(self._settings.socket_dir, self._settings.port, position, feedback, 10.0)
        self._feedback = feedback

    async def set_master_password(self, username: str, verifier: str) -> None:
        if not is_verifier(verifier):
            raise EngineError("the password must be given as a SCRAM-SHA-256 verifier")
        await self.run_sql(f"ALTER ROLE {quote_identifier(username)} PASSWORD {quote_literal(verifier)}")

    async def checkpoint(self) -> int:
        await self.run_sql("CHECKPOINT")
        return wal.segment_start(read_control_file(self._data_dir).redo)

    def write_topology(self, topology: Mapping[str, object]) -> None:
        write_topology(self._data_dir, topology)


class _ReplayWatch:
    """Has a reader replayed all whole records below `lsn`?"""

    def __init__(self, data_dir: Path, lsn: int) -> None:
        self._data_dir = data_dir
        self._lsn = lsn
        self._seen = -1
        self._since = time.monotonic()
        self._nothing_whole = False

    def reached(self, state: EngineState) -> bool:
        replay, receive = state.replay_lsn or 0, state.receive_lsn or 0
        if replay != self._seen:
            self._seen, self._since, self._nothing_whole = replay, time.monotonic(), False
        if replay >= self._lsn or not state.in_recovery:
            return True
        if receive < self._lsn:
            return False
        # All is here. Does a whole record follow, or only the first part of one? Asked once for each
        # position.
        if not self._nothing_whole:
            self._nothing_whole = not self._whole_record_follows(replay)
        return self._nothing_whole

    def _whole_record_follows(self, replay: int) -> bool:
        timeline = self._newest_timeline(replay)
        page = replay - replay % wal.PAGE_BYTES
        data = wal.read_wal(self._data_dir, timeline, page, self._lsn)
        if page + len(data) < self._lsn:
            return True  # The files are behind what was reported; look again.
        # A record boundary may lie on a page boundary: the record before it is not looked at again.
        return WalScanner(replay, timeline).scan(data, page, self._lsn).record_end > replay

    def _newest_timeline(self, lsn: int) -> int:
        """The newest timeline of which the file that holds `lsn` is here."""
        suffix = wal.file_name(0, lsn)[8:]
        names = [
            name
            for name in os.listdir(self._data_dir / "pg_wal")
            if len(name) == 24 and name.endswith(suffix)
        ]
        return max((int(name[:8], 16) for name in names), default=1)

    @property
    def stuck_seconds(self) -> float:
        """How long replay has stood still although there is more."""
        return time.monotonic() - self._since

    def reset(self) -> None:
        self._since = time.monotonic()


async def _positions(connection: Connection) -> EngineState:
    try:
        ((in_recovery, receive, replay, paused),) = await _rows(connection, _POSITIONS)
    except psycopg.errors.ObjectNotInPrerequisiteState:
        # The recovery has ended between two of the functions, so it will not do so again.
        ((in_recovery, receive, replay, paused),) = await _rows(connection, _POSITIONS)
    return EngineState(
        up=True,
        in_recovery=in_recovery,
        receive_lsn=_lsn(receive),
        replay_lsn=_lsn(replay),
        replay_paused=paused,
    )


async def _rows(
    connection: Connection, sql: str, params: Sequence[object] | None = None
) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(sql, params)
    return await cursor.fetchall() if cursor.description else []


def _lsn(value: object) -> int | None:
    """A position that came as a numeric difference."""
    return None if value is None else int(cast(int, value))


def _told(lsn: int | None) -> str:
    return "nothing" if lsn is None else wal.format_lsn(lsn)


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
