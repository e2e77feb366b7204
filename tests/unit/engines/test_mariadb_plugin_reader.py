"""The plugin's reader of aurora_topology.json, compiled with the sanitizers."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PLUGIN = ROOT / "native" / "plugin"
READ, MISSING, BROKEN = "0", "1", "2"

Reader = Callable[[list[bytes]], list[str]]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reader") / "read_topology"
    sources = [str(Path(__file__).with_name("read_topology.c")), str(PLUGIN / "topology.c")]
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-g", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{PLUGIN}"]
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    built = subprocess.run(
        ["gcc", *flags, *sanitize, "-o", str(path), *sources], capture_output=True, text=True
    )
    if "libasan" in built.stderr or "cannot find" in built.stderr:
        pytest.skip("gcc has no AddressSanitizer here")
    assert built.returncode == 0, built.stderr
    return path


@pytest.fixture
def read(program: Path, tmp_path: Path) -> Reader:
    """What the reader says of each document: its result, then its members, separated by tabs."""

    def run(documents: list[bytes]) -> list[str]:
        paths = []
        for number, document in enumerate(documents):
            path = tmp_path / str(number)
            path.write_bytes(document)
            paths.append(str(path))
        done = subprocess.run([str(program), *paths], capture_output=True)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode(errors="replace").split("\n")[:-1]

    return run


FULL = {
    "version": 1,
    "members": [
        {
            "instance_id": "inst-1",
            "role": "writer",
            "session_id": "5b1e",
            "durable_lsn": 1 << 40,
            "receive_lsn": 5,
            "replay_lsn": 1 << 41,
            "lag_ms": 12.5,
            "active_txns": 3,
            "feedback_xmin": 1 << 50,
            "log_kib_per_second": 0.25,
            "cpu": 3.5,
            "updated_at": 1790000000.5,
            "later": {"a": [1, {"b": None}], "c": "d"},
        },
        {"instance_id": "inst-2", "role": "reader", "lag_ms": None, "replay_lsn": None},
    ],
    "more": [True, False, None, "x", -1e3],
}


def test_members_are_read(read: Reader) -> None:
    expected = "0\tinst-1|5b1e|1|2199023255552|12.5|1790000000.5\tinst-2||0|-1|-1|-1.0"
    plain = json.dumps(FULL).encode()
    assert read([plain, json.dumps(FULL, indent=3).encode() + b"\r\n"]) == [expected, expected]


def test_texts_are_decoded_and_never_cut(read: Reader) -> None:
    def named(name: object) -> bytes:
        return json.dumps({"members": [{"instance_id": name}]}).encode()

    pair = b'{"members":[{"instance_id":"a\\ud83d\\ude00\\u00e9\\n\\ud800z"}]}'
    lines = read([named('é\t"\\'), pair, named("n" * 255), named("n" * 256), named(5), named("")])
    first = lines[0].split("|")[0]
    assert first == '0\té\t"\\'
    assert read([pair])[0].startswith("0\ta😀é")
    assert "n" * 255 in "".join(lines)
    assert lines[-3:] == [READ, READ, READ]  # No usable name: passed over.


def test_too_many_members_are_passed_over(read: Reader) -> None:
    many = json.dumps({"members": [{"instance_id": f"i{n}"} for n in range(500)]}).encode()
    assert read([many])[0].count("\t") == 64


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{",
        b'{"members":[{"instance_id":"a"}',
        b'{"members":[{"instance_id":"a"}]}}',
        b'{"members":[{"instance_id":"a"}]}\0',
        b'{"members":{"instance_id":"a"}}',
        b'{"members":["a"]}',
        b'{"members":[{"instance_id":"a",}]}',
        b'{"members":[{"instance_id":"\\x41"}]}',
        b'{"members":[{"instance_id":"\\u12"}]}',
        b'{"members":[{"instance_id":"a\nb"}]}',
        b'{"members":[{"lag_ms":' + b"1" * 100 + b"}]}",
        b'{"x":' + b"[" * 1000 + b"]" * 1000 + b"}",
    ],
)
def test_what_is_not_such_a_document_is_refused_whole(read: Reader, document: bytes) -> None:
    assert read([document]) == [BROKEN]


def test_a_file_that_is_too_long_is_refused(read: Reader) -> None:
    assert read([b"{}" + b" " * ((1 << 20) - 2), b"{}" + b" " * ((1 << 20) - 1)]) == [READ, BROKEN]


def test_files_that_cannot_be_read(program: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    paths = [tmp_path / "nothing", tmp_path, tmp_path / "link"]
    done = subprocess.run([program, *paths], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [MISSING, BROKEN, BROKEN]


def test_damage_of_any_kind_is_survived(read: Reader) -> None:
    chance = random.Random(20)
    base = json.dumps(FULL).encode()
    documents = [base[:length] for length in range(len(base))]
    for _ in range(2000):
        damaged = bytearray(base)
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(len(damaged))
            damaged[place : place + chance.randrange(3)] = chance.choice(
                [b"", b'"', b"\\", b"\\u", b"{", b"]", b",", b"\0", b"-", bytes([chance.randrange(256)])]
            )
        documents.append(bytes(damaged))
    results = read(documents)
    assert len(results) >= len(documents)
    assert results[: len(base)] == [BROKEN] * len(base)  # No beginning of a document is one.
