"""Talking to a running HAProxy over its control socket.

Owns one connection per call: HAProxy answers the commands of one line in one go, and closes. It knows
commands only as text; what they mean is in `haproxy.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from borealis.endpoints.errors import EndpointError, ProxyUnreachable
from borealis.endpoints.haproxy import Slot, parse_state

ANSWER_BYTES_MAX: Final = 4 << 20
LINE_BYTES_MAX: Final = 12 << 10
"""HAProxy reads a line of commands into one buffer of 16 KiB."""
_COMPLAINTS: Final = (
    "unknown",
    "no such",
    "error",
    "missing",
    "require",
    "invalid",
    "permission",
    "can't",
    "cannot",
)


class Runtime:
    """The control socket of one proxy."""

    def __init__(self, socket: Path, timeout: float = 2.0) -> None:
        """`timeout`: for each call, in seconds."""
        self._socket = socket
        self._timeout = timeout

    async def call(self, line: str) -> str:
        """Send one line of commands, separated by `; `. Raises ProxyUnreachable."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(line)
        except (OSError, TimeoutError) as error:
            raise ProxyUnreachable(
                f"the proxy does not answer at {self._socket} ({error or 'no answer in time'}); "
                "its log says why, if it has ended"
            ) from error

    async def _exchange(self, line: str) -> str:
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        try:
            writer.write(line.encode() + b"\n")
            await writer.drain()
            answer = await reader.read(ANSWER_BYTES_MAX)
            while not reader.at_eof() and len(answer) < ANSWER_BYTES_MAX:
                answer += await reader.read(ANSWER_BYTES_MAX)
        finally:
            writer.close()
        return answer.decode(errors="replace")

    async def state(self) -> dict[str, list[Slot]]:
        """All server slots, by section. Raises ProxyUnreachable, EndpointError."""
        text = await self.call("show servers state")
        try:
            return parse_state(text)
        except (ValueError, KeyError) as error:
            raise EndpointError(f"the proxy at {self._socket} gave an unexpected answer: {error}") from error

    async def run(self, commands: Sequence[str]) -> None:
        """Run commands in their order, as few lines as possible; none runs between two others of a line.

        Raises ProxyUnreachable, or EndpointError with HAProxy's complaint.
        """
        for line in _lines(commands):
            answer = await self.call(line)
            for said in answer.splitlines():
                if said.strip() and any(word in said.lower() for word in _COMPLAINTS):
                    raise EndpointError(f"the proxy at {self._socket} refused a command: {said.strip()}")


def _lines(commands: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for command in commands:
        if lines and len(lines[-1]) + len(command) + 2 <= LINE_BYTES_MAX:
            lines[-1] += "; " + command
        else:
            lines.append(command)
    return lines
