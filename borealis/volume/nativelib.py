"""The native helpers of an instance, typed: `libborealis_native.so` through ctypes.

Owns the Python faces of what is in it for the driver: the scanners that find where records end in
PostgreSQL's log and groups in a binlog, CRC-32C, and (for `device.py`) the driver's atomic operations on the
device page.
It knows where the preloaded volume library lies, but never loads that one: it belongs into an engine.

A call into the library costs about a microsecond; the library keeps no state of its own, and no call blocks.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final, Self

from borealis.nativelib import NATIVE_DIR, NativeLibraryError, Signatures, existing, load

SEGMENT_BYTES: Final = 16 << 20
PAGE_BYTES: Final = 8192
RESUME_READ_BYTES: Final = 4 << 20

Buffer = bytes | bytearray | memoryview

__all__ = [
    "NATIVE_DIR",
    "BinlogScanState",
    "BinlogScanner",
    "DeviceView",
    "NativeLibraryError",
    "ScanStop",
    "WalScanState",
    "WalScanner",
    "crc32c",
    "native",
    "volume_library_path",
]


class WalScanState(ctypes.Structure):
    """`struct walscan` of native/walscan.h, field by field."""

    _fields_ = (
        ("position", ctypes.c_uint64),
        ("record_end", ctypes.c_uint64),
        ("page_boundary", ctypes.c_uint64),
        ("record_start", ctypes.c_uint64),
        ("records", ctypes.c_uint64),
        ("timeline", ctypes.c_uint32),
        ("page_timeline", ctypes.c_uint32),
        ("phase", ctypes.c_uint32),
        ("left", ctypes.c_uint32),
        ("taken", ctypes.c_uint32),
        ("crc", ctypes.c_uint32),
        ("stop", ctypes.c_uint32),
        ("header", ctypes.c_ubyte * 24),
    )


class BinlogScanState(ctypes.Structure):
    """`struct binlogscan` of native/binlogscan.h, field by field."""

    _fields_ = (
        ("position", ctypes.c_uint64),
        ("record_end", ctypes.c_uint64),
        ("boundary", ctypes.c_uint64),
        ("units", ctypes.c_uint64),
        ("state", ctypes.c_uint32),
        ("left", ctypes.c_uint32),
        ("file_start", ctypes.c_uint32),
        ("file_known", ctypes.c_uint32),
        ("stop", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
    )


class DeviceView(ctypes.Structure):
    """`struct device_view` of native/native.c: what to know before the log files are read."""

    _fields_ = (
        ("write_seq", ctypes.c_uint64),
        ("written_lsn", ctypes.c_uint64),
        ("sync_wanted_seq", ctypes.c_uint64),
        ("written_bytes", ctypes.c_uint64),
        ("timeline", ctypes.c_uint32),
        ("mode", ctypes.c_uint32),
    )


_SIGNATURES: Final[Signatures] = {
    "borealis_device_view": (None, [ctypes.c_void_p, ctypes.POINTER(DeviceView)]),
    "borealis_device_release": (ctypes.c_long, [ctypes.c_void_p, ctypes.c_uint64]),
    "borealis_device_set_mode": (ctypes.c_long, [ctypes.c_void_p, ctypes.c_uint32]),
    "borealis_device_set_awake": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_uint32]),
    "borealis_device_set_lease": (None, [ctypes.c_void_p, ctypes.c_uint64]),
    "borealis_walscan_init": (None, [ctypes.POINTER(WalScanState), ctypes.c_uint64, ctypes.c_uint32]),
    "borealis_walscan_scan": (
        ctypes.c_uint64,
        [ctypes.POINTER(WalScanState), ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64, ctypes.c_uint64],
    ),
    "borealis_binlogscan_init": (None, [ctypes.POINTER(BinlogScanState), ctypes.c_uint64]),
    "borealis_binlogscan_scan": (
        ctypes.c_uint64,
        [
            ctypes.POINTER(BinlogScanState),
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_uint64,
            ctypes.c_uint64,
        ],
    ),
    "borealis_crc32c": (ctypes.c_uint32, [ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]),
}


def volume_library_path() -> Path:
    """The library to preload into an engine. Raises NativeLibraryError when it has not been built."""
    return existing(NATIVE_DIR / "libborealis_volume.so")


@lru_cache(maxsize=1)
def native() -> ctypes.CDLL:
    """The loaded library, with all its functions declared. Raises NativeLibraryError."""
    sizes = {
        "borealis_walscan_size": ctypes.sizeof(WalScanState),
        "borealis_binlogscan_size": ctypes.sizeof(BinlogScanState),
    }
    return load(_SIGNATURES, sizes)


def _pointer(data: Buffer) -> tuple[ctypes.c_void_p, object]:
    """The address of the bytes, and an object to hold on to while it is used. Copies only what is read-only
    and not `bytes`."""
    if isinstance(data, memoryview) and (data.readonly or not data.c_contiguous):
        data = bytes(data)
    if isinstance(data, bytes):
        return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), data
    if len(data) == 0:
        return ctypes.c_void_p(0), data
    first = ctypes.c_char.from_buffer(data)
    return ctypes.c_void_p(ctypes.addressof(first)), first


def crc32c(data: Buffer, crc: int = 0, *, portable: bool = False) -> int:
    """CRC-32C (Castagnoli) of `data`, going on from the result `crc` for the bytes before it.

    `portable`: without the processor's CRC instruction.
    """
    pointer, _hold = _pointer(data)
    return int(native().borealis_crc32c(~crc & 0xFFFFFFFF, pointer, len(data), portable)) ^ 0xFFFFFFFF


class ScanStop(enum.IntEnum):
    """Why a scan stopped where it did. All but MISPLACED are usual at the end of a log in use."""

    NEED_MORE = 0
    BAD_PAGE = 1
    BAD_LENGTH = 2
    BAD_CRC = 3
    MISPLACED = 4


class WalScanner:
    """Follows PostgreSQL's log (16 MiB segments, 8 KiB pages) from a boundary on and says where records end.

    `position` is always a place at which the log may be cut: all bytes below it are final, and it is the
    (8-byte aligned) end of a record, or a page boundary. Each record's CRC is verified, because the last
    page may hold records that are still being copied. Behind an XLOG_SWITCH the rest of the segment counts
    as part of the log.

    After a new timeline began in the middle of a page, start a new scanner there with the new timeline. To
    go on after a restart use `resume`: a page behind an XLOG_SWITCH looks like one that was never written.
    """

    __slots__ = ("_native", "_reference", "_state")

    def __init__(self, position: int, timeline: int) -> None:
        """`position`: an LSN that is a known record boundary, or any page boundary.

        A record that began before the page boundary is passed over by its length, without its CRC.
        """
        if position % 8 != 0:
            raise ValueError(f"a log position must be a multiple of 8, not {position:#x}")
        self._native = native()
        self._state = WalScanState()
        self._reference = ctypes.byref(self._state)
        self._native.borealis_walscan_init(self._reference, position, timeline)

    @classmethod
    def resume(cls, position: int, timeline: int, read: Callable[[int, int], bytes]) -> Self:
        """A scanner at `position`, any place where the log was cut once: use it after a restart.

        `read(start, end)` gives log that is there up to `position` at least. The segment is followed from its
        start, because a place behind an XLOG_SWITCH is understood only from what comes before it.
        """
        scanner = cls(position - position % SEGMENT_BYTES, timeline)
        while (at := scanner.position) < position:
            base = at - at % PAGE_BYTES
            data = read(base, min(position, base + RESUME_READ_BYTES))
            scanner.scan(data, base, position)
            if scanner.position == at:
                break
        # Short of `position` only if a record lies across it; its rest can be passed over from there.
        return scanner if scanner.position == position else cls(position, timeline)

    def scan(self, data: Buffer, lsn: int, limit: int | None = None) -> tuple[int, int]:
        """Go on with the bytes of the log from `lsn` on; `lsn` ≤ `position`.

        Returns (`record_end`, `page_boundary`).

        Nothing at or above `limit` is looked at. For a log that is being written, `limit` is the end of the
        last finished write, asked *before* the bytes were read.
        """
        pointer, _hold = _pointer(data)
        size = len(data)
        self._native.borealis_walscan_scan(
            self._reference, pointer, size, lsn, lsn + size if limit is None else limit
        )
        state = self._state
        if state.stop == ScanStop.MISPLACED:
            raise ValueError(
                f"bytes {lsn:#x} to {lsn + size:#x} do not contain the position {state.position:#x}"
            )
        return state.record_end, state.page_boundary

    def settled(self, written: int) -> bool:
        """Whether what the last scan has left below `written` is nothing that a sync can wait for: pages are
        written whole, and behind the last record they hold nothing of worth."""
        return not self.missed(written)

    def missed(self, written: int) -> bool:
        """Whether the last scan, with all of the log below `written` before it, stopped where it must not.

        `written` is the end of a finished write of the engine. Whatever is written below it, the scanner
        comes as far as the last page. If it did not, the log is damaged or was misread, and to call any of
        it durable would lose commits: the writer has to be ended.
        """
        return written > 0 and self.position < (written - 1) // PAGE_BYTES * PAGE_BYTES

    @property
    def position(self) -> int:
        """Where the next scan goes on; the higher one of `record_end` and `page_boundary`."""
        return int(self._state.position)

    @property
    def record_end(self) -> int:
        """Aligned end of the last record found; 0: none yet."""
        return int(self._state.record_end)

    @property
    def page_boundary(self) -> int:
        """The last page boundary below which the log is final; 0: none yet."""
        return int(self._state.page_boundary)

    @property
    def record_start(self) -> int:
        """Where the last or the unfinished record begins; 0: not known."""
        return int(self._state.record_start)

    @property
    def records(self) -> int:
        """How many records have been verified."""
        return int(self._state.records)

    @property
    def timeline(self) -> int:
        return int(self._state.timeline)

    @property
    def stopped(self) -> ScanStop:
        """Why the last scan stopped at `position`."""
        return ScanStop(self._state.stop)


class BinlogScanner:
    """Finds how far a binlog may be shipped. Keeps its place between calls; `position` is the end of a unit,
    see `engines.mariadb.binlogscan`, whose twin this is.

    It owns no log bytes: `scan` must be given those from `position` on.
    """

    def __init__(self, position: int, timeline: int = 0) -> None:
        self.timeline = timeline
        self._native = native()
        self._state = BinlogScanState()
        self._reference = ctypes.byref(self._state)
        self._native.borealis_binlogscan_init(self._reference, position)

    @classmethod
    def resume(cls, position: int, file_start: int, timeline: int, read: Callable[[int, int], bytes]) -> Self:
        """A scanner at `position`, any place where the log was cut once: use it after a restart.

        `file_start`: where the file begins that holds `position`. It is followed from there, because only
        what comes before says what a place inside a group is. Its own place is at or below `position`.
        """
        scanner = cls(file_start, timeline)
        while (at := scanner.position) < position:
            scanner.scan(read(at, min(position, at + RESUME_READ_BYTES)), at, position)
            if scanner.position == at:
                break
        return scanner

    def scan(self, data: Buffer, lsn: int, limit: int | None = None) -> tuple[int, int]:
        """Go on with the bytes of the log from `lsn` on; `lsn` ≤ `position`.

        Returns (`record_end`, `boundary`). Nothing at or above `limit` is looked at: the end of the last
        finished write, asked *before* the bytes were read.
        """
        pointer, _hold = _pointer(data)
        size = len(data)
        self._native.borealis_binlogscan_scan(
            self._reference, pointer, size, lsn, lsn + size if limit is None else limit
        )
        state = self._state
        if state.stop == ScanStop.MISPLACED:
            raise ValueError(
                f"bytes {lsn:#x} to {lsn + size:#x} do not contain the position {state.position:#x}"
            )
        return state.record_end, state.boundary

    def settled(self, written: int) -> bool:
        """Whether all that was written below `written` was taken. A sync comes behind whole groups, so while
        some of one is missing, nothing waits for what was written; but its number also must not be
        released."""
        return self.position >= written

    def missed(self, written: int) -> bool:
        """Whether the last scan stopped at something that is no binlog: the log was misread or is damaged,
        and to call any of it durable would lose commits."""
        return self.position < written and bool(self._state.stop == ScanStop.BAD_PAGE)

    @property
    def position(self) -> int:
        """Where the next scan goes on."""
        return int(self._state.position)

    @property
    def record_end(self) -> int:
        """End of the last unit found; 0: none yet."""
        return int(self._state.record_end)

    @property
    def between_groups(self) -> bool:
        """`position` is the end of a unit."""
        return bool(self._state.state == 0 and self._state.left == 0)

    @property
    def units(self) -> int:
        """How many units were found."""
        return int(self._state.units)
