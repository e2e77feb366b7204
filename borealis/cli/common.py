"""What all commands share: which region is meant, how to speak to the user, exit codes.

Owns no region and changes nothing. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no region runs there.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from borealis.errors import BorealisError
from borealis.paths import RegionPaths

FAILED = 1
NOT_RUNNING = 3

DATA_VARIABLE = "BOREALIS_DATA"
SYSTEM_DATA = Path("/var/lib/borealis")
USER_DATA = Path("~/.local/share/borealis")

# Piped into another program there is no screen to fit: lines stay whole.
_WIDE = 200
out = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _WIDE)

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help=f"The region's folder: all of its state lies below it. Default: {DATA_VARIABLE}, else "
        f"{SYSTEM_DATA} for root and {USER_DATA} for others.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


class CliError(BorealisError):
    """A command could not do its work."""

    code = "CommandFailed"
    exit_code = FAILED


class NotRunning(CliError):
    """There is no running region in the folder."""

    code = "NotRunning"
    exit_code = NOT_RUNNING


class _Chosen:
    """What was given before the command's name: `borealis --data DIR status`."""

    data: Path | None = None


chosen = _Chosen()


def default_data() -> Path:
    """The folder of the region when none is named."""
    given = os.environ.get(DATA_VARIABLE)
    if given:
        return Path(given)
    return SYSTEM_DATA if os.geteuid() == 0 else USER_DATA


def region_paths(data: Path | None) -> RegionPaths:
    """The paths of the region that the user means. Raises DataFolderError when they cannot work."""
    place = data or chosen.data or default_data()
    paths = RegionPaths(Path(os.path.abspath(place.expanduser())))
    paths.check()
    return paths


def command_line(paths: RegionPaths, *words: str) -> str:
    """How the user would call another command for the same region."""
    program = sys.argv[0] if "/" in sys.argv[0] and Path(sys.argv[0]).name == "borealis" else "borealis"
    if os.path.isabs(program):
        near = os.path.relpath(program)
        program = near if len(near) < len(program) and not near.startswith("..") else program
    start = (
        [program]
        if paths.root == Path(os.path.abspath(default_data().expanduser()))
        else [
            program,
            "--data",
            str(paths.root),
        ]
    )
    return shlex.join([*start, *words])


def print_commands(commands: Sequence[tuple[str, str]]) -> None:
    """Prints commands with what they are for, aligned; long ones are never broken, so that they can be
    copied.
    """
    width = min(44, max(len(command) for command, _ in commands))
    for command, purpose in commands:
        out.print(f"  [cyan]{escape(command):<{width}}[/]  [dim]{escape(purpose)}[/]", soft_wrap=True)


def print_json(value: Any) -> None:
    """Prints JSON on standard output, as it is: no colours, no wrapping."""
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log file, none when there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 512 * lines))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []
