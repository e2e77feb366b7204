"""The `orders` example in both editions: names of the demonstration's clusters, and its SQL in each dialect.

Owns one table of data, by the engine's name in the API.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from borealis.cli.demo.sessions import Login, MySqlSession, PostgresSession, Session

DATABASE = "ecommerce"


@dataclass(frozen=True, slots=True)
class Step:
    """A statement that is run once: when its question gives 0 or there is no question."""

    statement: str
    done: str | None = None


@dataclass(frozen=True, slots=True)
class Edition:
    """One engine's part of the demonstration."""

    engine: str
    """The API's name of the engine."""
    title: str
    cluster: str
    """The DB cluster's identifier."""
    user: str
    """The master user."""
    first_database: str | None
    """What the API is asked to create with the cluster; None: SQL creates the database."""
    connect: Callable[[Login], Session]
    client: str
    """The engine's own client, as typed: {host}, {port}, {user}, {database}, {secret} (a file's name)."""
    steps: tuple[Step, ...]
    """Table and sample rows."""
    by_user: str
    by_city: str
    write: str
    """One order, with two parameters: user and amount."""
    who: str
    """Which instance answers, and whether it is a reader."""

    @property
    def instances(self) -> tuple[str, ...]:
        """Identifiers of the writer-to-be and the readers."""
        return tuple(f"{self.cluster}-{number}" for number in (1, 2, 3))


POSTGRESQL = Edition(
    engine="aurora-postgresql",
    title="PostgreSQL",
    cluster="orders-demo",
    user="postgres",
    first_database=DATABASE,
    connect=PostgresSession,
    client="PGPASSWORD=$(cat {secret}) psql -h {host} -p {port} -U {user} {database}",
    steps=(
        Step(
            """\
CREATE TABLE orders (
  order_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id          bigint NOT NULL,
  status           varchar(32) NOT NULL,
  total_amount     numeric(12,2) NOT NULL,
  created_at       timestamptz NOT NULL DEFAULT now(),
  updated_at       timestamptz NOT NULL DEFAULT now(),
  shipping_address jsonb
);
CREATE INDEX ON orders (user_id);
CREATE INDEX ON orders (status);""",
            "SELECT count(*) FROM pg_tables WHERE tablename = 'orders'",
        ),
        Step(
            """\
INSERT INTO orders (user_id, status, total_amount, shipping_address) VALUES
  (1001, 'PLACED', 199.99, jsonb_build_object('street', '123 Main St', 'city', 'Bengaluru', 'zip', '560001')),
  (1002, 'SHIPPED', 49.50, jsonb_build_object('street', '45 Park Ave', 'city', 'Mumbai', 'zip', '400001'));
""",
            "SELECT count(*) FROM orders WHERE user_id IN (1001, 1002)",
        ),
    ),
    by_user="""\
SELECT order_id, total_amount, created_at FROM orders
  WHERE user_id = 1001 ORDER BY created_at DESC LIMIT 10;""",
    by_city="""\
SELECT order_id, shipping_address->>'city' AS city FROM orders
  WHERE shipping_address->>'city' = 'Bengaluru';""",
    write="""\
INSERT INTO orders (user_id, status, total_amount, shipping_address)
  VALUES (%s, 'PLACED', %s, '{"city": "Pune"}') RETURNING order_id""",
    who="SELECT pg_catalog.aurora_db_instance_identifier(), pg_is_in_recovery()",
)

MYSQL = Edition(
    engine="aurora-mysql",
    title="MySQL",
    cluster="orders-demo-mysql",
    user="admin",
    first_database=None,
    connect=MySqlSession,
    client="MYSQL_PWD=$(cat {secret}) mariadb -h {host} -P {port} -u {user} {database}",
    steps=(
        Step(
            "CREATE DATABASE ecommerce;",
            "SELECT count(*) FROM information_schema.schemata WHERE schema_name = 'ecommerce'",
        ),
        Step("USE ecommerce;"),
        Step(
            """\
CREATE TABLE orders (
  order_id BIGINT AUTO_INCREMENT PRIMARY KEY,
  user_id BIGINT NOT NULL,
  status VARCHAR(32) NOT NULL,
  total_amount DECIMAL(12,2) NOT NULL,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  updated_at DATETIME DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  shipping_address JSON,
  INDEX (user_id), INDEX (status));""",
            "SELECT count(*) FROM information_schema.tables"
            " WHERE table_schema = 'ecommerce' AND table_name = 'orders'",
        ),
        Step(
            """\
INSERT INTO orders (user_id, status, total_amount, shipping_address) VALUES
  (1001,'PLACED',199.99, JSON_OBJECT('street','123 Main St','city','Bengaluru','zip','560001')),
  (1002,'SHIPPED',49.50, JSON_OBJECT('street','45 Park Ave','city','Mumbai','zip','400001'));""",
            "SELECT count(*) FROM orders WHERE user_id IN (1001, 1002)",
        ),
    ),
    by_user="""\
SELECT order_id, total_amount, created_at FROM orders
  WHERE user_id = 1001 ORDER BY created_at DESC LIMIT 10;""",
    by_city="""\
SELECT order_id, JSON_EXTRACT(shipping_address, '$.city') AS city FROM orders
  WHERE JSON_EXTRACT(shipping_address, '$.city') = 'Bengaluru';""",
    write="""\
INSERT INTO orders (user_id, status, total_amount, shipping_address)
  VALUES (%s, 'PLACED', %s, '{"city": "Pune"}')""",
    who="SELECT @@aurora_server_id, @@innodb_read_only",
)

EDITIONS: Mapping[str, Edition] = {edition.engine: edition for edition in (POSTGRESQL, MYSQL)}
