"""How long the cluster endpoint takes no writes when the writer dies, freezes, or is asked to hand over."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from bench.statistics import console, show, summary
from tests.support import processes
from tests.support.editions import POSTGRESQL, Edition, Target
from tests.support.region import Cluster, Region


class Prober(threading.Thread):
    """One client that writes without pause through the cluster endpoint and remembers when each write
    succeeded.
    """

    def __init__(self, endpoint: Target) -> None:
        super().__init__(daemon=True)
        self.endpoint = endpoint
        self.successes: list[float] = []
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                with self.endpoint.connect(timeout=5) as session:
                    while not self.ended.is_set():
                        session.execute("INSERT INTO probe VALUES (1)")
                        self.successes.append(time.monotonic())
            except (self.endpoint.edition.Error, OSError):
                time.sleep(0.001)

    def first_after(self, moment: float, writer_changed: Callable[[], bool]) -> float:
        """When the first write succeeded after `moment` and after the longest pause since then, in
        seconds.
        """
        processes.wait_until(writer_changed, 60, "another writer")
        count = len(self.successes)
        processes.wait_until(lambda: len(self.successes) > count + 5, 60, "writes to go on")
        times = [moment, *(t for t in self.successes if t > moment)]
        gap, end = max((b - a, b) for a, b in itertools.pairwise(times))
        return end - moment if gap > 0 else 0.0


def once(cluster: Cluster, prober: Prober, how: str) -> float:
    """Milliseconds from the cause to the first write afterwards."""
    writer = cluster.writer
    engine = cluster.engine_processes(writer)
    driver = cluster.driver_processes(writer)
    moment = time.monotonic()
    if how == "killed":
        processes.send(engine, signal.SIGKILL)
    elif how == "hung":
        processes.send(engine + driver, signal.SIGSTOP)
    else:
        cluster.region.rds.failover_db_cluster(DBClusterIdentifier=cluster.identifier)
    milliseconds = prober.first_after(moment, lambda: cluster.writer != writer) * 1000
    cluster.wait_healthy()
    return milliseconds


def measure(
    region: Region, edition: Edition = POSTGRESQL, rounds: int = 20, hung_rounds: int = 5
) -> dict[str, Any]:
    """Outage in milliseconds by cause."""
    cluster = region.create_cluster(readers=2, edition=edition)
    cluster.sql("CREATE TABLE probe (n int)")
    prober = Prober(cluster.endpoint)
    prober.start()
    processes.wait_until(lambda: len(prober.successes) > 100, 30, "the probe to run")
    figures = {}
    for how, count in (("killed", rounds), ("planned", rounds), ("hung", hung_rounds)):
        figures[how] = [once(cluster, prober, how) for _ in range(count)]
        console.print(f"{how}: {', '.join(f'{ms:.0f}' for ms in figures[how])} ms", style="dim")
    prober.ended.set()
    prober.join(10)
    cluster.delete()
    rows = [
        (how, *(summary(values)[k] for k in ("min", "p50", "max")), len(values))
        for how, values in figures.items()
    ]
    show(
        f"{edition.engine}: writer lost → first write through the cluster endpoint, ms",
        ("cause", "min", "median", "worst", "rounds"),
        rows,
    )
    return figures
