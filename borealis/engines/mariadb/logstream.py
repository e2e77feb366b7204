"""The stream of events that one replica is sent, made from the log as packets of the wire protocol.

Owns the place in the log, what is left out (events that belong to no group; groups that the replica has;
groups that a timeline's end has cut off), and the cutting of events into packets, the large ones piece by
piece. It reads nothing above the limit of the `LogIndex`, and keeps no more than one piece of log.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final

from borealis.engines.base import LogFeed, Lsn
from borealis.engines.mariadb import dumpevents as made
from borealis.engines.mariadb import protocol as p
from borealis.engines.mariadb.binlog import (
    HEADER_BYTES,
    MAGIC,
    TYPE_AND_LENGTH,
    EventType,
    begins_file,
    parse_gtid,
)
from borealis.engines.mariadb.gtid import DOMAIN, Gtid
from borealis.engines.mariadb.history import LogPoint
from borealis.engines.mariadb.logindex import LogIndex

STEP_BYTES: Final = 128 * 1024
"""Log that is made into packets at once, bytes."""
FETCH_BYTES: Final = 1 << 20
"""Log that is asked for at once when it is not in memory, bytes."""
LARGE_BYTES: Final = 64 * 1024
"""An event that is larger is sent piece by piece, as its bytes come."""
_FILE_START_BYTES: Final = len(MAGIC) + HEADER_BYTES
_GTID_BYTES: Final = HEADER_BYTES + 13
_LEFT_OUT: Final = frozenset(
    (
        EventType.ROTATE,
        EventType.STOP,
        EventType.GTID_LIST,
        EventType.BINLOG_CHECKPOINT,
        EventType.START_ENCRYPTION,
        EventType.HEARTBEAT,
    )
)
_NOT_PLAIN: Final = _LEFT_OUT | {EventType.FORMAT_DESCRIPTION}
_PACKET: Final = struct.Struct("<IB")
"""Before a small event: length and number of the packet, and the byte that says that it is an event."""


class Diverged(Exception):
    """The replica has a group that is not in the log."""


class LogStream:
    """From `start` on, without what comes up to and with the group `after` (None: everything is sent).

    Take `next_output` until it gives None, whenever the index has advanced or `provide` was called.
    """

    def __init__(
        self, feed: LogFeed, index: LogIndex, start: LogPoint, after: Gtid | None, format_description: bytes
    ) -> None:
        self.wanted: tuple[Lsn, Lsn] | None = None
        """A range of the log that is not in memory: read it and call `provide`."""
        self._feed = feed
        self._index = index
        self._at = start.lsn
        """All before it was sent or left out, apart from the large event in progress; `_held` begins here."""
        self._held = b""
        self._fetched: tuple[Lsn, bytes] | None = None
        self._after = after if after != start.gtid else None
        self._found = False
        """The group `after` has gone by; the next one is the first to be sent."""
        self._diverged = ""
        """Why this replica cannot be served."""
        self._sequence = 1
        self._file = made.file_name(start.lsn)
        self._first: deque[bytes] = deque()
        self._event_left = 0
        """Bytes of a large event still to be sent."""
        self._packet_left = 0
        """Bytes that its present packet still takes."""
        self._another_packet = False
        """The present packet is a full one: another one follows, be it empty."""
        preamble = (
            made.rotate(self._file),
            made.format_at_connect(format_description),
            made.gtid_list(after),
        )
        self._first.append(b"".join(map(self._event, preamble)))

    @property
    def sent(self) -> Lsn:
        """The log was handed out up to here."""
        return self._at

    @property
    def skipping(self) -> bool:
        """The replica's own last group has not gone by yet."""
        return self._after is not None and not self._found

    # ------------------------------------------------------------------ what the caller tells
    def provide(self, start: Lsn, data: bytes) -> None:
        """The bytes of `wanted`, or the first part of them."""
        if self.wanted is not None and self.wanted[0] == start:
            self.wanted = None
            self._fetched = (start, data) if data else None

    def heartbeat(self) -> None:
        """Say that we are here, unless the replica is in the middle of a packet."""
        if not self._event_left and not self._another_packet:
            self._first.append(self._event(made.heartbeat(self._file)))

    def error(self, kind: tuple[int, str], text: str) -> bytes:
        """The last packet of a stream that ends with an error."""
        return self._message(p.error(kind, text))

    # ------------------------------------------------------------------ what goes out
    def next_output(self) -> bytes | None:
        """The next bytes for the replica; None: nothing now. Raises Diverged."""
        if self._first:
            return self._first.popleft()
        while self.wanted is None:
            if self._diverged:
                raise Diverged(self._diverged)
            before = self._at
            if self._event_left or self._another_packet:
                output = self._large_piece()
            else:
                output = self._pack()
            if output:
                return output
            if self._at == before and not self._read_on():
                return None
        return None

    def _read_on(self) -> bool:
        """Get more of the log; False: there is none now."""
        start, limit = self._at + len(self._held), self._index.limit
        if start >= limit:
            return False
        data: bytes | None = None
        if self._fetched is not None and self._fetched[0] == start:
            data = self._fetched[1]
        self._fetched = None
        if data is None:
            data = self._feed.buffered(start, min(limit, start + STEP_BYTES))
        if data is None:
            self.wanted = (start, min(limit, start + FETCH_BYTES))
            return False
        self._held = self._held + data if self._held else data
        return True

    def _pack(self) -> bytes:
        """Packets for the whole events in what is held."""
        if self._at in self._index.torn:
            self._jump(self._index.torn[self._at])
        view, at, out = memoryview(self._held), 0, bytearray()
        while True:
            if self._after is None:
                at = self._pack_plain(view, at, out)
            if len(view) - at < HEADER_BYTES or self._at + at in self._index.torn:
                break
            if view[at] == MAGIC[0] and bytes(view[at : at + len(MAGIC)]) == MAGIC:
                if len(view) - at < _FILE_START_BYTES:
                    break
                if begins_file(view, at):
                    self._file = made.file_name(self._at + at)
                    out += self._event(made.rotate(self._file))
                    at += len(MAGIC)
                    continue
            length = int.from_bytes(view[at + 9 : at + 13], "little")
            if length > LARGE_BYTES:
                if not at:
                    return bytes(self._begin_large(length, view[4]))
                break
            if at + length > len(view):
                break
            if self._is_sent(view, at):
                self._append_event(out, view[at : at + length])
            if self._diverged:
                break
            at += length
        self._at += at
        self._held = self._held[at:]
        return bytes(out)

    def _pack_plain(self, view: memoryview, at: int, out: bytearray) -> int:
        """Packets for the events from this offset on, up to the first one that needs a closer look; its
        offset. Most events go this way, so it is kept quick."""
        sequence, torn, last = self._sequence, self._index.torn, len(view) - HEADER_BYTES
        while at <= last:
            kind, length = TYPE_AND_LENGTH.unpack_from(view, at)
            end = at + length
            if kind in _NOT_PLAIN or length > LARGE_BYTES or end > len(view) or view[at] == MAGIC[0]:
                break
            if torn and self._at + at in torn:
                break
            out += _PACKET.pack((length + 1) | (sequence & 0xFF) << 24, 0)
            out += view[at:end]
            sequence += 1
            at = end
        self._sequence = sequence
        return at

    def _append_event(self, out: bytearray, event: memoryview) -> None:
        if event[4] == EventType.FORMAT_DESCRIPTION:
            out += self._event(made.format_in_file(bytes(event)))
            return
        out += p.prefix(len(event) + 1, self._sequence)
        out += b"\0"
        out += event
        self._sequence += 1

    def _is_sent(self, view: memoryview, at: int) -> bool:
        """Whether the replica gets the event at this offset."""
        kind = view[at + 4]
        if self._after is None or kind == EventType.FORMAT_DESCRIPTION:
            return kind not in _LEFT_OUT
        if kind != EventType.GTID:
            return False
        if self._found:
            self._after = None
            return True
        gtid = parse_gtid(view[at : at + _GTID_BYTES]).gtid
        if gtid.domain == DOMAIN and gtid.sequence >= self._after.sequence:
            if gtid != self._after:
                self._diverged = f"the log holds {gtid} where the engine has {self._after}"
            self._found = True
        return False

    # ------------------------------------------------------------------ large events
    def _begin_large(self, length: int, kind: int) -> bytearray:
        if self._after is not None or kind in _LEFT_OUT:
            self._jump(self._at + length)
            return bytearray()
        self._event_left = length
        out = self._begin_packet(length + 1)
        out += b"\0"
        self._packet_left -= 1
        return out

    def _begin_packet(self, message_left: int) -> bytearray:
        size = min(message_left, p.PIECE_MAX)
        self._packet_left, self._another_packet = size, size == p.PIECE_MAX
        out = bytearray(p.prefix(size, self._sequence))
        self._sequence += 1
        return out

    def _large_piece(self) -> bytes:
        """As much of the large event as is held."""
        view, at, out = memoryview(self._held), 0, bytearray()
        while True:
            taken = min(self._packet_left, self._event_left, len(view) - at)
            out += view[at : at + taken]
            at += taken
            self._event_left -= taken
            self._packet_left -= taken
            if self._packet_left or not self._another_packet:
                break
            out += self._begin_packet(self._event_left)
        self._at += at
        self._held = self._held[at:]
        return bytes(out)

    def _jump(self, lsn: Lsn) -> None:
        """Go on at `lsn`, above; what lies between is not sent."""
        gone = lsn - self._at
        self._held = self._held[gone:]
        self._at = lsn

    # ------------------------------------------------------------------ packets
    def _event(self, event: bytes) -> bytes:
        return self._message(b"\0" + event)

    def _message(self, message: bytes) -> bytes:
        sent = p.packets(self._sequence, message)
        self._sequence += len(message) // p.PIECE_MAX + 1
        return sent
