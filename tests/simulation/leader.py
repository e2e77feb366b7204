"""An instance that wants to write: the real VolumeOpener and Shipper, with a toy engine behind them.

Owns the engine's log and the order of the driver's steps. It may be slow, be killed, lose connections at any
moment, and go on for long after somebody else has taken over.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from borealis.log import wire
from borealis.log.opening import Phase
from borealis.log.shipping import Shipper
from borealis.log.types import LogError
from tests.simulation.engine import LOG_START, frame_ends, last_record_end, make_record, switch_point
from tests.simulation.network import Channel
from tests.simulation.node import PIECE_BYTES

if TYPE_CHECKING:
    from tests.simulation.world import World

WINDOW_BYTES = 32768


class SimLeader:
    """One candidate, and writer when it succeeds."""

    def __init__(self, world: World, name: str, first_term: int, second_term: int) -> None:
        self._world, self.name = world, name
        self._rng: random.Random = world.rng
        self.opener = world.rules.opener(
            world.quorum, first_term, second_term, world.rules.writer(name), piece=PIECE_BYTES
        )
        self.shipper: Shipper | None = None
        self.channels: dict[str, Channel] = {}
        self.log = b""
        self._frames: list[int] = []
        self._lease_ns = 0
        self.alive = True
        self._promoted = False
        self.born = world.step
        self._frozen = range(0)

    @property
    def term(self) -> int:
        return self.opener.second_term

    @property
    def frozen(self) -> bool:
        """It neither hears nor does anything."""
        return self._world.step in self._frozen

    def freeze(self, start: int, steps: int) -> None:
        self._frozen = range(start, start + steps)

    # -------------------- connections

    def connect(self, node: str) -> None:
        old = self.channels.pop(node, None)
        if old is not None:
            self._world.network.close(old)
        channel = self._world.network.open(self.name, self, node)
        if channel is None:
            self._guard(lambda: self.opener.lost(node, self._world.step))
            return
        self.channels[node] = channel
        if self.shipper is not None:
            self.shipper.connected(node)
        else:
            self._guard(lambda: self.opener.connected(node, self._world.step))
        self._flush()

    def on_lost(self, node: str) -> None:
        self.channels.pop(node, None)
        if not self.alive:
            return
        if self.shipper is not None:
            self.shipper.lost(node)
        else:
            self._guard(lambda: self.opener.lost(node, self._world.step))
            self._flush()

    def kill(self) -> None:
        self.alive = False
        for channel in list(self.channels.values()):
            self._world.network.close(channel)
        self.channels.clear()

    def give_up(self) -> None:
        """The caller has waited long enough."""
        self._world.trace(f"{self.name}: {self.opener.no_quorum()}")
        self.kill()

    def _guard(self, action: Callable[[], None]) -> None:
        """Any error of the log's is the end of this attempt, as it is for the real driver."""
        try:
            action()
        except LogError as error:
            self._world.trace(f"{self.name}: {error.code}: {error}")
            self.kill()

    # -------------------- messages

    def on_message(self, node: str, message: wire.Message) -> None:
        if not self.alive:
            return
        if self.shipper is not None:
            self._guard(lambda: self._ship(node, message))
        else:
            self._guard(lambda: self._open(node, message))
        self._flush()

    def _open(self, node: str, message: wire.Message) -> None:
        before = self.opener.phase
        self.opener.receive(node, message, self._world.step)
        if self.opener.phase is before:
            return
        if self.opener.phase is Phase.ADOPT:
            self._fetch_log()
        if self.opener.recovered is not None and before in (Phase.VOTE, Phase.ADOPT):
            self._world.trace(f"{self.name}: recovered {self.opener.recovered.end}")
            self._world.oracle.recover(self.opener.first_term, self.log, self._world.step)
        if self.opener.opened is not None:
            self._begin()

    def _fetch_log(self) -> None:
        """Stands for the engine that replays the chosen log: its bytes come from a segment that has them."""
        chosen = self.opener.chosen
        assert chosen is not None
        for node in self._world.nodes.values():
            core = node.core
            if core.end >= chosen.end and core.history.agree_until(chosen.history) >= chosen.end:
                below = self._world.oracle.truth[: core.base - LOG_START]
                self.log = below + node.read(core.base, chosen.end)
                return
        self.kill()  # The source is gone, and with it the chance that this candidate succeeds.

    def promote(self) -> None:
        """The engine has replayed the log and goes on at a place of its own choice."""
        recovered = self.opener.recovered
        if not self.alive or recovered is None or self._promoted:
            return
        self._promoted = True
        complete = last_record_end(self.log)
        switch = switch_point(recovered.end, complete, self._rng)
        self.log = self.log[: switch - LOG_START].ljust(switch - LOG_START, b"\0")
        timeline = recovered.timeline + 1
        self._world.trace(f"{self.name}: E={recovered.end} S={switch}")
        self._guard(lambda: self.opener.promoted(switch, timeline, f"{timeline}@{switch}", self._world.step))
        self._flush()

    def _begin(self) -> None:
        opened = self.opener.opened
        assert opened is not None
        self._world.oracle.open(opened.term, opened.vdl)
        self._world.on_open()
        self._world.trace(f"{self.name}: open at {opened.vdl}")
        self._start_shipper(opened.vdl)
        for node in self.channels:
            assert self.shipper is not None
            self.shipper.connected(node, opened.ends.get(node))

    def _start_shipper(self, durable: int) -> None:
        opened = self.opener.opened
        assert opened is not None
        self.shipper = Shipper(
            self._world.quorum, opened.history, durable, window=WINDOW_BYTES, piece=PIECE_BYTES
        )
        for end in self._frames:
            if end > durable:
                self.shipper.produced(end)

    def restart_driver(self) -> None:
        """The driver is killed and comes back; the engine's log and the term stay."""
        if self.shipper is None or not self.alive:
            return
        for channel in list(self.channels.values()):
            self._world.network.close(channel)
        self.channels.clear()
        self._lease_ns = 0
        self._start_shipper(self.shipper.vdl)

    # -------------------- steady state

    def produce(self) -> None:
        """The engine writes a few records; they are acknowledged to clients when the VDL has passed them."""
        if self.shipper is None or self.shipper.end - self.shipper.vdl > 2 * WINDOW_BYTES:
            return
        start = LOG_START + len(self.log)
        self.log += b"".join(make_record(self._rng) for _ in range(self._rng.randrange(1, 4)))
        ends = frame_ends(start, LOG_START + len(self.log), self._rng)
        for end in ends:
            self._frames.append(end)
            self.shipper.produced(end)
        self._flush()

    def heartbeat(self) -> None:
        if self.shipper is None:
            return
        for node, message in self.shipper.heartbeat(self._world.step):
            self._send(node, message)

    def _ship(self, node: str, message: wire.Message) -> None:
        shipper = self.shipper
        assert shipper is not None
        if shipper.receive(node, message):
            self._world.oracle.commit(self.term, self.log[: shipper.vdl - LOG_START])
        if shipper.lease_from_ns > self._lease_ns:
            self._lease_ns = shipper.lease_from_ns
            self._world.oracle.lease(self.term, self._lease_ns)

    def _flush(self) -> None:
        if not self.alive:
            return
        if self.shipper is None:
            for node, message in self.opener.take_outbox():
                self._send(node, message)
            return
        for item in self.shipper.sends():
            data = self.log[item.start - LOG_START : item.end - LOG_START]
            message = wire.Append(self.term, item.start, self.shipper.vdl, self._world.step, data)
            for node in item.nodes:
                self._send(node, message)
        for node, control in self.shipper.take_outbox():
            self._send(node, control)

    def trim(self) -> None:
        """A version of the volume stands at some acknowledged record: the log below is not needed any
        more."""
        if self.shipper is not None and self.shipper.vdl > LOG_START:
            acknowledged = self.log[: self._rng.randrange(self.shipper.vdl - LOG_START)]
            self._send(self._rng.choice(sorted(self._world.nodes)), wire.Trim(last_record_end(acknowledged)))

    def _send(self, node: str, message: wire.Message) -> None:
        channel = self.channels.get(node)
        if channel is not None:
            channel.send(message)
