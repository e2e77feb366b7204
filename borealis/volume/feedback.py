"""What the readers need the writer to keep: merged, and passed to the engine now and then.

Owns the readers' last words and their age. A reader that says nothing for a while needs nothing any more. It
never decides how the engine keeps things: that is the engine session's.
"""

from __future__ import annotations

import asyncio
import time

from borealis.engines.base import EngineSession, Feedback
from borealis.errors import BorealisError
from borealis.logs import get_logger

log = get_logger(__name__)

SILENCE_SECONDS = 30.0
APPLY_SECONDS = 5.0
"""The engine is told at most so often: each time costs it a short connection."""


class FeedbackDesk:
    """Takes the readers' feedback; run `run()` as a task while this instance is the writer."""

    def __init__(self, session: EngineSession) -> None:
        self._session = session
        self._heard: dict[str, tuple[Feedback, float]] = {}
        self._first = asyncio.Event()

    def heard(self, instance_id: str, feedback: Feedback) -> None:
        """A reader's newest word."""
        self._heard[instance_id] = (feedback, time.monotonic())
        self._first.set()

    def merged(self, now: float) -> Feedback:
        """The oldest demand of all readers that were heard of lately."""
        self._heard = {k: v for k, v in self._heard.items() if now - v[1] < SILENCE_SECONDS}
        return Feedback.merge(feedback for feedback, _ in self._heard.values())

    def of(self, instance_id: str) -> Feedback:
        """What one reader asked for last."""
        return self._heard.get(instance_id, (Feedback(), 0.0))[0]

    async def run(self) -> None:
        """Pass it to the engine until cancelled."""
        await self._first.wait()
        while True:
            try:
                await self._session.apply_feedback(self.merged(time.monotonic()))
            except BorealisError as error:
                log.warning("the engine did not take the readers' feedback: %s", error)
            await asyncio.sleep(APPLY_SECONDS)
