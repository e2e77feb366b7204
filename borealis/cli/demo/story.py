"""The demonstration, told in order, each step with what it shows.

Owns the sequence and the words. Every step leaves the cluster so that the story can be played again.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import psycopg

from borealis.cli import chaos
from borealis.cli.common import CliError, command_line, out, print_commands
from borealis.cli.connect import DEMO_CLUSTER
from borealis.cli.demo import orders
from borealis.cli.demo.cluster import DATABASE, DemoCluster, Snapshot
from borealis.cli.demo.outage import Books, Writers, lost
from borealis.cli.link import AWS_RDS, api_client, call_control
from borealis.paths import RegionPaths
from borealis.region import load_region

BACK_SECONDS = 30.0
AFTER_SECONDS = 2.0
VISIBLE_SECONDS = 10.0


def play(paths: RegionPaths, seconds: float) -> None:
    """Plays it all; `seconds` is how long to write before the kill. Raises CliError."""
    from botocore.exceptions import BotoCoreError, ClientError

    call_control(paths, "status")  # Says clearly when the region does not run.
    cluster = DemoCluster(api_client(paths), paths)
    try:
        _create(cluster)
        _use(cluster)
        _lose_the_writer(cluster, paths, seconds)
        _say_how_to_go_on(cluster, paths)
    except ClientError as error:
        said = error.response["Error"]
        raise CliError(
            f"the API refused {error.operation_name}: {said['Message']} ({said['Code']})"
        ) from error
    except BotoCoreError as error:
        raise CliError(f"the API does not answer: {error}") from error
    except psycopg.Error as error:
        raise CliError(f"the database refused: {str(error).strip()}") from error


def _step(number: int, title: str) -> None:
    out.print()
    out.print(f"[bold reverse] {number} [/] [bold]{title}[/]")


# ---------------------------------------------------------------------- create
def _create(cluster: DemoCluster) -> None:
    _step(1, "A cluster: one writer, two readers, three zones, six copies of every byte")
    known = cluster.ensure()
    if known:
        out.print(f"The cluster {DEMO_CLUSTER} is there already and is used again.")
    else:
        out.print("boto3: create_db_cluster, then create_db_instance three times")
    snapshot, took = cluster.wait()
    if not known:
        out.print(f"Everything was available after [bold]{took:.1f} s[/].")
    out.print(f"writer endpoint  {snapshot.endpoint}:{snapshot.port}", soft_wrap=True)
    out.print(f"reader endpoint  {snapshot.reader_endpoint}:{snapshot.port}", soft_wrap=True)


# ---------------------------------------------------------------------- use
def _use(cluster: DemoCluster) -> None:
    _step(2, "Write through the writer endpoint, read through the reader endpoint")
    snapshot = cluster.look()
    with psycopg.connect(cluster.conninfo(snapshot.endpoint), autocommit=True) as writer:
        count = orders.fill(writer)
        out.print(f"The table orders has {count:,} rows, says {orders.one(writer, orders.WHO)[0]} (writer).")
        with psycopg.connect(cluster.conninfo(snapshot.reader_endpoint), autocommit=True) as reader:
            _read(writer, reader)


def _read(writer: psycopg.Connection[Any], reader: psycopg.Connection[Any]) -> None:
    name, in_recovery = orders.one(reader, orders.WHO)
    out.print(f"The reader endpoint leads to {name} ({'read-only' if in_recovery else 'the writer'}):")
    _wait_visible(reader)
    for query in (orders.BY_USER, orders.BY_CITY):
        out.print(" ".join(query.split()), style="cyan", soft_wrap=True)
        out.print(orders.shown(reader, query))
    sent = orders.one(
        writer,
        "INSERT INTO orders (user_id, status, total_amount) VALUES (3000, 'NEW', 1) RETURNING order_id",
    )
    start = time.monotonic()
    while not orders.there(reader, int(sent[0])):
        if time.monotonic() - start > VISIBLE_SECONDS:
            raise CliError("a committed row did not become visible on the reader")
    lag = (time.monotonic() - start) * 1000
    out.print(f"A new order was visible on the reader [bold]{lag:.1f} ms[/] after its commit.")


def _wait_visible(reader: psycopg.Connection[Any]) -> None:
    deadline = time.monotonic() + VISIBLE_SECONDS
    while not orders.filled(reader):
        if time.monotonic() > deadline:
            raise CliError("the table did not become visible on the reader")
        time.sleep(0.005)


# ---------------------------------------------------------------------- lose the writer
def _lose_the_writer(cluster: DemoCluster, paths: RegionPaths, seconds: float) -> None:
    _step(3, "kill -9 the writer while four clients write to it")
    before = cluster.look()
    writers = Writers(cluster.conninfo(before.endpoint))
    writers.start()
    try:
        with out.status(f"writing to {before.writer} for {seconds:g} s …"):
            time.sleep(seconds)
        acknowledged = writers.count
        out.print(f"{acknowledged:,} orders acknowledged in {seconds:g} s by {before.writer}.")
        pid = chaos.engine_pid(paths, before.writer)
        killed_at = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        out.print(f"kill -9 {pid}")
        outage = writers.first_after(killed_at, BACK_SECONDS)
        time.sleep(AFTER_SECONDS)
    finally:
        books = writers.stop()
    if outage is None:
        raise CliError(f"no write was acknowledged within {BACK_SECONDS:.0f} s: see `borealis logs control`")
    _count(cluster, before, books, outage)


def _count(cluster: DemoCluster, before: Snapshot, books: Books, outage: float) -> None:
    with psycopg.connect(cluster.conninfo(before.endpoint), autocommit=True) as connection:
        new_writer = orders.one(connection, orders.WHO)[0]
        missing = lost(books, connection)
    if missing:
        raise CliError(
            f"{len(missing)} acknowledged orders are missing on {new_writer}, the first is {missing[0]}"
        )
    count = len(books.acknowledged)
    out.print(
        f"[bold green]{count:,} orders were acknowledged; {new_writer}, the new writer, has every one "
        f"of them.[/]\nThe first write succeeded [bold]{outage:.0f} ms[/] after the kill."
    )
    out.print("Meanwhile the lost instance is replaced by a new reader:")
    cluster.wait()


# ---------------------------------------------------------------------- go on
def _say_how_to_go_on(cluster: DemoCluster, paths: RegionPaths) -> None:
    snapshot = cluster.look()
    psql = f"psql -h {snapshot.endpoint} -p {snapshot.port} -U postgres {DATABASE}"
    failover = f"{AWS_RDS} failover-db-cluster --db-cluster-identifier {DEMO_CLUSTER}"
    out.print()
    out.print("[bold reverse] Go on [/]")
    out.print("SQL:")
    print_commands(
        [
            (command_line(paths, "connect", DEMO_CLUSTER), "psql on the writer; --reader for a reader"),
            (f"PGPASSWORD=$(cat {paths.demo_password}) {psql}", ""),
        ]
    )
    out.print("AWS's tools:")
    print_commands(
        [
            (f'eval "$({command_line(paths, "env")})"', "point them here"),
            (f"{AWS_RDS} describe-db-clusters", "what there is"),
            (failover, "another writer, on request"),
        ]
    )
    out.print("The region:")
    print_commands(
        [
            (command_line(paths, "status"), "what runs, and how far each copy is"),
            (command_line(paths, "chaos", "kill", load_region(paths).zones[1]), "lose a whole zone"),
            (command_line(paths, "down"), "stop everything; the data stays"),
        ]
    )
