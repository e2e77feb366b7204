"""How much old log the storage nodes may let go of. Pure decisions, no I/O.

Invariant: nothing is let go of that somebody may still read. That is, at or above the lowest of
 - the position of every image in the record, of which at least the two newest are whole on a write quorum;
 - the image of each life that is not in service yet: it reads the log from there on;
 - how far each reader has come, down to where a stream that breaks off begins again: the start of a log
   file; where files have any size, a place kept lately, or its image, when it is too far behind for those.
A writer reads no log, and who is promoted was a reader before. Two images, so that one that turns out to be
unusable leaves another one with all of its log. While a volume is opened nothing is trimmed.
"""

from __future__ import annotations

from borealis.control.records import Instance
from borealis.control.view import View

KEPT_BYTES = 128 << 20
"""Where log files have any size, a reader no farther behind than this has kept a place no farther back."""
IMAGES_MIN = 2
"""So many of the newest images always keep their log."""


def trim_point(view: View, log_file_bytes: int) -> int | None:
    """Below this position nobody needs the volume's log any more; None: it cannot be told now.

    `log_file_bytes`: the size of the engine's log files, each of which begins at a multiple of it; 0: they
    have any size.
    """
    images = view.cluster.volume.images
    if view.cluster.opening is not None or not _newest_are_safe(view):
        return None
    needed = [image.lsn for image in images]
    needs = (_needed_by(view, instance, log_file_bytes) for instance in view.instances)
    return min(needed + [position for position in needs if position is not None])


def trim_due(view: View, log_file_bytes: int, step_bytes: float) -> int | None:
    """Where to trim now: some segment holds at least `step_bytes` that nobody needs. None: nothing to do."""
    below = trim_point(view, log_file_bytes) if step_bytes > 0 else None
    if below is None:
        return None
    able = [s for s in view.volume.segments if s.connected and s.base < below <= min(s.scl, s.vdl)]
    return below if any(below - segment.base >= step_bytes for segment in able) else None


def _newest_are_safe(view: View) -> bool:
    newest = sorted(view.cluster.volume.images, key=lambda image: image.lsn)[-IMAGES_MIN:]
    holders = [
        sum(1 for s in view.volume.segments if s.connected and image.name in s.images) for image in newest
    ]
    return len(newest) == IMAGES_MIN and min(holders) >= view.volume.write_quorum


def _needed_by(view: View, instance: Instance, log_file_bytes: int) -> int | None:
    """From where on the instance's present life may still ask for the log; None: it does not."""
    life = instance.incarnation
    if life is None or life.id == view.cluster.volume.writer_incarnation:
        return None
    status = view.of(instance).status
    engine = status.engine if status is not None else None
    if not view.serving(instance) or engine is None or engine.replay_lsn is None:
        return life.image_lsn
    received = engine.replay_lsn if engine.receive_lsn is None else engine.receive_lsn
    position = min(engine.replay_lsn, received)
    if log_file_bytes:
        return max(life.image_lsn, position // log_file_bytes * log_file_bytes)
    behind = view.volume.vdl - position
    return max(life.image_lsn, position - KEPT_BYTES) if behind <= KEPT_BYTES else life.image_lsn
