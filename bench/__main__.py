"""Run the benchmarks: all of them, or those named. Writes bench/results/<date>.json."""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import failover, lag, provision, throughput
from bench.statistics import console
from tests.support.editions import EDITIONS, Edition
from tests.support.region import Region

PARTS: dict[str, Callable[[Region, Edition], dict[str, Any]]] = {
    "provision": provision.measure,
    "lag": lag.measure,
    "failover": failover.measure,
    "throughput": throughput.measure,
}


def main() -> None:
    """Parse the command line, run, save."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure Borealis on this machine.")
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"some of: {', '.join(PARTS)}")
    parser.add_argument("--edition", choices=list(EDITIONS), help="only this one; default: both")
    arguments = parser.parse_args()
    chosen = arguments.parts
    unknown = [part for part in chosen if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {', '.join(unknown)}; choose from {', '.join(PARTS)}")
    region = Region()
    results = {}
    try:
        region.up()
        for name, part in itertools.product([arguments.edition] if arguments.edition else EDITIONS, chosen):
            console.rule(f"{name}: {part}")
            results[f"{name} {part}"] = PARTS[part](region, EDITIONS[name])
        region.down()
    finally:
        region.destroy()
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{datetime.datetime.now():%Y-%m-%d-%H%M%S}.json"
    path.write_text(json.dumps(results, indent=1))
    console.print(f"written: {path}")


if __name__ == "__main__":
    main()
