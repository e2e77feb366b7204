"""What a customer of the MySQL-compatible edition may and may not do on a real server."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pymysql
import pytest

from borealis.engines.mariadb.administrator import Administrator
from borealis.engines.mariadb.grants import administrator_host

from .mariadb_real import MASTER, PASSWORD, Served, Workshop, seeded_feed, visible

DENIED = frozenset(
    {1044, 1045, 1102, 1130, 1142, 1143, 1227, 1289, 1290, 1370, 1396, 1410, 1465, 1470, 1698, 1978}
)


@pytest.fixture
async def writer(mariadb: Workshop) -> AsyncIterator[Served]:
    async with Served(mariadb, "one", seeded_feed(mariadb)) as served:
        await served.promote()
        yield served


@pytest.fixture(scope="module")
def shared_writer(mariadb_images: Workshop) -> object:
    """One writer for the statements that change nothing."""
    workshop = Workshop(
        mariadb_images.root, mariadb_images.version, mariadb_images.image, mariadb_images.seed
    )
    workshop.number = 100
    runner = asyncio.Runner()
    served = Served(workshop, "shared", seeded_feed(workshop))
    runner.run(served.__aenter__())
    runner.run(served.promote())
    runner.run(served.session.close())
    runner.run(served.server.close())
    runner.close()
    with served.instance.connect() as customer:
        customer.ask("CREATE USER other IDENTIFIED BY 'x'", "CREATE TABLE t (n INT PRIMARY KEY)")
    yield served
    served.instance.stop(signal.SIGKILL)
    workshop.stop_all()


async def test_the_master_user_rules_its_own_house(writer: Served) -> None:
    with writer.instance.connect() as customer:
        customer.ask(
            "CREATE DATABASE shop",
            "CREATE DATABASE my_db",
            "CREATE DATABASE `nosql`",
            "CREATE TABLE shop.t (n INT PRIMARY KEY)",
            "CREATE TABLE my_db.t (n INT PRIMARY KEY)",
            "CREATE USER app_user IDENTIFIED BY 'another secret'",
            "CREATE ROLE readers",
            "GRANT SELECT ON *.* TO readers",
            "GRANT readers TO app_user",
            "GRANT ALL ON shop.* TO app_user WITH GRANT OPTION",
            "GRANT ALL PRIVILEGES ON my_db.* TO app_user",
            "GRANT SELECT, INSERT ON `shop\\_%`.* TO app_user",
            "GRANT PROCESS, REPLICATION CLIENT, REPLICATION SLAVE ON *.* TO app_user",
            "ALTER USER app_user IDENTIFIED BY 'third secret'",
            "CREATE VIEW shop.v AS SELECT n FROM shop.t",
            "CREATE TRIGGER shop.tr BEFORE INSERT ON shop.t FOR EACH ROW SET NEW.n = NEW.n + 1",
            "CREATE PROCEDURE shop.p() INSERT INTO shop.t VALUES (1)",
            "CREATE FUNCTION shop.f() RETURNS INT RETURN 7",
            "CREATE EVENT shop.e ON SCHEDULE EVERY 1 DAY DO SET @a = 1",
            "CREATE SEQUENCE shop.s",
            "CALL shop.p()",
            "SHOW MASTER STATUS",
            "SHOW PROCESSLIST",
            "FLUSH PRIVILEGES",
            "FLUSH TABLES",
            "SELECT user, host FROM mysql.user",
            "SELECT * FROM sys.version",
        )
        assert customer.ask("SELECT n FROM shop.v") == [(2,)]
        assert customer.ask("SELECT shop.f(), NEXTVAL(shop.s)") == [(7, 1)]
    with writer.instance.connect("app_user", "third secret", "shop") as customer:
        customer.ask("INSERT INTO t VALUES (5)", "GRANT SELECT ON shop.* TO readers", "SELECT * FROM my_db.t")
        with pytest.raises(pymysql.OperationalError, match="denied"):
            customer.ask("CREATE DATABASE more")


LONG = administrator_host()


@pytest.mark.parametrize(
    "sql",
    [
        "GRANT SUPER ON *.* TO other",
        "GRANT ALL ON *.* TO other",
        "GRANT INSERT ON *.* TO other",
        "GRANT CREATE ON *.* TO other",
        "GRANT ALL ON `%`.* TO other",
        "GRANT INSERT ON `m%`.* TO other",
        "GRANT INSERT ON `_ysql`.* TO other",
        "GRANT INSERT ON `mysq_`.* TO other",
        "GRANT INSERT ON `_____`.* TO other",
        "GRANT INSERT ON `_____%`.* TO other",
        "GRANT INSERT ON `____%`.* TO other",
        "GRANT INSERT ON mysql.* TO other",
        "GRANT INSERT ON mysql.global_priv TO other",
        "GRANT EXECUTE, UPDATE ON mysql.* TO other",
        "GRANT CREATE ROUTINE ON mysql.* TO other",
        "GRANT TRIGGER ON mysql.* TO other",
        "GRANT FILE ON *.* TO other",
        "GRANT PROXY ON {admin} TO other",
        "SET DEFAULT ROLE NONE FOR {admin}",
        "INSERT INTO mysql.global_priv VALUES ('%', 'y', '{{}}')",
        "UPDATE mysql.global_priv SET Priv = '{{}}'",
        "REPLACE INTO mysql.db (Host, Db, User) VALUES ('%', '%', 'other')",
        "DELETE FROM mysql.db",
        "UPDATE mysql.user SET Super_priv = 'Y'",
        "UPDATE mysql.proc SET definer = 'x@y'",
        "UPDATE mysql.borealis_canary SET at = NOW()",
        "CREATE TABLE mysql.t (n INT)",
        "CREATE VIEW mysql.v AS SELECT 1",
        "CREATE PROCEDURE mysql.p() SET @a = 1",
        "CREATE EVENT mysql.e ON SCHEDULE EVERY 1 DAY DO SET @a = 1",
        "CREATE TRIGGER mysql.tr BEFORE UPDATE ON mysql.borealis_canary FOR EACH ROW SET @a = 1",
        "ALTER TABLE mysql.global_priv ADD x INT",
        "DROP TABLE mysql.global_priv",
        "TRUNCATE mysql.db",
        "RENAME TABLE mysql.global_priv TO app.stolen",
        "RENAME TABLE t TO mysql.t",
        "DROP DATABASE mysql",
        "ALTER DATABASE mysql CHARACTER SET latin1",
        "INSERT INTO `#mysql50#mysql`.global_priv VALUES ('%', 'y', '{{}}')",
        "CREATE DATABASE `#mysql50#mysql`",
        "RENAME USER {admin}@localhost TO stolen",
        "RENAME USER {admin} TO stolen",
        "RENAME USER {admin}@'' TO stolen",
        "RENAME USER {admin}@'{long}' TO stolen",
        "RENAME USER {admin}@'{cut}' TO stolen",
        "DROP USER {admin}@'{long}'",
        "DROP USER {admin}@localhost",
        "ALTER USER {admin}@'{long}' IDENTIFIED BY 'x'",
        "ALTER USER {admin}@'{cut}' ACCOUNT LOCK",
        "SET PASSWORD FOR {admin}@localhost = PASSWORD('x')",
        "CREATE DEFINER = {admin}@'{cut}' PROCEDURE p() SET GLOBAL read_only = 1",
        "CREATE DEFINER = 'mariadb.sys'@localhost VIEW v AS SELECT * FROM mysql.global_priv",
        "SET GLOBAL read_only = 1",
        "SET GLOBAL sync_binlog = 0",
        "SET GLOBAL binlog_format = STATEMENT",
        "SET GLOBAL enforce_storage_engine = NULL",
        "SET GLOBAL general_log = ON",
        "SET GLOBAL init_connect = 'x'",
        "SET GLOBAL event_scheduler = OFF",
        "SET GLOBAL gtid_slave_pos = ''",
        "SET GLOBAL server_id = 4",
        "SET SESSION enforce_storage_engine = NULL",
        "SET SESSION sql_log_bin = 0",
        "SET SESSION binlog_format = STATEMENT",
        "SET SESSION binlog_row_image = MINIMAL",
        "SET SESSION gtid_domain_id = 3",
        "SET SESSION gtid_seq_no = 1000",
        "SET SESSION server_id = 3",
        "SET SESSION pseudo_thread_id = 1",
        "BINLOG ''",
        "PURGE BINARY LOGS BEFORE NOW()",
        "CHANGE MASTER TO MASTER_HOST = 'x'",
        "STOP SLAVE",
        "SHUTDOWN",
        "INSTALL SONAME 'x'",
        "CREATE FUNCTION f RETURNS STRING SONAME 'x.so'",
        "SELECT 1 INTO OUTFILE '/tmp/borealis-must-not-be'",
        "LOAD DATA INFILE '/etc/passwd' INTO TABLE t",
        "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (HOST 'x')",
    ],
)
def test_what_the_master_user_cannot_do(sql: str, shared_writer: Served) -> None:
    instance = shared_writer.instance
    administrator = Administrator.load(instance.data_dir)
    assert administrator is not None
    with instance.connect() as customer, pytest.raises(pymysql.Error) as raised:
        customer.ask(sql.format(admin=administrator.user, long=LONG, cut=LONG[:255]))
    assert raised.value.args[0] in DENIED, raised.value


async def test_files_are_not_read(shared_writer: Served) -> None:
    with shared_writer.instance.connect() as customer:
        assert customer.ask("SELECT LOAD_FILE('/etc/passwd')") == [(None,)]


def test_only_the_sessions_way_in_is_the_administrators(shared_writer: Served) -> None:
    instance = shared_writer.instance
    administrator = Administrator.load(instance.data_dir)
    assert administrator is not None
    assert administrator.password not in repr(administrator)
    for user, password in (tuple(administrator), ("root", ""), ("", ""), ("mariadb.sys", ""), (MASTER, "")):
        with pytest.raises(pymysql.OperationalError, match="denied"), instance.connect(user, password):
            pass
    for name in ("administrator.json", "start.sql", "my.cnf"):
        assert (instance.data_dir / name).stat().st_mode & 0o077 == 0
    assert administrator.password not in (instance.data_dir / "start.sql").read_text()


async def test_a_procedure_runs_with_no_more_than_its_maker_has(writer: Served) -> None:
    with writer.instance.connect() as customer:
        customer.ask("CREATE PROCEDURE p() SQL SECURITY DEFINER SET GLOBAL max_connections = 1")
        with pytest.raises(pymysql.OperationalError, match="denied"):
            customer.ask("CALL p()")
        # A maker that is gone and comes back under the administrator's name is nobody either.
        administrator = Administrator.load(writer.instance.data_dir)
        assert administrator is not None
        customer.ask("CREATE USER maker IDENTIFIED BY 'x'", "GRANT ALL ON app.* TO maker", "CREATE ROLE boss")
    with writer.instance.connect("maker", "x") as maker:
        maker.ask("CREATE PROCEDURE q() SQL SECURITY DEFINER SET GLOBAL max_connections = 1")
    with writer.instance.connect() as customer:
        customer.ask("DROP USER maker")
        for named in (f"{administrator.user}@'{LONG[:255]}'", f"{administrator.user}@localhost"):
            with pytest.raises(pymysql.Error):
                customer.ask(f"RENAME USER {named} TO maker")
        with pytest.raises(pymysql.Error):
            customer.ask("CALL q()")


async def test_the_administrator_comes_back_after_it_was_shut_out(writer: Served) -> None:
    first = Administrator.load(writer.instance.data_dir)
    assert first is not None
    await writer.session.positions()
    with writer.instance.connect() as customer:
        customer.ask(f"CREATE USER {first.user}@localhost IDENTIFIED BY 'mine now'")
        assert (await writer.session.probe()).up
        assert (await writer.session.probe()).up
        second = Administrator.load(writer.instance.data_dir)
        assert second is not None
        assert second.user != first.user
        await writer.session.close()
        assert await writer.session.run_sql("SELECT 1") == [(1,)]
        administrators = "SELECT COUNT(*) FROM mysql.global_priv WHERE LENGTH(Host) > 255"
        assert customer.ask(administrators) == [(1,)]
        # What it did is its own: nothing of it is in the log.
        text = (writer.instance.data_dir / "binlog.000001").read_bytes()
        assert second.user.encode() not in text


@pytest.mark.parametrize("engine", ["MyISAM", "Aria", "MEMORY", "CSV", "MRG_MyISAM"])
async def test_every_table_is_in_the_engine_that_the_log_protects(engine: str, shared_writer: Served) -> None:
    show = "SELECT ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'app' AND TABLE_NAME = 'e'"
    with shared_writer.instance.connect() as customer:
        customer.ask("DROP TABLE IF EXISTS e")
        for sql in (
            f"CREATE TABLE e (n INT NOT NULL) ENGINE = {engine}",
            f"ALTER TABLE e ENGINE = {engine}",
            f"CREATE OR REPLACE TABLE e ENGINE = {engine} SELECT 1 AS n",
        ):
            ((_, number, text),) = customer.ask(sql, "SHOW WARNINGS")
            assert (number, text) == (1266, "Using storage engine InnoDB for table 'e'")
            assert customer.ask(show) == [("InnoDB",)]
        strict = "SET sql_mode = CONCAT(@@sql_mode, ',NO_ENGINE_SUBSTITUTION')"
        with pytest.raises(pymysql.Error, match="NO_ENGINE_SUBSTITUTION"):
            customer.ask(strict, f"ALTER TABLE e ENGINE = {engine}")
        customer.ask("SET sql_mode = ''", f"CREATE TEMPORARY TABLE tmp (n INT) ENGINE = {engine}")
        customer.ask("CREATE SEQUENCE IF NOT EXISTS sq ENGINE = MyISAM")


async def test_no_table_lies_outside_the_data_directory(shared_writer: Served, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with shared_writer.instance.connect() as customer:
        customer.ask(f"CREATE TABLE outside (n INT) DATA DIRECTORY = '{tmp_path}'")
        assert "DIRECTORY" not in customer.ask("SHOW CREATE TABLE outside")[0][1]
    assert not list(tmp_path.iterdir())


async def test_tables_that_asked_for_another_engine_are_the_same_on_readers(mariadb: Workshop) -> None:
    feed = seeded_feed(mariadb)
    async with Served(mariadb, "one", feed) as writer, Served(mariadb, "two", feed) as reader:
        await writer.promote()
        with writer.instance.connect() as customer:
            customer.ask("CREATE TABLE e (n INT) ENGINE = MyISAM", "ALTER TABLE e ENGINE = Aria, ADD m INT")
            customer.ask("INSERT INTO e VALUES (1, 2)")
        writer.ship()
        await visible(reader, "SELECT m FROM e", 2)
        engines = "SELECT ENGINE FROM information_schema.TABLES WHERE TABLE_NAME = 'e'"
        assert await reader.session.run_sql(engines) == [("InnoDB",)]


async def test_what_makes_a_database_moves_with_it(mariadb: Workshop) -> None:
    """Users, grants, routines, triggers, views, sequences, XA, large rows: all is on the next writer."""
    feed = seeded_feed(mariadb)
    async with Served(mariadb, "one", feed) as writer, Served(mariadb, "two", feed) as reader:
        await writer.promote()
        with writer.instance.connect(max_allowed_packet=64 << 20) as customer:
            customer.ask(
                "CREATE USER clerk IDENTIFIED BY 'x'",
                "GRANT SELECT, INSERT, EXECUTE ON app.* TO clerk",
                "CREATE TABLE t (n INT PRIMARY KEY, big LONGBLOB, doc JSON)",
                "CREATE TABLE audit (n INT)",
                "CREATE TRIGGER tr AFTER INSERT ON t FOR EACH ROW INSERT INTO audit VALUES (NEW.n)",
                "CREATE PROCEDURE p(x INT) INSERT INTO t (n) VALUES (x)",
                "CREATE VIEW v AS SELECT COUNT(*) AS c FROM t",
                "CREATE SEQUENCE sq START WITH 100",
                "INSERT INTO t VALUES (1, REPEAT('x', 20000000), JSON_OBJECT('a', 1))",
                "CREATE TEMPORARY TABLE tmp SELECT 2 AS n",
                "INSERT INTO t (n) SELECT n FROM tmp",
                "BEGIN",
                "INSERT INTO t (n) VALUES (3)",
                "SAVEPOINT a",
                "INSERT INTO t (n) VALUES (4)",
                "ROLLBACK TO a",
                "COMMIT",
                "XA START 'x'",
                "INSERT INTO t (n) VALUES (5)",
                "XA END 'x'",
                "XA PREPARE 'x'",
                "XA COMMIT 'x'",
                "SELECT NEXTVAL(sq)",
            )
        writer.ship()
        await reader.session.wait_replayed(feed.vdl)
        writer.instance.stop(signal.SIGKILL)
        await reader.promote()
        with reader.instance.connect("clerk", "x") as customer:
            customer.ask("CALL p(6)")
            assert customer.ask("SELECT c FROM v") == [(5,)]
            assert customer.ask("SELECT GROUP_CONCAT(n ORDER BY n) FROM audit") == [("1,2,3,5,6",)]
            assert customer.ask("SELECT LENGTH(big), JSON_EXTRACT(doc, '$.a') FROM t WHERE n = 1") == [
                (20000000, "1")
            ]
        with reader.instance.connect() as customer:
            assert customer.ask("SELECT NEXTVAL(sq) > 100") == [(1,)]


async def test_the_orders_example(writer: Served) -> None:
    with writer.instance.connect(password=PASSWORD, database=None) as customer:
        customer.ask(
            "CREATE DATABASE ecommerce",
            "USE ecommerce",
            "CREATE TABLE orders (order_id BIGINT AUTO_INCREMENT PRIMARY KEY, user_id BIGINT NOT NULL,"
            " status VARCHAR(32) NOT NULL, total_amount DECIMAL(12,2) NOT NULL,"
            " created_at DATETIME DEFAULT CURRENT_TIMESTAMP,"
            " updated_at DATETIME DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,"
            " shipping_address JSON, INDEX (user_id), INDEX (status))",
            "INSERT INTO orders (user_id, status, total_amount, shipping_address) VALUES"
            " (1001, 'PLACED', 199.99,"
            " JSON_OBJECT('street', '123 Main St', 'city', 'Bengaluru', 'zip', '560001')),"
            " (1002, 'SHIPPED', 49.50,"
            " JSON_OBJECT('street', '45 Park Ave', 'city', 'Mumbai', 'zip', '400001'))",
        )
        found = customer.ask(
            "SELECT order_id, JSON_EXTRACT(shipping_address, '$.city') AS city FROM orders"
            " WHERE JSON_EXTRACT(shipping_address, '$.city') = 'Bengaluru'"
        )
        assert found == [(1, '"Bengaluru"')]


async def test_the_grants_of_the_master_user_can_be_read(shared_writer: Served) -> None:
    with shared_writer.instance.connect() as customer:
        told = [row[0] for row in customer.ask("SHOW GRANTS")]
    assert re.match(r"GRANT SELECT, RELOAD, PROCESS, SHOW DATABASES, .* WITH GRANT OPTION$", told[0])
    assert all("SUPER" not in line and "ADMIN" not in line for line in told)
