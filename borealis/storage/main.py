"""`python -m borealis.storage.main`: one storage node as a process.

Owns the command line, the signals and the exit code: 0 after SIGTERM or SIGINT, 1 when the node cannot start.
It prints nothing; the log goes to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
from pathlib import Path

import uvloop

from borealis.errors import BorealisError
from borealis.logs import get_logger, setup_logging
from borealis.storage.logfile import LogConfig
from borealis.storage.node import NodeSettings, StorageNode
from borealis.storage.scrub import ScrubConfig

log = get_logger(__name__)


def _arguments(argv: list[str]) -> NodeSettings:
    parser = argparse.ArgumentParser(prog="python -m borealis.storage.main", description=__doc__)
    parser.add_argument("--node-id", required=True, help="the node's name, unique in the region")
    parser.add_argument("--az", required=True, help="its availability zone")
    parser.add_argument("--dir", required=True, type=Path, help="its directory; nobody else may use it")
    parser.add_argument("--socket", required=True, help="where to listen: a socket path, or host:port")
    parser.add_argument("--peers", required=True, type=Path, help="peers.json: the nodes of the region")
    parser.add_argument("--file-bytes", type=int, help="the largest log file, in bytes (for tests)")
    scrub = ScrubConfig()
    parser.add_argument(
        "--scrub-bytes-per-second",
        type=int,
        default=scrub.bytes_per_second,
        help="how fast all that the node holds is checked in the background; 0: not at all",
    )
    parser.add_argument(
        "--scrub-pass-seconds",
        type=float,
        default=scrub.pass_seconds,
        help="how long one such check of everything takes at least",
    )
    parsed = parser.parse_args(argv)
    config = LogConfig()
    if parsed.file_bytes is not None:
        size = parsed.file_bytes
        config = LogConfig(size, size, summary_bytes=size // 4, reserve_bytes=min(size // 8, 128 * 1024))
    return NodeSettings(
        node=parsed.node_id,
        az=parsed.az,
        directory=parsed.dir,
        address=parsed.socket,
        peers=parsed.peers,
        config=config,
        scrub=ScrubConfig(parsed.scrub_bytes_per_second, parsed.scrub_pass_seconds),
    )


async def _run(settings: NodeSettings) -> None:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    node = StorageNode(settings)
    try:
        await node.start()
        await asked.wait()
    finally:
        await node.stop()


def _raise_file_limit() -> None:
    """A connection needs a descriptor: the soft limit is for programs that use select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(argv: list[str]) -> int:
    settings = _arguments(argv)
    os.umask(0o077)
    setup_logging(settings.node)
    _raise_file_limit()
    try:
        uvloop.run(_run(settings))
    except BorealisError as error:
        log.critical("cannot start: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
