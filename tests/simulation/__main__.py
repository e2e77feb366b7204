"""Replay or search: `python -m tests.simulation --seed N [--mutant NAME] [--trace]`, or `--seeds FROM:TO`."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.oracle import Violation
from tests.simulation.rules import MUTANTS, RIGHT
from tests.simulation.world import STEPS, World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this seed")
    parser.add_argument("--seeds", help="run the seeds FROM:TO")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="break this rule")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--trace", action="store_true", help="print what happens")
    args = parser.parse_args()
    rules = MUTANTS[args.mutant] if args.mutant else RIGHT
    if args.seed is not None:
        seeds = range(args.seed, args.seed + 1)
    else:
        first, last = (int(part) for part in (args.seeds or "0:100").split(":"))
        seeds = range(first, last)
    caught: list[int] = []
    totals = dict.fromkeys(("opened", "commits", "reads", "crashes", "log bytes"), 0)
    began = time.perf_counter()
    for seed in seeds:
        world = World(seed, rules, print if args.trace else None)
        try:
            world.run(args.steps)
        except Violation as error:
            caught.append(seed)
            if len(caught) <= 5:
                print(f"seed {seed}, step {world.step}: {error}")
        counts = (
            world.opened,
            world.oracle.commits,
            world.oracle.reads,
            world.crashes,
            len(world.oracle.truth),
        )
        for name, count in zip(totals, counts, strict=True):
            totals[name] += count
    seconds = time.perf_counter() - began
    print(f"{len(seeds)} seeds, {len(caught)} with a violation, {seconds:.1f} s; {totals}")
    return 1 if caught else 0


if __name__ == "__main__":
    sys.exit(main())
