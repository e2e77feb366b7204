"""The driver's way into one running MariaDB: administrator over the local socket.

Owns probes, replication from the local reader server, promotion, and the few administrative statements. How
far the engine is in the volume's log comes from the map that the reader server fills (as a reader), and
from the engine's own log files (as the writer): a writer that waits for the quorum must answer, so nothing
in here asks it for what it holds a lock on while it waits. Never: processes, and the question whether the
engine should be a writer.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pymysql.err import MySQLError

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
from borealis.engines.mariadb import events, ownlog
from borealis.engines.mariadb.follow import follow
from borealis.engines.mariadb.grants import ADMIN_PREFIX, account, password_sql
from borealis.engines.mariadb.history import LogPoint, TimelineHistory
from borealis.engines.mariadb.image import note_position
from borealis.engines.mariadb.passwords import is_verifier
from borealis.engines.mariadb.positions import positions_for
from borealis.engines.mariadb.sessionlink import AdminLink, Connection, error_number, words
from borealis.engines.mariadb.settings import PID_FILE, PROMISED, event_scheduler, socket_path
from borealis.engines.topology import write_topology
from borealis.logs import get_logger

log = get_logger(__name__)

START_POLL_SECONDS = 0.005
POLL_SECONDS = 0.001
CONFLICT_SECONDS = 0.3
"""How long replay may stand still in `wait_replayed` before what customers do on this reader is ended."""

LOCKED = 1205
_TRY_LOCK = "SET STATEMENT lock_wait_timeout = 0 FOR DELETE FROM mysql.borealis_canary WHERE id = 0"
"""Changes nothing and is not logged, but needs what every change needs."""
_POSITION = "SELECT @@GLOBAL.read_only, @@GLOBAL.gtid_slave_pos"
_CUSTOMERS = (
    "FROM information_schema.PROCESSLIST"
    " WHERE USER NOT IN ('system user', 'event_scheduler', 'unauthenticated user')"
    f" AND USER NOT LIKE '{ADMIN_PREFIX.replace('_', chr(92) * 2 + '_')}%'"
)
_PROBE = f"{_POSITION}, (SELECT COUNT(*) {_CUSTOMERS})"


class MariadbSession(EngineSession):
    """Implements `engines.base.EngineSession`."""

    def __init__(self, version: EngineVersion, data_dir: Path, settings: InstanceSettings) -> None:
        self._data_dir = data_dir
        self._settings = settings
        self._name = settings.instance_id
        self._link = AdminLink(self._name, data_dir, socket_path(settings))
        self._own_log = ownlog.OwnLog(data_dir)
        self._map = positions_for(settings.upstream_dir)
        self._map.ask = self._ask
        self._events = events.EventWatch(self._link)
        self._asking: asyncio.Task[None] | None = None
        self._asked_again = False

    # ------------------------------------------------------------------ measuring
    async def probe(self, timeout: float = 5.0) -> EngineState:
        try:
            async with asyncio.timeout(timeout), self._link.own(timeout) as connection:
                ((read_only, applied, customers),) = await connection.rows(_PROBE)
                replica = await connection.named("SHOW SLAVE STATUS") if read_only else None
                if not read_only:
                    await self._events.look(connection)
        except (EngineError, TimeoutError) as error:
            return EngineState(up=False, error=words(error))
        return self._state(
            bool(read_only),
            applied,
            replica,
            connections=customers,
            started_at=self._started_at(),
        )

    async def positions(self) -> EngineState:
        async with self._link.kept() as connection:
            ((read_only, applied),) = await connection.rows(_POSITION)
        return self._state(bool(read_only), applied, None)

    def _state(
        self, reader: bool, applied: str, replica: Mapping[str, Any] | None, **more: Any
    ) -> EngineState:
        if not reader:
            end = self._own_log.end()
            return EngineState(up=True, in_recovery=False, receive_lsn=end, replay_lsn=end, **more)
        self._map.report_applied(applied)
        replayed = self._map.applied
        received = self._map.lsn_of(replica["Gtid_IO_Pos"]) if replica else None
        return EngineState(
            up=True,
            in_recovery=True,
            receive_lsn=max((lsn for lsn in (received, replayed) if lsn is not None), default=None),
            replay_lsn=replayed,
            replay_paused=self._stopped(replica),
            **more,
        )

    def _stopped(self, replica: Mapping[str, Any] | None) -> bool:
        """Replication has ended with an error that does not go away by itself."""
        if not replica or not (number := replica["Last_SQL_Errno"] or replica["Last_IO_Errno"]):
            return False
        stopped = "No" in (replica["Slave_SQL_Running"], replica["Slave_IO_Running"])
        if stopped:
            text = replica["Last_SQL_Error"] or replica["Last_IO_Error"]
            log.warning("%s has stopped to follow: %s (error %s)", self._name, text, number)
        return stopped

    def _ask(self) -> None:
        """The reader server wants to know how far the engine is."""
        if self._asking is not None and not self._asking.done():
            self._asked_again = True
            return
        self._asking = asyncio.get_running_loop().create_task(self._answer(), name="applied-position")

    async def _answer(self) -> None:
        again = True
        while again:
            self._asked_again = False
            try:
                await self.positions()
            except EngineError as error:
                log.debug("%s does not say how far it is: %s", self._name, error)
                return
            again = self._asked_again

    async def wait_ready(self, timeout: float = 60.0) -> EngineState:
        deadline = time.monotonic() + timeout
        seen = False
        while True:
            if socket_path(self._settings).exists():
                state = await self.probe(max(1.0, deadline - time.monotonic()))
                if state.up:
                    return state
            running = self.process_id() is not None
            if seen and not running:
                raise EngineUnavailable(f"{self._name} ended while it was starting; see its log")
            seen = seen or running
            if time.monotonic() > deadline:
                raise EngineTimeout(f"{self._name} was not ready in {timeout:g} s; see its log")
            await asyncio.sleep(START_POLL_SECONDS)

    def process_id(self) -> int | None:
        try:
            pid = int((self._data_dir / PID_FILE).read_text())
            os.kill(pid, 0)
        except (FileNotFoundError, ValueError, ProcessLookupError):
            return None
        except PermissionError:
            pass
        return pid

    def _started_at(self) -> float | None:
        try:
            return (self._data_dir / PID_FILE).stat().st_mtime
        except FileNotFoundError:
            return None

    # ------------------------------------------------------------------ following
    async def follow(self) -> None:
        async with self._link.kept() as connection:
            await follow(connection, self._settings.upstream_dir)

    async def wait_replayed(self, lsn: int, timeout: float = 30.0) -> int:
        try:
            async with asyncio.timeout(timeout):
                await self._map.wait_settled(lsn)
                wanted = self._map.gtid_at(lsn)
                while not await self._reached(lsn):
                    async with self._link.own() as connection:
                        sql = f"SELECT MASTER_GTID_WAIT('{wanted}', {CONFLICT_SECONDS})"
                        ((outcome,),) = await connection.rows(sql)
                        if outcome:
                            await self._end_customers(connection)
                await self._begin_clean_file()
        except TimeoutError:
            raise EngineTimeout(
                f"{self._name} did not replay to {lsn:X} in {timeout:g} s: received {self._map.settled:X}, "
                f"replayed {self._map.applied or 0:X} ({self._map.applied_gtid})"
            ) from None
        return self._map.applied or 0

    async def _reached(self, lsn: int) -> bool:
        """Everything whole below `lsn` is applied."""
        state = await self.positions()
        whole = self._map.gtid_at(lsn)
        applied = self._map.applied_gtid
        return (
            not state.in_recovery
            or whole is None
            or (applied is not None and applied.sequence >= whole.sequence)
        )

    async def _end_customers(self, connection: Connection) -> None:
        """A writer-to-be does not wait for a reader's transaction or lock."""
        for (thread,) in await connection.rows(f"SELECT ID {_CUSTOMERS}"):
            try:
                await connection.rows(f"KILL HARD CONNECTION {int(thread)}")
            except MySQLError as error:
                log.debug("connection %d of %s: %s", thread, self._name, words(error))

    async def _begin_clean_file(self) -> None:
        """A writer's first log file must hold nothing of the time before: FLUSH on a reader writes to it."""
        if await asyncio.to_thread(self._own_log.holds_groups):
            async with self._link.kept() as connection:
                await connection.rows("FLUSH NO_WRITE_TO_BINLOG BINARY LOGS")

    # ------------------------------------------------------------------ promotion
    async def request_promote(self) -> None:
        async with self._link.kept() as connection:
            await connection.rows("STOP SLAVE")
            await connection.rows("RESET SLAVE ALL")

    async def promoted_timeline(self, after: int, timeout: float = 10.0) -> TimelineSwitch:
        await self.positions()
        start = self._map.applied
        if start is None or self._map.applied_gtid != self._map.newest.gtid:
            raise EngineError(
                f"{self._name} has applied {self._map.applied_gtid}, the log ends with "
                f"{self._map.newest.gtid}: it cannot be the writer"
            )
        event = await asyncio.to_thread(self._own_log.begin, after + 1, start)
        history = TimelineHistory(self._settings.server_number, self._map.applied_gtid, event)
        return TimelineSwitch(after + 1, start, history.to_text())

    async def wait_writable(self, timeout: float = 10.0) -> None:
        try:
            async with asyncio.timeout(timeout), self._link.kept() as connection:
                await self._end_locks(connection)
                await events.enable(connection)
                await connection.rows("SET GLOBAL read_only = 0")
                await connection.rows(f"SET GLOBAL event_scheduler = {event_scheduler(self._settings)}")
        except TimeoutError:
            raise EngineTimeout(f"{self._name} did not become a writer in {timeout:g} s") from None

    async def _end_locks(self, connection: Connection) -> None:
        """A reader's customer may hold a lock on everything, as backups do: a writer cannot live with it."""
        try:
            await connection.rows(_TRY_LOCK)
        except MySQLError as error:
            if error_number(error) != LOCKED:
                raise
            await self._end_customers(connection)

    async def canary(self) -> int:
        async with self._link.kept() as connection, connection.logged():
            await connection.rows("UPDATE mysql.borealis_canary SET at = NOW(6) WHERE id = 1")
        end = await asyncio.to_thread(self._own_log.end)
        if end is None:
            raise EngineError(f"{self._name} has no log of its own: it was not promoted")
        return end

    # ------------------------------------------------------------------ administration
    async def check_settings(self) -> None:
        async with self._link.kept() as connection:
            found: dict[str, str] = dict(await connection.rows("SHOW GLOBAL VARIABLES"))
        wrong = {name: found.get(name) for name, value in PROMISED.items() if found.get(name) != value}
        if wrong:
            told = ", ".join(
                f"{name} is {value!r}, must be {PROMISED[name]!r}" for name, value in wrong.items()
            )
            raise UnsafeSettings(f"{self._name} cannot be trusted with writes: {told}")

    async def apply_feedback(self, feedback: Feedback) -> None:
        """Readers need nothing kept: rows are applied, not pages."""

    async def set_master_password(self, username: str, verifier: str) -> None:
        if not is_verifier(verifier):
            raise EngineError("the password must be given as a mysql_native_password hash (*HEX)")
        async with self._link.kept() as connection, connection.logged():
            found = await connection.rows(
                "SELECT 1 FROM mysql.global_priv WHERE User = %s AND Host = '%%'", [username]
            )
            if not found:
                raise EngineError(f"there is no account {account(username)} any more; create it first")
            await connection.rows(password_sql(username, verifier))

    async def checkpoint(self) -> int:
        state = await self.positions()
        if not state.in_recovery:
            # The pages of the volume come from readers; a writer has nothing to write down for others.
            return state.replay_lsn or 0
        point = self._map.floor(self._map.applied_gtid)
        if point is None or self._map.applied is None:
            raise EngineError(f"{self._name} has not said how far it has applied the log; try again")
        settled = LogPoint(self._map.applied, point.gtid)
        await asyncio.to_thread(note_position, self._data_dir, settled)
        return settled.lsn

    async def run_sql(self, sql: str, params: Sequence[object] | None = None) -> list[tuple[Any, ...]]:
        async with self._link.kept() as connection:
            return await connection.rows(sql, params)

    def write_topology(self, topology: Mapping[str, object]) -> None:
        write_topology(self._data_dir, topology)

    async def close(self) -> None:
        if self._map.ask == self._ask:
            self._map.ask = None
        for task in (self._asking, self._events.task):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._link.close()
