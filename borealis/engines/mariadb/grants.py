"""Who may do what in a MySQL-compatible volume: the administrator, the master user, and nobody else.

Owns the SQL of these accounts. Never runs it, and never holds a password.

The administrator (`administrator_sql`) exists on one instance at a time only: it is made when the server
starts, under a name of its own, and never written to the log. Whoever has CREATE USER may alter, drop and
rename every account that SQL can name, and a renamed superuser is a way to become one. So its host is a
pattern that is longer than a host name in SQL may be: it fits `localhost`, which only connections through
the Unix socket come from, and no statement can name it.

The master user (`master_sql`) has global rights that only read or administer, and all rights with GRANT
OPTION on the databases of every name but `mysql`. MariaDB has no way to take one database out of a right on
all of them, and a right on the pattern `%` could be handed on to an account of which `mysql` is not taken
out. So the rights are given on patterns that together fit every other name and never that one; the server
lets an account hand on a pattern only when it lies within one of its own.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterator

ADMIN_PREFIX = "rdsadmin_"
SYSTEM_DATABASE = "mysql"
HOST_BYTES_MAX = 255
"""The longest host name of an account in SQL, in bytes."""
_HOST_COLUMN = 300
_ALL_RIGHTS = (1 << 64) - 1
_GLOBAL_RIGHTS = (
    "RELOAD",
    "PROCESS",
    "SHOW DATABASES",
    "CREATE USER",
    "BINLOG MONITOR",
    "REPLICATION SLAVE",
    "SLAVE MONITOR",
    # Of these none can change what is in the system database.
    "SELECT",
    "EXECUTE",
    "SHOW VIEW",
    "CREATE TEMPORARY TABLES",
    "LOCK TABLES",
)
_FIRST = string.ascii_letters + string.digits + "_-$"
_OTHERS = string.ascii_lowercase + string.digits + "_"


def quote_identifier(name: str) -> str:
    """A name as SQL takes it, whatever is in it."""
    return "`" + name.replace("`", "``") + "`"


def quote_literal(text: str) -> str:
    """A text constant as SQL takes it, with backslash escapes on."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def account(user: str) -> str:
    """An account that may come from anywhere, as customers' accounts do."""
    return f"{quote_identifier(user)}@'%'"


def administrator_host() -> str:
    """The host pattern of the administrator's account."""
    return "localhost".ljust(HOST_BYTES_MAX + 5, "%")


def system_tables_sql() -> list[str]:
    """What an image gets besides the server's own system tables: room for the administrator's host, nobody
    that was there before, and our own tables."""
    return [
        f"ALTER TABLE mysql.global_priv MODIFY Host varchar({_HOST_COLUMN}) BINARY NOT NULL DEFAULT ''",
        "DELETE FROM mysql.global_priv WHERE User <> 'mariadb.sys'",
        "DELETE FROM mysql.proxies_priv",
        # This account stands behind system views. Customers can rename it, so it may read and no more.
        "UPDATE mysql.tables_priv SET Table_priv = 'Select' WHERE User = 'mariadb.sys'",
        "CREATE TABLE mysql.borealis_canary (id TINYINT NOT NULL PRIMARY KEY, at TIMESTAMP(6) NOT NULL)"
        " ENGINE=InnoDB",
        "INSERT INTO mysql.borealis_canary VALUES (1, NOW(6))",
        "CREATE TABLE mysql.borealis_disabled_events (db VARCHAR(64) NOT NULL, name VARCHAR(64) NOT NULL,"
        " PRIMARY KEY (db, name)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb3 COLLATE=utf8mb3_bin",
        "FLUSH PRIVILEGES",
    ]


def administrator_sql(user: str, verifier: str) -> list[str]:
    """Make `user` the one administrator of this instance. To be run with sql_log_bin=0."""
    rights = {
        "access": _ALL_RIGHTS,
        "version_id": 101100,
        "plugin": "mysql_native_password",
        "authentication_string": verifier,
    }
    values = ", ".join(map(quote_literal, (administrator_host(), user, json.dumps(rights))))
    return [
        f"DELETE FROM mysql.global_priv WHERE LENGTH(Host) > {HOST_BYTES_MAX}",
        f"INSERT INTO mysql.global_priv (Host, User, Priv) VALUES ({values})",
        "FLUSH PRIVILEGES",
    ]


def master_sql(user: str, verifier: str) -> list[str]:
    """The master user, with what RDS gives its own as far as it leaves the system database alone."""
    who = account(user)
    rights = ", ".join(_GLOBAL_RIGHTS)
    return [
        f"CREATE USER {who} IDENTIFIED BY PASSWORD {quote_literal(verifier)}",
        f"GRANT {rights} ON *.* TO {who} WITH GRANT OPTION",
        *(f"GRANT ALL ON `{pattern}`.* TO {who} WITH GRANT OPTION" for pattern in customer_databases()),
    ]


def password_sql(user: str, verifier: str) -> str:
    """Replace a user's stored password."""
    return f"ALTER USER {account(user)} IDENTIFIED BY PASSWORD {quote_literal(verifier)}"


def customer_databases() -> Iterator[str]:
    """Patterns that together fit the names of all databases but `mysql`, and none of them that one.

    By length in bytes: shorter, and longer. Of any length, by a first character that is another one. And of
    the same length with one different character, counted from the end, so that names like `my_db` can be
    granted without escapes.
    """
    name, size = SYSTEM_DATABASE, len(SYSTEM_DATABASE)
    yield from ("_" * length for length in range(1, size))
    yield "_" * (size + 1) + "%"
    yield from (_literal(letter) + "%" for letter in _FIRST if letter != name[0])
    for place in reversed(range(1, size)):
        for letter in _OTHERS:
            if letter != name[place]:
                yield "_" * place + _literal(letter) + name[place + 1 :]


def _literal(letter: str) -> str:
    return "\\" + letter if letter in "_%" else letter
