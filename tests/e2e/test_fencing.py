"""A writer that was only frozen, not dead: when it wakes it can acknowledge nothing, and nobody reads
from it through the endpoints.
"""

from __future__ import annotations

import signal

from tests.support import processes
from tests.support.editions import Edition
from tests.support.processes import wait_until
from tests.support.region import Cluster

HARMLESS = ("fenced", "engine", "lease", "superseded")


def test_frozen_writer_is_fenced(cluster: Cluster, edition: Edition) -> None:
    writer = cluster.writer
    direct = cluster.instance(writer)
    with cluster.load(clients=2) as load:
        wait_until(lambda: load.count > 50, 30, "the load to run")
        old_session = direct.connect()
        old_session.execute("CREATE TABLE IF NOT EXISTS zombie (n int)")
        through_endpoint = cluster.endpoint.connect()
        frozen = cluster.driver_processes(writer) + cluster.engine_processes(writer)
        processes.send(frozen, signal.SIGSTOP)
        wait_until(lambda: cluster.writer != writer, 30, "another writer")
        rows = load.count
        wait_until(lambda: load.count > rows + 20, 30, "writes to go on")
        processes.send(frozen, signal.SIGCONT)
        for session in (old_session, through_endpoint):
            try:
                session.execute("INSERT INTO zombie VALUES (1)")
                raise AssertionError("the fenced writer acknowledged a commit")
            except edition.Error:
                session.close()
        wait_until(lambda: not any(processes.alive(pid) for pid in frozen), 20, "the old instance to be gone")
        assert cluster.sql("SELECT count(*) FROM zombie") == [(0,)]
        load.stop()
        assert not load.lost_on(cluster.endpoint)
    cluster.wait_healthy()
