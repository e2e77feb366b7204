"""The background check: reads all that a node holds again, slowly, and compares it with its checksums.

Owns the order and the rate: one segment after the other, its log, then its blobs, at a bounded number of
bytes per second for the whole node. Damaged log is marked, which makes gossip fetch it from a peer; a damaged
blob is removed and fetched anew by `BlobRepair`. What lies in the operating system's cache is dropped from it
first, as far as it is on disk, so that the disk itself is read. It never changes a byte that is whole.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

from borealis.errors import BorealisError
from borealis.log.wire import BlobInfo
from borealis.logs import get_logger
from borealis.storage.actor import SegmentActor
from borealis.storage.blobrepair import BlobRepair
from borealis.storage.index import EXTENT_BYTES
from borealis.storage.journal import Located
from borealis.storage.prepare import log_path
from borealis.storage.reading import ReadResult

log = get_logger(__name__)

T = TypeVar("T")

BLOB_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class ScrubConfig:
    """How fast, and how often."""

    bytes_per_second: int = 1 << 20
    """For the whole node; 0: nothing is checked."""
    pass_seconds: float = 600.0
    """A pass over everything takes at least this long."""


class Scrubber:
    """The check of one node: one task, `run`, until it is cancelled."""

    def __init__(
        self,
        actors: Callable[[], Collection[SegmentActor]],
        repair: BlobRepair,
        wake: Callable[[str], None],
        pool: Executor,
        config: ScrubConfig,
    ) -> None:
        """`wake`: the segment of this volume lacks bytes, let it gossip."""
        self._actors = actors
        self._repair = repair
        self._wake = wake
        self._pool = pool
        self._config = config

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._config.bytes_per_second > 0:
            began = loop.time()
            for actor in list(self._actors()):
                try:
                    await self._check(actor)
                except (BorealisError, OSError) as error:
                    log.debug("volume %s: not checked to its end: %s", actor.volume, error)
                except Exception:
                    log.exception("volume %s: the check failed", actor.volume)
            await asyncio.sleep(max(0.01, began + self._config.pass_seconds - loop.time()))

    async def _check(self, actor: SegmentActor) -> None:
        await self._repair.mend(actor)
        at, end = await self._ask(actor, lambda a: (a.core.base, a.core.end))
        while at < end:
            at = await self._check_log(actor, at, end)
        for info in await self._in_pool(actor.blobs.infos):
            if not await self._is_whole(actor, info):
                actor.condition.damaged += 1
                actor.condition.changed()
                await self._repair.damaged(actor, info)
        actor.condition.passes += 1

    # -- the log --------------------------------------------------------------------------------------------

    async def _check_log(self, actor: SegmentActor, at: int, end: int) -> int:
        """Checks one piece of the log from `at` on; returns where to go on."""
        located = await self._ask(actor, lambda a: _locate(a, at, min(end, at + EXTENT_BYTES)))
        if located is None:
            return at + EXTENT_BYTES  # Nothing to be read here: a known damage, or trimmed meanwhile.
        result = await self._in_pool(lambda: _read_anew(located))
        await self._checked(actor, len(result.data))
        if result.damaged is None:
            return located.start + len(result.data) if result.data else located.end
        if await self._ask(actor, lambda a: _mark(a, located, result)):
            self._wake(actor.volume)
        return result.damaged[1]

    # -- blobs ----------------------------------------------------------------------------------------------

    async def _is_whole(self, actor: SegmentActor, info: BlobInfo) -> bool:
        """False: it does not match its name. One that was removed meanwhile is whole."""
        try:
            with await self._in_pool(lambda: actor.blobs.path(info).open("rb", buffering=0)) as file:
                _forget_cached(file.fileno(), 0, 0)
                return await self._matches(actor, file, info)
        except FileNotFoundError:
            return True
        except OSError as error:
            log.error("volume %s: blob %s cannot be read: %s", actor.volume, info.name, error)
            return False

    async def _matches(self, actor: SegmentActor, file: BinaryIO, info: BlobInfo) -> bool:
        digest = hashlib.sha256()
        while piece := await self._in_pool(lambda: file.read(BLOB_PIECE_BYTES)):
            await self._in_pool(lambda piece=piece: digest.update(piece))  # type: ignore[misc]
            await self._checked(actor, len(piece))
        return digest.hexdigest() == info.sha256

    # -- common ---------------------------------------------------------------------------------------------

    async def _checked(self, actor: SegmentActor, count: int) -> None:
        actor.condition.checked_bytes += count
        await asyncio.sleep(count / self._config.bytes_per_second)

    async def _ask(self, actor: SegmentActor, work: Callable[[SegmentActor], T]) -> T:
        return await asyncio.wrap_future(actor.call(work))

    async def _in_pool(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _locate(actor: SegmentActor, at: int, end: int) -> Located | None:
    """Where the first bytes of [at, end) lie that can be read; None: there are none. For the segment's
    thread."""
    journal = actor.journal
    if journal is None:
        return None
    found = journal.locate(max(at, journal.core.base), min(end, journal.core.end))
    if not found.extents:
        return None
    return found._replace(start=max(found.start, found.extents[0].start))


def _mark(actor: SegmentActor, located: Located, result: ReadResult) -> bool:
    """Notes what was found, unless the log has changed since. For the segment's thread."""
    journal = actor.journal
    if journal is None or result.damaged is None or not journal.is_current(located):
        return False
    journal.damaged(*result.damaged)
    return True


def _read_anew(located: Located) -> ReadResult:
    for extent in located.extents:
        try:
            fd = os.open(log_path(located.directory, extent.file_seq), os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            _forget_cached(fd, extent.offset, extent.span)
        finally:
            os.close(fd)
    return located.read()


def _forget_cached(fd: int, offset: int, length: int) -> None:
    os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)
