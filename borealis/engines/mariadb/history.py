"""Known places of a volume's log: which transaction was the last one there, and how the log is written.

Owns the text that is kept with each timeline (in the term history) and with each image, the places that a
reader server keeps for its next life, and the reading of them all. Never: what lies between these places (see
`positions`).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from borealis.engines.base import EngineError, Lsn
from borealis.engines.mariadb.gtid import Gtid, gtid_text, parse_state

ATTACHED_NAME = "attached.json"
"""File in an instance's upstream directory: the `LogPoint` of the image that it was made from."""
KEPT_NAME = "positions.json"
"""File in an instance's upstream directory: places that the reader server has come by, the newest last."""
KEPT_MAX = 16
_VERSION = 1


class LogPoint(NamedTuple):
    """A place between two groups."""

    lsn: Lsn
    gtid: Gtid | None
    """The last group of our domain that ends at or below; None: there is none before it."""

    @property
    def sequence(self) -> int:
        """Of the group; 0 without one."""
        return self.gtid.sequence if self.gtid is not None else 0

    def to_text(self) -> str:
        """JSON, as it is kept with an image."""
        return json.dumps({"version": _VERSION, "lsn": self.lsn, "gtid": gtid_text(self.gtid)})

    @classmethod
    def parse(cls, text: str) -> LogPoint:
        """From `to_text`. Raises EngineError."""
        try:
            kept = json.loads(text)
            if kept["version"] != _VERSION:
                raise EngineError(f"a log position of format {kept['version']}: expected {_VERSION}")
            return cls(int(kept["lsn"]), parse_state(kept["gtid"]))
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(f"{text[:100]!r} is no log position: {error}") from None


class TimelineHistory(NamedTuple):
    """What is kept in the term history about a timeline's beginning."""

    server_id: int
    """Of the writer that began it; 0: not known."""
    gtid: Gtid | None
    """The last group before the timeline's start."""
    format_description: bytes
    """The whole format description event of the timeline's first file."""

    def to_text(self) -> str:
        """JSON."""
        return json.dumps(
            {
                "version": _VERSION,
                "server_id": self.server_id,
                "gtid": gtid_text(self.gtid),
                "fde": base64.b64encode(self.format_description).decode(),
            }
        )

    @classmethod
    def parse(cls, text: str) -> TimelineHistory:
        """From `to_text`. Raises EngineError."""
        try:
            kept = json.loads(text)
            if kept["version"] != _VERSION:
                raise EngineError(f"a timeline history of format {kept['version']}: expected {_VERSION}")
            event = base64.b64decode(kept["fde"], validate=True)
            return cls(int(kept["server_id"]), parse_state(kept["gtid"]), event)
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            raise EngineError(f"{text[:100]!r} is no timeline history: {error}") from None


def timeline_points(timelines: Mapping[int, tuple[Lsn, Lsn | None, str]]) -> dict[int, LogPoint]:
    """Where each timeline of a `LogFeed` begins, by its number. Raises EngineError."""
    return {
        number: LogPoint(start, TimelineHistory.parse(history).gtid)
        for number, (start, _, history) in timelines.items()
    }


def read_attached(upstream_dir: Path) -> LogPoint | None:
    """The place that the instance's image stands at; None when that is not known. Raises EngineError."""
    try:
        return LogPoint.parse((upstream_dir / ATTACHED_NAME).read_text())
    except FileNotFoundError:
        return None


def keep_points(upstream_dir: Path, points: Sequence[LogPoint]) -> None:
    """Keep the newest of these places for a server that is started again: it need not read the log from the
    image on. They count only as long as the instance's image is the same. Raises OSError."""
    image = read_attached(upstream_dir)
    kept = {
        "version": _VERSION,
        "attached": image.to_text() if image is not None else "",
        "points": [point.to_text() for point in points[-KEPT_MAX:]],
    }
    path = upstream_dir / KEPT_NAME
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(kept))
    temporary.replace(path)


def kept_points(upstream_dir: Path) -> list[LogPoint]:
    """What `keep_points` has kept; nothing where it is missing, damaged, or of another image."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, EngineError):
        kept = json.loads((upstream_dir / KEPT_NAME).read_text())
        image = read_attached(upstream_dir)
        if kept["version"] == _VERSION and kept["attached"] == (image.to_text() if image is not None else ""):
            return [LogPoint.parse(text) for text in kept["points"]]
    return []


def forget_points(upstream_dir: Path) -> None:
    """They have led astray."""
    (upstream_dir / KEPT_NAME).unlink(missing_ok=True)
