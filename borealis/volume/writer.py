"""The writer's steady state: from the engine's log file to a write quorum of nodes, and back to the engine.

Owns the way of a commit in this process. The rule that everything hangs on: read `write_seq` *first*, then
the log file; send what ends at a verified record end or at a final page boundary; release that `write_seq`
when the write quorum has that end on disk. Counting is `Shipper`'s, finding ends is `EngineLog`'s, sockets
are `Links`'; this module only connects them, without a task switch between any two steps.

While nothing needs a decision (all nodes that can be served have all of the log, on connections that take
what they are sent), the native loop of `shiploop` does the same in a thread of its own. Each heartbeat, and
whatever is not an acknowledgement, brings the work back here for a moment.

It ships whatever is written, whether or not a sync waits for it yet, and as many batches at once as there
are. It never waits for one node. What it can still send again is a ring of memory; a node that is further
behind is left to gossip. It never says anything to a node once it is fenced.
"""

from __future__ import annotations

import asyncio
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping

from borealis.errors import BorealisError
from borealis.log.frames import Kind
from borealis.log.history import TermHistory
from borealis.log.quorum import QuorumSet
from borealis.log.shipping import AppendRange, NodeProgress, Shipper
from borealis.log.types import PIECE_BYTES, WINDOW_BYTES, Superseded
from borealis.log.wire import Ack, Message
from borealis.logs import get_logger
from borealis.volume.device import LogDevice, boottime_ns
from borealis.volume.enginelog import EngineLog, LogFileError
from borealis.volume.lease import Lease
from borealis.volume.link import Links
from borealis.volume.ring import LogRing
from borealis.volume.shiploop import INFLIGHT_MAX, ShipDone, ShipLoop, ShipNode, ShipWork, Stop

log = get_logger(__name__)

RING_BYTES = 2 * WINDOW_BYTES
UNACKNOWLEDGED_BYTES_MAX = WINDOW_BYTES // 2
"""The engine's log is taken this far above the VDL, in bytes; a window below it fits into the ring too."""
HEARTBEATS_PER_LEASE = 4
WAIT_SECONDS = 0.001
SILENCE_NS = 5_000_000_000
"""A node that acknowledges no heartbeat for so long (and for a lease) is dialled anew."""
BEHIND_SECONDS_MAX = 5.0
"""A log that could not be followed for so long will not be followed later."""

_APPEND_FRAME = struct.Struct(">IBQQQQI")
_LENGTH_BYTES = 4


