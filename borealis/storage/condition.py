"""What a segment says of its own condition: sizes, blobs, what checks have found, why it takes nothing.

Owns the counters, which live as long as the node's process; measures at most once a second. It checks and
repairs nothing itself: whoever finds or mends something counts it here.
"""

from __future__ import annotations

import time

from borealis.log.segment import SegmentCore
from borealis.log.wire import Health
from borealis.storage.blobs import BlobStore
from borealis.storage.logfile import LogFiles

MEASURE_SECONDS = 1.0


class Condition:
    """Of one segment. Used by the segment's thread; the counters by others, too."""

    def __init__(self) -> None:
        self.checked_bytes = self.passes = self.damaged = self.repaired = 0
        self._measured_at = 0.0

    def changed(self) -> None:
        """Something was stored or removed: measure anew when asked next."""
        self._measured_at = 0.0

    def tell(self, core: SegmentCore, files: LogFiles, blobs: BlobStore, trouble: str) -> None:
        """Put it all where the answer to STATUS finds it."""
        core.health = Health(self.checked_bytes, self.passes, self.damaged, self.repaired, trouble)
        now = time.monotonic()
        if now - self._measured_at > MEASURE_SECONDS:
            self._measured_at = now
            core.bytes_on_disk = files.bytes_on_disk()
            core.blobs = blobs.infos()
