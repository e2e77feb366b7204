"""How every process of a region writes its log: one line per happening, to standard error.

Owns the format and the levels; it never opens a file (the host agent leads standard error into
log/<name>.log) and never sees a secret: callers log names and ids, not requests or settings.

FORMAT (a line)
    2026-01-31T12:00:00.123Z LEVEL process[pid] module: message key=value …
"""

from __future__ import annotations

import logging
import os
import sys
import time

LEVEL_VARIABLE = "BOREALIS_LOG_LEVEL"


class LineFormatter(logging.Formatter):
    """UTC times with milliseconds; a traceback follows its line indented: lines can be counted."""

    converter = staticmethod(time.gmtime)

    def __init__(self, process: str) -> None:
        super().__init__(
            fmt=f"%(asctime)s.%(msecs)03dZ %(levelname)s {process}[{os.getpid()}] %(name)s: %(message)s",
            datefmt="%Y-%m-%dT%H:%M:%S",
        )

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", "\n    ")


def setup_logging(process: str, level: str | None = None) -> None:
    """Sends this process's log to standard error, at `level` or BOREALIS_LOG_LEVEL or INFO.

    `process` is the name in the lines: "host", "control", "n1", "driver-i3".
    Calling it again replaces the former.
    """
    chosen = (level or os.environ.get(LEVEL_VARIABLE) or "INFO").upper()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(chosen if chosen in logging.getLevelNamesMapping() else "INFO")
    # These say at INFO what the project's own lines say better.
    for noisy in ("asyncio", "aiohttp.access", "botocore", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def get_logger(name: str) -> logging.Logger:
    """The logger of a module: `log = get_logger(__name__)`, shown without the package's own name."""
    return logging.getLogger(name.removeprefix("borealis."))
