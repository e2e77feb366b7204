"""HAProxy's configuration for the endpoints of a cluster, and the commands that move them.

Owns the text of the configuration and the rules of moving: pure functions, no process, no socket
(`runtime.py`).

One endpoint is one `listen` section with a fixed number of server slots. A slot is ready (it leads to an
instance), off, or it *holds*: while an endpoint has no target, one slot leads to an address where nobody
listens and takes one connection at a time. That one tries again each `CONNECT_MS`, the others wait in the
proxy's queue; as soon as another slot opens, all of them go there. So clients that connect during a failover
wait and see no error, up to `HOLD_SECONDS`.

Established sessions are cut when their instance leaves, or clients would hang on a dead writer. A new
target never takes the slot of the one that leaves, and the cut comes a moment later: connections that were
just being tried there have gone on to the new target by then, and are spared.

FORMAT (proxy/<name>/haproxy.cfg): HAProxy's own; the first line carries a version and a digest of the
structure (all but the targets). As long as the digest is the same, the running process can be changed by
commands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VERSION: Final = 1
HOLD_ADDRESS: Final = "127.255.255.254"
"""Nobody listens there: a connection is refused at once."""
HOLD_PORT: Final = 1
CONNECT_MS: Final = 10
"""How long a connection to an instance may take, and the pause before it is tried again. All is on this
machine.
"""
HOLD_SECONDS: Final = 60
RETRIES: Final = HOLD_SECONDS * 1000 // CONNECT_MS
CUT_SECONDS: Final = 3 * CONNECT_MS / 1000
HELD: Final = 1
"""Connections that a holding slot tries at a time."""

_WAS_DISABLED: Final = 0x04
"""Of a server's administrative state: the configuration said `disabled`. It stays for ever."""

_TEMPLATE: Final = """\
global
    nbthread 1
    maxconn {maxconn}
    {user}stats socket {socket} mode 600 level admin
    stats timeout 1h

defaults
    mode tcp
    timeout connect {connect}ms
    timeout queue {hold}s
    # Sessions may be idle for as long as their clients like.
    timeout client 24d
    timeout server 24d
    option clitcpka
    option srvtcpka
    # Each retry may go to another slot: a connection is not bound to an instance that has just died.
    retries {retries}
    option redispatch 1
"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address where clients connect."""

    name: str
    """The name of the section: letters, digits and dashes."""
    address: str
    port: int
    slots: int
    """Two more than targets at least: one that is being left, one that opens."""
    targets: tuple[str, ...] = ()
    """Addresses of instances, which listen on the same port; none: connections are held."""


@dataclass(frozen=True, slots=True)
class ProxySpec:
    """One HAProxy process."""

    name: str
    socket: Path
    maxconn: int
    user: tuple[str, str] | None
    """User and group to run as, when it is started by root."""
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Slot:
    """A server slot, as the running proxy describes it."""

    name: str
    address: str
    port: int
    ready: bool
    changed_seconds: int = 0
    """How long ago it became ready or off."""

    @property
    def used(self) -> bool:
        """It leads to an instance, or did, and sessions may still be alive."""
        return self.address != HOLD_ADDRESS


def structure(spec: ProxySpec) -> str:
    """A digest of all that only a new process can change."""
    parts = [_TEMPLATE, str(VERSION), str(spec.socket), str(spec.maxconn), repr(spec.user)]
    parts += [f"{e.name} {e.address} {e.port} {e.slots}" for e in spec.endpoints]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def first_line(spec: ProxySpec) -> str:
    """The first line of the configuration: equal lines, equal structure."""
    return f"# Borealis proxy, version {VERSION}, structure {structure(spec)}. Made by the control plane.\n"


def render(spec: ProxySpec) -> str:
    """The configuration, with the targets of now: a process that is started again leads to them."""
    user = f"user {spec.user[0]}\n    group {spec.user[1]}\n    " if spec.user else ""
    text = first_line(spec) + _TEMPLATE.format(
        maxconn=spec.maxconn,
        user=user,
        socket=spec.socket,
        connect=CONNECT_MS,
        hold=HOLD_SECONDS,
        retries=RETRIES,
    )
    return text + "".join(_section(endpoint, spec.maxconn) for endpoint in spec.endpoints)


