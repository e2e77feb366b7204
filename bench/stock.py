"""A stock PostgreSQL single node with default durability: what Borealis is measured against.

Owns its data directory and server process.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.region import PASSWORD, free_port

BIN = Path("/usr/lib/postgresql/15/bin")
USER = "postgres"


class Stock:
    """`with Stock(shared_buffers="128MB", ...) as node:` — initdb, start, and everything gone at the end."""

    def __init__(self, **settings: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="stock-", dir="/tmp"))
        self.port = free_port()
        self.settings = settings
        self.run_as = USER if os.getuid() == 0 else None

    def _run(self, *command: str) -> None:
        subprocess.run(command, user=self.run_as, cwd=self.root, check=True, stdout=subprocess.DEVNULL)

    def __enter__(self) -> Stock:
        if self.run_as:
            entry = pwd.getpwnam(self.run_as)
            os.chown(self.root, entry.pw_uid, entry.pw_gid)
        secret = self.root / "password"
        secret.write_text(PASSWORD)
        if self.run_as:
            os.chown(secret, pwd.getpwnam(self.run_as).pw_uid, -1)
        data = self.root / "data"
        self._run(
            str(BIN / "initdb"),
            "-D",
            str(data),
            "-U",
            USER,
            "-A",
            "scram-sha-256",
            f"--pwfile={secret}",
            "-N",
        )
        lines = [
            f"port = {self.port}",
            "listen_addresses = '127.0.0.1'",
            f"unix_socket_directories = '{self.root}'",
        ]
        lines += [f"{name} = '{value}'" for name, value in self.settings.items()]
        with (data / "postgresql.conf").open("a") as conf:
            conf.write("\n".join(lines) + "\n")
        self._run(str(BIN / "pg_ctl"), "-D", str(data), "-l", str(self.root / "log"), "-w", "start")
        return self

    def __exit__(self, *_: object) -> None:
        self._run(str(BIN / "pg_ctl"), "-D", str(self.root / "data"), "-m", "immediate", "stop")
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def conninfo(self) -> str:
        """Connection string of the superuser."""
        return f"host=127.0.0.1 port={self.port} user={USER} password={PASSWORD} dbname=postgres"
