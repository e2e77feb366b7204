"""The driver's configuration and remembered state: round trips, damage, versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from borealis.volume.config import DriverConfigError, decode_config, encode_config, load_config
from borealis.volume.state import DriverState, DriverStateError, Role, load_state, save_state

CONFIG = {
    "version": 1,
    "region": "/r",
    "instance_id": "db-1",
    "cluster_id": "cl-1",
    "incarnation": "i1",
    "volume": "vol-0123456789ab",
    "az": "us-east-1a",
    "nodes": [{"id": f"n{i}", "az": "us-east-1a", "address": f"/r/n{i}.sock"} for i in range(1, 7)],
    "engine": "aurora-postgresql",
    "engine_version": "15.20",
    "bin_dir": "/bin",
    "data_dir": "/d",
    "run_dir": "/run",
    "upstream_dir": "/run/up",
    "shm": "/d/log.shm",
    "state_file": "/d/state.json",
    "rpc_socket": "/run/driver.sock",
    "port": 5432,
    "listen_address": "127.0.0.1",
    "system_id": "7000",
    "a_field_of_tomorrow": True,
}


def test_configuration_round_trip(tmp_path: Path) -> None:
    config = decode_config(json.dumps(CONFIG))
    assert [node.id for node in config.nodes] == ["n1", "n2", "n3", "n4", "n5", "n6"]
    path = tmp_path / "driver.json"
    path.write_bytes(encode_config(config))
    assert load_config(path) == config


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"version": 2}, "version 2"),
        ({"port": "x"}, "port"),
        ({"nodes": []}, "nodes"),
        ({"lease_seconds": 0}, "lease_seconds"),
    ],
)
def test_configuration_names_the_fault(change: dict[str, object], word: str) -> None:
    with pytest.raises(DriverConfigError, match=word):
        decode_config(json.dumps(CONFIG | change))


def test_configuration_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(DriverConfigError, match=r"driver\.json"):
        load_config(tmp_path / "driver.json")


def test_no_state_is_a_reader(tmp_path: Path) -> None:
    assert load_state(tmp_path / "state.json") == DriverState(role=Role.READER)


def test_state_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state = DriverState(role=Role.WRITER, term=7, timeline=3, start=0x1000, history=[{"term": 7}])
    save_state(path, state)
    assert load_state(path) == state
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 9, "crc": 0, "state": {}}'])
def test_damaged_state_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(DriverStateError, match=r"state\.json"):
        load_state(path)


def test_changed_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    save_state(path, DriverState(role=Role.FENCED, term=7))
    path.write_text(path.read_text().replace("fenced", "writer"))
    with pytest.raises(DriverStateError, match="checksum"):
        load_state(path)
