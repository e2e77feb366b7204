"""The native way of a commit: native/shiploop.c in a thread of its own, and handing over to it and back.

Owns the thread, its epoll set, and the state that the native loop works on. While a writer is in steady state
(see `Writer`), the loop takes the engine's log, sends it, counts acknowledgements and releases the engine's
syncs, without the interpreter and its lock. It ends as soon as anything else is to be done. It decides
nothing of its own: with BOREALIS_NATIVE_LOOPS=0, or without the library, Python does the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import enum
import os
import select
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from borealis.logs import get_logger
from borealis.nativelib import NativeLibraryError, Signatures, load

log = get_logger(__name__)

NODES_MAX: Final = 16
INFLIGHT_MAX: Final = 1024
INPUT_BYTES: Final = 4096
APPEND_HEAD_BYTES: Final = 41
COMMIT_BYTES: Final = 21


class Stop(enum.IntEnum):
    """Why the native loop has ended."""

    WOKEN = 0
    FILE = 1
    SEND = 2
    FOREIGN = 3
    LOG = 4
    LIMIT = 5
    FAILED = 6


class _Unsent(enum.IntEnum):
    ALL_SENT = 0
    OF_APPEND = 1
    OF_COMMIT = 2
    BROKEN = 3


class _Node(ctypes.Structure):
    _fields_ = (
        ("acked", ctypes.c_uint64),
        ("acked_ns", ctypes.c_uint64),
        ("told", ctypes.c_uint64),
        ("fd", ctypes.c_int32),
        ("has_subscribers", ctypes.c_uint32),
        ("unsent", ctypes.c_uint32),
        ("unsent_from", ctypes.c_uint32),
        ("input_bytes", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("input", ctypes.c_ubyte * INPUT_BYTES),
    )


class _Batch(ctypes.Structure):
    _fields_ = (("end", ctypes.c_uint64), ("seq", ctypes.c_uint64))


class _State(ctypes.Structure):
    """`struct ship_state` of native/shiploop.h, field by field."""

    _fields_ = (
        ("page", ctypes.c_void_p),
        ("scan", ctypes.c_void_p),
        ("ring", ctypes.c_void_p),
        ("ring_bytes", ctypes.c_uint64),
        ("ring_start", ctypes.c_uint64),
        ("term", ctypes.c_uint64),
        ("vdl", ctypes.c_uint64),
        ("unacknowledged_max", ctypes.c_uint64),
        ("file_start", ctypes.c_uint64),
        ("file_end", ctypes.c_uint64),
        ("device_offset", ctypes.c_uint64),
        ("frame_start", ctypes.c_uint64),
        ("frame_end", ctypes.c_uint64),
        ("batches", ctypes.c_uint64),
        ("told_ns", ctypes.c_uint64),
        ("kind", ctypes.c_uint32),
        ("timeline", ctypes.c_uint32),
        ("piece_max", ctypes.c_uint32),
        ("node_count", ctypes.c_uint32),
        ("write_quorum", ctypes.c_uint32),
        ("file_fd", ctypes.c_int32),
        ("epoll_fd", ctypes.c_int32),
        ("notice_fd", ctypes.c_int32),
        ("wake_fd", ctypes.c_int32),
        ("error", ctypes.c_int32),
        ("inflight_first", ctypes.c_uint32),
        ("inflight_count", ctypes.c_uint32),
        ("append_head", ctypes.c_ubyte * APPEND_HEAD_BYTES),
        ("commit", ctypes.c_ubyte * COMMIT_BYTES),
        ("pad", ctypes.c_ubyte * 6),
        ("inflight", _Batch * INFLIGHT_MAX),
        ("nodes", _Node * NODES_MAX),
    )


@dataclass(slots=True)
class ShipNode:
    """One node, before and after the loop. The meaning is that of `log.shipping.NodeProgress`."""

    node: str
    acked: int
    acked_ns: int
    told: int
    has_subscribers: bool
    fd: int = -1
    """Its socket; -1: it is not served by the loop, and only counts."""
    unsent: bytes = b""
    """After: what it did not take of what it was sent."""
    broken: bool = False
    """After: its connection broke."""
    received: bytes = b""
    """After: what it sent that was not for the loop."""


@dataclass(slots=True)
class ShipWork:
    """What the loop is given. All of the memory must stay where it is until the loop has ended."""

    page: int
    """Address of the device page."""
    scan: int
    """Address of the scanner's state."""
    ring: int
    """Address of the ring's memory."""
    ring_bytes: int
    ring_start: int
    term: int
    vdl: int
    kind: int
    """Of the log, and so of the scanner: `enginelog.NativeKind`."""
    timeline: int
    """As the device gives it."""
    unacknowledged_max: int
    piece_max: int
    write_quorum: int
    file_fd: int
    file_start: int
    file_end: int
    device_offset: int
    """See `logfiles.LogPlace`."""
    inflight: Sequence[tuple[int, int]]
    nodes: Sequence[ShipNode]


@dataclass(slots=True)
class ShipDone:
    """What the loop has done; the scanner's position is where the shipped log ends."""

    stop: Stop
    vdl: int
    ring_start: int
    inflight: list[tuple[int, int]]
    nodes: list[ShipNode]


@lru_cache(maxsize=1)
def _native() -> ctypes.CDLL | None:
    """The library, or None when it cannot be used here."""
    signatures: Signatures = {"borealis_ship_loop": (ctypes.c_int, [ctypes.POINTER(_State)])}
    try:
        return load(signatures, {"borealis_ship_state_size": ctypes.sizeof(_State)})
    except NativeLibraryError as error:
        log.warning("commits take the slower way through Python: %s", error)
        return None


