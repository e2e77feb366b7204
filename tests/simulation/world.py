"""One simulated run: a seed decides who acts next and what goes wrong.

Owns the schedule. Everything happens in one thread, one event after the other; the step number is the only
clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from borealis.log import wire
from borealis.log.seeding import VolumeSeeder
from tests.simulation.engine import LOG_START, make_record
from tests.simulation.leader import SimLeader
from tests.simulation.network import Channel, Network
from tests.simulation.node import SimNode
from tests.simulation.oracle import Oracle, Violation
from tests.simulation.reader import SimReader
from tests.simulation.rules import RIGHT, Rules

NODES = ("n1", "n2", "n3", "n4", "n5", "n6")
STEPS = 2500
LEADERS_MAX = 3
CHECK_STEPS = 40
PATIENCE_STEPS = 400


class World:
    """`run` raises Violation when a promise is broken."""

    def __init__(self, seed: int, rules: Rules = RIGHT, trace: Callable[[str], None] | None = None) -> None:
        self.rng = random.Random(seed)
        self.rules, self._trace = rules, trace
        self.step = 0
        self.quorum = rules.quorum(frozenset(NODES))
        self.network = Network(self.rng, self._deliver)
        self.network.check_codec = rules.right
        self.network.doubling = self.rng.choice((0.0, 0.02, 0.2))
        self.nodes = {
            name: SimNode(name, self.rng, self.network, rules.core, rules.ack_early) for name in NODES
        }
        for node in self.nodes.values():
            node.check_codec = rules.right
        self.oracle = Oracle(self.nodes)
        self.leaders: list[SimLeader] = []
        self.readers = [SimReader(self, f"r{index}") for index in range(2)]
        self._term = 1
        self._between: tuple[int, int] | None = None
        self._born = 0
        self.opened = self.crashes = 0
        self._trouble = self.rng.choice((0.1, 0.4, 0.9))
        """How often things go wrong in this run."""
        self._rivalry = self.rng.choice((0.03, 0.1, 0.5))
        """How likely a new candidate comes up while another leader is alive."""
        self._pace = self.rng.choice((2, 4, 8))
        """How many connections move on between two other events."""
        self._diligence = self.rng.choice((0.9, 0.6, 0.3, 0.07))
        """How soon nodes sync."""
        self._gossips = self.rng.choice((1.0, 4.0, 12.0))
        """How often nodes gossip."""
        self._island: frozenset[str] = frozenset()
        """While the network is split: the nodes on the smaller side."""
        self._heal_at = 0
        """Heal the split at this step; 0: whenever it comes."""
        self._seed()

    def trace(self, text: str) -> None:
        if self._trace is not None:
            self._trace(f"{self.step:5} {text}")

    # -------------------- a run

    def run(self, steps: int = STEPS) -> None:
        actions = self._actions()
        choices = [action for action, _ in actions]
        weights = [weight for _, weight in actions]
        while self.step < steps:
            for action in self.rng.choices(choices, weights, k=CHECK_STEPS):
                self.step += 1
                action()
                if 0 < self._heal_at <= self.step:
                    self._heal()
            self.check()

    def check(self) -> None:
        for node in self.nodes.values():
            self.oracle.node(node)
        self.oracle.matching()

    def _actions(self) -> list[tuple[Callable[[], None], float]]:
        bad = self._trouble
        return [
            (self._deliver_some, 40.0),
            (self._sync, 16.0),
            (self._produce, 6.0),
            (self._promote, 4.0),
            (self._connect, 3.0),
            (self._heartbeat, 1.0),
            (self._failover, 1.5),
            (self._gossip, self._gossips),
            (self._reader, 0.5),
            (self._trim, 0.3),
            (self._restart_driver, 0.1 * bad),
            (self._crash, 0.25 * bad),
            (self._power_cut, 0.06 * bad + (0.15 if self._diligence < 0.1 else 0.0)),
            (self._restart, 0.8),
            (self._break, 0.6 * bad),
            (self._partition, 0.1 * bad),
            (self._split, 0.3 * bad),
            (self._heal, 0.15),
            (self._kill_leader, 0.1 * bad),
            (self._freeze, 0.3 * bad),
        ]

    def _seed(self) -> None:
        """The real seeder, on a network without faults: a volume is used only when it is whole."""
        data = b"".join(make_record(self.rng) for _ in range(3))
        seeder = VolumeSeeder(self.quorum, "volume", timeline=1, start=LOG_START, data=data)
        away = self.rng.sample(NODES, self.rng.randrange(3))
        client = _Hearer(seeder)
        channels = {node: Channel("seeder", client, node) for node in NODES}
        for node in NODES:
            if node not in away:
                seeder.connected(node)
        while outbox := seeder.take_outbox():
            for node, message in outbox:
                self.nodes[node].process(channels[node], message)
                self.nodes[node].sync()
                while channels[node].to_client:
                    seeder.receive(node, channels[node].to_client.popleft())
        assert seeder.done
        for node in away:
            self.nodes[node].process(channels[node], wire.Create("volume", seeder.history))
            self.nodes[node].sync()
        self.oracle.commit(1, data)

    def _deliver(self, node: str, channel: Channel, message: wire.Message) -> None:
        self.nodes[node].process(channel, message)

    # -------------------- events

    def _some_leader(self) -> SimLeader | None:
        self.leaders = [leader for leader in self.leaders if leader.alive]
        awake = [leader for leader in self.leaders if not leader.frozen]
        return self.rng.choice(awake) if awake else None

    def _deliver_some(self) -> None:
        self.network.deliver_some(self._pace)

    def _sync(self) -> None:
        for node in self.nodes.values():
            if node.up and not node.idle and self.rng.random() < self._diligence:
                node.sync()

    def _produce(self) -> None:
        leader = self._some_leader()
        if leader is not None:
            leader.produce()

    def _promote(self) -> None:
        leader = self._some_leader()
        if leader is not None:
            leader.promote()

    def _heartbeat(self) -> None:
        leader = self._some_leader()
        if leader is not None:
            leader.heartbeat()

    def _connect(self) -> None:
        leader = self._some_leader()
        if leader is not None:
            missing = [node for node in NODES if node not in leader.channels and self.nodes[node].up]
            for node in missing[: self.rng.randrange(1, 6)]:
                leader.connect(node)

    def _failover(self) -> None:
        """The control plane: wants a writer, loses patience with candidates, and errs now and then."""
        for leader in self.leaders:
            if leader.alive and leader.shipper is None and self.step - leader.born > PATIENCE_STEPS:
                leader.give_up()
        if self._some_leader() is None or self.rng.random() < self._rivalry:
            self._new_leader()

    def _new_leader(self) -> None:
        self._some_leader()
        if len(self.leaders) >= LEADERS_MAX:
            return
        first, second = self._take_terms()
        self._born += 1
        leader = SimLeader(self, f"L{self._born}", first, second)
        self.trace(f"{leader.name}: terms {first}, {second}")
        self.leaders.append(leader)
        if self.rng.random() < 0.2:
            leader.freeze(self.step + self.rng.randrange(10, 200), self.rng.randrange(50, 500))
        if self._island and self.rng.random() < 0.9:
            self._cut_off(leader.name, self._island)
        elif self.rng.random() < 0.3:
            self._cut_off(leader.name, self.rng.sample(NODES, self.rng.randrange(1, 3)))
        for node in self.rng.sample(NODES, len(NODES)):
            if leader.alive and self.nodes[node].up and self.rng.random() < 0.9:
                leader.connect(node)

    def _take_terms(self) -> tuple[int, int]:
        """Two terms for a candidate; the next one's may lie between them."""
        if self._between is not None:
            terms, self._between = self._between, None
            return terms
        first = self._take_term()
        if self.rules.shared_terms:
            return first, first + 1
        if self.rng.random() < 0.3:
            self._between = self._take_term(), self._take_term()
        return first, self._take_term()

    def _take_term(self) -> int:
        if self.rules.shared_terms:
            seen = [node.core.promised for node in self.nodes.values() if node.up and self.rng.random() < 0.8]
            return max(seen, default=1) + 1
        self._term += 1
        return self._term

    def _gossip(self) -> None:
        node, peer = self.rng.sample(sorted(self.nodes), 2)
        if self.nodes[node].up and self.nodes[peer].up:
            self.nodes[node].gossip(peer)

    def _reader(self) -> None:
        self.rng.choice(self.readers).follow(self.rng.choice(NODES))

    def _trim(self) -> None:
        leader = self._some_leader()
        if leader is not None:
            leader.trim()

    # -------------------- faults

    def _restart_driver(self) -> None:
        leader = self._some_leader()
        if leader is not None:
            leader.restart_driver()

    def on_open(self) -> None:
        """A new writer; where the network is split, an older one may go on writing to the island for a
        while."""
        self.opened += 1
        if self._island:
            self._heal_at = self.step + self.rng.randrange(1, 200)

    def _kill_leader(self) -> None:
        leader = self._some_leader()
        if leader is not None:
            self.trace(f"{leader.name}: killed")
            leader.kill()

    def _freeze(self) -> None:
        """A leader stops for a while, and does not know it."""
        leader = self._some_leader()
        if leader is not None:
            leader.freeze(self.step, self.rng.randrange(20, 600))

    def _crash(self) -> None:
        up = [node for node in self.nodes.values() if node.up]
        if len(up) > 2:
            node = self.rng.choice(up)
            self.trace(f"{node.name}: crash")
            self.crashes += 1
            node.crash()
            self.network.node_down(node.name)
            if self.rng.random() < 0.5:
                node.restart()

    def _power_cut(self) -> None:
        """All nodes at once; most of them are back at once."""
        self.trace("power cut")
        for node in self.nodes.values():
            if node.up:
                self.crashes += 1
                node.crash()
                self.network.node_down(node.name)
        for node in self.nodes.values():
            if self.rng.random() < 0.8:
                node.restart()

    def _restart(self) -> None:
        down = [node for node in self.nodes.values() if not node.up]
        if down:
            self.rng.choice(down).restart()

    def _break(self) -> None:
        if self.network.channels:
            self.network.close(self.rng.choice(self.network.channels))

    def _partition(self) -> None:
        """Cut a leader, or a node that gossips, off from some nodes."""
        owners = [leader.name for leader in self.leaders] + list(NODES)
        self._cut_off(self.rng.choice(owners), self.rng.sample(NODES, self.rng.randrange(1, 6)))

    def _split(self) -> None:
        """Two sides that do not hear each other; present leaders may be on either, later ones are on the
        larger."""
        if self._island:
            return
        self._island = frozenset(self.rng.sample(NODES, self.rng.choice((1, 2, 2, 2, 3))))
        rest = frozenset(NODES) - self._island
        self.trace(f"split: {sorted(self._island)}")
        for node in NODES:
            self._cut_off(node, rest if node in self._island else self._island)
        for leader in self.leaders:
            self._cut_off(leader.name, self.rng.choice((rest, self._island)))
        self._new_leader()

    def _cut_off(self, owner: str, nodes: Iterable[str]) -> None:
        for node in sorted(nodes):
            self.network.blocked.add((owner, node))
            for channel in list(self.network.channels):
                if channel.owner == owner and channel.node == node:
                    self.network.close(channel)

    def _heal(self) -> None:
        was_split = bool(self._island)
        self._heal_at = 0
        self.network.blocked.clear()
        self._island = frozenset()
        if was_split and self.rng.random() < 0.7:
            self._new_leader()


class _Hearer:
    """A client that reads its channel itself."""

    frozen = False

    def __init__(self, seeder: VolumeSeeder) -> None:
        self.seeder = seeder

    def on_lost(self, node: str) -> None:
        self.seeder.lost(node)


def run_seed(seed: int, rules: Rules = RIGHT, steps: int = STEPS) -> World:
    """One run. Raises Violation with the seed in its text."""
    world = World(seed, rules)
    try:
        world.run(steps)
    except Violation as error:
        raise Violation(f"seed {seed}, step {world.step}: {error}") from error
    return world
