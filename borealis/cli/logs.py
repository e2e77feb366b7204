"""`borealis logs`: what the region's processes said. Reads files only; works when nothing runs."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from borealis.cli.common import CliError, command_line, out, print_json, tail
from borealis.paths import RegionPaths
from borealis.region import load_region

LOOK_SECONDS = 0.2


def list_logs(paths: RegionPaths, as_json: bool) -> None:
    """Prints which logs there are."""
    load_region(paths)
    found = [
        {"process": path.stem, "bytes": path.stat().st_size, "changed_at": _changed(path), "path": str(path)}
        for path in sorted(paths.log_dir.glob("*.log"))
    ]
    if as_json:
        print_json(found)
        return
    table = Table("process", "last line", "size", box=None, header_style="bold")
    table.columns[2].justify = "right"
    for entry in found:
        table.add_row(str(entry["process"]), str(entry["changed_at"]), f"{int(str(entry['bytes'])):,}")
    out.print(table)
    out.print(f"Show one with `{command_line(paths, 'logs', 'PROCESS')}`.")


def show_log(paths: RegionPaths, process: str, lines: int, follow: bool) -> None:
    """Prints the end of one log, and goes on with `follow`. Raises CliError when there is no such log."""
    load_region(paths)
    path = paths.log_file(process)
    if "/" in process or not path.exists():
        known = ", ".join(sorted(p.stem for p in paths.log_dir.glob("*.log"))) or "none"
        raise CliError(f"there is no log of {process!r}; there are: {known}")
    # Where to go on is taken first: a line written in between is shown twice rather than never.
    position = path.stat().st_size
    for line in tail(path, lines):
        sys.stdout.write(line + "\n")
    sys.stdout.flush()
    if follow:
        _follow(path, position)


def _follow(path: Path, position: int) -> None:
    with path.open("rb") as file:
        file.seek(position)
        while True:
            if path.stat().st_size < file.tell():
                file.seek(0)  # It was emptied after it had grown too large.
            chunk = file.read()
            if chunk:
                sys.stdout.buffer.write(chunk)
                sys.stdout.flush()
            else:
                time.sleep(LOOK_SECONDS)


def _changed(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
