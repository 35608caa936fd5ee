"""The README's first command on several seeds: how long it takes, and whether it finds out what there is to find.

    python benchmarks/main_command.py                    # seeds 0 to 4, some forty minutes on two cores that do nothing else
    python benchmarks/main_command.py --seeds 2          # one of them

On `cued_digits` the plain host stays at half right however long it trains, and only placements that relate distant places come
above: a search has found the truth when a certified member of its front does, and the plain host does not. Each seed begins with an
empty database, so that every latency is measured anew. The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from nasattn import open_study

ROOT = Path(__file__).resolve().parent.parent
CEILING, RELATED = 0.55, 0.80  # accuracies: at most that of a network that cannot relate the digits, at least that of one that does
MINUTES = 8.0


def nasattn(folder: Path, *words: str) -> str:
    """What a command prints; its notes and its log stay in *folder*."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "NASATTN_STORAGE": f"sqlite:///{folder}/nasattn.db", "NASATTN_LOGS": str(folder)}
    with (folder / "notes.txt").open("a") as notes:
        return subprocess.run(
            [sys.executable, "-m", "nasattn", *words],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=notes,
            text=True,
            check=True,
        ).stdout


def search(seed: int) -> dict[str, Any]:
    """One search from nothing."""
    with tempfile.TemporaryDirectory(prefix=f"seed-{seed}-") as place:
        folder, began = Path(place), time.monotonic()
        ended = json.loads(nasattn(folder, "search", "--space", "resnet50_stages", "--seed", str(seed), "--json"))
        minutes = (time.monotonic() - began) / 60
        points = open_study(ended["study"], f"sqlite:///{folder}/nasattn.db").placements()
    front = [point for point in points if point.on_front]
    best = max(front, key=lambda member: member.accuracy)
    plain = next(p for p in points if set(p.placement.split(",")) == {"none"})  # not on the front where another was measured faster
    return {
        "seed": seed,
        "minutes": round(minutes, 2),
        "plain": round(plain.accuracy, 3),
        "best": best.placement,
        "tier": best.tier,
        "accuracy": round(best.accuracy, 3),
        "latency_ratio": round(best.latency_ratio, 3),
        "found": plain.accuracy <= CEILING and any(m.tier == "certified" and m.accuracy >= RELATED for m in front),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    runs = []
    for seed in parser.parse_args().seeds:
        runs.append(search(seed))
        print(json.dumps(runs[-1]), flush=True)
    minutes = sorted(run["minutes"] for run in runs)
    found = sum(run["found"] for run in runs)
    figures = {"median_minutes": minutes[len(minutes) // 2], "worst_minutes": minutes[-1], "target_minutes": MINUTES, "found": found}
    print(json.dumps({"runs": runs, **figures, "met": minutes[-1] <= MINUTES and found == len(runs)}))


if __name__ == "__main__":
    main()
