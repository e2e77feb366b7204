"""A segment's rules and its files as one: what the rules say is what the files hold.

Owns the SegmentCore (which decides) and the LogFiles (which store), and keeps them the same: every record
that a step of the core returns is added to the files, in order; after a start the core is rebuilt from the
files. It decides nothing and answers nobody. One thread uses it, except for the reads that `locate` prepares.

FORMAT (the opaque part of a STATE record, and of a summary): one JSON object, "promised" and what
borealis.log.records says of its STATE record. `base`, `end` and `corrupt` in it are ignored: the log files
know better.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from borealis.log.records import (
    DataRecord,
    HistoryRecord,
    RawRecord,
    RecordError,
    RecordKind,
    StateRecord,
    decode_record,
)
from borealis.log.segment import SegmentCore, Step
from borealis.log.types import CommitPoint
from borealis.log.wire import Append, Create, Error, Message, NewTerm, Trim, Vote
from borealis.logs import get_logger
from borealis.storage.condition import Condition
from borealis.storage.errors import SegmentDamaged, StorageError
from borealis.storage.index import Extent
from borealis.storage.logfile import LogFiles, LogPlace
from borealis.storage.reading import ReadResult, read_range
from borealis.storage.recovery import recover
from borealis.storage.tail import Tail

log = get_logger(__name__)

TAIL_BYTES = 2 * 1024 * 1024
HISTORY_BYTES_SPARE = 16 * 1024
"""How much longer a message may make the state, in bytes, when room for it is looked for."""


class Located(NamedTuple):
    """Where log bytes [start, end) lie; `read` may run in any thread."""

    directory: Path
    seed: int
    extents: list[Extent]
    start: int
    end: int
    generation: int

    def read(self) -> ReadResult:
        return read_range(self.directory, self.seed, self.extents, self.start, self.end)


class SegmentJournal:
    """One segment, open. Made by `create_segment` or `open_segment`."""

    def __init__(self, core: SegmentCore, files: LogFiles) -> None:
        self.core = core
        self.files = files
        self.tail = Tail(TAIL_BYTES)
        self.condition = Condition()

    # -- changing -------------------------------------------------------------------------------------------

    def has_room(self, message: Message) -> bool:
        """Whether what `message` may write fits on the disk. May wait for a file that is being prepared."""
        match message:
            case Append():
                return not message.data or self.files.has_room(len(message.data))
            case Vote() | NewTerm() | Trim():
                return self.has_room_for_state()
            case _:
                return True

    def has_room_for_state(self) -> bool:
        """Whether a change of promises, history or base fits on the disk. May wait as `has_room` does."""
        return self.files.has_room_for_state(len(self.files.meta) + HISTORY_BYTES_SPARE)

    def add(self, step: Step[Any]) -> list[DataRecord]:
        """Adds a step's records to the files, not yet written; returns those that lengthened the log.

        Raises StorageError: the journal is then used up, and must be opened again.
        """
        data: list[DataRecord] = []
        for record in step.records:
            if isinstance(record, DataRecord):
                self.files.append(record.term, record.start, record.data, zlib.crc32(record.data))
                self.tail.append(record.start, record.data)
                data.append(record)
        if len(data) < len(step.records):
            core = self.core
            trimmed = core.base > self.files.index.base
            self.files.set_state(_meta(core), core.promised, core.base, core.end)
            self.tail.cut(core.end)
            if self.tail.end != core.end:
                self.tail.clear()
            if trimmed:
                self.files.sync()
                self.files.retire()
        return data

    def took(self, end: int, vdl: CommitPoint, runs: list[tuple[int, int, int, int]], offset: int) -> None:
        """The native loop has stored what it took: see `LogFiles.took` and `SegmentCore.appended`."""
        self.core.appended(end, vdl)
        if runs:
            self.files.took(runs, offset)
            self.tail.clear()

    def sync(self) -> None:
        """Makes all that was added durable. Raises StorageError: the journal is then used up."""
        self.files.sync()

    def upkeep(self) -> None:
        """Work for after a sync: now and then a summary is saved."""
        if self.files.wants_summary:
            self.files.meta = _meta(self.core)
            self.files.save_summary()

    def close(self, *, clean: bool) -> None:
        """Ends the use of the files; `clean`: so that the next start is quick."""
        if clean:
            self.files.meta = _meta(self.core)
        self.files.close(clean=clean)

    # -- reading --------------------------------------------------------------------------------------------

    def locate(self, start: int, end: int) -> Located:
        """Where [start, end) lies. Raises StorageError: the journal is then used up."""
        self.files.write()
        index = self.files.index
        place = self.files.place
        extents = list(index.find(start, end))
        return Located(place.directory, place.seed, extents, start, end, index.generation)

    def is_current(self, located: Located) -> bool:
        """Nothing was cut, trimmed or repaired since: what was read is what the log holds."""
        return located.generation == self.files.index.generation

    def damaged(self, start: int, end: int) -> None:
        """A read found bytes of [start, end) damaged: they are not served until they are repaired."""
        log.error(
            "volume %s: log bytes [%d, %d) are damaged on this node: fetching them from another one",
            self.core.volume,
            start,
            end,
        )
        self.files.index.punch(start, end)
        self._note_holes()
        self.condition.damaged += 1

    def repair(self, start: int, data: bytes) -> None:
        """Puts bytes from another node in the place of damaged ones. Raises StorageError as `add` does.

        The caller has made sure (borealis.log.gossip.repair_range) that they are the same bytes.
        """
        end = start + len(data)
        for hole_start, hole_end in list(self.files.index.holes()):
            first, last = max(start, hole_start), min(end, hole_end)
            if first < last:
                self.files.repair(first, data[first - start : last - start])
        self.files.sync()
        before = len(self.core.corrupt)
        self._note_holes()
        self.condition.repaired += max(0, before - len(self.core.corrupt))
        log.info("volume %s: log bytes [%d, %d) are repaired", self.core.volume, start, end)

    def _note_holes(self) -> None:
        self.core.mark_repaired(self.core.base, self.core.end)
        for start, end in self.files.index.holes():
            self.core.mark_corrupt(start, end)


def _meta(core: SegmentCore) -> bytes:
    raw = core.snapshot().encode()
    return json.dumps({"promised": raw.term, **json.loads(raw.payload)}, separators=(",", ":")).encode()


def create_segment(place: LogPlace, node: str, az: str, message: Create) -> Message:
    """Makes the first log file of a new segment, durable, and returns the answer to the CREATE."""
    core = SegmentCore(message.volume, node, az)
    step: Step[None] = core.handle(message, None)
    (_, reply) = step.replies[0]
    if not isinstance(reply, Error):
        LogFiles.create(place, core.base, _meta(core)).close(clean=True)
    return reply


def open_segment(place: LogPlace, volume: str, node: str, az: str) -> SegmentJournal:
    """Opens the files and rebuilds the rules' state from them.

    Raises SegmentDamaged when promises may be lost, StorageError when the disk cannot be used.
    """
    files = recover(place)
    core = SegmentCore(volume, node, az)
    index = files.index
    try:
        state = replace(_decode_meta(files.meta), base=index.base, end=index.end, corrupt=())
    except (RecordError, ValueError, KeyError, TypeError) as error:
        files.close(clean=False)
        raise SegmentDamaged(f"the state in {place.directory} cannot be read: {error!r}") from error
    # A journal's first record makes the segment, empty, at its base; the state then says how far it goes.
    core.replay(HistoryRecord(state.promised, state.writer, index.base, state.history))
    core.replay(state)
    journal = SegmentJournal(core, files)
    journal._note_holes()
    for start, end in core.corrupt:
        log.error("volume %s: log bytes [%d, %d) are damaged on this node", volume, start, end)
    if (core.base, core.end) != (index.base, index.end):
        files.close(clean=False)
        raise StorageError(
            f"{place.directory}: the files hold [{index.base}, {index.end}), the rules say "
            f"[{core.base}, {core.end}): this is a defect of the storage node"
        )
    return journal


def _decode_meta(meta: bytes) -> StateRecord:
    body = json.loads(meta)
    promised = int(body.pop("promised"))
    record = decode_record(RawRecord(RecordKind.STATE, promised, 0, json.dumps(body).encode()))
    assert isinstance(record, StateRecord)
    return record
