"""Six real segments in memory, for tests of openings and shippers: every message arrives at once unless it is
held."""

from __future__ import annotations

from collections.abc import Callable

from borealis.log import wire
from borealis.log.opening import VolumeOpener
from borealis.log.records import DataRecord, HistoryRecord
from borealis.log.seeding import VolumeSeeder
from borealis.log.segment import SegmentCore
from tests.unit.log.helpers import NODES, SIX, history

START = 1000


class Cluster:
    """`data` of a node is its log from START on. Nodes in `down` hear nothing and say nothing."""

    def __init__(self, seed: bytes = b"seed") -> None:
        self.cores = {node: SegmentCore("vol", node) for node in NODES}
        self.data = {node: bytearray() for node in NODES}
        self.down: set[str] = set()
        self.heard: list[tuple[str, wire.Message]] = []
        if seed:
            self.seed(seed)

    def seed(self, data: bytes) -> VolumeSeeder:
        seeder = VolumeSeeder(SIX, "vol", timeline=1, start=START, data=data, writer="w1")
        assert seeder.history == history((1, START))
        for node in NODES:
            if node not in self.down:
                seeder.connected(node)
        self.run(seeder.take_outbox, seeder.receive)
        return seeder

    def ask(self, node: str, message: wire.Message) -> list[wire.Message]:
        """What the node answers; nothing when it is down."""
        if node in self.down:
            return []
        self.heard.append((node, message))
        core, log = self.cores[node], self.data[node]
        step = core.handle(message, None)
        for record in step.records:
            if isinstance(record, DataRecord):
                log += record.data
            elif isinstance(record, HistoryRecord):
                del log[record.cut - START :]
        replies = [reply for _, reply in step.replies]
        if step.read is not None:
            plan = step.read
            replies.append(
                wire.Data(plan.start, bytes(log[plan.start - START : plan.end - START]), plan.log_term)
            )
        return replies

    def run(
        self,
        take: Callable[[], list[tuple[str, wire.Message]]],
        receive: Callable[[str, wire.Message], object],
    ) -> None:
        """Carry messages to and fro until nobody has anything to say."""
        while outbox := take():
            for node, message in outbox:
                for reply in self.ask(node, message):
                    receive(node, reply)

    def drive(self, opener: VolumeOpener) -> None:
        self.run(opener.take_outbox, lambda node, message: opener.receive(node, message, 0.0))

    def connect(self, opener: VolumeOpener) -> None:
        for node in NODES:
            if node in self.down:
                opener.lost(node, 0.0)
            else:
                opener.connected(node, 0.0)
        self.drive(opener)

    def write(self, term: int, data: bytes, nodes: tuple[str, ...] = NODES, vdl: int = 0) -> None:
        """The leader of `term` appends to some nodes."""
        for node in nodes:
            self.ask(node, wire.Append(term, self.cores[node].end, vdl, 0, data))

    def heads(self) -> dict[str, tuple[int, int]]:
        return {
            node: (core.history.last_term(core.end), core.end - START) for node, core in self.cores.items()
        }
