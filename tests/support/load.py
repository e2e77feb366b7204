"""Writers that keep books: which rows the server acknowledged, which are in doubt, and how long nothing
went through.

Owns its threads and connections. Never decides what is right: tests ask `lost_on()` and the figures.
"""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass, field

from tests.support.editions import Target, postgres_target

CLIENT_NUMBERS = itertools.count()
"""No two loads of a run share a client number, so they may share the table."""

CREATE = "CREATE TABLE IF NOT EXISTS ledger (client int, seq int, pad text, PRIMARY KEY (client, seq))"


@dataclass
class ClientBook:
    """What one writing client knows: sequence numbers it saw acknowledged, and those it cannot know about."""

    acknowledged: set[int] = field(default_factory=set)
    in_doubt: set[int] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)


class Load:
    """`clients` threads, each inserting one row per transaction at `target`, reconnecting on every
    error. A connection string of libpq is a target too.
    """

    def __init__(self, target: Target | str, clients: int = 4) -> None:
        self.target = _target(target)
        self.books = {next(CLIENT_NUMBERS): ClientBook() for _ in range(clients)}
        self.acknowledgements: list[float] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(n, b), daemon=True) for n, b in self.books.items()
        ]

    def __enter__(self) -> Load:
        self.target.sql(CREATE)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the writers and wait for them."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a writer did not end within 60 s"

    def _run(self, client: int, book: ClientBook) -> None:
        seq = 0
        while not self._stop.is_set():
            try:
                with self.target.connect(timeout=10) as db:
                    while not self._stop.is_set():
                        seq += 1
                        book.in_doubt.add(seq)
                        db.execute(
                            "INSERT INTO ledger VALUES (%s, %s, repeat('x', %s))", (client, seq, seq % 500)
                        )
                        book.in_doubt.discard(seq)
                        book.acknowledged.add(seq)
                        self.acknowledgements.append(time.monotonic())
            except self.target.edition.Error as error:
                book.errors.append(f"{type(error).__name__}: {error}".strip())
                self._stop.wait(0.005)

    @property
    def count(self) -> int:
        """How many rows have been acknowledged so far."""
        return sum(len(book.acknowledged) for book in self.books.values())

    @property
    def errors(self) -> list[str]:
        """Every error that any client met."""
        return [error for book in self.books.values() for error in book.errors]

    def snapshot(self) -> set[tuple[int, int]]:
        """The (client, seq) pairs acknowledged so far."""
        return {(client, seq) for client, book in self.books.items() for seq in tuple(book.acknowledged)}

    def lost_on(self, target: Target | str) -> set[tuple[int, int]]:
        """Acknowledged pairs that the instance at `target` does not have."""
        wanted = self.snapshot()
        return wanted - set(_target(target).sql("SELECT client, seq FROM ledger"))

    def longest_gap(self) -> float:
        """Longest time in seconds between two acknowledgements, over all clients."""
        times = sorted(self.acknowledgements)
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)


def _target(given: Target | str) -> Target:
    return postgres_target(given) if isinstance(given, str) else given
