"""The `orders` example: its table, rows and queries, in PostgreSQL's dialect.

Owns SQL text and the printing of its results as tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, LiteralString

from rich.table import Table

if TYPE_CHECKING:
    import psycopg

CREATE = """
CREATE TABLE IF NOT EXISTS orders (
  order_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id          bigint NOT NULL,
  status           varchar(32) NOT NULL,
  total_amount     numeric(12,2) NOT NULL,
  created_at       timestamptz NOT NULL DEFAULT now(),
  updated_at       timestamptz NOT NULL DEFAULT now(),
  shipping_address jsonb
);
CREATE INDEX IF NOT EXISTS orders_user_id ON orders (user_id);
CREATE INDEX IF NOT EXISTS orders_status ON orders (status);
"""

INSERT = """
INSERT INTO orders (user_id, status, total_amount, shipping_address) VALUES
  (1001, 'PLACED', 199.99, jsonb_build_object('street', '123 Main St', 'city', 'Bengaluru', 'zip', '560001')),
  (1002, 'SHIPPED', 49.50, jsonb_build_object('street', '45 Park Ave', 'city', 'Mumbai', 'zip', '400001'));
"""

BY_USER = """
SELECT order_id, total_amount, created_at FROM orders
 WHERE user_id = 1001 ORDER BY created_at DESC LIMIT 10
"""

BY_CITY = """
SELECT order_id, shipping_address->>'city' AS city FROM orders
 WHERE shipping_address->>'city' = 'Bengaluru'
"""

WRITE = """
INSERT INTO orders (user_id, status, total_amount, shipping_address)
VALUES (%s, 'PLACED', %s, '{"city": "Pune"}') RETURNING order_id
"""

WHO = "SELECT pg_catalog.aurora_db_instance_identifier(), pg_is_in_recovery()"


def fill(connection: psycopg.Connection[Any]) -> int:
    """Makes the table and its sample rows, unless they are there; returns how many orders there are."""
    connection.execute(CREATE)
    if not one(connection, "SELECT count(*) FROM orders WHERE user_id IN (1001, 1002)")[0]:
        connection.execute(INSERT)
    return int(one(connection, "SELECT count(*) FROM orders")[0])


def filled(connection: psycopg.Connection[Any]) -> bool:
    """Whether this server shows the table and its sample rows."""
    if not one(connection, "SELECT to_regclass('orders') IS NOT NULL")[0]:
        return False
    return bool(one(connection, "SELECT EXISTS (SELECT FROM orders WHERE user_id = 1002)")[0])


def there(connection: psycopg.Connection[Any], order_id: int) -> bool:
    """Whether this server shows the order."""
    return connection.execute("SELECT FROM orders WHERE order_id = %s", (order_id,)).fetchone() is not None


def one(connection: psycopg.Connection[Any], statement: LiteralString) -> tuple[Any, ...]:
    """The only row of a query."""
    row = connection.execute(statement).fetchone()
    assert row is not None
    return tuple(row)


def shown(connection: psycopg.Connection[Any], statement: LiteralString) -> Table:
    """The result of a query as a table."""
    cursor = connection.execute(statement)
    table = Table(header_style="bold")
    for column in cursor.description or ():
        table.add_column(column.name)
    for row in cursor:
        table.add_row(*_words(row))
    return table


def _words(row: Sequence[object]) -> list[str]:
    return [value.isoformat(" ", "seconds") if hasattr(value, "isoformat") else str(value) for value in row]
