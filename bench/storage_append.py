"""Append latency and throughput of storage nodes: one node, and six with a write quorum of four.

    python -m bench.storage_append [--seconds 3] [--directory /path/on/the/disk]

Every append is synced by each node before it is acknowledged. "in flight" is how many appends the writer
sends before it waits for the oldest one. BOREALIS_NATIVE_LOOPS=0 measures the nodes' reference in Python.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import uvloop

from borealis.log.history import TermHistory
from borealis.log.quorum import QuorumSet
from borealis.log.types import TermEntry
from borealis.log.wire import Ack, Append, Create, Message
from borealis.storage.client import NodeConnection

SEED = TermHistory((TermEntry(1, 1, 0, "", "bench"),))


@dataclass
class Nodes:
    """Storage node processes below one directory."""

    root: Path
    processes: list[subprocess.Popen[bytes]]
    addresses: dict[str, str]

    @classmethod
    def start(cls, root: Path, count: int) -> Nodes:
        addresses = {f"n{n}": str(root / f"n{n}.sock") for n in range(1, count + 1)}
        peers = {node: {"az": "a", "address": address} for node, address in addresses.items()}
        (root / "peers.json").write_text(json.dumps(peers))
        processes = []
        for node, address in addresses.items():
            with (root / f"{node}.log").open("wb") as log:
                processes.append(
                    subprocess.Popen(
                        [
                            *(sys.executable, "-m", "borealis.storage.main", "--node-id", node, "--az", "a"),
                            *("--dir", str(root / node), "--socket", address),
                            *("--peers", str(root / "peers.json")),
                        ],
                        stderr=log,
                    )
                )
        while not all(os.path.exists(address) for address in addresses.values()):
            time.sleep(0.01)
        return cls(root, processes, addresses)

    def cpu_seconds(self) -> float:
        """What all of them have used so far."""
        ticks = 0
        for process in self.processes:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait()


class Load:
    """Appends of `size` bytes to all nodes, `in_flight` at a time, each timed until a quorum has it."""

    def __init__(self, nodes: Nodes, volume: str, size: int, in_flight: int) -> None:
        count = len(nodes.addresses)
        members = frozenset(nodes.addresses)
        self.quorum = QuorumSet(members, 4, 3) if count == 6 else QuorumSet(members, count, 1)
        self.nodes, self.volume, self.in_flight = nodes, volume, in_flight
        self.data = os.urandom(size)
        self.reached = dict.fromkeys(members, 0)
        self.durable = 0
        self.sent_at: dict[int, int] = {}
        self.latencies_ns: list[int] = []
        self.risen = asyncio.Event()

    async def run(self, seconds: float) -> dict[str, float]:
        connections = []
        for node, address in self.nodes.addresses.items():
            connection = await NodeConnection.connect(
                address, self.volume, "writer", on_message=functools.partial(self.take, node)
            )
            await connection.request(Create(self.volume, SEED))
            connections.append(connection)
        await asyncio.sleep(0.3)  # The files that follow are being prepared.
        started, end, cpu = time.perf_counter(), 0, self.nodes.cpu_seconds()
        while time.perf_counter() - started < seconds:
            while len(self.sent_at) < self.in_flight:
                now = time.perf_counter_ns()
                frame = Append(1, end, self.durable, now, self.data).encode()
                end += len(self.data)
                self.sent_at[end] = now
                for connection in connections:
                    connection.send_bytes(frame)
            self.risen.clear()
            await self.risen.wait()
        elapsed = time.perf_counter() - started
        cpu = self.nodes.cpu_seconds() - cpu
        for connection in connections:
            await connection.close()
        latencies = sorted(self.latencies_ns)
        return {
            "p50_us": latencies[len(latencies) // 2] / 1e3,
            "p99_us": latencies[len(latencies) * 99 // 100] / 1e3,
            "appends_s": len(latencies) / elapsed,
            "mb_s": len(latencies) * len(self.data) / elapsed / 1e6,
            "cpu_us": cpu * 1e6 / len(latencies) / len(self.nodes.addresses),
        }

    def take(self, node: str, message: Message) -> None:
        assert isinstance(message, Ack), message
        self.reached[node] = message.end
        durable = self.quorum.durable_point(self.reached)
        if durable <= self.durable:
            return
        self.durable = durable
        now = time.perf_counter_ns()
        for end in [end for end in self.sent_at if end <= durable]:
            self.latencies_ns.append(now - self.sent_at.pop(end))
        self.risen.set()


def raw_sync_us(directory: Path, size: int) -> float:
    """The median of a write and fdatasync to a prewritten file, in microseconds: the floor."""
    path, data = directory / "raw", os.urandom(size)
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    os.pwrite(fd, bytes(1000 * size), 0)
    os.fsync(fd)
    times = []
    for number in range(1000):
        started = time.perf_counter_ns()
        zlib.crc32(data)
        os.pwrite(fd, data, number * size)
        os.fdatasync(fd)
        times.append(time.perf_counter_ns() - started)
    os.close(fd)
    path.unlink()
    return sorted(times)[500] / 1e3


async def measure(seconds: float, directory: str | None) -> None:
    print("nodes  bytes  in flight    p50 us    p99 us  appends/s     MB/s  node CPU us/append")
    for count in (1, 6):
        for size, in_flight in ((400, 1), (400, 4), (400, 64), (8192, 1), (8192, 16), (262144, 8)):
            root = Path(tempfile.mkdtemp(dir=directory, prefix="bench-"))
            try:
                nodes = await asyncio.to_thread(Nodes.start, root, count)
                load = Load(nodes, "vol-bench", size, in_flight)
                result = await load.run(seconds)
                nodes.stop()
            finally:
                shutil.rmtree(root)
            print(
                f"{count:5}  {size:6}  {in_flight:8}  {result['p50_us']:9.0f} {result['p99_us']:9.0f} "
                f"{result['appends_s']:10.0f} {result['mb_s']:8.1f}  {result['cpu_us']:18.0f}"
            )
    for size in (400, 8192):
        print(
            f"floor: write and fdatasync of {size} bytes: {raw_sync_us(Path(directory or '.'), size):.0f} us"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.storage_append", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--directory", help="where to keep the nodes' files: on the disk to be measured")
    arguments = parser.parse_args()
    uvloop.run(measure(arguments.seconds, arguments.directory))


if __name__ == "__main__":
    main()
