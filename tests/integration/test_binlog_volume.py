"""What is particular to a volume whose log is a binlog: torn transactions, files that end, later images."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import threading
from pathlib import Path

import pytest

from borealis.engines.mariadb.binlog import UnitReader
from borealis.engines.mariadb.binlogfiles import BinlogFiles, newest_number
from tests.integration.test_driver_failover import acknowledged, rows_of, started
from tests.integration.test_driver_restart import serving
from tests.support.editions import MYSQL, Edition
from tests.support.load import Load
from tests.support.minicluster import Instance, MiniCluster

pytestmark = pytest.mark.parametrize("edition", [MYSQL], indirect=True, ids=["mysql"])


def data_dir(instance: Instance) -> Path:
    return Path(instance.config.data_dir)


def newest_file(instance: Instance) -> Path:
    number = newest_number(data_dir(instance))
    assert number is not None
    return BinlogFiles.load(data_dir(instance)).path(number)


async def test_a_torn_transaction_is_void(cluster: MiniCluster) -> None:
    """The writer dies while its log holds, and the nodes have, part of a transaction."""
    writer, (candidate, bystander) = await started(cluster, 2)
    writer.target.sql("CREATE TABLE big (id INT PRIMARY KEY, pad LONGTEXT)")
    with Load(writer.target, clients=2) as load:
        await acknowledged(load, 100)
        file = newest_file(writer)
        size = file.stat().st_size
        insert = threading.Thread(target=insert_big, args=(writer,))
        insert.start()
        while file.stat().st_size < size + (8 << 20):
            await asyncio.sleep(0)
        cluster.kill_engine(writer)
        insert.join()
        opened = await cluster.open_volume(candidate)
    reader = UnitReader(0)
    assert sum(1 for _ in reader.feed(file.read_bytes())) > 100
    assert reader.settled < reader.position  # It was torn.
    assert opened["timeline"] == 3
    assert load.lost_on(candidate.target) == set()
    assert candidate.target.sql("SELECT COUNT(*) FROM big") == [(0,)]
    with Load(candidate.target, clients=2) as more:
        await acknowledged(more, 50)
    assert more.errors == []
    assert await rows_of(bystander, load.count + more.count) >= load.count + more.count
    assert bystander.target.sql("SELECT COUNT(*) FROM big") == [(0,)]


def insert_big(writer: Instance) -> None:
    with contextlib.suppress(writer.edition.Error):
        writer.target.sql("INSERT INTO big VALUES (1, REPEAT('x', 60000000))")


async def test_log_files_end_under_load(cluster: MiniCluster) -> None:
    writer, (reader,) = await started(cluster, 1)
    with Load(writer.target, clients=4) as load:
        for number in range(12):
            await acknowledged(load, 30)
            await asyncio.to_thread(writer.sql, "FLUSH BINARY LOGS")
            if number % 4 == 3:
                cluster.kill_driver(writer)
                await asyncio.to_thread(writer.sql, "SET @nothing = 1")
                cluster.start_driver(writer)
                status = await cluster.wait_status(writer, serving)
                assert status["role"] == "writer"
        await acknowledged(load, 30)
    assert load.errors == []
    assert len(BinlogFiles.load(data_dir(writer)).files) > 12
    assert await rows_of(reader, load.count) >= load.count
    cluster.kill_engine(writer)
    await cluster.open_volume(reader)
    assert load.lost_on(reader.target) == set()


async def test_a_later_image_needs_the_log_from_where_it_stands(cluster: MiniCluster) -> None:
    writer, (hidden,) = await started(cluster, 1)
    with Load(writer.target, clients=2) as load:
        await acknowledged(load, 300)
    assert await rows_of(hidden, load.count) >= load.count
    position = (await (await cluster.connect(hidden)).call("checkpoint"))["lsn"]
    assert hidden.engine is not None
    cluster.signal_engine(hidden, signal.SIGTERM)
    assert await asyncio.to_thread(hidden.engine.wait) == 0
    hidden.engine = None
    cluster.engine.clean_image(data_dir(hidden))
    assert cluster.engine.image_position(cluster.version, data_dir(hidden)) == position
    shutil.rmtree(cluster.root / "image")
    data_dir(hidden).rename(cluster.root / "image")
    with Load(writer.target, clients=2) as more:
        await acknowledged(more, 100)
    attached = await cluster.add_instance("attached")
    assert await rows_of(attached, load.count + more.count) >= load.count + more.count
    cluster.kill_engine(writer)
    await cluster.open_volume(attached)
    assert load.lost_on(attached.target) == more.lost_on(attached.target) == set()


async def test_schemas_accounts_and_every_kind_of_statement(cluster: MiniCluster, edition: Edition) -> None:
    """What a writer may do arrives, also over a failover in the midst of it."""
    writer, (first, second) = await started(cluster, 2)
    statements = (
        "CREATE DATABASE shop; CREATE TABLE shop.t (id INT AUTO_INCREMENT PRIMARY KEY, v TEXT, j JSON)",
        "CREATE SEQUENCE shop.q; INSERT INTO shop.t (v) VALUES (NEXTVAL(shop.q)), (UUID()), (RAND())",
        "CREATE TABLE shop.c AS SELECT id, v FROM shop.t; ALTER TABLE shop.c ADD PRIMARY KEY (id)",
        "CREATE TRIGGER shop.g AFTER INSERT ON shop.t FOR EACH ROW"
        " INSERT INTO shop.c (id, v) VALUES (NEW.id + 1000, NEW.v)",
        "INSERT INTO shop.t (v) VALUES ('COMMIT'), ('ROLLBACK')",
        "CREATE USER other@'%' IDENTIFIED BY 'Secret-of-other-1'; GRANT SELECT ON shop.* TO other@'%'",
        "XA START 'x'; INSERT INTO shop.t (v) VALUES ('xa'); XA END 'x'; XA PREPARE 'x'; XA COMMIT 'x'",
        "CREATE TEMPORARY TABLE shop.x (a INT); INSERT INTO shop.x VALUES (1);"
        " INSERT INTO shop.t (v) SELECT a FROM shop.x; DROP TEMPORARY TABLE shop.x",
        "DELETE FROM shop.t WHERE id = 2; UPDATE shop.t SET v = 'changed' WHERE id = 1",
        "CREATE VIEW shop.w AS SELECT v FROM shop.t; TRUNCATE TABLE shop.c; DROP TRIGGER shop.g",
    )
    for number, statement in enumerate(statements):
        with writer.target.connect() as session:
            for part in statement.split("; "):
                session.execute(part)
        if number == len(statements) // 2:
            cluster.kill_engine(writer)
            await cluster.open_volume(first)
            writer = first
    goal = (await cluster.status(writer))["vdl"]
    await cluster.wait_status(second, lambda s: (s["engine"]["replay_lsn"] or 0) >= goal)
    for query in ("SELECT * FROM shop.t", "SELECT * FROM shop.c", "SELECT * FROM shop.w"):
        assert second.target.sql(query) == writer.target.sql(query)
    other = second.target.but(user="other", password="Secret-of-other-1", database="shop")
    assert other.sql("SELECT COUNT(*) FROM t") == writer.target.sql("SELECT COUNT(*) FROM shop.t")
