"""Waiting for a condition of the device, instead of for time."""

from __future__ import annotations

import time
from collections.abc import Callable

from borealis.volume.device import LogDevice

WAIT_SECONDS = 20.0
POLL_SECONDS = 0.002


def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; fail the test when it never does."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition never became true"
        time.sleep(POLL_SECONDS)


def until_syncing(device: LogDevice, seq: int | None = None) -> int:
    """Return when a sync waits (for write number `seq`); the number it waits for."""
    until(
        lambda: (
            device.waiters > 0
            and device.sync_wanted_seq > device.released_seq
            and seq in (None, device.sync_wanted_seq)
        )
    )
    return device.sync_wanted_seq
