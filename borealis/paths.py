"""Where everything of one region lies, below its one data folder.

Owns the names; it never creates, reads or removes anything. `RegionPaths.check` says in clear words when the
folder cannot work, for instance because a Unix socket below it would have too long a name.

FORMAT (the data folder)
    region.json             what the region is: name, account, port, options (the command line writes it)
    credentials.json        the first access key, mode 0600
    control.sqlite          the control plane's state
    log/<process>.log       what each process says
    run/                    sockets, process records (run/p): worthless after a clean stop
    nodes/<node>/           a storage node: the only place where customers' data is kept
    instances/<inc>/        one incarnation of an instance: a cache, removed with it
    volumes/<volume>/       images unpacked for attaching: a cache
    proxy/<name>/           configuration of a HAProxy
    lib/                    the preload library, copied so that the engines' user can read it
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from borealis.errors import BorealisError

SOCKET_PATH_BYTES_MAX = 107
"""The longest path of a Unix socket, in bytes: Linux's 108 with the closing zero."""


class DataFolderError(BorealisError):
    """The data folder cannot be used as it is."""

    code = "InvalidDataFolder"


@dataclass(frozen=True, slots=True)
class RegionPaths:
    """The names below `root`, the absolute path of a region's data folder.

    `inc` is the id of one incarnation of an instance ("i1", "i2", …), unique for ever in the region.
    """

    root: Path

    @property
    def region_json(self) -> Path:
        return self.root / "region.json"

    @property
    def state_db(self) -> Path:
        return self.root / "control.sqlite"

    @property
    def credentials(self) -> Path:
        return self.root / "credentials.json"

    @property
    def demo_password(self) -> Path:
        """The generated master password of the demonstration cluster, mode 0600."""
        return self.root / "demo-password"

    @property
    def log_dir(self) -> Path:
        return self.root / "log"

    def log_file(self, process: str) -> Path:
        """What the process of this name writes to its standard output and error."""
        return self.log_dir / f"{process}.log"

    @property
    def run_dir(self) -> Path:
        return self.root / "run"

    @property
    def process_dir(self) -> Path:
        """The agent's records of the processes that it started, one file each."""
        return self.run_dir / "p"

    @property
    def agent_lock(self) -> Path:
        """Locked by the host agent as long as it lives; holds its pid."""
        return self.run_dir / "agent.lock"

    @property
    def host_socket(self) -> Path:
        return self.run_dir / "host.sock"

    @property
    def control_socket(self) -> Path:
        return self.run_dir / "control.sock"

    @property
    def nodes_dir(self) -> Path:
        return self.root / "nodes"

    def node_dir(self, node: str) -> Path:
        return self.nodes_dir / node

    def node_socket(self, node: str) -> Path:
        return self.run_dir / "n" / f"{node}.sock"

    @property
    def instances_dir(self) -> Path:
        return self.root / "instances"

    def instance_dir(self, inc: str) -> Path:
        return self.instances_dir / inc

    def pgdata(self, inc: str) -> Path:
        """The engine's own data directory."""
        return self.instance_dir(inc) / "data"

    def instance_shm(self, inc: str) -> Path:
        """The page shared between the volume library and the driver."""
        return self.instance_dir(inc) / "log.shm"

    def driver_config(self, inc: str) -> Path:
        return self.instance_dir(inc) / "driver.json"

    def driver_state(self, inc: str) -> Path:
        return self.instance_dir(inc) / "driver-state.json"

    def instance_run(self, inc: str) -> Path:
        """The folder of the instance's sockets, the engine's own among them."""
        return self.run_dir / "i" / inc

    def driver_socket(self, inc: str) -> Path:
        return self.instance_run(inc) / "driver.sock"

    def upstream_dir(self, inc: str) -> Path:
        """The folder of the socket on which the driver serves the log to its engine."""
        return self.instance_run(inc) / "up"

    @property
    def volumes_dir(self) -> Path:
        return self.root / "volumes"

    def volume_dir(self, volume: str) -> Path:
        return self.volumes_dir / volume

    def image_cache(self, volume: str, lsn: int) -> Path:
        """The unpacked image of a volume, complete at `lsn`."""
        return self.volume_dir(volume) / f"image-{lsn:x}"

    @property
    def lib_dir(self) -> Path:
        return self.root / "lib"

    def proxy_dir(self, name: str) -> Path:
        return self.root / "proxy" / name

    def check(self) -> None:
        """Raises DataFolderError if a path below this folder could not work."""
        if not self.root.is_absolute():
            raise DataFolderError(f"the data folder must be an absolute path, not {self.root}")
        # The longest socket: the engine's own, in a folder of an incarnation with a six-digit number.
        longest = self.upstream_dir("i999999") / ".s.PGSQL.65535"
        size = len(bytes(longest))
        if size > SOCKET_PATH_BYTES_MAX:
            room = SOCKET_PATH_BYTES_MAX - (size - len(bytes(self.root)))
            raise DataFolderError(
                f"the path of the data folder {self.root} is too long ({len(bytes(self.root))} bytes): the "
                f"Unix sockets below it allow {room}. Choose a shorter one with --data or BOREALIS_DATA."
            )
        if any(character in str(self.root) for character in "\n\r\"'\\ \t,"):
            raise DataFolderError(
                f"the path of the data folder {str(self.root)!r} holds a blank, quote, comma or backslash, "
                "which engine and proxy configurations cannot carry. Choose another one with --data or "
                "BOREALIS_DATA."
            )
