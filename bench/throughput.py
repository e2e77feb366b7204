"""Write throughput with six fsynced copies and two readers against stock servers, alternating: `pgbench -N -M
prepared`, and sysbench's `oltp_write_only` and `oltp_insert`.
"""

from __future__ import annotations

import itertools
import os
import re
import statistics
import subprocess
from typing import Any

import psycopg

from bench import sysbench
from bench.statistics import console, show
from bench.stock import BIN, Stock
from bench.stock_mariadb import StockMariadb
from tests.support.editions import MYSQL, POSTGRESQL, Edition
from tests.support.region import PASSWORD, Cluster, Region

SYSBENCH = ("oltp_write_only", "oltp_insert")
SAME = ("shared_buffers", "max_wal_size", "max_connections", "checkpoint_timeout", "wal_buffers")


def pgbench(conninfo: str, clients: int, seconds: int) -> float:
    """Transactions per second of one run."""
    fields = psycopg.conninfo.conninfo_to_dict(conninfo)
    done = subprocess.run(
        [
            str(BIN / "pgbench"), "-n", "-N", "-M", "prepared", "-c", str(clients), "-j", "2", "-T",
            str(seconds),
            "-h", str(fields["host"]), "-p", str(fields["port"]), "-U", str(fields["user"]),
            str(fields["dbname"]),
        ],
        env={**os.environ, "PGPASSWORD": PASSWORD},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    found = re.search(r"tps = ([0-9.]+)", done.stdout)
    if not found:
        raise RuntimeError(f"pgbench gave no figure: {done.stderr}")
    return float(found[1])


def initialise(conninfo: str, scale: int) -> None:
    """`pgbench -i`."""
    fields = psycopg.conninfo.conninfo_to_dict(conninfo)
    subprocess.run(
        [
            str(BIN / "pgbench"), "-i", "-q", "-s", str(scale), "-h", str(fields["host"]), "-p",
            str(fields["port"]),
            "-U", str(fields["user"]), str(fields["dbname"]),
        ],
        env={**os.environ, "PGPASSWORD": PASSWORD},
        capture_output=True,
        check=True,
    )  # fmt: skip


def settings_of(cluster: Cluster) -> dict[str, str]:
    """The memory and log settings of the cluster's writer, for the stock node to share."""
    conninfo = cluster.instance_conninfo(cluster.writer)
    return {name: str(cluster.sql(f"SHOW {name}", conninfo)[0][0]) for name in SAME}


def measure(region: Region, edition: Edition = POSTGRESQL) -> dict[str, Any]:
    """Median tps by client count and system, and their ratios: the edition's own way to ask."""
    return WAYS[edition.name](region)


def measure_postgresql(region: Region, rounds: int = 3, seconds: int = 8, scale: int = 20) -> dict[str, Any]:
    """pgbench."""
    cluster = region.create_cluster(readers=2)
    instance = cluster.instance_conninfo(cluster.writer)
    with Stock(**settings_of(cluster)) as stock:
        systems = {
            "stock": stock.conninfo,
            "borealis": instance,
            "borealis, cluster endpoint": cluster.conninfo(),
        }
        for conninfo in (stock.conninfo, instance):
            initialise(conninfo, scale)
        figures: dict[tuple[str, int], list[float]] = {}
        for round_ in range(rounds):
            for clients in (1, 16, 64):
                for name, conninfo in systems.items():
                    figures.setdefault((name, clients), []).append(pgbench(conninfo, clients, seconds))
                console.print(f"round {round_ + 1}/{rounds}, {clients} clients done", style="dim")
    cluster.delete()
    median = {key: statistics.median(values) for key, values in figures.items()}
    rows = [
        (
            str(c),
            *(median[(name, c)] for name in systems),
            f"{median[('borealis', c)] / median[('stock', c)]:.2f}x",
        )
        for c in (1, 16, 64)
    ]
    show("pgbench -N -M prepared, transactions per second", ("clients", *systems, "borealis / stock"), rows)
    return {f"{name} {clients}": values for (name, clients), values in figures.items()}


def mysql_settings(cluster: Cluster) -> dict[str, str]:
    """The memory settings of the cluster's writer, for the stock servers to share."""
    names = ("innodb_buffer_pool_size", "innodb_log_file_size", "max_connections")
    at = cluster.instance(cluster.writer)
    return {name: str(at.sql(f"SELECT @@{name}")[0][0]) for name in names}


def measure_mysql(region: Region, rounds: int = 3, seconds: int = 8) -> dict[str, Any]:
    """sysbench, next to a stock durable node and to one with two semi-synchronous replicas."""
    cluster = region.create_cluster(readers=2, edition=MYSQL)
    cluster.sql(f"CREATE DATABASE {sysbench.DATABASE}")
    settings = mysql_settings(cluster)
    figures: dict[tuple[str, str, int], list[float]] = {}
    with StockMariadb(settings) as stock, StockMariadb(settings, replicas=2) as trio:
        writer = cluster.instance(cluster.writer)
        borealis = sysbench.Target(writer.host, writer.port, writer.user, writer.password)
        systems = {"stock": stock.target, "stock + 2 semi-sync": trio.target, "borealis": borealis}
        for target in systems.values():
            sysbench.prepare(target)
        for round_ in range(rounds):
            for workload, threads in itertools.product(SYSBENCH, (1, 16, 64)):
                for name, target in systems.items():
                    tps = sysbench.transactions_per_second(target, workload, threads, seconds)
                    figures.setdefault((name, workload, threads), []).append(tps)
            console.print(f"round {round_ + 1}/{rounds} done", style="dim")
    cluster.delete()
    median = {key: statistics.median(values) for key, values in figures.items()}
    rows = []
    for workload, threads in itertools.product(SYSBENCH, (1, 16, 64)):
        of = {name: median[(name, workload, threads)] for name in systems}
        ratios = (f"{of['borealis'] / of[name]:.2f}x" for name in ("stock", "stock + 2 semi-sync"))
        rows.append((f"{workload} {threads}", *of.values(), *ratios))
    show(
        "sysbench, transactions per second",
        ("workload, threads", *systems, "to stock", "to semi-sync"),
        rows,
    )
    return {" ".join(map(str, key)): values for key, values in figures.items()}


WAYS = {"postgresql": measure_postgresql, "mysql": measure_mysql}
