"""The driver's side of the device page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from borealis.volume import device as device_module
from borealis.volume import nativelib
from borealis.volume.device import DeviceError, DeviceMode, LogDevice
from borealis.volume.nativelib import NativeLibraryError

from .conftest import NATIVE, Engine
from .waiting import until_syncing


def test_the_layout_is_the_documented_one() -> None:
    """The offsets in the module's FORMAT are those of the structure that reads the page."""
    assert device_module.__doc__
    documented = {
        name: int(offset)
        for offset, name in re.findall(
            r"^ +(\d+) u(?:32|64) +(?:driver|library) +(\w+)", device_module.__doc__, re.M
        )
        if name != "futex"
    }
    assert len(documented) >= 18
    for name, offset in documented.items():
        assert getattr(device_module._Page, name).offset == offset, name


def test_the_version_is_that_of_the_library() -> None:
    header = (NATIVE / "shm.h").read_text()
    assert f"DEVICE_VERSION {device_module.VERSION}u" in header
    assert f"DEVICE_MAGIC {device_module.MAGIC:#x}ull" in header


def test_a_new_page(device: LogDevice) -> None:
    assert device.mode is DeviceMode.OFF
    assert device.engine_pid is None
    assert (device.write_seq, device.released_seq, device.sync_wanted_seq) == (0, 0, 0)
    assert device.path.stat().st_mode & 0o777 == 0o600
    view = device.view()
    assert (view.write_seq, view.written_lsn, view.timeline) == (0, 0, 0)


def test_a_release_never_goes_back(device: LogDevice) -> None:
    device.release(5)
    device.release(3)
    assert device.released_seq == 5


def test_fenced_is_final(device: LogDevice) -> None:
    device.fence()
    device.fence()
    for mode in (DeviceMode.OFF, DeviceMode.ON):
        with pytest.raises(DeviceError, match="fenced"):
            device.set_mode(mode)


@pytest.mark.parametrize("preload", ["plain"], indirect=True)
def test_waiting_syncs_keep_the_device_on(writer: Engine, device: LogDevice) -> None:
    writer.run("os.pwrite(log, b'x', 0)")
    writer.start("os.fdatasync(log)")
    seq = until_syncing(device)
    with pytest.raises(DeviceError, match="waiting"):
        device.set_mode(DeviceMode.OFF)
    device.release(seq)
    writer.answer()
    device.set_mode(DeviceMode.OFF)


@pytest.mark.parametrize("preload", ["plain"], indirect=True)
def test_arming_releases_what_came_from_storage(engine: Engine, device: LogDevice) -> None:
    engine.run("os.pwrite(log, b'x', 0)")
    device.arm()
    engine.run("os.fdatasync(log)")
    assert device.mode is DeviceMode.ON
    engine.run("os.pwrite(log, b'x', 0)")
    engine.start("os.fdatasync(log)")
    until_syncing(device, 2)


def test_a_second_driver_sees_the_same_page(device: LogDevice) -> None:
    device.release(7)
    device.set_lease(123)
    device.beat()
    other = LogDevice.open(device.path)
    assert (other.released_seq, other.lease_deadline_ns) == (7, 123)
    assert other.heartbeat_ns == device.heartbeat_ns > 0
    other.close()
    assert device.released_seq == 7


def test_a_new_page_leaves_the_old_one_to_its_engine(device: LogDevice) -> None:
    device.release(7)
    other = LogDevice.create(device.path)
    assert other.released_seq == 0
    assert device.released_seq == 7
    other.close()


def test_notice_socket(device: LogDevice) -> None:
    first = device.bind_notices()
    assert device.bind_notices() is first
    assert device.notice_path.stat().st_mode & 0o777 == 0o600
    device.close()
    assert not device.notice_path.exists()
    device.close()


def test_pages_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot open"):
        LogDevice.open(tmp_path / "missing")
    (tmp_path / "short").write_bytes(b"x")
    with pytest.raises(DeviceError, match="1 bytes"):
        LogDevice.open(tmp_path / "short")
    (tmp_path / "zero").write_bytes(bytes(4096))
    with pytest.raises(DeviceError, match="version"):
        LogDevice.open(tmp_path / "zero")
    with pytest.raises(DeviceError, match="too long"):
        LogDevice.create(tmp_path / ("x" * 120))


def test_a_missing_library_says_how_to_build_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nativelib, "NATIVE_DIR", tmp_path)
    with pytest.raises(NativeLibraryError, match="make -C native"):
        nativelib.volume_library_path()
