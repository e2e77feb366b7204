"""The state store of a region: SQLite in a thread of its own, read from memory, written by compare-and-swap.

Owns control.sqlite. Reads are synchronous and come from a copy in memory; a commit is all or nothing, is on
disk when it returns, and fails with Conflict when any record in it was changed by somebody else. It never
interprets a record.

FORMAT: control.sqlite, `meta(format)` = 1; `records(kind, key, name, version, body)` with body one JSON
object; `events(id, body)`; `counters(name, value)`, the last value handed out. WAL mode, synchronous=FULL.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from borealis.control.records import (
    RECORD_TYPES,
    AccessKey,
    AnyRecord,
    Cluster,
    CustomEndpoint,
    Event,
    Instance,
    Node,
    SubnetGroup,
    now_utc,
)
from borealis.errors import BorealisError
from borealis.logs import get_logger

log = get_logger(__name__)

FORMAT = 1
EVENTS_KEPT_DAYS = 14
EVENTS_KEPT_MAX = 20_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (format INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS records (
    kind TEXT NOT NULL, key TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (kind, key), UNIQUE (kind, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""

R = TypeVar("R", Cluster, Instance, CustomEndpoint, SubnetGroup, AccessKey, Node)


class StoreError(BorealisError):
    """The store cannot be opened or written."""

    code = "InternalFailure"


class Conflict(StoreError):
    """A record in the commit was changed, deleted or created by somebody else: read and decide again."""


class NameTaken(Conflict):
    """Another record of that kind has this name."""


class Put(msgspec.Struct, frozen=True):
    """Store `record`, which must be at the version that it was read with (0: must not exist yet)."""

    record: AnyRecord


class Delete(msgspec.Struct, frozen=True):
    """Remove `record`, which must be at the version that it was read with."""

    record: AnyRecord


Op = Put | Delete | Event
Watcher = Callable[[Sequence[Op]], None]


class Store:
    """The one owner of control.sqlite; every method but `open` is to be called on the event loop's thread."""

    def __init__(self, path: Path, executor: Executor | None = None) -> None:
        self._path = path
        # One thread: the order of commits in the file is the order in memory. Tests may run it in place.
        self._thread = executor or ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._commit_lock = asyncio.Lock()
        self._records: dict[type[AnyRecord], dict[str, AnyRecord]] = {t: {} for t in RECORD_TYPES}
        self._names: dict[type[AnyRecord], dict[str, str]] = {t: {} for t in RECORD_TYPES}
        self._events: list[Event] = []
        self._watchers: list[Watcher] = []
        self._db: sqlite3.Connection | None = None
        self._lock_fd = -1

    @classmethod
    async def open(cls, path: Path, executor: Executor | None = None) -> Store:
        """Open or create the store. Raises StoreError if another process has it open, or it is unreadable."""
        store = cls(path, executor)
        try:
            await store._run(store._open_db)
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Close the file. Commits still under way are finished first."""
        async with self._commit_lock:
            await self._run(self._close_db)
            self._thread.shutdown(wait=False)

    # -- reading (from memory)

    def clusters(self) -> list[Cluster]:
        """All clusters, by identifier."""
        return self._list(Cluster)

    def cluster(self, key: str) -> Cluster | None:
        """The cluster with this resource id."""
        return self.get(Cluster, key)

    def cluster_named(self, identifier: str) -> Cluster | None:
        """The cluster with this identifier (compared as AWS does, without regard to case)."""
        return self.named(Cluster, identifier)

    def instances(self, cluster: str | None = None) -> list[Instance]:
        """All instances, or those of the cluster with this key, by identifier."""
        return [i for i in self._list(Instance) if cluster is None or i.cluster == cluster]

    def instance(self, key: str) -> Instance | None:
        """The instance with this resource id."""
        return self.get(Instance, key)

    def instance_named(self, identifier: str) -> Instance | None:
        """The instance with this identifier."""
        return self.named(Instance, identifier)

    def endpoints(self, cluster: str | None = None) -> list[CustomEndpoint]:
        """All custom endpoints, or those of the cluster with this key, by identifier."""
        return [e for e in self._list(CustomEndpoint) if cluster is None or e.cluster == cluster]

    def endpoint_named(self, identifier: str) -> CustomEndpoint | None:
        """The custom endpoint with this identifier."""
        return self.named(CustomEndpoint, identifier)

    def subnet_groups(self) -> list[SubnetGroup]:
        """All subnet groups, by name."""
        return self._list(SubnetGroup)

    def subnet_group_named(self, name: str) -> SubnetGroup | None:
        """The subnet group with this name."""
        return self.named(SubnetGroup, name)

    def nodes(self) -> list[Node]:
        """All storage nodes, by id."""
        return self._list(Node)

    def access_keys(self) -> list[AccessKey]:
        """All access keys, by id."""
        return self._list(AccessKey)

    def events(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        source_type: str | None = None,
        source_id: str | None = None,
    ) -> list[Event]:
        """The events of the last 14 days that match, oldest first."""
        return [
            e
            for e in self._events
            if (since is None or e.date >= since)
            and (until is None or e.date <= until)
            and (source_type is None or e.source_type == source_type)
            and (source_id is None or e.source_id == source_id)
        ]

    def get(self, kind: type[R], key: str) -> R | None:
        """The record of this kind with this key."""
        return cast("R | None", self._records[kind].get(key))

    def named(self, kind: type[R], name: str) -> R | None:
        """The record of this kind with this name, without regard to case."""
        key = self._names[kind].get(name.lower())
        return None if key is None else self.get(kind, key)

    def _list(self, kind: type[R]) -> list[R]:
        return cast("list[R]", sorted(self._records[kind].values(), key=lambda r: r.name))

    # -- writing

    async def commit(self, ops: Iterable[Op]) -> None:
        """Store all of `ops`, durably, or nothing. Raises Conflict, NameTaken or StoreError.

        A cancelled caller does not undo a commit: it is finished, and memory follows it, all the same.
        """
        batch = list(ops)
        if batch:
            await asyncio.shield(self._commit(batch))

    async def update(self, kind: type[R], key: str, change: Callable[[R], R]) -> R:
        """Read, change and store one record, again if somebody was faster. Raises Conflict if it is gone."""
        while True:
            record = self.get(kind, key)
            if record is None:
                raise Conflict(f"The {kind.KIND} {key} does not exist any more.")
            changed = change(record)
            if changed == record:
                return record
            try:
                await self.commit([Put(changed)])
            except Conflict as error:
                if isinstance(error, NameTaken):
                    raise
                continue
            return changed.but(version=record.version + 1)

    async def allocate(self, counter: str, count: int = 1) -> int:
        """The first of `count` numbers that no one was ever given from this counter; the first ever is 1."""
        return await asyncio.shield(self._run(lambda: self._allocate_db(counter, count)))

    def watch(self, callback: Watcher) -> Callable[[], None]:
        """Call `callback(ops)` after each commit, once memory shows it; returns the function that ends it."""
        self._watchers.append(callback)
        return lambda: self._watchers.remove(callback)

    async def _commit(self, batch: list[Op]) -> None:
        async with self._commit_lock:
            for op in batch:
                if not isinstance(op, Event):
                    self._check(op)
            stored = await self._run(lambda: self._write_db(batch))
            for op in stored:
                self._remember(op)
        for watcher in list(self._watchers):
            watcher(stored)

    def _check(self, op: Put | Delete) -> None:
        """Memory is never behind the file while the commit lock is held, so conflicts are found here."""
        record = op.record
        present = self._records[type(record)].get(record.key)
        if (present.version if present else 0) != record.version:
            raise Conflict(
                f"The {record.KIND} {record.name} is at version {present.version if present else 'none'}, "
                f"not {record.version}: it was changed meanwhile."
            )
        owner = self._names[type(record)].get(record.name.lower())
        if isinstance(op, Put) and owner not in (None, record.key):
            raise NameTaken(f"There is a {record.KIND} named {record.name} already.")

    def _remember(self, op: Op) -> None:
        if isinstance(op, Event):
            self._events.append(op)
            del self._events[: max(0, len(self._events) - EVENTS_KEPT_MAX)]
            return
        kind, key = type(op.record), op.record.key
        old = self._records[kind].pop(key, None)
        if old is not None and self._names[kind].get(old.name.lower()) == key:
            del self._names[kind][old.name.lower()]
        if isinstance(op, Put):
            self._records[kind][key] = op.record
            self._names[kind][op.record.name.lower()] = key

    # -- the thread

    async def _run(self, work: Callable[[], Any]) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise StoreError(
                f"The state store {self._path} cannot be used: {error}. Check disk space and file rights."
            ) from error

    def _open_db(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_fd = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(
                f"The state store {self._path} is in use by another control process; "
                "only one may run per region."
            ) from None
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._db = db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.executescript(_SCHEMA)
        row = db.execute("SELECT format FROM meta").fetchone()
        if row is None:
            db.execute("INSERT INTO meta VALUES (?)", (FORMAT,))
        elif row[0] != FORMAT:
            raise StoreError(
                f"The state store {self._path} has format {row[0]}, this version of Borealis reads {FORMAT}."
            )
        self._load(db)

    def _load(self, db: sqlite3.Connection) -> None:
        kinds = {t.KIND: t for t in RECORD_TYPES}
        for kind, body in db.execute("SELECT kind, body FROM records"):
            self._remember(Put(msgspec.json.decode(body, type=kinds[kind])))
        oldest = now_utc() - timedelta(days=EVENTS_KEPT_DAYS)
        too_old = 0
        for event_id, body in db.execute("SELECT id, body FROM events ORDER BY id"):
            event = msgspec.json.decode(body, type=Event)
            if event.date < oldest:
                too_old = event_id
            else:
                self._remember(event)
        db.execute("DELETE FROM events WHERE id <= ?", (too_old,))

    def _write_db(self, batch: list[Op]) -> list[Op]:
        db = self._connection()
        db.execute("BEGIN IMMEDIATE")
        try:
            stored = [self._write_op(db, op) for op in batch]
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:  # on a full disk SQLite has rolled back by itself
                db.execute("ROLLBACK")
            raise
        return stored

    def _write_op(self, db: sqlite3.Connection, op: Op) -> Op:
        if isinstance(op, Event):
            event = op.but(id=self._next(db, "event", 1))
            db.execute("INSERT INTO events VALUES (?, ?)", (event.id, msgspec.json.encode(event)))
            return event
        record = op.record
        if isinstance(op, Delete):
            db.execute("DELETE FROM records WHERE kind=? AND key=?", (record.KIND, record.key))
            return op
        new = record.but(version=record.version + 1)
        db.execute(
            "INSERT INTO records VALUES (?, ?, ?, ?, ?) ON CONFLICT (kind, key) DO UPDATE "
            "SET name=excluded.name, version=excluded.version, body=excluded.body",
            (new.KIND, new.key, new.name.lower(), new.version, msgspec.json.encode(new)),
        )
        return Put(new)

    def _allocate_db(self, counter: str, count: int) -> int:
        db = self._connection()
        db.execute("BEGIN IMMEDIATE")
        try:
            first = self._next(db, counter, count)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:  # on a full disk SQLite has rolled back by itself
                db.execute("ROLLBACK")
            raise
        return first

    @staticmethod
    def _next(db: sqlite3.Connection, counter: str, count: int) -> int:
        db.execute("INSERT OR IGNORE INTO counters VALUES (?, 0)", (counter,))
        db.execute("UPDATE counters SET value = value + ? WHERE name = ?", (count, counter))
        (value,) = db.execute("SELECT value FROM counters WHERE name = ?", (counter,)).fetchone()
        return int(value) - count + 1

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise StoreError(f"The state store {self._path} is closed.")
        return self._db

    def _close_db(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
