"""How much of a proxy's accuracy is luck: AdamW beside Muon at one fidelity, each placement with two seeds.

    python benchmarks/recipes.py                           # eight random placements of the shipped table, some ten minutes on two cores
    python benchmarks/recipes.py --placements 16 --seeds 3

Both recipes train the same placements in turns, at the default fidelity of cued_digits, one thread each. A seed also draws other images.
`luck` is the root mean square of what two seeds differ by. The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
from itertools import combinations, product
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from make_table import train, trainers  # noqa: E402
from table import TABLES, Table  # noqa: E402

from nasattn.proxy import Fidelity, ProxyJob, Recipe  # noqa: E402
from nasattn.proxy.defaults import default_settings  # noqa: E402

TASK = "cued_digits"
RECIPES = {"adamw": Recipe(), "muon": default_settings(TASK, "cpu")[1]}


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of one recipe's trainings."""
    by_placement: dict[str, list[float]] = {}
    for row in rows:
        by_placement.setdefault(row["placement"], []).append(row["accuracy"][-1])
    differences = [a - b for ends in by_placement.values() for a, b in combinations(ends, 2)]
    return {
        "mean_accuracy": round(statistics.mean(row["accuracy"][-1] for row in rows), 4),
        "luck": round(statistics.mean(d * d for d in differences) ** 0.5, 4),
        "broke_through": round(statistics.mean(row["accuracy"][-1] > 0.55 for row in rows), 4),
        "median_seconds": round(statistics.median(row["seconds"] for row in rows), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--placements", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"--seeds must be at least 2, got {args.seeds}: luck is what seeds differ by")
    table = Table.read(TABLES / "cued_digits_resnet50.json")
    placements = random.Random(0).sample(sorted(table.entries), args.placements)
    jobs = [
        (name, ProxyJob(table.space.host, placement, Fidelity(), recipe, seed))
        for placement, seed, (name, recipe) in product(placements, range(args.seeds), RECIPES.items())
    ]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in RECIPES}
    with trainers(args.workers) as pool:
        for (name, _), row in zip(jobs, pool.map(train, [job for _, job in jobs], [TASK] * len(jobs)), strict=True):
            rows[name].append(row)
            rungs = " ".join(f"{a:.3f}" for a in row["accuracy"])
            print(f"{name:5} {row['placement']:42} seed {row['seed']}  {rungs}  {row['seconds']:.1f} s", flush=True)
    found = {name: summary(of) for name, of in rows.items()}
    for name, figures in found.items():
        print(name, ", ".join(f"{key} {value}" for key, value in figures.items()))
    ratio = round(found["muon"]["median_seconds"] / found["adamw"]["median_seconds"], 3)
    print(json.dumps({"recipes": found, "trainings": len(jobs), "seconds_muon_to_adamw": ratio}))


if __name__ == "__main__":
    main()
