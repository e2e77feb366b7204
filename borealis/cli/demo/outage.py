"""Clients that write while the writer is killed, and their books: what was acknowledged, and when.

Owns its threads and connections. It does not judge: `lost` compares the books with what a server has.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import psycopg

from borealis.cli.demo.orders import WRITE

CLIENTS = 4
RETRY_SECONDS = 0.005


@dataclass
class Books:
    """What the clients know. Times are of the monotonic clock, in seconds."""

    acknowledged: dict[int, float] = field(default_factory=dict)
    """Order number → when its commit was acknowledged."""
    connected: dict[int, float] = field(default_factory=dict)
    """Order number → when the connection that wrote it was opened."""
    errors: int = 0

    def outage_ms(self, killed_at: float) -> float | None:
        """From the kill to the first acknowledgement on a connection opened after it, in milliseconds.

        What sessions of the old writer still got through does not count, although it is as durable.
        """
        later = [self.acknowledged[number] for number, since in self.connected.items() if since > killed_at]
        return (min(later) - killed_at) * 1000 if later else None


class Writers:
    """Some clients, each writing one order after the other; they reconnect on every error, as applications
    do.
    """

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._write, args=(n,), daemon=True) for n in range(CLIENTS)]
        self.books = Books()

    def start(self) -> None:
        """Starts to write."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> Books:
        """Stops after the statements under way; returns the books."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        return self.books

    def first_after(self, killed_at: float, timeout: float) -> float | None:
        """Waits for the first write after a kill; the outage in milliseconds, None when there was none."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with self._lock:
                outage = self.books.outage_ms(killed_at)
            if outage is not None:
                return outage
            time.sleep(0.01)
        return None

    @property
    def count(self) -> int:
        """How many writes were acknowledged so far."""
        return len(self.books.acknowledged)

    def _write(self, client: int) -> None:
        while not self._over.is_set():
            with contextlib.suppress(psycopg.Error):
                since = time.monotonic()
                with psycopg.connect(self._conninfo, autocommit=True) as connection:
                    self._write_orders(connection, client, since)
                return
            with self._lock:
                self.books.errors += 1
            time.sleep(RETRY_SECONDS)

    def _write_orders(self, connection: psycopg.Connection[Any], client: int, since: float) -> None:
        amount = 0
        while not self._over.is_set():
            amount += 1
            row = connection.execute(WRITE, (2000 + client, amount % 100000)).fetchone()
            now = time.monotonic()
            assert row is not None
            with self._lock:
                self.books.acknowledged[row[0]] = now
                self.books.connected[row[0]] = since


def lost(books: Books, connection: psycopg.Connection[Any]) -> list[int]:
    """The acknowledged orders that this server does not have."""
    if not books.acknowledged:
        return []
    found = connection.execute("SELECT order_id FROM orders WHERE order_id >= %s", (min(books.acknowledged),))
    present = {row[0] for row in found}
    return sorted(set(books.acknowledged) - present)
