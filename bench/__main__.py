"""Run the benchmarks: all of them, or those named. Writes bench/results/<date>.json."""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path

from bench import failover, lag, provision, throughput
from bench.statistics import console
from tests.support.region import Region

PARTS = {
    "provision": provision.measure,
    "lag": lag.measure,
    "failover": failover.measure,
    "throughput": throughput.measure,
}


def main() -> None:
    """Parse the command line, run, save."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure Borealis on this machine.")
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"some of: {', '.join(PARTS)}")
    chosen = parser.parse_args().parts
    unknown = [part for part in chosen if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {', '.join(unknown)}; choose from {', '.join(PARTS)}")
    region = Region()
    results = {}
    try:
        region.up()
        for part in chosen:
            console.rule(part)
            results[part] = PARTS[part](region)
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
