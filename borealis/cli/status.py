"""`borealis status`: what the control plane knows of the region, as tables or JSON.

Owns only the display. When the control plane is away, the host agent's processes are shown instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from borealis.cli.common import NOT_RUNNING, CliError, out, print_json
from borealis.cli.link import ControlAway, call_control, explain, with_agent
from borealis.host.client import HostClient
from borealis.paths import RegionPaths
from borealis.region import RegionConfig, load_region
from borealis.rpc import RpcError

Part = Mapping[str, Any]

_GOOD = {"available", "up", "writer", "reader"}
_BAD = {"failed", "down", "fenced", "inaccessible-encryption-credentials"}


class ControlMissing(CliError):
    """The control plane is away: only processes could be shown."""

    code = "ControlNotRunning"
    exit_code = NOT_RUNNING


def show_status(paths: RegionPaths, as_json: bool) -> None:
    """Prints the state of the region. Raises NotRunning, and ControlMissing after it showed the processes."""
    region = load_region(paths)
    try:
        status = call_control(paths, "status")
    except ControlAway:
        _show_processes(paths, as_json)
        raise ControlMissing("the control plane does not answer; these are the processes alone") from None
    except RpcError as error:
        raise explain(error) from error
    if as_json:
        print_json(status)
        return
    _show_region(paths, region, status)
    for cluster in status.get("clusters", []):
        _show_cluster(cluster)
    if not status.get("clusters"):
        out.print("\nThere is no DB cluster yet.")


def _show_region(paths: RegionPaths, region: RegionConfig, status: Part) -> None:
    out.print(
        f"[bold]region {region.region}[/]  API {region.endpoint_url}  account {region.account}  "
        f"data {paths.root}",
        soft_wrap=True,
    )
    table = _table("storage node", "zone", "state", "pid")
    for node in status.get("nodes", []):
        table.add_row(node["id"], node.get("az"), _state(_node_state(node)), _text(node.get("pid")))
    out.print(table)


def _node_state(node: Part) -> str:
    if "status" in node:
        return str(node["status"])
    return "up" if node.get("connected", node.get("alive", True)) else "down"


def _show_cluster(cluster: Part) -> None:
    out.print()
    out.print(
        f"[bold]cluster {cluster['identifier']}[/]  {cluster.get('engine', '')} "
        f"{cluster.get('engine_version', '')}  {cluster['status']}",
        soft_wrap=True,
    )
    for name, address in _endpoints(cluster):
        out.print(f"  {name:<9}{address}", soft_wrap=True)
    out.print(_instances(cluster.get("instances", [])))
    volume = cluster.get("volume") or {}
    if volume.get("segments"):
        out.print(_volume(volume))


def _endpoints(cluster: Part) -> list[tuple[str, str]]:
    port = cluster.get("port")
    listed: list[tuple[str, str]] = []
    for endpoint in cluster.get("endpoints") or []:
        host = endpoint.get("name") or endpoint.get("address")
        listed.append((str(endpoint.get("type", endpoint.get("kind", ""))).lower(), f"{host}:{port}"))
    return listed


def _instances(instances: Sequence[Part]) -> Table:
    table = _table("instance", "role", "zone", "status", "class", "lag", "life")
    for found in instances:
        table.add_row(
            found["identifier"],
            _state(str(found.get("role") or "-")),
            found.get("az"),
            _state(str(found["status"])),
            _text(found.get("class")),
            _lag(found.get("lag_ms")),
            _text(found.get("incarnation")),
        )
    return table


def _volume(volume: Part) -> Table:
    table = _table("segment", "zone", "state", "SCL", "VDL", "behind")
    for segment in volume["segments"]:
        table.add_row(
            segment["node"],
            segment.get("az"),
            _state("up" if segment.get("connected") else "down"),
            _lsn(segment.get("scl")),
            _lsn(segment.get("vdl")),
            _bytes(segment.get("behind_bytes")),
        )
    table.title = (
        f"volume {volume.get('id', '')}  term {volume.get('term', '-')}  VDL {_lsn(volume.get('vdl'))}"
    )
    table.title_justify, table.title_style = "left", ""
    return table


def _show_processes(paths: RegionPaths, as_json: bool) -> None:
    async def listed(agent: HostClient) -> Any:
        return await agent.list()

    processes = with_agent(paths, listed)
    if as_json:
        print_json({"processes": [{"name": p.name, "pid": p.pid, "alive": p.alive} for p in processes]})
        return
    table = _table("process", "state", "pid")
    for process in processes:
        table.add_row(process.name, _state("up" if process.alive else "down"), _text(process.pid))
    out.print(table)


# ---------------------------------------------------------------------- cells
def _table(*headings: str) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in headings:
        right = heading in ("pid", "lag", "SCL", "VDL", "behind")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    return table


def _state(word: str) -> Text:
    style = "green" if word in _GOOD else "red" if word in _BAD else "yellow" if word != "-" else ""
    return Text(word, style=style)


def _text(value: object) -> str:
    return "-" if value in (None, "") else str(value)


def _lag(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.1f} ms"


def _lsn(position: int | None) -> str:
    """A log position as its two 32-bit halves in hexadecimal, the way that engines print it."""
    return "-" if position is None else f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def _bytes(count: int | None) -> str:
    if count is None:
        return "-"
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
