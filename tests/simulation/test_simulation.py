"""The quorum log keeps its promises over thousands of seeds, and the simulation notices each rule that is
broken."""

from __future__ import annotations

import pytest

from tests.simulation.oracle import Violation
from tests.simulation.rules import MUTANTS, RIGHT
from tests.simulation.world import World, run_seed

CHUNK = 50
CHUNKS = 48
MUTANT_SEEDS = 300
"""Each mutant is caught several times in so many seeds; the test stops at the first."""


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_promises_hold(chunk: int) -> None:
    opened = commits = 0
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        try:
            world = run_seed(seed, RIGHT)
        except Violation as error:
            pytest.fail(f"{error}\nreplay: python -m tests.simulation --seed {seed} --trace")
        opened += world.opened
        commits += world.oracle.commits
    assert opened > CHUNK, "volumes are hardly ever opened: the faults leave nothing to be tested"
    assert commits > 5 * CHUNK, "hardly anything is committed: the faults leave nothing to be tested"


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_broken_rule_is_noticed(mutant: str) -> None:
    for seed in range(MUTANT_SEEDS):
        try:
            World(seed, MUTANTS[mutant]).run()
        except Violation:
            return
    pytest.fail(
        f"the broken rule {mutant} went unnoticed over {MUTANT_SEEDS} seeds; "
        f"replay: python -m tests.simulation --seeds 0:{MUTANT_SEEDS} --mutant {mutant}"
    )


def test_a_seed_is_one_run() -> None:
    runs = []
    for _ in range(2):
        lines: list[str] = []
        world = World(11, RIGHT, lines.append)
        world.run()
        runs.append((lines, world.oracle.truth, [node.content for node in world.nodes.values()]))
    assert runs[0] == runs[1]
