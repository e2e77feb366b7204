"""The demonstration, told in order, each step with what it shows.

Owns the sequence and the words. Every step leaves the clusters so that the story can be played again.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

from borealis.cli import chaos
from borealis.cli.common import CliError, command_line, out, print_commands
from borealis.cli.demo import orders
from borealis.cli.demo.cluster import DemoCluster, Snapshot, wait
from borealis.cli.demo.editions import DATABASE, EDITIONS
from borealis.cli.demo.outage import Books, Writers, lost
from borealis.cli.demo.sessions import SQL_ERRORS, Session
from borealis.cli.link import AWS_RDS, api_client, call_control
from borealis.paths import RegionPaths
from borealis.region import load_region

BACK_SECONDS = 30.0
AFTER_SECONDS = 1.0
VISIBLE_SECONDS = 10.0


def play(paths: RegionPaths, seconds: float, engine: str | None = None) -> None:
    """Plays it all, or only what concerns one engine. `seconds`: how long to write before a kill.

    Raises CliError.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    call_control(paths, "status")  # Says clearly when the region does not run.
    steps = itertools.count(1)
    try:
        clusters = _clusters(api_client(paths), paths, engine)
        _create(clusters, steps)
        for cluster in clusters:
            _use(cluster, steps)
        for cluster in clusters:
            _lose_the_writer(cluster, paths, seconds, steps)
        out.print("\nMeanwhile the lost instances are replaced by new readers:")
        wait(clusters)
        _say_how_to_go_on(clusters, paths)
    except ClientError as error:
        said = error.response["Error"]
        raise CliError(
            f"the API refused {error.operation_name}: {said['Message']} ({said['Code']})"
        ) from error
    except BotoCoreError as error:
        raise CliError(f"the API does not answer: {error}") from error
    except SQL_ERRORS as error:
        raise CliError(f"the database refused: {str(error).strip()}") from error


def _clusters(rds: Any, paths: RegionPaths, engine: str | None) -> list[DemoCluster]:
    """One for each engine that this machine has."""
    versions = rds.describe_db_engine_versions(DefaultOnly=True)["DBEngineVersions"]
    offered = {version["Engine"] for version in versions}
    if engine is not None and engine not in offered:
        raise CliError(f"{engine} is not offered by this region; its engines: {', '.join(sorted(offered))}")
    chosen = [e for e in EDITIONS.values() if e.engine in ({engine} if engine else offered)]
    return [DemoCluster(rds, paths, edition) for edition in chosen]


def _step(steps: Iterator[int], title: str) -> None:
    out.print()
    out.print(f"[bold reverse] {next(steps)} [/] [bold]{title}[/]")


# ---------------------------------------------------------------------- create
def _create(clusters: list[DemoCluster], steps: Iterator[int]) -> None:
    _step(steps, "For each engine a cluster: one writer, two readers, three zones, six copies of every byte")
    fresh = 0
    for cluster in clusters:
        name = f"{cluster.edition.cluster} ({cluster.edition.engine})"
        if cluster.ensure():
            out.print(f"The cluster {name} is there already and is used again.")
        else:
            fresh += 1
            out.print(f"boto3: create_db_cluster {name}, then create_db_instance three times")
    took = wait(clusters)
    if fresh:
        out.print(f"Everything was available after [bold]{took:.1f} s[/].")


# ---------------------------------------------------------------------- use
def _use(cluster: DemoCluster, steps: Iterator[int]) -> None:
    edition = cluster.edition
    _step(steps, f"{edition.title}: write through the writer endpoint, read through the reader endpoint")
    snapshot = cluster.look()
    with cluster.connect(snapshot.endpoint, snapshot.port, edition.first_database) as writer:
        out.print(f"{edition.engine}, writer endpoint {snapshot.endpoint}:{snapshot.port}", soft_wrap=True)
        for statement in orders.fill(writer, edition):
            out.print(statement.strip(), style="cyan", soft_wrap=True)
        count = writer.one(orders.COUNT)[0]
        out.print(f"The table orders has {count:,} rows, says {writer.one(edition.who)[0]} (writer).")
        with _reader(cluster, snapshot) as reader:
            _read(cluster, snapshot, writer, reader)


def _reader(cluster: DemoCluster, snapshot: Snapshot) -> Session:
    """A session at the reader endpoint that shows the sample rows: a reader may be a moment behind."""
    deadline = time.monotonic() + VISIBLE_SECONDS
    while True:
        session: Session | None = None
        try:
            session = cluster.connect(snapshot.reader_endpoint, snapshot.port, DATABASE)
            if orders.filled(session):
                return session
        except SQL_ERRORS as error:
            if time.monotonic() > deadline:
                raise CliError(f"the table did not become visible on the reader: {error}") from error
        if session is not None:
            session.close()
        time.sleep(0.005)


def _read(cluster: DemoCluster, snapshot: Snapshot, writer: Session, reader: Session) -> None:
    edition = cluster.edition
    name, is_reader = reader.one(edition.who)
    out.print(
        f"The reader endpoint {snapshot.reader_endpoint}:{snapshot.port} leads to {name} "
        f"({'read-only' if is_reader else 'the writer'}):",
        soft_wrap=True,
    )
    for query in (edition.by_user, edition.by_city):
        out.print(query, style="cyan", soft_wrap=True)
        out.print(orders.shown(reader.run(query)))
    sent = writer.insert(edition.write, (3000, 1))
    start = time.monotonic()
    while not orders.there(reader, sent):
        if time.monotonic() - start > VISIBLE_SECONDS:
            raise CliError("a committed row did not become visible on the reader")
    lag = (time.monotonic() - start) * 1000
    out.print(f"A new order was visible on the reader [bold]{lag:.1f} ms[/] after its commit.")


# ---------------------------------------------------------------------- lose the writer
def _lose_the_writer(cluster: DemoCluster, paths: RegionPaths, seconds: float, steps: Iterator[int]) -> None:
    _step(steps, f"{cluster.edition.title}: kill -9 the writer while four clients write to it")
    before = cluster.look()
    writers = Writers(lambda: cluster.connect(before.endpoint, before.port, DATABASE), cluster.edition.write)
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
    with cluster.connect(before.endpoint, before.port, DATABASE) as session:
        new_writer = session.one(cluster.edition.who)[0]
        missing = lost(books, session)
    if missing:
        raise CliError(
            f"{len(missing)} acknowledged orders are missing on {new_writer}, the first is {missing[0]}"
        )
    count = len(books.acknowledged)
    out.print(
        f"[bold green]{count:,} orders were acknowledged; {new_writer}, the new writer, has every one "
        f"of them.[/]\nThe first write succeeded [bold]{outage:.0f} ms[/] after the kill."
    )


# ---------------------------------------------------------------------- go on
def _say_how_to_go_on(clusters: list[DemoCluster], paths: RegionPaths) -> None:
    out.print()
    out.print("[bold reverse] Go on [/]")
    out.print("SQL (add --reader to connect for a reader):")
    for cluster in clusters:
        edition, snapshot = cluster.edition, cluster.look()
        typed = edition.client.format(
            host=snapshot.endpoint,
            port=snapshot.port,
            user=edition.user,
            database=DATABASE,
            secret=paths.demo_password,
        )
        connect = command_line(paths, "connect", edition.cluster)
        print_commands([(connect, f"{edition.title}, the writer"), (typed, "")])
    failover = f"{AWS_RDS} failover-db-cluster --db-cluster-identifier {clusters[0].edition.cluster}"
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