def _section(endpoint: Endpoint, maxconn: int) -> str:
    lines = [
        f"\nlisten {endpoint.name}",
        f"    bind {endpoint.address}:{endpoint.port}",
        "    balance leastconn",
    ]
    for number in range(1, endpoint.slots + 1):
        target = endpoint.targets[number - 1] if number <= len(endpoint.targets) else None
        if target:
            lines.append(f"    server s{number} {target}:{endpoint.port} maxconn {maxconn}")
        else:
            off = "" if number == 1 else " disabled"
            limit = HELD if number == 1 else maxconn
            lines.append(f"    server s{number} {HOLD_ADDRESS}:{HOLD_PORT} maxconn {limit}{off}")
    return "\n".join(lines) + "\n"


def parse_state(text: str) -> dict[str, list[Slot]]:
    """The answer to `show servers state`, by section. Raises ValueError."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or lines[0].strip() != "1" or not lines[1].startswith("# "):
        raise ValueError(f"not a list of server states: {text[:200]!r}")
    columns = lines[1][2:].split()
    found: dict[str, list[Slot]] = {}
    for line in lines[2:]:
        row = dict(zip(columns, line.split(), strict=False))
        found.setdefault(row["be_name"], []).append(
            Slot(
                name=row["srv_name"],
                address=row["srv_addr"],
                port=int(row["srv_port"]),
                ready=int(row["srv_admin_state"]) & ~_WAS_DISABLED == 0,
                changed_seconds=int(row["srv_time_since_last_change"]),
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class Moves:
    """Commands for a running proxy."""

    now: tuple[str, ...]
    later: tuple[str, ...]
    """The cuts: to be run when connections that were being tried have gone elsewhere (`CUT_SECONDS`)."""


def moves(endpoint: Endpoint, slots: Sequence[Slot], maxconn: int, cut: Callable[[str], bool]) -> Moves:
    """The commands that make the section's slots lead to the endpoint's targets; none when they do.

    `cut` says of an address that was left whether the sessions to it end.
    """
    pairs = list(zip(slots, _assign(endpoint, slots), strict=True))
    # What opens comes first: a queue must find somewhere to go before anything is closed.
    pairs.sort(key=lambda pair: (pair[1] is None, pair[1] == HOLD_ADDRESS))
    now: list[str] = []
    later: list[str] = []
    for slot, target in pairs:
        server = f"{endpoint.name}/{slot.name}"
        if slot.ready and slot.address == target:
            continue
        ending = [f"shutdown sessions server {server}"] if slot.used and cut(slot.address) else []
        if target is not None:
            now += [*ending, *_open(server, slot, target, endpoint.port, maxconn)]
            continue
        if slot.ready:
            now.append(f"set server {server} state maint")
        if ending:
            later += [*ending, f"set server {server} addr {HOLD_ADDRESS} port {HOLD_PORT}"]
    return Moves(tuple(now), tuple(later))


def _open(server: str, slot: Slot, target: str, port: int, maxconn: int) -> list[str]:
    """Make a slot lead to an instance, or hold."""
    hold = target == HOLD_ADDRESS
    return [
        f"set server {server} addr {target} port {HOLD_PORT if hold else port}",
        f"set maxconn server {server} {HELD if hold else maxconn}",
        *([] if slot.ready else [f"set server {server} state ready"]),
    ]


def _assign(endpoint: Endpoint, slots: Sequence[Slot]) -> list[str | None]:
    """For each slot its target.

    A target stays where it is. A new one takes the slot that is off and clean for longest; only when there is
    none, one whose sessions linger, and at last one that is in use.
    """
    missing = list(dict.fromkeys(endpoint.targets)) or [HOLD_ADDRESS]
    chosen: dict[str, str] = {}
    for slot in slots:
        if slot.ready and slot.address in missing:
            chosen[slot.name] = slot.address
            missing.remove(slot.address)
    free = [slot for slot in slots if slot.name not in chosen]
    free.sort(key=lambda slot: (slot.ready, slot.used, -slot.changed_seconds))
    for slot, target in zip(free, missing, strict=False):
        chosen[slot.name] = target
    return [chosen.get(slot.name) for slot in slots]
