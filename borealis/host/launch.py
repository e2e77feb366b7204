"""Starting one process: its user, environment, log file and standard input.

Owns nothing that lasts. It blocks (fork and exec take milliseconds): callers run it in a thread.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Mapping
from pathlib import Path

from borealis.host.errors import InvalidSpec, SpawnFailed
from borealis.host.records import ProcessSpec

TOKEN_VARIABLE = "BOREALIS_PROCESS"
_KEPT_VARIABLES = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find_user(name: str | None) -> pwd.struct_passwd | None:
    """The user to change to, None when it is the agent's own. Raises InvalidSpec."""
    if name is None:
        return None
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise InvalidSpec(f"user {name!r} does not exist on this machine") from None
    if user.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise InvalidSpec(
            f"only root can start a process as user {name!r}; this agent runs as uid {os.geteuid()}"
        )
    return user


def environment_of(spec: ProcessSpec, token: str, user: pwd.struct_passwd | None) -> dict[str, str]:
    """The environment of a process. Never the agent's own as it is: that may hold the caller's secrets."""
    environment = dict(spec.env) if spec.env is not None else _default_environment(os.environ)
    if user is not None and spec.env is None:
        environment |= {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
    environment[TOKEN_VARIABLE] = token
    return environment


def _default_environment(own: Mapping[str, str]) -> dict[str, str]:
    kept = {name: own[name] for name in _KEPT_VARIABLES if name in own}
    kept |= {name: value for name, value in own.items() if name.startswith("BOREALIS_")}
    kept.pop(TOKEN_VARIABLE, None)
    kept.setdefault("PATH", _DEFAULT_PATH)
    return kept


def launch(spec: ProcessSpec, token: str, root: Path, stdin: str | None) -> subprocess.Popen[bytes]:
    """Starts the process in a session of its own, so that no terminal and no group signal reaches it.

    `stdin` is given to it as its standard input and kept nowhere. Raises InvalidSpec, SpawnFailed.
    """
    user = find_user(spec.user)
    output = _open_log(Path(spec.log))
    given = _input_file(stdin)
    try:
        return subprocess.Popen(
            spec.argv,
            stdin=given,
            stdout=output,
            stderr=output,
            cwd=spec.cwd or root,
            env=environment_of(spec, token, user),
            start_new_session=True,
            umask=0o077,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=os.getgrouplist(user.pw_name, user.pw_gid) if user else None,
        )
    except (OSError, ValueError) as error:
        raise SpawnFailed(f"process {spec.name}: cannot start {spec.argv[0]}: {error}") from error
    finally:
        os.close(output)
        if given != subprocess.DEVNULL:
            os.close(given)


def _open_log(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SpawnFailed(f"cannot open the log file {path}: {error.strerror}") from error


def _input_file(text: str | None) -> int:
    if text is None:
        return subprocess.DEVNULL
    # In memory, not a pipe: nobody has to wait until the process reads, and nothing reaches a disk.
    descriptor = os.memfd_create("stdin")
    os.write(descriptor, text.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
