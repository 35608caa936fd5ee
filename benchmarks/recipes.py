"""How much of a proxy's accuracy is luck: AdamW, Muon in one cycle and the default beside each other at one fidelity, with two seeds.

    python benchmarks/recipes.py                           # eight random placements of the shipped table, some ten minutes on two cores
    python benchmarks/recipes.py --placements 16 --seeds 3 --recipes one_cycle default
    python benchmarks/recipes.py --parts updates           # half a minute: what an update costs, timm's Muon beside ours

The recipes train the same placements in turns, at the default fidelity of cued_digits, one thread each. A seed also draws other images.
`luck` is the root mean square of what two seeds differ by. Updates are timed on the same gradients in turns, in milliseconds, medians.
The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any

import timm.optim.muon
import torch
import torch.nn.functional as F

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from make_table import train, trainers  # noqa: E402
from table import TABLES, Table  # noqa: E402

from nasattn.proxy import Fidelity, ProxyJob, Recipe  # noqa: E402
from nasattn.proxy.defaults import default_settings  # noqa: E402
from nasattn.proxy.muon import Muon, is_matrix  # noqa: E402
from nasattn.proxy.network import build_proxy  # noqa: E402

TASK = "cued_digits"
PARTS = ["updates", "trainings"]
UPDATED = (
    "none,none,none,none",
    "none,sge_g32,none,none",
    "ela_l,none,ela_b,ela_s",
    "lka_k21_d2,none,lka_k21_d3,none",
    "fsla_c25,sb,sb,fsla_c25",
)
DEFAULT = default_settings(TASK, "cpu")[1]
RECIPES = {"adamw": Recipe(precision=DEFAULT.precision), "one_cycle": DEFAULT.changed(schedule="one-cycle"), "default": DEFAULT}


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


def updates(placement: str, rounds: int = 15) -> dict[str, float]:
    """Milliseconds of a step of the default proxy with *placement*: forward and backward, then the update by each optimiser."""
    fidelity, recipe = default_settings(TASK, "cpu")
    job = ProxyJob("nasattn_resnet50", placement, fidelity, recipe)
    network = build_proxy(job, 10, 3).to(memory_format=torch.channels_last)
    images = torch.randn(recipe.batch_size, 3, fidelity.resolution, fidelity.resolution).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (recipe.batch_size,))
    matrices = [p for p in network.parameters() if is_matrix(p)]
    rest = [p for p in network.parameters() if not is_matrix(p)]
    rate = {"lr": torch.tensor(1e-6)}  # the network stays what it is
    adamw = torch.optim.AdamW([{"params": list(network.parameters()), **rate}], fused=True)
    theirs = timm.optim.muon.Muon([{"params": list(network.parameters()), **rate}], nesterov=True)
    ours = (Muon([{"params": matrices, **rate}], recipe.weight_decay), torch.optim.AdamW([{"params": rest, **rate}], fused=True))
    taken: dict[str, list[float]] = {"step_without": [], "adamw": [], "timms_muon": [], "our_muon": []}
    for _ in range(rounds):
        begun = [time.perf_counter()]
        network.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        for optimizers in ((), (adamw,), (theirs,), ours):
            for optimizer in optimizers:
                optimizer.step()
            begun.append(time.perf_counter())
        for times, (a, b) in zip(taken.values(), pairwise(begun), strict=True):
            times.append(1000 * (b - a))
    found = {name: round(statistics.median(times[2:]), 2) for name, times in taken.items()}
    return {
        **found,
        "timms_to_ours": round(statistics.median(a / b for a, b in zip(taken["timms_muon"], taken["our_muon"], strict=True)), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--placements", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"--seeds must be at least 2, got {args.seeds}: luck is what seeds differ by")
    found: dict[str, Any] = {}
    if "updates" in args.parts:
        torch.set_num_threads(1)
        found["updates"] = {placement: updates(placement) for placement in UPDATED}
        for placement, times in found["updates"].items():
            print(f"{placement:26}", ", ".join(f"{key} {value}" for key, value in times.items()))
    if "trainings" in args.parts:
        found |= trainings(args.placements, args.seeds, args.recipes, args.workers)
    print(json.dumps(found))


def trainings(count: int, seeds: int, names: list[str], workers: int | None) -> dict[str, Any]:
    """Train *count* random placements of the shipped table by the recipes *names*."""
    table = Table.read(TABLES / "cued_digits_resnet50.json")
    placements = random.Random(0).sample(sorted(table.entries), count)
    jobs = [
        (name, ProxyJob(table.space.host, placement, Fidelity(), RECIPES[name], seed))
        for placement, seed, name in product(placements, range(seeds), names)
    ]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with trainers(workers) as pool:
        for (name, _), row in zip(jobs, pool.map(train, [job for _, job in jobs], [TASK] * len(jobs)), strict=True):
            rows[name].append(row)
            rungs = " ".join(f"{a:.3f}" for a in row["accuracy"])
            print(f"{name:9} {row['placement']:42} seed {row['seed']}  {rungs}  {row['seconds']:.1f} s", flush=True)
    recipes = {name: summary(of) for name, of in rows.items()}
    for name, figures in recipes.items():
        print(name, ", ".join(f"{key} {value}" for key, value in figures.items()))
    return {"recipes": recipes, "trainings": len(jobs)}


if __name__ == "__main__":
    main()
