"""Connections of the command line to a region: its agent, its control plane, its API.

Owns the way from "a command" to "an answer": one event loop per call. It keeps no connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from borealis.cli.common import CliError, NotRunning, command_line
from borealis.host.client import HostClient
from borealis.paths import RegionPaths
from borealis.region import RegionConfig, load_credentials, load_region
from borealis.rpc import RpcClient, RpcConnectionLost, RpcError

Answer = TypeVar("Answer")
CONNECT_SECONDS = 2.0

AWS_RDS = 'aws --endpoint-url "$AWS_ENDPOINT_URL" rds'
"""How the aws CLI is called after `borealis env`: version 1 has a fixed endpoint name for `rds` in us-east-1
that beats the variable, the option beats both."""


class ControlAway(NotRunning):
    """The control plane does not answer (it may be about to be started again)."""

    code = "ControlNotRunning"


def with_agent(paths: RegionPaths, work: Callable[[HostClient], Awaitable[Answer]]) -> Answer:
    """Runs `work` with a connection to the host agent. Raises NotRunning."""

    async def run() -> Answer:
        try:
            client = await HostClient.connect(paths, timeout=_patience(paths))
        except RpcConnectionLost as error:
            raise NotRunning(_not_running(paths)) from error
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(run())


def call_control(paths: RegionPaths, method: str, timeout: float = 30, **params: object) -> Any:
    """One call to the control plane. Raises ControlAway, RpcError."""

    async def run() -> Any:
        try:
            client = await RpcClient.connect(paths.control_socket, timeout=_patience(paths))
        except RpcConnectionLost as error:
            raise ControlAway(_not_running(paths)) from error
        try:
            return await client.call(method, timeout=timeout, **params)
        finally:
            await client.close()

    return asyncio.run(run())


def _patience(paths: RegionPaths) -> float:
    """Seconds to wait for a socket: none when nothing was ever started there."""
    return CONNECT_SECONDS if paths.region_json.exists() and paths.host_socket.exists() else 0.0


def _not_running(paths: RegionPaths) -> str:
    if not paths.region_json.exists():
        return f"there is no region in {paths.root}: start one with `{command_line(paths, 'up')}`"
    return f"the region in {paths.root} does not answer: start it with `{command_line(paths, 'up')}`"


def api_client(paths: RegionPaths, service: str = "rds") -> Any:
    """A stock boto3 client of the region's API, with the region's first access key."""
    import boto3
    from botocore.config import Config

    region = load_region(paths)
    key = load_credentials(paths).keys[0]
    return boto3.client(
        service,
        endpoint_url=region.endpoint_url,
        region_name=region.region,
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.secret_access_key,
        config=Config(
            retries={"total_max_attempts": 8, "mode": "standard"}, connect_timeout=5, read_timeout=60
        ),
    )


def environment(paths: RegionPaths, region: RegionConfig | None = None) -> dict[str, str]:
    """What points AWS's tools at the region."""
    known = region or load_region(paths)
    key = load_credentials(paths).keys[0]
    return {
        "AWS_ENDPOINT_URL": known.endpoint_url,
        "AWS_ACCESS_KEY_ID": key.access_key_id,
        "AWS_SECRET_ACCESS_KEY": key.secret_access_key,
        "AWS_DEFAULT_REGION": known.region,
    }


def explain(error: RpcError) -> CliError:
    """An error of the other side as one of the command."""
    return CliError(f"{error.message} ({error.code})")
