"""The storage node: accepts connections and hands each to the segment that it is for.

Owns the listening socket, the set of segments, their making and their gossip; all on one event loop, which
never touches a log. It answers only what concerns volumes without a segment here.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from borealis.errors import BorealisError
from borealis.log.segment import SegmentCore, Step
from borealis.log.types import WireError
from borealis.log.wire import (
    PROTOCOL_VERSION,
    Create,
    Drop,
    Dropped,
    Error,
    FrameReader,
    Hello,
    HelloReply,
    Message,
    decode,
)
from borealis.logs import get_logger
from borealis.storage.actor import SegmentActor
from borealis.storage.address import split_address
from borealis.storage.blobrepair import BlobRepair
from borealis.storage.context import NodeContext
from borealis.storage.errors import NodeUnreachable, StorageError, disk_error
from borealis.storage.format import volume_seed
from borealis.storage.gossip import SegmentGossip
from borealis.storage.journal import create_segment
from borealis.storage.layout import (
    begin_segment,
    existing_segments,
    log_directory,
    publish_segment,
    remove_dropped,
    segment_directory,
)
from borealis.storage.logfile import LogConfig, LogPlace
from borealis.storage.peers import PeerBook
from borealis.storage.scrub import Scrubber, ScrubConfig

log = get_logger(__name__)

HELLO_SECONDS_MAX = 5.0
RECEIVE_BYTES = 65536
POOL_THREADS = 4
SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter from others: an append must not wait for a scan to end."""


@dataclass(frozen=True)
class NodeSettings:
    """What a node is told at its start."""

    node: str
    az: str
    directory: Path
    address: str
    """Where to listen: a socket path, or host:port."""
    peers: Path
    """peers.json, see peers.py."""
    config: LogConfig = field(default_factory=LogConfig)
    scrub: ScrubConfig = field(default_factory=ScrubConfig)


@dataclass
class _Caller:
    """A connection that no segment has yet."""

    sock: socket.socket
    reader: FrameReader
    inbox: deque[Message]

    async def next(self) -> Message:
        """Raises WireError, NodeUnreachable."""
        loop = asyncio.get_running_loop()
        while not self.inbox:
            data = await loop.sock_recv(self.sock, RECEIVE_BYTES)
            if not data:
                raise NodeUnreachable("the client has gone")
            self.inbox += [decode(kind, payload) for kind, payload in self.reader.feed(data)]
        return self.inbox.popleft()

    async def send(self, message: Message) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, message.encode())