class Writer:
    """Ships the log of one term. Implements `link.LinkUser`; `on_end` is called once, when it is over."""

    def __init__(
        self,
        quorum: QuorumSet,
        history: TermHistory,
        engine_log: EngineLog,
        device: LogDevice,
        links: Links,
        lease: Lease,
        on_end: Callable[[BorealisError], None],
    ) -> None:
        """`engine_log.position` is durable in this term: shipping goes on from there."""
        self.lease = lease
        self._lease_slack_ns = lease.length_ns * 7 // 8
        self._quorum = quorum
        self._shipper = Shipper(quorum, history, engine_log.position)
        self._log = engine_log
        self._device = device
        self._links = links
        self._ring = LogRing(RING_BYTES, engine_log.position)
        self._on_end = on_end
        self._inflight: deque[tuple[int, int]] = deque()
        """Frames above the VDL as (end, write_seq): when `end` is durable, all writes up to `write_seq` are.
        write_seq 0: nothing is released with this one."""
        self._latest: tuple[int, bytes] = (0, b"")
        """The newest piece, so that it is not read out of the ring again: (start, bytes)."""
        self._connected_ns: dict[str, int] = {}
        self._behind_since: float | None = None
        self._over = False
        self._notices = device.bind_notices()
        self._native: ShipLoop | None = None
        self._adopting = False
        """The sockets are on their way back from the native loop."""
        self._deferred: list[Callable[[], None]] = []
        """What is to be done when the native loop has given the work back."""

    # ------------------------------------------------------------------ what others may know
    @property
    def term(self) -> int:
        return self._shipper.term

    @property
    def history(self) -> TermHistory:
        return self._shipper.history

    @property
    def vdl(self) -> int:
        """All before it is on a write quorum."""
        native = self._native
        return native.vdl if native is not None and native.running else self._shipper.vdl

    @property
    def shipped(self) -> int:
        """All before it was taken from the engine's log."""
        return self._log.position

    @property
    def nodes(self) -> Mapping[str, NodeProgress]:
        """As of the last heartbeat, or newer."""
        return self._shipper.nodes

    def acked(self, node: str) -> int:
        """The node has all before it on its disk, as of now."""
        native = self._native
        known = self._shipper.nodes[node].acked
        return max(known, native.acked(node)) if native is not None and native.running else known

    @property
    def over(self) -> bool:
        """Fenced: nothing leaves here any more."""
        return self._over

    # ------------------------------------------------------------------ life
    async def run(self, ends: Mapping[str, int] | None = None) -> None:
        """Ship until cancelled. `ends`: what nodes said on connections that stand (`OpenedVolume.ends`)."""
        loop = asyncio.get_running_loop()
        self._links.user = self
        for node in self._links.connected:
            self._connected_ns[node] = boottime_ns()
            self._shipper.connected(node, (ends or {}).get(node))
        self._native = ShipLoop.make(self._notices.fileno(), self._native_done)
        loop.add_reader(self._notices, self._on_notice)
        try:
            self._pump()
            self._say_commit()
            while not self._over:
                self._here(self._beat)
                await asyncio.sleep(self.lease.length_ns / 1e9 / HEARTBEATS_PER_LEASE)
        finally:
            self._close_native()
            loop.remove_reader(self._notices)
            self._log.close()

    def _beat(self) -> None:
        """Heartbeats renew the lease, tell idle nodes the VDL, find silent ones, and stand in for a notice
        that was lost."""
        now = boottime_ns()
        for node, message in self._shipper.heartbeat(now):
            self._links.send(node, message.encode())
        self._drop_silent(now)
        self._device.beat()
        self._pump()

    def _drop_silent(self, now: int) -> None:
        """A node that acknowledges nothing for long is dialled anew, and nothing piles up for it here."""
        patience_ns = max(SILENCE_NS, self.lease.length_ns)
        for node, progress in self._shipper.nodes.items():
            since = max(progress.acked_ns, self._connected_ns.get(node, now))
            if progress.connected and now - since > patience_ns:
                self._links.drop(node, f"it has acknowledged nothing for {patience_ns / 1e9:g} s")

    def _settle_lease(self) -> None:
        self.lease.confirmed(self._shipper.lease_from_ns)
        if self.lease.deadline_ns != self._device.lease_deadline_ns:
            self._device.set_lease(self.lease.deadline_ns)

    def renew(self, seconds: float) -> None:
        """The control plane's word that it names no other writer for so long."""
        self.lease.renewed(seconds, boottime_ns())
        self._settle_lease()

    async def wait_durable(self, lsn: int, timeout: float) -> None:
        """Waits until `lsn` is durable; raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while self.vdl < lsn:  # noqa: ASYNC110 (the native loop sets no event)
                await asyncio.sleep(WAIT_SECONDS)

    # ------------------------------------------------------------------ from the engine to the nodes
    def _on_notice(self) -> None:
        try:
            self._notices.recv(64)
        except (BlockingIOError, InterruptedError):
            return
        self._pump()
        self._hand_over()

    def _pump(self) -> None:
        """Take what the engine has written, send it, and remember what its durability releases."""
        if self._over:
            return
        view = self._device.view()
        seq = view.write_seq
        try:
            written = self._log.written(view.timeline, view.written_lsn)
        except LogFileError as error:
            # Its numbers must never be released by what is known of this log.
            self._end(error)
            return
        # Nothing was written on this timeline yet: what was written before it came from storage.
        if written is not None and not self._take_and_send(written):
            return
        end = self._shipper.end
        if end <= self._shipper.vdl:
            self._device.release(seq)
        else:
            self._inflight[-1] = (end, seq)

    def _take_and_send(self, written: int) -> bool:
        """All of the log below `written`; False: not all, so that its number must not be released yet."""
        shipper = self._shipper
        more = True
        while more:
            if shipper.end - shipper.vdl >= UNACKNOWLEDGED_BYTES_MAX:
                return False  # The rest is taken when acknowledgements have come.
            data, more = self._log.take(written)
            if data:
                self._latest = (shipper.end, data)
                self._ring.append(data)
                shipper.floor = self._ring.start
                shipper.produced(shipper.end + len(data))
                self._inflight.append((shipper.end, 0))
                self._send()
        if self._log.missed(written):
            self._falls_behind(written)
            return False
        self._behind_since = None
        return self._log.settled(written)

    def _falls_behind(self, written: int) -> None:
        """The log files do not hold what the engine says it has written: nothing is released, and if that
        stays so, the engine ends."""
        now = time.monotonic()
        if self._behind_since is None:
            self._behind_since = now
            log.warning("log written to %X cannot be followed beyond %X", written, self._log.position)
        elif now - self._behind_since > BEHIND_SECONDS_MAX:
            self._end(
                LogFileError(
                    f"the engine has written its log to {written:X}, but it cannot be followed beyond "
                    f"{self._log.position:X}: replace this instance"
                )
            )

    def _end(self, error: BorealisError) -> None:
        if not self._over:
            self._over = True
            self._on_end(error)

    def _send(self) -> None:
        """Send each node what it may have now."""
        for part in self._shipper.sends():
            self._send_range(part)

    def _send_range(self, part: AppendRange) -> None:
        start, data = self._latest
        if part.start != start or part.end != start + len(data):
            held = self._ring.read(part.start, part.end)
            if held is None:
                # Cannot happen while the ring is larger than what may be unacknowledged and a window.
                log.error("log from %X is no longer in memory", part.start)
                return
            data = held
        head = _APPEND_FRAME.pack(
            _APPEND_FRAME.size - _LENGTH_BYTES + len(data), Kind.APPEND,
            self._shipper.term, part.start, self._shipper.vdl, boottime_ns(), zlib.crc32(data),
        )  # fmt: skip
        send = self._links.send
        for node in part.nodes:
            send(node, head, data)

    # ------------------------------------------------------------------ from the nodes to the engine
    def link_acknowledged(self, node: str, ack: Ack) -> None:
        self._here(lambda: self._receive(node, ack))

    def link_received(self, node: str, message: Message) -> None:
        self._here(lambda: self._receive(node, message))

    def link_connected(self, node: str) -> None:
        self._connected_ns[node] = boottime_ns()
        self._here(lambda: self._connected(node))

    def link_lost(self, node: str) -> None:
        self._here(lambda: self._shipper.lost(node))

    def links_closing(self) -> None:
        self._close_native()

    def _connected(self, node: str) -> None:
        self._shipper.connected(node)
        self._say_commit()

    def _receive(self, node: str, message: Message) -> None:
        try:
            risen = self._shipper.receive(node, message)
        except Superseded as error:
            self._end(error)
            return
        if risen:
            self._release()
        usual = isinstance(message, Ack)
        # There is more room at this node, or it is back: both are rare.
        if not usual or self._shipper.nodes[node].sent < self._shipper.end:
            self._send()
        if risen or not usual:
            self._say_commit()
        if risen and self._device.write_seq != self._seen_seq():
            self._pump()
        # A fraction of the lease after the last look: looking costs more than an acknowledgement.
        if isinstance(message, Ack) and message.sent_ns + self._lease_slack_ns > self.lease.deadline_ns:
            self._settle_lease()

    def _release(self) -> None:
        """Let the engine's syncs go on that waited for what is durable now."""
        vdl = self._shipper.vdl
        inflight = self._inflight
        seq = 0
        while inflight and inflight[0][0] <= vdl:
            seq = inflight.popleft()[1] or seq
        if seq:
            self._device.release(seq)

    def _seen_seq(self) -> int:
        """The newest write that was taken account of."""
        return self._inflight[-1][1] if self._inflight else self._device.released_seq

    def _say_commit(self) -> None:
        """Tell the VDL to nodes with subscribers, and their term to nodes that have come back."""
        for node, message in self._shipper.take_outbox():
            self._links.send(node, message.encode())

    # ------------------------------------------------------------------ the native loop
    def _here(self, action: Callable[[], None]) -> None:
        """Do this when the work is here: now, or as soon as the native loop has given it back."""
        if self._native is not None and self._native.running:
            self._deferred.append(action)
            self._native.interrupt()
        elif not self._over:
            action()
            self._hand_over()

    def _hand_over(self) -> None:
        """Give the work to the native loop, if all is in steady state."""
        native = self._native
        if native is None or native.running or self._adopting or self._over or self._behind_since is not None:
            return
        if len(self._inflight) > INFLIGHT_MAX // 2 or not self._log.scanner_address:
            return
        served = self._servable()
        if served is None or (file := self._log.file()) is None:
            return
        nodes = [
            ShipNode(node, progress.acked, progress.acked_ns, progress.told, progress.has_subscribers)
            for node, progress in self._shipper.nodes.items()
        ]
        asyncio.get_running_loop().remove_reader(self._notices)
        for item in nodes:
            if item.node in served:
                item.fd = self._links.lend(item.node)
        native.start(
            ShipWork(
                page=self._device.address,
                scan=self._log.scanner_address,
                ring=self._ring.address,
                ring_bytes=self._ring.capacity,
                ring_start=self._ring.start,
                term=self._shipper.term,
                vdl=self._shipper.vdl,
                kind=self._log.native_kind,
                timeline=self._log.device_timeline,
                unacknowledged_max=UNACKNOWLEDGED_BYTES_MAX,
                piece_max=PIECE_BYTES,
                write_quorum=self._quorum.write,
                file_fd=file.descriptor,
                file_start=file.start,
                file_end=file.end,
                device_offset=file.device_offset,
                inflight=self._inflight,
                nodes=nodes,
            )
        )

    def _servable(self) -> frozenset[str] | None:
        """The nodes that the native loop can serve; None: one that should be cannot yet, or too few can."""
        served = set()
        for node, progress in self._shipper.nodes.items():
            if progress.ready and not self._shipper.is_behind(node):
                if progress.sent != self._shipper.end or not self._links.quiet(node):
                    return None
                served.add(node)
        return frozenset(served) if self._quorum.is_write(served) else None

    def _native_done(self, done: ShipDone) -> None:
        """The native loop has ended: take over what it has done, then what it has left."""
        self._adopting = True
        self._adopt(done)
        asyncio.get_running_loop().add_reader(self._notices, self._on_notice)
        for item in done.nodes:
            if item.fd >= 0:
                self._links.take_back(item.node, item.unsent, item.received, item.broken)
        self._adopting = False
        if done.stop is Stop.FAILED:
            log.error("the native loop failed; commits go through Python from here on")
            self._close_native()
        deferred, self._deferred = self._deferred, []
        for action in deferred:
            if not self._over:
                action()
        before = self._log.position
        self._pump()
        if self._over:
            return
        self._say_commit()
        self._settle_lease()
        # What it could not take, and nobody can yet, is looked at here until the next event.
        stuck = done.stop is Stop.FILE and self._log.position == before
        if done.stop is not Stop.LOG and not stuck:
            self._hand_over()

    def _adopt(self, done: ShipDone) -> None:
        """Tell the shipper what was done without it."""
        shipper = self._shipper
        self._latest = (0, b"")
        self._ring.adopt(done.ring_start, self._log.position)
        shipper.floor = self._ring.start
        for end in (done.vdl, *(end for end, _ in done.inflight)):
            if end > shipper.end:
                shipper.produced(end)
        self._inflight = deque(done.inflight)
        for item in done.nodes:
            if item.fd >= 0:
                shipper.nodes[item.node].told = item.told
                shipper.receive(item.node, Ack(self.term, item.acked, item.acked_ns, item.has_subscribers))
        shipper.sends()  # These were sent.
        assert (shipper.end, shipper.vdl) == (self._log.position, done.vdl)

    def _close_native(self) -> None:
        """End the native loop for good; what it borrowed is given back without another word."""
        native, self._native = self._native, None
        if native is not None:
            for node in native.close():
                self._links.take_back(node, b"", b"", broken=True)
