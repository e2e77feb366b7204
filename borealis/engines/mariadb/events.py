"""Scheduled events over a change of the writer.

Owns which events run: on a reader none does, since replication marks each event that it brings as disabled
on this side, whether it is enabled on the writer or not. So the writer keeps a list of those that are not,
which all instances have, and a new writer wakes all others. It does so without a word in the log: whether
an event is awake is each instance's own affair.
"""

from __future__ import annotations

import asyncio

from pymysql.err import MySQLError

from borealis.engines.base import EngineError
from borealis.engines.mariadb.grants import quote_identifier
from borealis.engines.mariadb.sessionlink import AdminLink, Connection, words
from borealis.logs import get_logger

log = get_logger(__name__)

_DISABLED = "mysql.borealis_disabled_events"
_LOOK = (
    f"SELECT (SELECT COUNT(*) FROM mysql.event e LEFT JOIN {_DISABLED} d USING (db, name)"
    " WHERE (e.status = 'DISABLED') <> (d.name IS NOT NULL)),"
    f" (SELECT COUNT(*) FROM {_DISABLED} d LEFT JOIN mysql.event e USING (db, name) WHERE e.name IS NULL)"
)
_KEEP = (
    f"DELETE FROM {_DISABLED} WHERE (db, name) NOT IN"
    " (SELECT db, name FROM mysql.event WHERE status = 'DISABLED')",
    f"INSERT IGNORE INTO {_DISABLED} SELECT db, name FROM mysql.event WHERE status = 'DISABLED'",
)
_ASLEEP = (
    f"SELECT e.db, e.name, e.definer, d.name IS NOT NULL FROM mysql.event e LEFT JOIN {_DISABLED} d"
    " ON e.db = d.db AND e.name = d.name WHERE e.status = 'SLAVESIDE_DISABLED'"
)


async def enable(connection: Connection) -> None:
    """Wake what the last writer ran. Not logged. An event that cannot be is left asleep, with a warning."""
    for database, name, definer, held_back in await connection.rows(_ASLEEP):
        user, _, host = definer.rpartition("@")
        # Without the name of its definer it would belong to whoever alters it.
        who = f"{quote_identifier(user)}@{quote_identifier(host)}"
        event = f"{quote_identifier(database)}.{quote_identifier(name)}"
        state = "DISABLE" if held_back else "ENABLE"
        try:
            await connection.rows(f"ALTER DEFINER = {who} EVENT {event} {state}")
        except MySQLError as error:
            log.warning("event %s.%s stays disabled: %s", database, name, words(error))


class EventWatch:
    """On a writer: keeps the list of disabled events up to date, without anybody waiting for it."""

    def __init__(self, link: AdminLink) -> None:
        self._link = link
        self.task: asyncio.Task[None] | None = None

    async def look(self, connection: Connection) -> None:
        """Look now. A list that is out of date is written beside this: its commit may have to wait for the
        quorum. Raises MySQLError."""
        ((changed, gone),) = await connection.rows(_LOOK)
        if (changed or gone) and (self.task is None or self.task.done()):
            self.task = asyncio.get_running_loop().create_task(self._keep(), name="event-watch")

    async def _keep(self) -> None:
        try:
            async with self._link.own() as connection, connection.logged():
                for statement in _KEEP:
                    await connection.rows(statement)
        except EngineError as error:
            log.warning("the list of disabled events is not up to date: %s", error)
