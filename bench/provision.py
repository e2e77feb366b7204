"""How long it takes until a cluster with a writer is available, and until a further reader is."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from bench.statistics import show, summary
from tests.support import processes
from tests.support.editions import POSTGRESQL, Edition
from tests.support.region import DATABASE, PASSWORD, Cluster, Region


def available(region: Region, identifier: str) -> bool:
    """Whether the API calls the instance available."""
    found = region.rds.describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"]
    return bool(found[0]["DBInstanceStatus"] == "available")


def measure(region: Region, edition: Edition = POSTGRESQL, rounds: int = 5) -> dict[str, Any]:
    """Seconds by step."""
    figures: dict[str, list[float]] = {"cluster + writer": [], "further reader": []}
    for n in range(rounds):
        cluster = Cluster(region, f"prov{n}-{edition.name}", edition)
        writer, reader = (f"{cluster.identifier}-{number}" for number in (1, 2))
        start = time.monotonic()
        region.rds.create_db_cluster(
            DBClusterIdentifier=cluster.identifier,
            Engine=edition.engine,
            MasterUsername=edition.user,
            MasterUserPassword=PASSWORD,
            DatabaseName=DATABASE,
        )
        cluster.add_instance(writer, wait=False)
        processes.wait_until(partial(available, region, writer), 120, "the writer")
        cluster.sql("SELECT 1")
        figures["cluster + writer"].append(time.monotonic() - start)
        start = time.monotonic()
        cluster.add_instance(reader, wait=False)
        processes.wait_until(partial(available, region, reader), 120, "the reader")
        cluster.sql("SELECT 1", cluster.instance(reader))
        figures["further reader"].append(time.monotonic() - start)
        cluster.delete()
    rows = [(what, *(summary(values)[k] for k in ("min", "p50", "max"))) for what, values in figures.items()]
    show(
        f"{edition.engine}: create → available and answering SQL, s", ("what", "min", "median", "worst"), rows
    )
    return figures