class StorageNode:
    """One node. `start`, then `stop`; both on the event loop that it lives on."""

    def __init__(self, settings: NodeSettings) -> None:
        self.settings = settings
        self._actors: dict[str, SegmentActor] = {}
        self._gossips: dict[str, tuple[SegmentGossip, asyncio.Task[None]]] = {}
        self._creating: dict[str, asyncio.Lock] = {}
        self._callers: set[asyncio.Task[None]] = set()
        self._book = PeerBook(settings.peers, settings.node)
        self._files = ThreadPoolExecutor(1, thread_name_prefix="files")
        self._pool = ThreadPoolExecutor(POOL_THREADS, thread_name_prefix="pool")
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._scrubbing: asyncio.Task[None] | None = None
        self._lock_fd = -1

    async def start(self) -> None:
        """Opens the segments and listens. Raises StorageError."""
        self._loop = asyncio.get_running_loop()
        sys.setswitchinterval(SWITCH_SECONDS)
        directory = self.settings.directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock(directory)
            volumes = existing_segments(directory)
        except OSError as error:
            raise disk_error(error, f"opening {directory}") from error
        self._files.submit(remove_dropped, directory)
        for volume in volumes:
            self._start_segment(volume)
        self._scrubbing = asyncio.create_task(self._scrubber().run())
        self._listen()
        log.info("listening on %s, %d segments", self.settings.address, len(volumes))

    def _scrubber(self) -> Scrubber:
        repair = BlobRepair(self._book, self._pool)
        return Scrubber(self._actors.values, repair, self._wake_gossip, self._pool, self.settings.scrub)

    def _take_lock(self, directory: Path) -> None:
        """Two processes on the same files would destroy them."""
        self._lock_fd = os.open(directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(f"another storage node works on {directory}: stop it first") from error

    def _listen(self) -> None:
        address = self.settings.address
        target = split_address(address)
        try:
            if target is None:
                # Bound under a private name, renamed when it listens: no one finds a socket that refuses.
                path = Path(address)
                private = path.with_name(f".{path.name}.new")
                private.unlink(missing_ok=True)
                listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                listener.bind(str(private))
                private.chmod(0o600)
                listener.listen(128)
                private.rename(path)
            else:
                listener = socket.create_server(target, backlog=128)
        except OSError as error:
            raise StorageError(f"cannot listen on {address}: {error}") from error
        listener.setblocking(False)
        self._listener = listener
        self._accepting = asyncio.create_task(self._accept(listener))

    async def stop(self) -> None:
        """Ends all connections and segments; everything is on disk afterwards."""
        tasks = [task for task in (self._accepting, self._scrubbing, *self._callers) if task is not None]
        tasks += [task for _, task in self._gossips.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
            if split_address(self.settings.address) is None:
                Path(self.settings.address).unlink(missing_ok=True)
        actors = list(self._actors.values())
        for actor in actors:
            actor.stop()
        await asyncio.gather(*(asyncio.to_thread(actor.join) for actor in actors))
        await asyncio.to_thread(self._files.shutdown)
        await asyncio.to_thread(self._pool.shutdown)
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
        log.info("stopped")

    # -- segments -------------------------------------------------------------------------------------------

    def _start_segment(self, volume: str) -> None:
        settings = self.settings
        context = NodeContext(
            node=settings.node,
            az=settings.az,
            config=settings.config,
            files=self._files,
            pool=self._pool,
            on_gossip=lambda name: self._from_thread(self._wake_gossip, name),
            on_dropped=lambda name: self._from_thread(self._forget, name),
        )
        actor = SegmentActor(volume, segment_directory(settings.directory, volume), context)
        gossip = SegmentGossip(actor, self._book)
        self._actors[volume] = actor
        self._gossips[volume] = (gossip, asyncio.create_task(gossip.run()))
        actor.start()

    def _from_thread(self, action: Callable[[str], None], volume: str) -> None:
        with contextlib.suppress(RuntimeError):  # The loop may be closed already.
            self._loop.call_soon_threadsafe(action, volume)

    def _wake_gossip(self, volume: str) -> None:
        if volume in self._gossips:
            self._gossips[volume][0].wake()

    def _forget(self, volume: str) -> None:
        """The segment was dropped."""
        self._actors.pop(volume, None)
        gossip = self._gossips.pop(volume, None)
        if gossip is not None:
            gossip[1].cancel()
        self._files.submit(remove_dropped, self.settings.directory)
        log.info("volume %s: dropped", volume)

    async def _create(self, message: Create) -> Message:
        """Makes the segment, or finds it made; the answer to CREATE."""
        volume, settings = message.volume, self.settings
        async with self._creating.setdefault(volume, asyncio.Lock()):
            former = self._actors.get(volume)
            if former is not None and former.dropping:
                await asyncio.to_thread(former.join)
                await asyncio.sleep(0)  # Its `_forget` was scheduled before its thread ended.
            if volume in self._actors:
                return await self._ask_core(self._actors[volume], message)
            directory = segment_directory(settings.directory, volume)
            place = LogPlace(log_directory(directory), volume_seed(volume), settings.config, self._files)
            reply = await asyncio.to_thread(_make_segment, directory, place, settings, message)
            if not isinstance(reply, Error):
                self._start_segment(volume)
                log.info("volume %s: created", volume)
            return reply

    async def _ask_core(self, actor: SegmentActor, message: Create) -> Message:
        def ask(actor: SegmentActor) -> Message:
            step: Step[None] = actor.core.handle(message, None)
            actor.apply(step)
            return step.replies[0][1]

        return await asyncio.wrap_future(actor.call(ask))

    # -- connections ----------------------------------------------------------------------------------------

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = await self._loop.sock_accept(listener)
            except OSError as error:
                log.error("cannot accept connections: %s", error)
                await asyncio.sleep(0.1)
                continue
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            caller = asyncio.create_task(self._serve(sock))
            self._callers.add(caller)
            caller.add_done_callback(self._callers.discard)

    async def _serve(self, sock: socket.socket) -> None:
        handed_over = False
        try:
            handed_over = await self._greet(_Caller(sock, FrameReader(), deque()))
        except (OSError, TimeoutError, NodeUnreachable):
            pass
        except WireError as error:
            log.warning("a client was cut off: %s", error)
        except Exception:
            log.exception("a connection failed")
        finally:
            if not handed_over:
                sock.close()

    async def _greet(self, caller: _Caller) -> bool:
        """Answers HELLO, then everything until the segment exists; True when the segment has taken over."""
        async with asyncio.timeout(HELLO_SECONDS_MAX):
            hello = await caller.next()
        if not isinstance(hello, Hello) or hello.version != PROTOCOL_VERSION:
            what = f"expected HELLO of version {PROTOCOL_VERSION}"
            await caller.send(Error("InvalidRequest", f"{what}: use a client of the same version"))
            return False
        exists = hello.volume in self._actors
        await caller.send(HelloReply(self.settings.node, self.settings.az, exists))
        while True:
            actor = self._actors.get(hello.volume)
            if actor is not None and actor.dropping:
                await asyncio.to_thread(actor.join)
                await asyncio.sleep(0)  # Its `_forget` was scheduled before its thread ended.
            elif actor is not None:
                actor.adopt(caller.sock, caller.reader, list(caller.inbox), hello.purpose)
                return True
            message = await caller.next()
            if hello.volume in self._actors and not isinstance(message, Create):
                caller.inbox.appendleft(message)  # The segment was made meanwhile: it answers.
                continue
            reply = await self._answer(hello.volume, message)
            if reply is not None:
                await caller.send(reply)

    async def _answer(self, volume: str, message: Message) -> Message | None:
        """The answer of a node that has no segment of `volume`."""
        if isinstance(message, Create):
            if message.volume != volume:
                return Error("InvalidRequest", f"this connection is for volume {volume}: say HELLO anew")
            try:
                return await self._create(message)
            except BorealisError as error:
                return Error(error.code, error.message)
        if isinstance(message, Drop):
            return Dropped()
        step: Step[None] = SegmentCore(volume, self.settings.node, self.settings.az).handle(message, None)
        return step.replies[0][1] if step.replies else None


def _make_segment(directory: Path, place: LogPlace, settings: NodeSettings, message: Create) -> Message:
    try:
        begin_segment(directory)
        reply = create_segment(place, settings.node, settings.az, message)
        if not isinstance(reply, Error):
            publish_segment(directory, message.volume, settings.node)
    except OSError as error:
        raise disk_error(error, f"creating {directory}") from error
    return reply
