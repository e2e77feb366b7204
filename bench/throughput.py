"""`pgbench -N -M prepared`: six fsynced copies and two readers against a stock durable single node,
alternating.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
from typing import Any

import psycopg

from bench.statistics import console, show
from bench.stock import BIN, Stock
from tests.support.region import PASSWORD, Cluster, Region

SAME = ("shared_buffers", "max_wal_size", "max_connections", "checkpoint_timeout", "wal_buffers")


def pgbench(conninfo: str, clients: int, seconds: int) -> float:
    """Transactions per second of one run."""
    fields = psycopg.conninfo.conninfo_to_dict(conninfo)
    done = subprocess.run(
        [
            str(BIN / "pgbench"), "-n", "-N", "-M", "prepared", "-c", str(clients), "-j", "2", "-T",
            str(seconds),
            "-h", str(fields["host"]), "-p", str(fields["port"]), "-U", str(fields["user"]), "postgres",
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
            "-U", str(fields["user"]), "postgres",
        ],
        env={**os.environ, "PGPASSWORD": PASSWORD},
        capture_output=True,
        check=True,
    )  # fmt: skip


def settings_of(cluster: Cluster) -> dict[str, str]:
    """The memory and log settings of the cluster's writer, for the stock node to share."""
    conninfo = cluster.instance_conninfo(cluster.writer)
    return {name: str(cluster.sql(f"SHOW {name}", conninfo)[0][0]) for name in SAME}


def measure(region: Region, rounds: int = 3, seconds: int = 8, scale: int = 20) -> dict[str, Any]:
    """Median tps by client count and system, and their ratios."""
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
