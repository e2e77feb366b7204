"""The driver's side of the log device: the page of shared memory between an engine and its driver.

Owns the page's file, the notice socket beside it (`<page>.sock`), and the rules of who writes what. The
engine's side is the preloaded volume library (`native/`). It never reads or ships a log byte.

How a commit passes: the engine writes to its log file; the library counts the write (`write_seq`). The
engine syncs the file; the library notes the number of the last write, sends a notice and waits until
`released_seq` has reached that number. The driver takes a `view()` *first*, then reads the log files; when
what it read is durable on a write quorum it calls `release(view.write_seq)`. A number and not a position,
because the engine rewrites its last page: the same position stands for many versions of it.

FORMAT: log device page, version 1. 4096 bytes, one file mapped by all sides, little-endian (the machine's
own order), atomics aligned. It lives as long as one engine process and is not checksummed: nothing in it
outlives a crash.

    offset type  written by  field
         0 u64   driver      magic 0x31474f4c45524f42 ("BORELOG1")
         8 u32   driver      version = 1
        12 u32   driver      page_bytes = 4096
        16 u32   driver      mode: 0 off (no sync waits), 1 on (log syncs wait), 2 fenced (engine ends; final)
        20 u32   library     engine_pid: first process of the engine; 0 = never attached
        24 u32   library     attached: how many times an engine attached
        28 u32   library     end_reason: 0 none, 1 fenced, 2 refused (see the engine's log)
        64 u64   library     write_seq: finished writes to log files; raised after the other fields of a write
        72 u64   library     written_lsn: highest end of a write on `timeline`, in whole pages; of a binlog,
                             number of the file << 40 | offset in it, on timeline 0
        80 u32   library     timeline: of the newest log write
        88 u64   library     written_bytes: sum of all log writes
        96 u64   library     noticed_bytes: written_bytes when the last notice was sent
       128 u64   library     sync_wanted_seq: highest write_seq that a sync waits or has waited for
       136 u32   library     waiters
       192 u64   driver      released_seq: log writes up to this number are durable
       200 u32   driver      futex word: raised with each release and change of mode
       256 u64   driver      lease_deadline_ns (CLOCK_BOOTTIME): no answer leaves after it; 0 = no lease
       264 u64   driver      heartbeat_ns (CLOCK_BOOTTIME)
       272 u32   driver      driver_awake: notices are not needed
       276 u32   driver      driver_pid
       320 u64×7 library     counters: syncs, syncs_waited, syncs_skipped, wait_ns, notices, notices_failed,
                             lease_waits

A notice is one datagram of 8 bytes (a write_seq, machine order), sent when a sync begins to wait, each 50
ms while it waits, and when 128 KiB have been written since the last notice. Its loss costs time, never
correctness.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import mmap
import os
import socket
import struct
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from borealis.errors import BorealisError
from borealis.volume.nativelib import DeviceView, native

MAGIC: Final = 0x31474F4C45524F42
VERSION: Final = 1
PAGE_BYTES: Final = 4096
UNIX_PATH_BYTES_MAX: Final = 107
NOTICE_BUFFER_BYTES: Final = 64 << 10


class DeviceError(BorealisError):
    """The log device cannot be used, or was asked for a change that would break a promise."""

    code = "LogDeviceError"


class DeviceMode(enum.IntEnum):
    """What the library does with the engine's log syncs."""

    OFF = 0
    """Reader: the local log is a copy of what storage holds, so no sync waits."""
    ON = 1
    """Writer: a log sync waits for its release."""
    FENCED = 2
    """Another writer has the volume: the engine ends wherever it touches the device. Final."""


class _Page(ctypes.Structure):
    """The page as the driver reads it; offsets as in the FORMAT above."""

    _fields_ = (
        ("magic", ctypes.c_uint64),
        ("version", ctypes.c_uint32),
        ("page_bytes", ctypes.c_uint32),
        ("mode", ctypes.c_uint32),
        ("engine_pid", ctypes.c_uint32),
        ("attached", ctypes.c_uint32),
        ("end_reason", ctypes.c_uint32),
        ("_pad0", ctypes.c_ubyte * 32),
        ("write_seq", ctypes.c_uint64),
        ("written_lsn", ctypes.c_uint64),
        ("timeline", ctypes.c_uint32),
        ("_pad1", ctypes.c_uint32),
        ("written_bytes", ctypes.c_uint64),
        ("noticed_bytes", ctypes.c_uint64),
        ("_pad2", ctypes.c_ubyte * 24),
        ("sync_wanted_seq", ctypes.c_uint64),
        ("waiters", ctypes.c_uint32),
        ("_pad3", ctypes.c_ubyte * 52),
        ("released_seq", ctypes.c_uint64),
        ("futex", ctypes.c_uint32),
        ("_pad4", ctypes.c_ubyte * 52),
        ("lease_deadline_ns", ctypes.c_uint64),
        ("heartbeat_ns", ctypes.c_uint64),
        ("driver_awake", ctypes.c_uint32),
        ("driver_pid", ctypes.c_uint32),
        ("_pad5", ctypes.c_ubyte * 40),
        ("syncs", ctypes.c_uint64),
        ("syncs_waited", ctypes.c_uint64),
        ("syncs_skipped", ctypes.c_uint64),
        ("wait_ns", ctypes.c_uint64),
        ("notices", ctypes.c_uint64),
        ("notices_failed", ctypes.c_uint64),
        ("lease_waits", ctypes.c_uint64),
    )


