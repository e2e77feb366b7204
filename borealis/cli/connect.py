"""`borealis connect`: opens the engine's own client on a cluster's endpoint.

Owns the choice of endpoint, user, database and password; then the client takes the place of this process. The
password never stands on a command line.
"""

from __future__ import annotations

import getpass
import os
import shutil
import sys
from dataclasses import dataclass
from typing import Any

from borealis.cli.common import CliError, NotRunning
from borealis.cli.demo.editions import EDITIONS
from borealis.cli.link import api_client
from borealis.paths import RegionPaths


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for."""

    cluster: str
    reader: bool
    instance: str | None
    user: str | None
    database: str | None
    more: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect."""

    engine: str
    host: str
    port: int
    user: str
    database: str | None


@dataclass(frozen=True, slots=True)
class Client:
    """How an engine's client is called."""

    programs: tuple[str, ...]
    """The first that is installed is taken."""
    package: str
    password_variable: str
    options: str
    database: str
    """The option that names a database."""
    default_database: str | None
    """None: without one, none is chosen."""


# By the engine's name in the API.
CLIENTS = {
    "aurora-postgresql": Client(
        programs=("psql",),
        package="postgresql-client",
        password_variable="PGPASSWORD",
        options="--host={host} --port={port} --username={user}",
        database="--dbname={database}",
        default_database="postgres",
    ),
    "aurora-mysql": Client(
        programs=("mariadb", "mysql"),
        package="mariadb-client",
        password_variable="MYSQL_PWD",
        options="--host={host} --port={port} --user={user} --default-character-set=utf8mb4",
        database="--database={database}",
        default_database=None,
    ),
}


def open_client(paths: RegionPaths, wanted: Wanted) -> None:
    """Replaces this process by the client. Raises CliError."""
    target = find_target(api_client(paths), wanted)
    client = CLIENTS.get(target.engine)
    if client is None:
        raise CliError(f"no client is known for the engine {target.engine}")
    program = next((name for name in client.programs if shutil.which(name)), None)
    if program is None:
        raise CliError(
            f"{client.programs[0]} was not found: install it (Debian: apt-get install {client.package})"
        )
    variables = dict(os.environ)
    if client.password_variable not in variables:
        variables[client.password_variable] = _password(paths, wanted, target, client)
    argv = [program, *arguments(client, target), *wanted.more]
    os.execvpe(program, argv, variables)


def arguments(client: Client, target: Target) -> list[str]:
    """The client's options for a target."""
    database = target.database or client.default_database
    words = client.options.split() + ([client.database] if database else [])
    return [
        word.format(host=target.host, port=target.port, user=target.user, database=database) for word in words
    ]


def find_target(rds: Any, wanted: Wanted) -> Target:
    """Asks the API where the cluster is. Raises CliError, NotRunning."""
    cluster = _ask(rds.describe_db_clusters, DBClusterIdentifier=wanted.cluster)["DBClusters"][0]
    host = cluster.get("ReaderEndpoint" if wanted.reader else "Endpoint")
    if wanted.instance is not None:
        found = _ask(rds.describe_db_instances, DBInstanceIdentifier=wanted.instance)["DBInstances"][0]
        host = found.get("Endpoint", {}).get("Address")
    if not host:
        raise CliError(
            f"{wanted.instance or wanted.cluster} has no endpoint yet: its status is {cluster['Status']}"
        )
    return Target(
        engine=cluster["Engine"],
        host=host,
        port=cluster["Port"],
        user=wanted.user or cluster["MasterUsername"],
        database=wanted.database or cluster.get("DatabaseName"),
    )


def _ask(operation: Any, **parameters: str) -> Any:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return operation(**parameters)
    except ClientError as error:
        said = error.response["Error"]
        raise CliError(f"{said['Message']} ({said['Code']})") from error
    except BotoCoreError as error:
        raise NotRunning(
            f"the API does not answer: {error}. Does the region run? (borealis status)"
        ) from error


def _password(paths: RegionPaths, wanted: Wanted, target: Target, client: Client) -> str:
    demonstration = {edition.cluster: edition for edition in EDITIONS.values()}
    if wanted.cluster in demonstration and wanted.user is None and paths.demo_password.exists():
        return paths.demo_password.read_text().strip()
    if not sys.stdin.isatty():
        raise CliError(
            f"no password: set {client.password_variable} for {target.user}, there is no terminal to ask on"
        )
    return getpass.getpass(f"Password for {target.user}: ")
