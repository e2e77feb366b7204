"""The names of endpoints, after AWS's patterns, and the block of the hosts file that holds a region's names.

Owns the patterns, the table of names of one region, and the lines between the region's two markers in the
hosts file; it leaves every other line as it is. It resolves nothing (`published.py`) and serves nothing
(`dns.py`).

FORMAT (hosts file)
    # BEGIN Borealis region /path/of/the/data/folder
    127.B.C.x<tab>name
    # END Borealis region /path/of/the/data/folder
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from borealis.endpoints.errors import EndpointError

HOSTS_FILE: Final = Path("/etc/hosts")
LOCK_FILE: Final = Path("/run/lock/borealis-hosts.lock")
_FIXED_FILE: Final = (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True, slots=True)
class NamePatterns:
    """How names are made; `unique` is the twelve characters that a cluster's names share."""

    region: str
    domain: str

    @property
    def zone(self) -> str:
        """What all names end in, with the dot before it."""
        return f".{self.region}.{self.domain}"

    def cluster(self, identifier: str, unique: str) -> str:
        return f"{identifier}.cluster-{unique}{self.zone}".lower()

    def reader(self, identifier: str, unique: str) -> str:
        return f"{identifier}.cluster-ro-{unique}{self.zone}".lower()

    def custom(self, identifier: str, unique: str) -> str:
        return f"{identifier}.cluster-custom-{unique}{self.zone}".lower()

    def instance(self, identifier: str, unique: str) -> str:
        return f"{identifier}.{unique}{self.zone}".lower()


@dataclass(slots=True)
class NameTable:
    """All names of the region, by the cluster that they belong to."""

    _clusters: dict[str, dict[str, str]] = field(default_factory=dict)

    def put(self, cluster: str, names: Mapping[str, str]) -> bool:
        """The cluster's names and their addresses; whether anything changed."""
        if self._clusters.get(cluster, {}) == dict(names):
            return False
        if names:
            self._clusters[cluster] = dict(names)
        else:
            del self._clusters[cluster]
        return True

    def address(self, name: str) -> str | None:
        for names in self._clusters.values():
            if name in names:
                return names[name]
        return None

    def all(self) -> dict[str, str]:
        """Every name and its address, in the order of the names."""
        merged = {name: address for names in self._clusters.values() for name, address in names.items()}
        return dict(sorted(merged.items()))


class HostsFile:
    """The region's block of the hosts file. Blocking: for a thread."""

    def __init__(self, root: Path, file: Path = HOSTS_FILE, lock: Path = LOCK_FILE) -> None:
        """`root`: the region's data folder, which tells its block from other regions'."""
        self._begin = f"# BEGIN Borealis region {root}"
        self._end = f"# END Borealis region {root}"
        self._file = file
        self._lock = lock

    def writable(self) -> bool:
        """Whether this process may change the file."""
        return os.access(self._file, os.W_OK)

    def present(self) -> bool:
        """Whether the file has a block of this region."""
        try:
            return self._begin in self._file.read_text().splitlines()
        except OSError:
            return False

    def write(self, names: Mapping[str, str]) -> None:
        """Make the block hold these names. Raises EndpointError."""
        lines = [self._begin, *(f"{address}\t{name}" for name, address in names.items()), self._end]
        self._replace(lines if names else [])

    def remove(self) -> None:
        """Take the block out; the file is then as if it had never been there. Raises EndpointError."""
        self._replace([])

    def _replace(self, block: list[str]) -> None:
        try:
            with self._locked():
                before = self._file.read_text()
                after = self._with(before, block)
                if after != before:
                    self._store(after)
        except OSError as error:
            raise EndpointError(
                f"cannot write names into {self._file}: {error.strerror}; they are still served by the "
                "region's name server"
            ) from error

    def _with(self, text: str, block: list[str]) -> str:
        kept: list[str] = []
        inside = False
        for line in text.splitlines():
            if line == self._begin:
                inside = True
            elif line == self._end and inside:
                inside = False
            elif not inside:
                kept.append(line)
        if inside:
            # The end marker is missing: somebody edited the file. Better stale lines than lost ones.
            kept = [line for line in text.splitlines() if line != self._begin]
        result = kept + block
        return "\n".join(result) + "\n" if result else ""

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self._lock, "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _store(self, text: str) -> None:
        """By rename, so that nobody reads half of it; in place where the file is a mount (containers)."""
        status = self._file.stat()
        try:
            handle, temporary = tempfile.mkstemp(prefix=".hosts-", dir=self._file.parent)
        except OSError as error:
            if error.errno not in _FIXED_FILE:
                raise
            self._file.write_text(text)
            return
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
                os.fchmod(file.fileno(), status.st_mode & 0o7777)
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, self._file)
        except OSError as error:
            os.unlink(temporary)
            if error.errno not in _FIXED_FILE:
                raise
            self._file.write_text(text)