class ShipLoop:
    """The native loop and its thread. Used from the event loop; `on_done` is called there."""

    def __init__(self, library: ctypes.CDLL, notice_fd: int, on_done: Callable[[ShipDone], None]) -> None:
        self._run = library.borealis_ship_loop
        self._on_done = on_done
        self._event_loop = asyncio.get_running_loop()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._state = _State(epoll_fd=self._epoll.fileno(), notice_fd=notice_fd, wake_fd=self._wake_fd)
        for descriptor in (notice_fd, self._wake_fd):
            self._epoll.register(descriptor, select.EPOLLIN)
        self._nodes: list[ShipNode] = []
        self._begin = threading.Semaphore(0)
        self._closing = threading.Event()
        self.running = False
        """The state and the memory of the work belong to the thread."""
        self._thread = threading.Thread(target=self._serve, name="ship-loop", daemon=True)
        self._thread.start()

    @classmethod
    def make(cls, notice_fd: int, on_done: Callable[[ShipDone], None]) -> ShipLoop | None:
        """None when commits are to be handled in Python."""
        if os.environ.get("BOREALIS_NATIVE_LOOPS") == "0":
            return None
        library = _native()
        return None if library is None else cls(library, notice_fd, on_done)

    @property
    def vdl(self) -> int:
        """While it is running: durable up to here, as of now."""
        return int(self._state.vdl)

    def acked(self, node: str) -> int:
        """While it is running: the node has all below on its disk, as of now."""
        for index, item in enumerate(self._nodes):
            if item.node == node:
                return int(self._state.nodes[index].acked)
        return 0

    # ------------------------------------------------------------------ to the thread and back
    def start(self, work: ShipWork) -> None:
        """Hand over. Nothing of what `work` names may be touched until `on_done`."""
        assert not self.running
        assert len(work.inflight) <= INFLIGHT_MAX // 2
        assert len(work.nodes) <= NODES_MAX
        state = self._state
        state.page, state.scan, state.ring = work.page, work.scan, work.ring
        state.ring_bytes, state.ring_start = work.ring_bytes, work.ring_start
        state.term, state.vdl, state.timeline = work.term, work.vdl, work.timeline
        state.unacknowledged_max, state.piece_max = work.unacknowledged_max, work.piece_max
        state.write_quorum = work.write_quorum
        state.kind, state.device_offset = work.kind, work.device_offset & 0xFFFF_FFFF_FFFF_FFFF
        state.file_fd, state.file_start, state.file_end = work.file_fd, work.file_start, work.file_end
        state.inflight_first, state.inflight_count = 0, len(work.inflight)
        for index, (end, seq) in enumerate(work.inflight):
            state.inflight[index].end, state.inflight[index].seq = end, seq
        self._nodes = list(work.nodes)
        state.node_count = len(self._nodes)
        for index, node in enumerate(self._nodes):
            self._give_node(state.nodes[index], node)
        self.running = True
        self._begin.release()

    def _give_node(self, slot: _Node, node: ShipNode) -> None:
        slot.acked, slot.acked_ns, slot.told = node.acked, node.acked_ns, node.told
        slot.has_subscribers, slot.fd = node.has_subscribers, node.fd
        slot.unsent = slot.unsent_from = slot.input_bytes = 0
        if node.fd >= 0:
            self._epoll.register(node.fd, select.EPOLLIN)

    def interrupt(self) -> None:
        """Make the loop end soon; `on_done` follows."""
        if self.running:
            os.eventfd_write(self._wake_fd, 1)

    def close(self) -> list[str]:
        """End the thread; blocks until it has left the loop, which it does at once. Returns the nodes whose
        sockets it still had."""
        self._closing.set()
        held = [node.node for node in self._nodes if node.fd >= 0] if self.running else []
        os.eventfd_write(self._wake_fd, 1)
        self._begin.release()
        self._thread.join()
        self._epoll.close()
        os.close(self._wake_fd)
        self.running = False
        return held

    def _serve(self) -> None:
        """The thread."""
        reference = ctypes.byref(self._state)
        while True:
            self._begin.acquire()
            if self._closing.is_set():
                return
            stop = self._run(reference)
            if self._closing.is_set():
                return
            self._event_loop.call_soon_threadsafe(self._done, stop)

    def _done(self, stop: int) -> None:
        if self._closing.is_set():
            return
        state = self._state
        self.running = False
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)
        for index, node in enumerate(self._nodes):
            self._take_node(state.nodes[index], node)
        inflight = [
            state.inflight[(state.inflight_first + index) % INFLIGHT_MAX]
            for index in range(state.inflight_count)
        ]
        self._on_done(
            ShipDone(
                Stop(stop),
                int(state.vdl),
                int(state.ring_start),
                [(int(batch.end), int(batch.seq)) for batch in inflight],
                self._nodes,
            )
        )

    def _take_node(self, slot: _Node, node: ShipNode) -> None:
        node.acked, node.acked_ns, node.told = slot.acked, slot.acked_ns, slot.told
        node.has_subscribers = bool(slot.has_subscribers)
        if node.fd < 0:
            return
        self._epoll.unregister(node.fd)
        node.received = bytes(slot.input[: slot.input_bytes])
        node.broken = slot.unsent == _Unsent.BROKEN
        if slot.unsent == _Unsent.OF_APPEND:
            node.unsent = self._last_append()[slot.unsent_from :]
        elif slot.unsent == _Unsent.OF_COMMIT:
            node.unsent = bytes(self._state.commit)[slot.unsent_from :]

    def _last_append(self) -> bytes:
        """The last frame that was sent; it lies in one piece in the ring."""
        state = self._state
        at = state.ring + state.frame_start % state.ring_bytes
        return bytes(state.append_head) + ctypes.string_at(at, state.frame_end - state.frame_start)
