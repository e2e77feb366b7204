"""What a region is: the two small files that `borealis up` writes at first start and every process may read.

Owns the form of region.json and credentials.json, their checks and their writing. It starts nothing, and it
never holds the state of clusters: that is the control plane's.

FORMAT (version 1)
    region.json       {"version": 1, "region": "us-east-1", "account": "123456789012", "host": "127.0.0.1",
                       "port": 4577, "engine_user": "postgres" | null, "domain": "rds.borealis.internal",
                       "created_at": "2026-01-31T12:00:00Z", "settings": {"lease_seconds": 2.0, …}}
    credentials.json  {"version": 1, "keys": [{"access_key_id": "AKIA…", "secret_access_key": "…",
                       "user": "root"}]}     mode 0600
"""

from __future__ import annotations

import os
import secrets
import string
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from borealis.errors import BorealisError
from borealis.paths import RegionPaths

VERSION = 1
DEFAULT_PORT = 4577
DEFAULT_REGION = "us-east-1"
DEFAULT_DOMAIN = "rds.borealis.internal"
ZONE_LETTERS = "abc"


class RegionError(BorealisError):
    """The region's files are missing or cannot be understood."""

    code = "InvalidRegion"


class NoRegion(RegionError):
    """There is no region in this folder."""

    code = "NoRegion"


class RegionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A region's identity and options: fixed at first start, but for the port."""

    version: int = VERSION
    region: str = DEFAULT_REGION
    """AWS's name of the region; its three availability zones are this name with a, b and c."""
    account: str
    """Twelve digits, as in ARNs."""
    host: str = "127.0.0.1"
    """The address that the API listens on."""
    port: int = DEFAULT_PORT
    engine_user: str | None = None
    """The unprivileged user that engines run as; None: the user that runs Borealis itself."""
    domain: str = DEFAULT_DOMAIN
    created_at: datetime
    settings: dict[str, float] = {}
    """Further options by name, for the parts that know them: `borealis up --set NAME=NUMBER`."""

    @property
    def zones(self) -> tuple[str, ...]:
        """The names of the availability zones."""
        return tuple(self.region + letter for letter in ZONE_LETTERS)

    @property
    def endpoint_url(self) -> str:
        """Where the API answers."""
        return f"http://{self.host}:{self.port}"

    def setting(self, name: str, default: float) -> float:
        """The setting of this name, or `default`."""
        return self.settings.get(name, default)


class AccessKeyPair(msgspec.Struct, frozen=True, kw_only=True):
    """An access key with its secret."""

    access_key_id: str
    secret_access_key: str
    user: str = "root"

    def __repr__(self) -> str:
        return f"AccessKeyPair({self.access_key_id!r})"


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of credentials.json."""

    version: int = VERSION
    keys: tuple[AccessKeyPair, ...]


def new_region(region: str, port: int, engine_user: str | None) -> RegionConfig:
    """A region with a fresh account number."""
    account = str(secrets.randbelow(9) + 1) + "".join(secrets.choice(string.digits) for _ in range(11))
    now = datetime.now(UTC).replace(microsecond=0)
    return RegionConfig(region=region, port=port, account=account, engine_user=engine_user, created_at=now)


def new_credentials() -> Credentials:
    """One fresh access key of the form that AWS's tools expect."""
    name = "AKIA" + "".join(secrets.choice(string.ascii_uppercase + "234567") for _ in range(16))
    alphabet = string.ascii_letters + string.digits + "+/"
    secret = "".join(secrets.choice(alphabet) for _ in range(40))
    return Credentials(keys=(AccessKeyPair(access_key_id=name, secret_access_key=secret),))


def load_region(paths: RegionPaths) -> RegionConfig:
    """Reads region.json. Raises NoRegion when there is none, RegionError when it is not one."""
    return _load(paths.region_json, RegionConfig)


def load_credentials(paths: RegionPaths) -> Credentials:
    """Reads credentials.json. Raises NoRegion when there is none, RegionError when it is not one."""
    return _load(paths.credentials, Credentials)


def save_region(paths: RegionPaths, config: RegionConfig) -> None:
    """Writes region.json so that a crash leaves the old or the new one."""
    write_file(paths.region_json, msgspec.json.format(msgspec.json.encode(config)) + b"\n")


def save_credentials(paths: RegionPaths, credentials: Credentials) -> None:
    """Writes credentials.json, readable by its owner alone."""
    write_file(paths.credentials, msgspec.json.format(msgspec.json.encode(credentials)) + b"\n")


def write_file(path: Path, content: bytes) -> None:
    """Writes a file with mode 0600 atomically and durably: fresh file, fsync, rename, fsync of the folder."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


_Model = TypeVar("_Model", RegionConfig, Credentials)


def _load(path: Path, model: type[_Model]) -> _Model:
    try:
        loaded = msgspec.json.decode(path.read_bytes(), type=model)
    except FileNotFoundError:
        raise NoRegion(
            f"there is no region in {path.parent}: start one there with `borealis up`, or name another "
            "folder with --data or BOREALIS_DATA"
        ) from None
    except OSError as error:
        raise RegionError(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise RegionError(f"{path} is not a valid {path.name}: {error}") from error
    if loaded.version != VERSION:
        raise RegionError(
            f"{path} has version {loaded.version}, but this Borealis knows version {VERSION}: use the one "
            "that wrote it"
        )
    return loaded
