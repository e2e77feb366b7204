"""`borealis up`: makes a region when there is none, starts it, and waits until it answers.

Owns the order of the start: checks, files, agent, control plane, API. What runs in the region from then on is
the control plane's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from dataclasses import dataclass

import msgspec

from borealis.cli import preflight
from borealis.cli.common import CliError, command_line, err, out, print_commands, tail
from borealis.cli.down import stop_region
from borealis.host.client import START_SECONDS, HostClient, agent_pid, start_agent
from borealis.host.records import ProcessSpec
from borealis.paths import RegionPaths
from borealis.region import (
    DEFAULT_PORT,
    DEFAULT_REGION,
    NoRegion,
    RegionConfig,
    RegionError,
    load_credentials,
    load_region,
    new_credentials,
    new_region,
    save_credentials,
    save_region,
)
from borealis.rpc import RpcClient, RpcConnectionLost, RpcError

CONTROL = "control"
"""The name of the control plane's process."""

ANSWER_SECONDS = 60.0
SERVE_SECONDS = 30.0
"""Clusters that do not serve again after so long are left to the control plane, which goes on trying."""
STARTS_MAX = 4
"""A control plane that was started this often and does not answer has failed."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user said; None where nothing was said."""

    port: int | None = None
    region: str | None = None
    engine_user: str | None = None
    settings: tuple[tuple[str, float], ...] = ()


class AlreadyRunning(CliError):
    """A region runs in this folder."""

    code = "AlreadyRunning"


def up(paths: RegionPaths, wishes: Wishes, detach: bool) -> None:
    """Starts the region; without `detach` stays until Ctrl-C or SIGTERM and stops it again."""
    running = _running_config(paths)
    if running is not None:
        _keep_running(paths, running, wishes, detach)
        return
    if not detach:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    config = prepare(paths, wishes)
    fresh = agent_pid(paths) is None
    try:
        with out.status("starting the host agent, the storage nodes and the control plane …"):
            asyncio.run(_start(paths, config))
        with out.status("starting the clusters …"):
            waiting = asyncio.run(_clusters_serve(paths))
    except BaseException:
        # A start that failed or was broken off leaves nothing behind that it started.
        if fresh:
            stop_region(paths, quietly=True)
        raise
    for name in waiting:
        err.print(f"cluster {name} does not serve yet: see `{command_line(paths, 'status')}`")
    if detach:
        _say_ready(paths, config, detach)
    else:
        _stay(paths, config)
        stop_region(paths)


def _running_config(paths: RegionPaths) -> RegionConfig | None:
    """The region's configuration when it runs."""
    try:
        config = load_region(paths)
    except NoRegion:
        return None
    return config if _listens(paths) else None


def _listens(paths: RegionPaths) -> bool:
    for path in (paths.host_socket, paths.control_socket):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                return False
    return True


def _keep_running(paths: RegionPaths, config: RegionConfig, wishes: Wishes, detach: bool) -> None:
    """A second `up --detach` is welcome when it asks for what is there."""
    different = [
        f"{name} {have} and not {want}"
        for name, have, want in (("port", config.port, wishes.port), ("region", config.region, wishes.region))
        if want is not None and have != want
    ]
    if different or not detach:
        what = f" with {', '.join(different)}" if different else ""
        raise AlreadyRunning(
            f"the region in {paths.root} runs already{what}: `{command_line(paths, 'down')}` stops it; "
            "--data names another folder for another region"
        )
    asyncio.run(_wait_ready(paths, config))
    out.print(f"The region {config.region} runs already: {config.endpoint_url}, data in {paths.root}")


def prepare(paths: RegionPaths, wishes: Wishes) -> RegionConfig:
    """Checks the machine and writes what a first start writes. Raises Unfit, RegionError."""
    try:
        known = load_region(paths)
    except NoRegion:
        known = None
    engine_user = preflight.choose_engine_user(wishes.engine_user or (known.engine_user if known else None))
    preflight.prepare_folders(paths, engine_user)
    preflight.check_disk(paths)
    preflight.check_traversable(paths, engine_user)
    preflight.check_programs()
    preflight.install_library(paths, engine_user)
    config = _configure(known, wishes, engine_user)
    preflight.check_port(config.host, config.port)
    if not paths.credentials.exists():
        save_credentials(paths, new_credentials())
    load_credentials(paths)
    if config != known:
        save_region(paths, config)
    return config


def _configure(known: RegionConfig | None, wishes: Wishes, engine_user: str | None) -> RegionConfig:
    if known is None:
        made = new_region(wishes.region or DEFAULT_REGION, wishes.port or DEFAULT_PORT, engine_user)
        return msgspec.structs.replace(made, settings=dict(wishes.settings))
    if wishes.region is not None and wishes.region != known.region:
        raise RegionError(
            f"this folder holds the region {known.region}, and ARNs and endpoints carry that name: leave out "
            f"--region {wishes.region}, or choose another folder with --data"
        )
    return msgspec.structs.replace(
        known,
        port=wishes.port or known.port,
        engine_user=engine_user,
        settings=known.settings | dict(wishes.settings),
    )


