"""The storage node's tests run with the native append loop and with its reference in Python."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["native", "python"])
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of the two the nodes use that are started in this test."""
    monkeypatch.setenv("BOREALIS_NATIVE_LOOPS", "1" if request.param == "native" else "0")
    return str(request.param)
