"""What readers need of the writer is merged, and forgotten when they fall silent."""

from __future__ import annotations

import time
from typing import cast

from borealis.engines.base import EngineSession, Feedback
from borealis.volume.feedback import SILENCE_SECONDS, FeedbackDesk


def test_the_oldest_demand_wins_and_the_silent_are_forgotten() -> None:
    desk = FeedbackDesk(cast(EngineSession, None))
    now = time.monotonic()
    assert desk.merged(now) == Feedback()
    desk.heard("a", Feedback(xmin=700))
    desk.heard("b", Feedback(xmin=650, catalog_xmin=640))
    desk.heard("c", Feedback())
    assert desk.merged(now) == Feedback(650, 640)
    assert desk.of("a") == Feedback(700)
    assert desk.merged(now + SILENCE_SECONDS + 1) == Feedback()
    assert desk.of("a") == Feedback()
