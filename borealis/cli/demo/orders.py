"""The `orders` example played over a session: filling the table, looking into it, showing results as tables.

Owns no SQL of one dialect: that is in `editions`.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from borealis.cli.demo.editions import Edition
from borealis.cli.demo.sessions import Rows, Session

COUNT = "SELECT count(*) FROM orders"
SAMPLES = f"{COUNT} WHERE user_id IN (1001, 1002)"


def fill(session: Session, edition: Edition) -> list[str]:
    """Makes the table and its sample rows, as far as they are not there; returns the statements run."""
    done = []
    for step in edition.steps:
        if step.done is None or not session.one(step.done)[0]:
            session.run(step.statement)
            done.append(step.statement)
    return done


def filled(session: Session) -> bool:
    """Whether this server shows the sample rows. Fails where the table is not there yet."""
    return bool(session.one(SAMPLES)[0])


def there(session: Session, order: int) -> bool:
    """Whether this server shows the order."""
    return bool(session.run("SELECT 1 FROM orders WHERE order_id = %s", (order,)).rows)


def present(session: Session, first: int) -> set[int]:
    """The numbers of all orders from `first` on."""
    found = session.run("SELECT order_id FROM orders WHERE order_id >= %s", (first,))
    return {int(row[0]) for row in found.rows}


def shown(result: Rows) -> Table:
    """The result of a query as a table."""
    table = Table(header_style="bold")
    for column in result.columns:
        table.add_column(column)
    for row in result.rows:
        table.add_row(*_words(row))
    return table


def _words(row: Sequence[object]) -> list[str]:
    return [value.isoformat(" ", "seconds") if hasattr(value, "isoformat") else str(value) for value in row]
