"""What the MySQL-compatible edition's SQL can do reaches the readers and survives the loss of the writer."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.editions import MYSQL, Row, Session
from tests.support.processes import wait_until
from tests.support.region import Cluster, Region

HARMLESS = ("fenced", "engine", "lease", "superseded")

ORDERS = f"CREATE DATABASE ecommerce; USE ecommerce; {' '.join(MYSQL.orders)}"
MIB = 1 << 20


@pytest.fixture(scope="module")
def cluster(region: Region) -> Cluster:
    return region.create_cluster(edition=MYSQL)


@dataclass(frozen=True)
class Feature:
    """Statements for one session on the writer, and what any instance must then answer."""

    name: str
    statements: tuple[str, ...]
    query: str
    answer: tuple[Row, ...]


FEATURES = (
    Feature(
        "definitions",
        (
            "CREATE TABLE shaped (id INT PRIMARY KEY, old INT)",
            "INSERT INTO shaped VALUES (1, 10), (2, 20)",
            "ALTER TABLE shaped ADD COLUMN name VARCHAR(20) DEFAULT 'none', DROP COLUMN old",
            "CREATE INDEX by_name ON shaped (name)",
            "RENAME TABLE shaped TO formed",
            "CREATE TABLE emptied (n INT)",
            "INSERT INTO emptied VALUES (1)",
            "TRUNCATE TABLE emptied",
            "CREATE TABLE copied AS SELECT * FROM formed",
            "CREATE VIEW seen AS SELECT name, COUNT(*) AS c FROM formed GROUP BY name",
        ),
        "SELECT name, c, (SELECT COUNT(*) FROM emptied), (SELECT COUNT(*) FROM copied) FROM seen",
        (("none", 2, 0, 2),),
    ),
    Feature(
        "routines",
        (
            "CREATE FUNCTION doubled(n INT) RETURNS INT DETERMINISTIC RETURN n * 2",
            "CREATE TABLE called (n INT)",
            "CREATE PROCEDURE call_it(IN n INT) BEGIN INSERT INTO called VALUES (doubled(n)); END",
            "CALL call_it(21)",
        ),
        "SELECT doubled(n) FROM called",
        ((84,),),
    ),
    Feature(
        "triggers",
        (
            "CREATE TABLE watched (n INT PRIMARY KEY)",
            "CREATE TABLE heard (n INT, what VARCHAR(10))",
            "CREATE TRIGGER hear AFTER INSERT ON watched"
            " FOR EACH ROW INSERT INTO heard VALUES (NEW.n, 'new')",
            "INSERT INTO watched VALUES (7), (8)",
        ),
        "SELECT n, what FROM heard ORDER BY n",
        ((7, "new"), (8, "new")),
    ),
    Feature(
        "savepoints",
        (
            "CREATE TABLE saved (n INT PRIMARY KEY)",
            "START TRANSACTION",
            "INSERT INTO saved VALUES (1)",
            "SAVEPOINT here",
            "INSERT INTO saved VALUES (2)",
            "ROLLBACK TO SAVEPOINT here",
            "INSERT INTO saved VALUES (3)",
            "COMMIT",
        ),
        "SELECT n FROM saved ORDER BY n",
        ((1,), (3,)),
    ),
    Feature(
        "xa",
        (
            "CREATE TABLE prepared (n INT PRIMARY KEY)",
            "XA START 'one'",
            "INSERT INTO prepared VALUES (1)",
            "XA END 'one'",
            "XA PREPARE 'one'",
            "XA COMMIT 'one'",
            "XA START 'two'",
            "INSERT INTO prepared VALUES (2)",
            "XA END 'two'",
            "XA COMMIT 'two' ONE PHASE",
            "XA START 'three'",
            "INSERT INTO prepared VALUES (3)",
            "XA END 'three'",
            "XA PREPARE 'three'",
            "XA ROLLBACK 'three'",
        ),
        "SELECT n FROM prepared ORDER BY n",
        ((1,), (2,)),
    ),
    Feature(
        "temporary tables",
        (
            "CREATE TABLE lasting (n INT PRIMARY KEY)",
            "CREATE TEMPORARY TABLE passing (n INT)",
            "INSERT INTO passing VALUES (1), (2)",
            "INSERT INTO lasting SELECT n * 10 FROM passing",
            "DROP TEMPORARY TABLE passing",
        ),
        "SELECT n FROM lasting ORDER BY n",
        ((10,), (20,)),
    ),
    Feature(
        "sequences",
        (
            "CREATE SEQUENCE numbers START WITH 100 NOCACHE",
            "CREATE TABLE numbered (n BIGINT PRIMARY KEY)",
            "INSERT INTO numbered VALUES (NEXTVAL(numbers))",
            "INSERT INTO numbered VALUES (NEXTVAL(numbers))",
        ),
        "SELECT n, (SELECT next_not_cached_value FROM numbers) FROM numbered ORDER BY n",
        ((100, 102), (101, 102)),
    ),
    Feature(
        "large transactions",
        (
            "CREATE TABLE large (n INT PRIMARY KEY, filler LONGBLOB)",
            "START TRANSACTION",
            *(f"INSERT INTO large VALUES ({n}, REPEAT(CHAR(65 + {n % 26}), {MIB}))" for n in range(50)),
            "COMMIT",
        ),
        "SELECT COUNT(*), SUM(LENGTH(filler)), MD5(GROUP_CONCAT(MD5(filler) ORDER BY n)) IS NULL FROM large",
        ((50, 50 * MIB, 0),),
    ),
)


@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f.name.replace(" ", "-"))
def test_it_reaches_the_readers(cluster: Cluster, feature: Feature) -> None:
    with cluster.endpoint.connect() as session:
        for statement in feature.statements:
            session.execute(statement)
    _on_every_instance(cluster, feature)


def test_rows_as_large_as_a_packet(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE packets (n INT PRIMARY KEY, filler LONGBLOB)")
    [(packet,)] = cluster.sql("SELECT @@max_allowed_packet")
    size = packet - 64 * 1024
    with cluster.endpoint.connect() as session:
        session.execute("INSERT INTO packets VALUES (1, %s)", ("x" * size,))
    for name in cluster.members():
        _until_answer(cluster, name, "SELECT LENGTH(filler) FROM packets", ((size,),))


def test_load_data_local(cluster: Cluster, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("".join(f"{n},name {n}\n" for n in range(1000)))
    with cluster.endpoint.connect() as session:
        session.execute("CREATE TABLE loaded (n INT PRIMARY KEY, name VARCHAR(20))")
        session.execute(f"LOAD DATA LOCAL INFILE '{rows}' INTO TABLE loaded FIELDS TERMINATED BY ','")
    for name in cluster.members():
        _until_answer(cluster, name, "SELECT COUNT(*), MAX(name) FROM loaded", ((1000, "name 999"),))


def test_users_and_grants(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE public_list (n INT)")
    cluster.sql("CREATE USER 'clerk'@'%' IDENTIFIED BY 'Clerk-Pass-1'")
    cluster.sql("GRANT SELECT ON app.public_list TO 'clerk'@'%'")
    _clerk_reads_and_no_more(cluster)


def test_events(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE ticks (at DATETIME(6))")
    cluster.sql("CREATE EVENT tick ON SCHEDULE EVERY 1 DAY DO INSERT INTO ticks VALUES (NOW(6))")
    cluster.sql("CREATE EVENT quiet ON SCHEDULE EVERY 1 DAY DISABLE DO INSERT INTO ticks VALUES (NOW(6))")
    _events(cluster)


@pytest.mark.parametrize("engine", ["MyISAM", "Aria", "MEMORY", "CSV", "ARCHIVE", "BLACKHOLE"])
def test_no_table_in_an_engine_that_the_log_does_not_protect(cluster: Cluster, engine: str) -> None:
    name = f"other_{engine.lower()}"
    with contextlib.suppress(MYSQL.Error):
        cluster.sql(f"CREATE TABLE {name} (n INT NOT NULL) ENGINE={engine}")
    kinds = cluster.sql(
        f"SELECT engine FROM information_schema.tables WHERE table_schema = 'app' AND table_name = '{name}'"
    )
    assert kinds in ([], [("InnoDB",)])


@pytest.fixture(scope="module")
def promoted(cluster: Cluster) -> Cluster:
    """The cluster after its writer was killed: another instance has its role."""
    writer = cluster.writer
    processes.send(cluster.engine_processes(writer), signal.SIGKILL)
    wait_until(lambda: cluster.writer != writer, 30, "another writer")
    cluster.wait_healthy()
    return cluster


@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f.name.replace(" ", "-"))
def test_it_survives_the_writer(promoted: Cluster, feature: Feature) -> None:
    _on_every_instance(promoted, feature)


def test_users_grants_and_events_survive_the_writer(promoted: Cluster) -> None:
    _clerk_reads_and_no_more(promoted)
    _events(promoted)


def test_what_was_made_goes_on_working(promoted: Cluster) -> None:
    with promoted.endpoint.connect() as session:
        session.execute("INSERT INTO watched VALUES (9)")
        session.execute("CALL call_it(1)")
        session.execute("INSERT INTO numbered VALUES (NEXTVAL(numbers))")
        assert session.execute("SELECT COUNT(*) FROM heard") == [(3,)]
        assert session.execute("SELECT MAX(n) FROM numbered")[0][0] >= 102
    for name in promoted.readers:
        _until_answer(promoted, name, "SELECT COUNT(*) FROM heard", ((3,),))
        _until_answer(promoted, name, "SELECT COUNT(*) FROM called", ((2,),))


def test_the_example_word_for_word_through_the_command_line_client(cluster: Cluster) -> None:
    def ask(statement: str, host: str) -> str:
        argv, env = MYSQL.client(cluster.at(host).but(database=""), statement)
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    about = cluster.describe()
    ask(ORDERS, about["Endpoint"])
    by_city = f"USE ecommerce; {MYSQL.orders_by_city}"
    by_user = f"USE ecommerce; {MYSQL.orders_by_user}"
    reader = cluster.reader_endpoint
    wait_until(lambda: reader.sql("SHOW DATABASES LIKE 'ecommerce'"), 10, "the database on a reader")
    for name in cluster.members():
        _until_answer(cluster, name, "SELECT COUNT(*) FROM ecommerce.orders", ((2,),))
    for host in (about["Endpoint"], about["ReaderEndpoint"]):
        assert ask(by_city, host) == '1\t"Bengaluru"\n'
        assert ask(by_user, host).startswith("1\t199.99\t")


# ---------------------------------------------------------------------- asking every instance
def _on_every_instance(cluster: Cluster, feature: Feature) -> None:
    for name in cluster.members():
        _until_answer(cluster, name, feature.query, feature.answer)


def _until_answer(cluster: Cluster, name: str, query: str, answer: tuple[Row, ...]) -> None:
    """Wait until an instance gives the answer: a reader may be a moment behind."""
    with cluster.instance(name).connect() as session:
        wait_until(lambda: _answer(session, query) == list(answer), 30, f"{query} on {name} to give {answer}")


def _answer(session: Session, query: str) -> list[Row] | None:
    try:
        return [tuple(int(v) if hasattr(v, "as_tuple") else v for v in row) for row in session.execute(query)]
    except MYSQL.Error:
        return None


def _clerk_reads_and_no_more(cluster: Cluster) -> None:
    for name in cluster.members():
        clerk = cluster.instance(name).but(user="clerk", password="Clerk-Pass-1")

        def reads(clerk: object = clerk) -> bool:
            try:
                return clerk.sql("SELECT COUNT(*) FROM public_list") == [(0,)]  # type: ignore[attr-defined]
            except MYSQL.Error:
                return False

        wait_until(reads, 20, f"the new user on {name}")
        with pytest.raises(MYSQL.Error):
            clerk.sql("INSERT INTO public_list VALUES (1)")


def _events(cluster: Cluster) -> None:
    """Enabled on the writer alone, and there only those that were enabled."""
    query = "SELECT event_name, status = 'ENABLED' FROM information_schema.events ORDER BY event_name"
    _until_answer(cluster, cluster.writer, query, (("quiet", 0), ("tick", 1)))
    for name in cluster.readers:
        _until_answer(cluster, name, query, (("quiet", 0), ("tick", 0)))
