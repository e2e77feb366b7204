"""Clients that write while the writer is killed, and their books: what was acknowledged, and when.

Owns its threads and connections. It does not judge: `lost` compares the books with what a server has.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from borealis.cli.demo.orders import present
from borealis.cli.demo.sessions import SQL_ERRORS, Session

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

    def __init__(self, connect: Callable[[], Session], write: str) -> None:
        self._connect = connect
        self._statement = write
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
            with contextlib.suppress(*SQL_ERRORS):
                since = time.monotonic()
                with self._connect() as session:
                    self._write_orders(session, client, since)
                return
            with self._lock:
                self.books.errors += 1
            time.sleep(RETRY_SECONDS)

    def _write_orders(self, session: Session, client: int, since: float) -> None:
        amount = 0
        while not self._over.is_set():
            amount += 1
            order = session.insert(self._statement, (2000 + client, amount % 100000))
            now = time.monotonic()
            with self._lock:
                self.books.acknowledged[order] = now
                self.books.connected[order] = since


def lost(books: Books, session: Session) -> list[int]:
    """The acknowledged orders that this server does not have."""
    if not books.acknowledged:
        return []
    return sorted(set(books.acknowledged) - present(session, min(books.acknowledged)))
