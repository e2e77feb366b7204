"""sysbench: the MySQL-compatible edition's load generator. Runs the program, reads its figures."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

DATABASE = "sbtest"
TABLES = 4
ROWS = 50_000


class NoSysbench(RuntimeError):
    """The program is not on this machine."""


@dataclass(frozen=True)
class Target:
    """A server to put under load."""

    host: str
    port: int
    user: str
    password: str


def run(target: Target, workload: str, command: str, threads: int = 4, seconds: int = 0) -> str:
    """What one call of sysbench prints. Raises NoSysbench, RuntimeError."""
    if shutil.which("sysbench") is None:
        raise NoSysbench("sysbench is not installed: apt-get install sysbench")
    options = {
        "mysql-host": target.host,
        "mysql-port": target.port,
        "mysql-user": target.user,
        "mysql-password": target.password,
        "mysql-db": DATABASE,
        "tables": TABLES,
        "table-size": ROWS,
        "threads": threads,
        "time": seconds,
        "report-interval": 0,
        "db-driver": "mysql",
    }
    # A file, because arguments are seen by everybody.
    with tempfile.TemporaryDirectory(prefix="sysbench-") as folder:
        config = Path(folder) / "options"
        config.touch(0o600)
        config.write_text("".join(f"{name}={value}\n" for name, value in options.items()))
        done = subprocess.run(
            ["sysbench", workload, f"--config-file={config}", command],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise RuntimeError(f"sysbench {workload} {command} failed: {done.stdout[-500:]}{done.stderr[-500:]}")
    return done.stdout


def prepare(target: Target) -> None:
    """The tables of all OLTP workloads. The database must be there."""
    run(target, "oltp_common", "prepare")


def transactions_per_second(target: Target, workload: str, threads: int, seconds: int) -> float:
    """One measured run."""
    text = run(target, workload, "run", threads, seconds)
    found = re.search(r"transactions:\s+\d+\s+\(([0-9.]+) per sec", text)
    if not found:
        raise RuntimeError(f"sysbench gave no figure: {text[-500:]}")
    return float(found[1])
