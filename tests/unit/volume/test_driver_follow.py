"""The driver tells each process of its engine to follow, until it does, and before a promotion."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from borealis.engines.base import EngineError, EngineUnavailable
from borealis.volume import driver as driver_module
from borealis.volume.context import DriverContext
from borealis.volume.driver import Driver, RoleError
from borealis.volume.reader import ReaderRole


class Session:
    """An engine that is some process, and follows when the test says so."""

    def __init__(self) -> None:
        self.pid = 100
        self.calls = 0
        self.failures: list[Exception] = []

    def process_id(self) -> int:
        return self.pid

    async def follow(self) -> None:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)


class Process:
    """Stands in for `EngineProcess`."""

    def __init__(self, pid: int, data_dir: Path, on_end: Any) -> None:
        self.pid = pid

    def close(self) -> None: ...


class Bench:
    def __init__(self, root: Path) -> None:
        self.session = Session()
        config = SimpleNamespace(rpc_socket=str(root / "s"), instance_id="i", probe_seconds=1)
        self.device = SimpleNamespace(engine_pid=None)
        context = SimpleNamespace(
            config=config, state_file=root / "state", session=self.session, device=self.device, data_dir=root
        )
        self.driver = Driver(cast(DriverContext, context))
        self.driver.reader = cast(ReaderRole, SimpleNamespace())

    def begin(self, *failures: Exception) -> None:
        """The engine's process is there; following fails like this at first."""
        self.session.failures = list(failures)
        self.device.engine_pid = self.session.pid

    async def until(self, calls: int) -> None:
        async with asyncio.timeout(20):
            while self.session.calls < calls:
                await asyncio.sleep(0.001)


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(driver_module, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(driver_module, "EngineProcess", Process)
    made = Bench(tmp_path)
    task = asyncio.create_task(made.driver._watch_engine())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_until_it_does(bench: Bench) -> None:
    bench.begin(EngineUnavailable("starting"), EngineError("refused"), EngineUnavailable("once more"))
    await bench.until(4)
    await bench.driver._until_it_follows()
    await asyncio.sleep(0.02)
    assert bench.session.calls == 4


async def test_each_process_is_told(bench: Bench) -> None:
    bench.begin()
    await bench.until(1)
    bench.driver._engine_ended(100)
    bench.session.pid = bench.device.engine_pid = 101
    await bench.until(2)
    await bench.driver._until_it_follows()


async def test_a_writer_follows_nobody(bench: Bench) -> None:
    bench.begin()
    await bench.until(1)
    bench.driver.reader = None
    bench.driver._engine_ended(100)
    await asyncio.sleep(0.02)
    assert bench.session.calls == 1


async def test_a_promotion_waits_for_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "FOLLOW_SECONDS", 0.01)
    bench.begin(*[EngineUnavailable("starting")] * 100_000)
    await bench.until(2)
    with pytest.raises(RoleError, match="does not follow"):
        await bench.driver._until_it_follows()
