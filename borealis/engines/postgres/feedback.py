"""Keeping what readers need on the writer, with stock means: a physical replication slot that reserves no
log.

Owns the slot and the short replication connection that sets its xmin: start, one feedback message, stop.
VACUUM on the writer respects the slot's xmin for as long as the slot is there. Never decides what the readers
need.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from borealis.engines.base import EngineError, EngineUnavailable, Feedback
from borealis.engines.postgres import messages as m
from borealis.engines.postgres.settings import ADMIN_ROLE
from borealis.engines.postgres.wal import format_lsn

SLOT = "borealis_readers"


async def set_slot_feedback(
    socket_dir: Path, port: int, position: int, feedback: Feedback, timeout: float
) -> None:
    """Set what the slot keeps; `Feedback()` clears it. `position`: any durable position of the log, where the
    stream that nobody reads would begin. Raises EngineUnavailable or EngineError."""
    path = f"{socket_dir}/.s.PGSQL.{port}"
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                await _converse(reader, writer, position, feedback)
            finally:
                writer.close()
    except (OSError, EOFError, TimeoutError) as error:
        raise EngineUnavailable(
            f"the engine at {path} does not take feedback: {error!r}; try again"
        ) from error


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, position: int, feedback: Feedback
) -> None:
    parameters = {"user": ADMIN_ROLE, "replication": "true", "application_name": "borealis-feedback"}
    writer.write(m.startup(parameters))
    messages = m.MessageReader(startup=False)
    await _until(reader, messages, b"Z")
    command = f"START_REPLICATION SLOT {SLOT} PHYSICAL {format_lsn(position)}"
    writer.write(m.message(b"Q", command.encode() + b"\0"))
    await _until(reader, messages, b"W")
    # The answer to CopyDone comes after the feedback has been taken.
    writer.write(m.standby_feedback(feedback.xmin, feedback.catalog_xmin, m.clock_us()) + m.message(b"c"))
    await _until(reader, messages, b"Z")
    writer.write(m.message(b"X"))
    await writer.drain()


async def _until(reader: asyncio.StreamReader, messages: m.MessageReader, kind: bytes) -> None:
    """Read past everything up to a message of that kind."""
    while True:
        while (message := messages.next()) is not None:
            if message[0] == b"E":
                raise EngineError(f"feedback to the engine failed: {m.error_text(message[1])}")
            if message[0] == kind:
                return
        data = await reader.read(65536)
        if not data:
            raise EOFError("connection closed")
        messages.feed(data)
