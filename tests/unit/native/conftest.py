"""A stand-in engine under the real volume library, and a device page for it.

The tests of the library run twice: with the library as it is shipped, and with one that is built with
AddressSanitizer and UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

import ast
import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from borealis.volume.device import DeviceMode, LogDevice
from borealis.volume.nativelib import volume_library_path

NATIVE = Path(__file__).resolve().parents[3] / "native"
PROGRAM = Path(__file__).with_name("fake_engine.py")
WAIT_SECONDS = 20.0


class Engine:
    """One stand-in engine process."""

    def __init__(self, environment: dict[str, str], directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-S", str(PROGRAM)],
            env=environment,
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start(self, line: str) -> None:
        """Send a line; its answer is fetched with `answer`."""
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> object:
        """The value of the line that was sent. EOFError when the engine ended instead."""
        assert self.process.stdout
        text = self.process.stdout.readline()
        if not text:
            raise EOFError("the engine has ended")
        if text.startswith("!"):
            raise RuntimeError(text[2:].strip())
        return ast.literal_eval(text[2:])

    def run(self, line: str) -> object:
        self.start(line)
        return self.answer()

    @property
    def busy(self) -> bool:
        """No answer has come so far."""
        assert self.process.stdout
        return not select.select([self.process.stdout], [], [], 0)[0]

    def ended(self) -> tuple[int, str]:
        """Wait for the end; (exit status, standard error)."""
        assert self.process.stderr
        status = self.process.wait(WAIT_SECONDS)
        return status, self.process.stderr.read()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


EngineStarter = Callable[..., Engine]


@pytest.fixture(scope="session")
def sanitized_library(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """(libraries to preload before ours, ours), built with the sanitizers."""
    runtime = [
        subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    if not all(Path(path).is_absolute() for path in runtime):
        pytest.skip("gcc has no AddressSanitizer here")
    out = tmp_path_factory.mktemp("sanitized")
    subprocess.run(
        ["make", "-s", "-C", str(NATIVE), "sanitized", f"SANITIZED_DIR={out}"],
        check=True,
        capture_output=True,
    )
    return ":".join(runtime), out / "libborealis_volume.so"


@pytest.fixture(params=["plain", "sanitized"])
def preload(request: pytest.FixtureRequest) -> str:
    """What to put into LD_PRELOAD."""
    if request.param == "plain":
        return str(volume_library_path())
    runtime, library = request.getfixturevalue("sanitized_library")
    return f"{runtime}:{library}"


@pytest.fixture
def device(tmp_path: Path) -> Iterator[LogDevice]:
    device = LogDevice.create(tmp_path / "log.shm")
    yield device
    device.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The engine's directory, with an empty pg_wal."""
    directory = tmp_path / "data"
    (directory / "pg_wal").mkdir(parents=True)
    return directory


@pytest.fixture
def start_engine(preload: str, device: LogDevice, data: Path) -> Iterator[EngineStarter]:
    engines: list[Engine] = []

    def start(**changes: str) -> Engine:
        environment = {
            "LD_PRELOAD": preload,
            "ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0",
            "BOREALIS_LOG_DEVICE": str(device.path),
            "BOREALIS_LOG_KIND": "pgwal",
            "BOREALIS_LOG_PROGRAM": os.path.basename(os.path.realpath(sys.executable)),
            **changes,
        }
        engines.append(Engine(environment, data))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(start_engine: EngineStarter) -> Engine:
    """Attached, device off, with `log` open: pg_wal/000000010000000000000001."""
    engine = start_engine()
    engine.run("log = os.open('pg_wal/000000010000000000000001', os.O_RDWR | os.O_CREAT, 0o600)")
    return engine


@pytest.fixture
def writer(engine: Engine, device: LogDevice) -> Engine:
    """The same with the device on."""
    device.set_mode(DeviceMode.ON)
    return engine
