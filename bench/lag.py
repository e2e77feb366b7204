"""From the acknowledgement of a commit to the row being visible on a reader, while the writer takes a
steady load.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from bench.statistics import show, summary
from tests.support.editions import POSTGRESQL, Edition, Target
from tests.support.region import Region


def background(writer: Target, rate: float, stop: threading.Event) -> None:
    """Commit `rate` rows per second until told to stop."""
    with writer.connect() as session:
        due = time.monotonic()
        while not stop.is_set():
            session.execute("INSERT INTO noise VALUES (1)")
            due += 1 / rate
            time.sleep(max(0.0, due - time.monotonic()))


def samples(writer: Target, reader: Target, count: int) -> list[float]:
    """Milliseconds from commit to visibility, `count` times, by asking the reader again and again."""
    found = []
    with writer.connect() as to, reader.connect() as at:
        for n in range(count):
            to.execute("UPDATE mark SET n = %s", (n,))
            moment = time.perf_counter()
            while at.execute("SELECT n FROM mark") != [(n,)]:
                continue
            found.append((time.perf_counter() - moment) * 1000)
    return found


def measure(
    region: Region, edition: Edition = POSTGRESQL, count: int = 2000, writers: int = 10
) -> dict[str, Any]:
    """Lag in milliseconds when idle and at 1,000 transactions per second."""
    cluster = region.create_cluster(readers=2, edition=edition)
    writer, reader = cluster.instance(cluster.writer), cluster.instance(cluster.readers[0])
    cluster.sql("CREATE TABLE mark (n int)")
    cluster.sql("INSERT INTO mark VALUES (-1)")
    cluster.sql("CREATE TABLE noise (n int)")
    cluster.wait_healthy()
    time.sleep(1)
    figures = {"idle": samples(writer, reader, count)}
    stop = threading.Event()
    threads = [
        threading.Thread(target=background, args=(writer, 1000 / writers, stop)) for _ in range(writers)
    ]
    for thread in threads:
        thread.start()
    time.sleep(1)
    figures["1000 tps"] = samples(writer, reader, count)
    stop.set()
    for thread in threads:
        thread.join()
    cluster.delete()
    rows = [(load, *(summary(values)[k] for k in ("p50", "p99", "max"))) for load, values in figures.items()]
    show(
        f"{edition.engine}: commit acknowledged → visible on a reader, ms",
        ("load", "p50", "p99", "max"),
        rows,
    )
    return figures
