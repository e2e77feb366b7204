"""The small parts: password verifiers, positions and names in the log, control files, classes, discovery."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from borealis.engines.base import BootstrapSpec, EngineError, EngineNotFound, Feedback, RunAs
from borealis.engines.classes import INSTANCE_CLASSES, UnknownInstanceClass, acu_memory_bytes, instance_class
from borealis.engines.postgres import wal
from borealis.engines.postgres.bootstrap import bootstrap
from borealis.engines.postgres.controlfile import ClusterState, read_control_file
from borealis.engines.postgres.discover import discover
from borealis.engines.postgres.image import clean_image
from borealis.engines.postgres.scram import is_verifier, scram_verifier
from borealis.engines.registry import find_version, get_engine

from .real import Workshop

GIB = 1 << 30


# ------------------------------------------------------------------ passwords
def test_verifier_of_a_known_password() -> None:
    """The example of RFC 7677: user "user", password "pencil"."""
    salt = bytes.fromhex("5b6d99689d12358eec a04b141236fa81".replace(" ", ""))
    assert scram_verifier("pencil", salt) == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_verifiers_are_salted_and_recognised() -> None:
    one, two = scram_verifier("x"), scram_verifier("x")
    assert one != two
    assert is_verifier(one)
    assert not is_verifier("md5abc")
    assert not is_verifier(one + "'")


def test_passwords_are_normalised_like_clients_do() -> None:
    salt = bytes(16)
    assert scram_verifier("I\u00adX", salt) == scram_verifier("IX", salt)
    assert scram_verifier("\u00aa", salt) == scram_verifier("a", salt)
    assert scram_verifier("a\u00a0b", salt) == scram_verifier("a b", salt)
    # What SASLprep forbids is used as it is: a control character, a mix of directions.
    assert scram_verifier("ü\u0007", salt) != scram_verifier("ü", salt)
    assert is_verifier(scram_verifier("\u0627\u0031", salt))


# ------------------------------------------------------------------ names in the log
@pytest.mark.parametrize(("lsn", "text"), [(0x2000028, "0/2000028"), (0x1_0000_0000, "1/0"), (0, "0/0")])
def test_positions(lsn: int, text: str) -> None:
    assert wal.format_lsn(lsn) == text
    assert wal.parse_lsn(text) == lsn


@pytest.mark.parametrize("text", ["", "1", "x/1", "0/123456789", "0/1 2"])
def test_what_is_no_position(text: str) -> None:
    with pytest.raises(EngineError, match="not a WAL position"):
        wal.parse_lsn(text)


def test_file_names() -> None:
    assert wal.file_name(1, 0x2000028) == "000000010000000000000002"
    assert wal.file_name(0x1F, 0x5_FF00_0000) == "0000001F00000005000000FF"
    assert wal.is_wal_file("000000010000000000000002.partial")
    assert wal.is_wal_file("00000002.history")
    assert not wal.is_wal_file("archive_status")


def test_reading_over_files(tmp_path: Path) -> None:
    (tmp_path / "pg_wal").mkdir()
    first = wal.SEGMENT_BYTES
    (tmp_path / "pg_wal" / wal.file_name(1, first)).write_bytes(bytes(wal.SEGMENT_BYTES - 4) + b"abcd")
    (tmp_path / "pg_wal" / wal.file_name(1, 2 * first)).write_bytes(b"efgh")
    assert wal.read_wal(tmp_path, 1, 2 * first - 2, 2 * first + 2) == b"cdef"
    assert wal.read_wal(tmp_path, 1, 2 * first, 2 * first + 100) == b"efgh"
    assert wal.read_wal(tmp_path, 2, 2 * first, 2 * first + 100) == b""


def test_history_files(tmp_path: Path) -> None:
    (tmp_path / "pg_wal").mkdir()
    text = "1\t0/3000000\tno recovery target specified\n\n2\t0/4000148\tno recovery target specified\n"
    (tmp_path / "pg_wal" / "00000003.history").write_text(text)
    assert wal.newest_history(tmp_path, 3) is None
    assert wal.newest_history(tmp_path, 2) == (3, 0x4000148, text)
    with pytest.raises(EngineError, match="names no switch position"):
        wal.switch_position("# only a comment\n")


# ------------------------------------------------------------------ directories
def _control_file(directory: Path, state: int, version: int = 1300) -> None:
    (directory / "global").mkdir(exist_ok=True)
    (directory / "global" / "pg_control").write_bytes(
        struct.pack("<QIIi4xqQQI", 7, version, 202209061, state, 0, 0x2000028, 0x2000028, 3) + bytes(100)
    )


def test_control_file(tmp_path: Path) -> None:
    _control_file(tmp_path, 2)
    control = read_control_file(tmp_path)
    assert (control.system_id, control.timeline, control.redo) == ("7", 3, 0x2000028)
    assert control.state is ClusterState.SHUTDOWNED_IN_RECOVERY
    assert control.clean


def test_what_is_no_control_file(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="not a PostgreSQL data directory"):
        read_control_file(tmp_path)
    _control_file(tmp_path, 1, version=13)
    with pytest.raises(EngineError, match="control version"):
        read_control_file(tmp_path)
    (tmp_path / "global" / "pg_control").write_bytes(b"short")
    with pytest.raises(EngineError, match="damaged"):
        read_control_file(tmp_path)


def test_a_server_that_was_killed_leaves_no_image(tmp_path: Path) -> None:
    _control_file(tmp_path, 6)
    with pytest.raises(EngineError, match="not shut down cleanly"):
        clean_image(tmp_path)
    (tmp_path / "postmaster.pid").write_text("1")
    with pytest.raises(EngineError, match="in use"):
        clean_image(tmp_path)


# ------------------------------------------------------------------ classes, versions, feedback
def test_classes() -> None:
    large = instance_class("db.r6g.large")
    assert (large.vcpu, large.memory_bytes, large.min_memory_bytes) == (2, 16 * GIB, 16 * GIB)
    assert instance_class("db.t4g.medium").memory_bytes == 4 * GIB
    assert instance_class("db.x2g.16xlarge").memory_bytes == 1024 * GIB
    serverless = instance_class("db.serverless")
    assert serverless.serverless
    assert serverless.min_memory_bytes == acu_memory_bytes(0.5) == GIB
    assert {one.family for one in INSTANCE_CLASSES.values()} >= {
        "t3",
        "t4g",
        "r5",
        "r6g",
        "r6i",
        "r7g",
        "r8g",
        "x2g",
    }
    with pytest.raises(UnknownInstanceClass, match="Invalid DB instance class"):
        instance_class("db.m5.large")


def test_an_unknown_engine_and_an_unknown_version() -> None:
    with pytest.raises(EngineNotFound, match="known engines: aurora-mysql, aurora-postgresql"):
        get_engine("oracle-ee")
    with pytest.raises(EngineNotFound, match="installed versions"):
        find_version("aurora-postgresql", "3")


def test_discovery_passes_over_what_is_no_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOREALIS_PG_BIN", str(tmp_path))
    before = discover()
    for name in ("postgres", "initdb", "pg_controldata", "pg_resetwal"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 16.4 (Debian)'\n")
        (tmp_path / name).chmod(0o755)
    added = [version for version in discover() if version not in before]
    assert [(one.version, one.major, one.family) for one in added] == [("16.4", "16", "aurora-postgresql16")]
    (tmp_path / "postgres").write_text("#!/bin/sh\nexit 1\n")
    assert discover() == before


def test_the_oldest_demand_counts() -> None:
    assert Feedback.merge([]) == Feedback()
    assert Feedback.merge([Feedback(7, 0), Feedback(0, 3), Feedback(5, 9)]) == Feedback(5, 3)


def test_users() -> None:
    assert RunAs.current().user
    with pytest.raises(EngineError, match="does not exist"):
        RunAs.lookup("no-such-user-here")


# ------------------------------------------------------------------ bootstrap
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (BootstrapSpec("rdsadmin", scram_verifier("x")), "reserved"),
        (BootstrapSpec("pg_boss", scram_verifier("x")), "not valid"),
        (BootstrapSpec('a"b', scram_verifier("x")), "not valid"),
        (BootstrapSpec("master", "secret"), "SCRAM"),
        (BootstrapSpec("master", scram_verifier("x"), "template1"), "reserved"),
        (BootstrapSpec("master", scram_verifier("x"), "a;b"), "not valid"),
    ],
)
def test_bootstrap_refuses(tmp_path: Path, images: Workshop, spec: BootstrapSpec, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        bootstrap(images.version, tmp_path / "d", RunAs.current(), spec)
    assert not (tmp_path / "d").exists()


def test_bootstrap_does_not_touch_what_is_there(tmp_path: Path, images: Workshop) -> None:
    (tmp_path / "kept").write_text("x")
    with pytest.raises(EngineError, match="not empty"):
        bootstrap(images.version, tmp_path, RunAs.current(), BootstrapSpec("m", scram_verifier("x")))
    assert (tmp_path / "kept").exists()


def test_an_image_has_no_log(images: Workshop) -> None:
    assert not [path.name for path in (images.image / "pg_wal").rglob("*") if path.is_file()]
    assert images.engine.image_position(images.version, images.image) == images.seed.start_lsn
    assert read_control_file(images.image).clean
    assert len(images.seed.log) < 100_000
