"""Running an engine's own programs, as the engine's user.

Owns how a helper program is started and how its failure is told. Never: the server of an instance.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from borealis.engines.base import EngineError, RunAs

_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
TIMEOUT_SECONDS = 120.0


def run_program(argv: Sequence[str], user: RunAs | None = None, stdin: str = "") -> str:
    """Run to the end and return standard output. Blocking. Raises EngineError with the program's own words.

    `user`: switch to that user first; needed (and only possible) when we are root.
    """
    as_user = user if user is not None and user.uid != os.getuid() else None
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            cwd="/",
            env=_ENVIRONMENT,
            timeout=TIMEOUT_SECONDS,
            check=False,
            user=as_user.uid if as_user else None,
            group=as_user.gid if as_user else None,
            extra_groups=[] if as_user else None,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{argv[0]} could not be run: {error}") from error
    if done.returncode != 0:
        raise EngineError(
            f"{argv[0]} failed (exit code {done.returncode}): {_last_words(done.stderr or done.stdout)}"
        )
    return done.stdout


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-6:]) or "it said nothing"