# ---------------------------------------------------------------------- starting
async def _start(paths: RegionPaths, config: RegionConfig) -> None:
    agent = await connect_agent(paths)
    try:
        await agent.spawn(control_spec(paths))
    except RpcError as error:
        raise CliError(f"the control plane could not be started: {error.message}") from error
    finally:
        await agent.close()
    await _wait_ready(paths, config)


async def connect_agent(paths: RegionPaths, hold: bool = False) -> HostClient:
    """A connection to the host agent, which is started when it does not run. Raises CliError."""
    with contextlib.suppress(RpcConnectionLost):
        return await HostClient.connect(paths, timeout=0)
    process = start_agent(paths, hold)
    try:
        return await HostClient.connect(paths, timeout=START_SECONDS)
    except RpcConnectionLost as error:
        raise CliError(
            f"the host agent does not answer (exit code {process.poll()}). Its log {paths.log_file('host')} "
            "ends with:\n  " + "\n  ".join(tail(paths.log_file("host"), 10))
        ) from error


def control_spec(paths: RegionPaths) -> ProcessSpec:
    """How the control plane is started."""
    return ProcessSpec(
        name=CONTROL,
        argv=(sys.executable, "-m", "borealis.control.main", "--data", str(paths.root)),
        log=str(paths.log_file(CONTROL)),
        restart="always",
    )


async def _wait_ready(paths: RegionPaths, config: RegionConfig) -> None:
    """Waits until control plane and API answer. Raises CliError with the end of the log when they do not."""
    deadline = asyncio.get_running_loop().time() + ANSWER_SECONDS
    while not (await _control_answers(paths) and await _api_listens(config)):
        over = asyncio.get_running_loop().time() > deadline
        if over or await _starts(paths) >= STARTS_MAX:
            raise CliError(
                f"the control plane does not come up. Its log, {paths.log_file(CONTROL)}, ends with:\n  "
                + "\n  ".join(tail(paths.log_file(CONTROL), 15))
            )
        await asyncio.sleep(0.05)


async def _clusters_serve(paths: RegionPaths) -> list[str]:
    """Waits until every cluster that should run serves at its endpoints; gives those that do not in time."""
    deadline = asyncio.get_running_loop().time() + SERVE_SECONDS
    while True:
        waiting = [name for name, serves in await _clusters(paths) if not serves]
        if not waiting or asyncio.get_running_loop().time() > deadline:
            return waiting
        await asyncio.sleep(0.05)


async def _clusters(paths: RegionPaths) -> list[tuple[str, bool]]:
    """Every cluster that has instances and is not stopped, and whether it serves. Raises CliError."""
    try:
        client = await RpcClient.connect(paths.control_socket, timeout=5)
        try:
            clusters = (await client.call("status", timeout=10))["clusters"]
        finally:
            await client.close()
    except RpcError as error:
        raise CliError(f"the control plane does not answer: {error.message}") from error
    return [
        (
            cluster["identifier"],
            cluster["endpoints_current"]
            and all(i["serving"] or i["status"] in ("creating", "failed") for i in instances),
        )
        for cluster in clusters
        if (instances := cluster["instances"]) and cluster["status"] not in ("stopped", "deleting", "failed")
    ]


async def _control_answers(paths: RegionPaths) -> bool:
    try:
        client = await RpcClient.connect(paths.control_socket, timeout=0)
    except RpcConnectionLost:
        return False
    try:
        await client.call("status", timeout=10)
    except RpcError:
        return False
    finally:
        await client.close()
    return True


async def _api_listens(config: RegionConfig) -> bool:
    try:
        _, writer = await asyncio.open_connection(config.host, config.port)
    except OSError:
        return False
    writer.close()
    return True


async def _starts(paths: RegionPaths) -> int:
    """How often the control plane was started since the agent was."""
    try:
        agent = await HostClient.connect(paths, timeout=1)
    except RpcConnectionLost:
        return 0
    try:
        return next((process.starts for process in await agent.list() if process.name == CONTROL), 0)
    except RpcError:
        return 0
    finally:
        await agent.close()


# ---------------------------------------------------------------------- words
def _say_ready(paths: RegionPaths, config: RegionConfig, detach: bool) -> None:
    out.print(f"[bold green]The region {config.region} is up.[/]")
    out.print(f"  API      {config.endpoint_url}  (account {config.account})")
    out.print(f"  data     {paths.root}")
    found = preflight.find_engines()
    out.print(f"  engines  {found.present}")
    for words in found.missing:
        out.print(f"           {words}")
    out.print("Next:")
    commands = [
        (f'eval "$({command_line(paths, "env")})"', "point the aws CLI, boto3 or Terraform here"),
        (command_line(paths, "demo"), "create a cluster, use it, lose its writer"),
        (command_line(paths, "status"), "see what runs"),
    ]
    if detach:
        commands.append((command_line(paths, "down"), "stop everything; the data stays"))
    print_commands(commands)
    if not detach:
        out.print("Ctrl-C stops everything; the data stays.")


def _stay(paths: RegionPaths, config: RegionConfig) -> None:
    """Waits for the wish to end."""
    wanted = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    # Held back before the words are out: a Ctrl-C that follows them at once must find its waiter.
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    _say_ready(paths, config, detach=False)
    got = signal.sigwait(wanted)
    # A second Ctrl-C may break off the stopping.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, wanted)
    err.print(f"\n{signal.Signals(got).name}: stopping the region …")