_HEADER: Final = struct.Struct("=QII")


@dataclass(frozen=True, slots=True)
class DeviceCounters:
    """What the library has counted since the page was created."""

    syncs: int
    syncs_waited: int
    syncs_skipped: int
    """Syncs of other files, and of log files without any write: answered at once."""
    wait_ns: int
    """Sum of the time that all processes spent waiting in log syncs."""
    notices: int
    notices_failed: int
    lease_waits: int
    written_bytes: int


def boottime_ns() -> int:
    """The clock of leases and heartbeats: goes on while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class LogDevice:
    """One device page, mapped. Made by `create` (a new incarnation) or `open` (a driver that was restarted).

    Used by one thread. Close it at the end; the file stays, for the engine and the next driver.
    """

    def __init__(self, path: Path, mapping: mmap.mmap) -> None:
        self._path = path
        self._mapping = mapping
        self._page = _Page.from_buffer(mapping)
        self._address = ctypes.c_void_p(ctypes.addressof(self._page))
        self._view = DeviceView()
        self._view_reference = ctypes.byref(self._view)
        self._native = native()
        self._notices: socket.socket | None = None

    # ---- life ----------------------------------------------------------

    @classmethod
    def create(cls, path: Path, *, owner: tuple[int, int] | None = None) -> LogDevice:
        """Make a new page with mode off. It replaces an older file, not the memory of its engine.

        `owner`: (uid, gid) of the engine, when it is another user than the driver. Raises DeviceError.
        """
        _check_path(path)
        handle, temporary = tempfile.mkstemp(prefix=path.name, dir=path.parent)
        try:
            with os.fdopen(handle, "r+b") as file:
                file.write(_HEADER.pack(MAGIC, VERSION, PAGE_BYTES).ljust(PAGE_BYTES, b"\0"))
                file.flush()
                os.fchmod(file.fileno(), 0o600)
                if owner is not None:
                    os.fchown(file.fileno(), *owner)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> LogDevice:
        """Map an existing page. Raises DeviceError when it is not there, or not of this version."""
        _check_path(path)
        try:
            with open(path, "r+b") as file:
                size = os.fstat(file.fileno()).st_size
                if size != PAGE_BYTES:
                    raise DeviceError(f"log device {path} has {size} bytes, expected {PAGE_BYTES}")
                mapping = mmap.mmap(file.fileno(), PAGE_BYTES)
        except OSError as error:
            raise DeviceError(f"cannot open the log device {path}: {error.strerror}") from error
        if _HEADER.unpack_from(mapping) != (MAGIC, VERSION, PAGE_BYTES):
            mapping.close()
            raise DeviceError(
                f"log device {path} is not of version {VERSION}: create the instance's page again"
            )
        return cls(path, mapping)

    def close(self) -> None:
        """Unmap the page and close the notice socket. Waiting syncs go on waiting."""
        if self._notices is not None:
            self._notices.close()
            self._notices = None
            with contextlib.suppress(FileNotFoundError):
                self.notice_path.unlink()
        if not self._mapping.closed:
            del self._page, self._address
            self._mapping.close()

    @property
    def path(self) -> Path:
        return self._path

    @property
    def notice_path(self) -> Path:
        """Where the library sends its notices."""
        return self._path.with_name(self._path.name + ".sock")

    def bind_notices(self, *, owner: tuple[int, int] | None = None) -> socket.socket:
        """The socket that notices arrive at: non-blocking, owned by the device. Replaces an earlier driver's.

        A notice only says "look": read until it would block, then call `view()`.
        """
        if self._notices is not None:
            return self._notices
        receiver = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        temporary = self.notice_path.with_name(self.notice_path.name + "~")
        try:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NOTICE_BUFFER_BYTES)
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            receiver.bind(str(temporary))
            temporary.chmod(0o600)
            if owner is not None:
                os.chown(temporary, *owner)
            temporary.replace(self.notice_path)
        except BaseException:
            receiver.close()
            raise
        self._notices = receiver
        self._page.driver_pid = os.getpid()
        self.set_awake(False)
        return receiver

    # ---- what the engine did -------------------------------------------

    def view(self) -> DeviceView:
        """The state of the log, in the one order that is safe: take it before the log files are read.

        All writes counted by `write_seq` are in the files, and lie below `written_lsn` (if on `timeline`).
        The object is reused by the next call.
        """
        self._native.borealis_device_view(self._address, self._view_reference)
        return self._view

    @property
    def address(self) -> int:
        """Where the page lies, for native code; valid until `close`."""
        return ctypes.addressof(self._page)

    @property
    def write_seq(self) -> int:
        return int(self._page.write_seq)

    @property
    def written_lsn(self) -> int:
        return int(self._page.written_lsn)

    @property
    def timeline(self) -> int:
        return int(self._page.timeline)

    @property
    def sync_wanted_seq(self) -> int:
        return int(self._page.sync_wanted_seq)

    @property
    def waiters(self) -> int:
        return int(self._page.waiters)

    @property
    def engine_pid(self) -> int | None:
        """Process id of the engine that attached.

        None: the library was never loaded: nothing waits here, and the engine must not become a writer.
        """
        return int(self._page.engine_pid) or None

    @property
    def attached(self) -> int:
        """How many times an engine attached."""
        return int(self._page.attached)

    @property
    def end_reason(self) -> int:
        """Why the library ended the engine: 0 it did not, 1 fenced, 2 the engine did what is refused."""
        return int(self._page.end_reason)

    def counters(self) -> DeviceCounters:
        page = self._page
        return DeviceCounters(
            syncs=page.syncs,
            syncs_waited=page.syncs_waited,
            syncs_skipped=page.syncs_skipped,
            wait_ns=page.wait_ns,
            notices=page.notices,
            notices_failed=page.notices_failed,
            lease_waits=page.lease_waits,
            written_bytes=page.written_bytes,
        )

    # ---- what the driver decides ---------------------------------------

    @property
    def released_seq(self) -> int:
        return int(self._page.released_seq)

    def release(self, seq: int) -> int:
        """Everything written up to number `seq` is durable: let the syncs that wait for it go on.

        Returns how many processes were woken. A number below an earlier one changes nothing. The caller has
        made sure that nothing below `written_lsn` of the same `view()` was left out (`WalScanner.missed`).
        """
        return int(self._native.borealis_device_release(self._address, seq))

    publish = release

    @property
    def mode(self) -> DeviceMode:
        return DeviceMode(self._page.mode)

    def set_mode(self, mode: DeviceMode) -> None:
        """Change the mode.

        Raises DeviceError: a fenced device stays fenced, and a device with syncs that were never released
        is not switched off (later syncs would be told that all is durable).
        """
        if mode is DeviceMode.OFF and self.mode is DeviceMode.ON and self.sync_wanted_seq > self.released_seq:
            raise DeviceError(
                "the log device has waiting syncs and cannot be switched off: end the engine instead"
            )
        if self._native.borealis_device_set_mode(self._address, mode) < 0:
            raise DeviceError("the log device is fenced, which is final: start a new incarnation")

    def arm(self) -> None:
        """From reader to writer: from now on each log write waits for its release.

        Call it when the engine has replayed all that it may, and before it is promoted. What has been
        written so far came from storage and is durable; a reader's own log receiver syncs it while it is
        being ended by the promotion, and would block that for ever if it had to wait.
        """
        self.release(self.view().write_seq)
        self.set_mode(DeviceMode.ON)

    def fence(self) -> None:
        """The engine ends at its next touch of the device. The caller kills it too."""
        self.set_mode(DeviceMode.FENCED)

    def set_awake(self, awake: bool) -> bool:
        """Say whether the driver looks at the page by itself (no notices needed).

        After `set_awake(False)` a result of True means that a sync waits already: look once more before
        sleeping.
        """
        return bool(self._native.borealis_device_set_awake(self._address, awake))

    @property
    def lease_deadline_ns(self) -> int:
        return int(self._page.lease_deadline_ns)

    def set_lease(self, deadline_ns: int) -> None:
        """Answers leave the engine until this moment (`boottime_ns`), later ones wait; 0: no lease check."""
        self._native.borealis_device_set_lease(self._address, deadline_ns)

    def beat(self) -> None:
        """Note that the driver is alive."""
        self._page.heartbeat_ns = boottime_ns()

    @property
    def heartbeat_ns(self) -> int:
        return int(self._page.heartbeat_ns)

    @property
    def driver_pid(self) -> int | None:
        return int(self._page.driver_pid) or None


def _check_path(path: Path) -> None:
    length = len(os.fsencode(path)) + len(".sock~")
    if length > UNIX_PATH_BYTES_MAX:
        raise DeviceError(
            f"the path of the log device is too long for a Unix socket ({length} bytes, at most "
            f"{UNIX_PATH_BYTES_MAX}): {path}; put the data directory somewhere shorter"
        )
