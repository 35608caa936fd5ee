"""Train every placement of a space, with several seeds, and tabulate accuracies at all rungs beside latencies.

    python benchmarks/make_table.py                        # benchmarks/tables/cued_digits_resnet50.yaml, 320 placements x 2 seeds
    python benchmarks/make_table.py --workers 2            # that many trainings at once, one thread each
    python benchmarks/make_table.py --limit 2              # only so many trainings, to see that it works

Latencies are measured first, while nothing trains: the additive table of the whole host, checked on placements measured end to
end. Every training is appended to a partial table as it ends, so that a run that was stopped goes on where it was, on this machine or
another one. When nothing is missing, the partial table becomes the shipped one. The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from table import TABLES, Entry, Table  # noqa: E402

from nasattn.attention import Placement  # noqa: E402
from nasattn.hosts import get_host  # noqa: E402
from nasattn.latency import Deployment, LatencyTable  # noqa: E402
from nasattn.proxy import Fidelity, ProxyJob, ProxyTraining, Recipe  # noqa: E402
from nasattn.proxy.defaults import default_settings  # noqa: E402
from nasattn.search.cluster import RAY_ENVIRONMENT  # noqa: E402
from nasattn.search.latencies import HostLatencies, SpaceLatencies, measure_space  # noqa: E402
from nasattn.space import SearchSpace, load_space  # noqa: E402
from nasattn.store import Store  # noqa: E402
from nasattn.tasks import Task, TaskRequest, load_task  # noqa: E402

CHECKS = 8  # placements measured end to end, against which the additive table is checked
RUNGS = 3  # at which accuracies are taken, also where searches by default have fewer
Row = dict[str, Any]


def ordered_placements(space: SearchSpace, seed: int = 0) -> list[Placement]:
    """All placements: the plain one, single replacements, the same everywhere, then the rest at random."""

    def kind(placement: Placement) -> int:
        placed = [str(a) for a in placement if a.form != "none"]
        return 0 if len(placed) <= 1 else 1 if len(set(placed)) == 1 and len(placed) == len(tuple(placement)) else 2

    placements = list(space.placements())
    random.Random(seed).shuffle(placements)
    return sorted(placements, key=kind)


def train(job: ProxyJob, task: str) -> Row:
    """Train one proxy; returns its line of the partial table."""
    import torch

    torch.set_num_threads(1)
    f = job.fidelity
    training = ProxyTraining(job, _load(task, TaskRequest(f.resolution, f.samples, f.val_samples, job.seed)))
    accuracy, fractions = [], []
    while not training.done:
        report = training.step()
        if report.rung is not None:
            accuracy.append(round(report.accuracy, 6) if math.isfinite(report.accuracy) else 0.0)  # diverged
            fractions.append(round(training.done_steps / training.steps, 4))
    return {"placement": job.placement, "seed": job.seed, "rungs": fractions, "accuracy": accuracy, "seconds": round(training.seconds, 2)}


@lru_cache(maxsize=1)
def _load(name: str, request: TaskRequest) -> Task:
    """Data stay in the worker's memory from training to training."""
    return load_task(name, request)


def trainers(workers: int) -> ProcessPoolExecutor:
    """So many processes that :func:`train`, set up as the workers of a search are."""
    os.environ["GLIBC_TUNABLES"] = RAY_ENVIRONMENT["GLIBC_TUNABLES"]
    os.environ["OMP_NUM_THREADS"] = "1"
    return ProcessPoolExecutor(workers, get_context("spawn"))


def train_all(jobs: list[ProxyJob], task: str, workers: int, work: Path) -> Iterator[Row]:
    """Train *jobs* in *workers* processes, appending each to the partial table as it ends."""
    with trainers(workers) as pool, work.open("a", encoding="utf-8") as file:
        waiting = [pool.submit(train, job, task) for job in jobs]
        try:
            for future in as_completed(waiting):
                row = future.result()
                file.write(json.dumps(row) + "\n")
                file.flush()
                yield row
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def read_work(work: Path, settings: Row) -> list[Row]:
    """The trainings that are done. Ends the program when they were made otherwise."""
    if not work.exists():
        work.parent.mkdir(parents=True, exist_ok=True)
        work.write_text(json.dumps(settings) + "\n", encoding="utf-8")
        return []
    text = work.read_text(encoding="utf-8")
    if not text.endswith("\n"):  # killed while it wrote
        text = text[: text.rfind("\n") + 1]
        work.write_text(text, encoding="utf-8")
    head, *rows = [json.loads(line) for line in text.splitlines()]
    if head != json.loads(json.dumps(settings)):
        sys.exit(f"{work} was begun with {head}, not with {settings}: give another --work")
    return rows


def measure(space: SearchSpace, database: Path) -> SpaceLatencies:
    """The additive latency table of the space's host, batch 1 at its own resolution, as far as *database* lacks it."""
    latencies = HostLatencies(Store(f"sqlite:///{database}"), get_host(space.host), Deployment())
    return measure_space(latencies, space, CHECKS, 0, lambda done, total, what: print(f"latency {done}/{total} {what}", flush=True))


def make(space: SearchSpace, rows: list[Row], latencies: LatencyTable, made: Row) -> Table:
    """The table of those placements that have rows."""
    accuracy: dict[str, dict[int, tuple[float, ...]]] = {}
    for row in rows:
        accuracy.setdefault(row["placement"], {})[row["seed"]] = tuple(row["accuracy"])
    entries = {str(p): Entry(round(latencies.predict(p).ratio, 5), accuracy[str(p)]) for p in space.placements() if str(p) in accuracy}
    return Table(space.name, space, entries, tuple(rows[0]["rungs"]), made)


def settings_of(args: argparse.Namespace, space: SearchSpace, fidelity: Fidelity, recipe: Recipe) -> Row:
    """What every training of the table has in common."""
    what = {"task": args.task, "device": args.device, "fidelity": fidelity.to_dict(), "recipe": recipe.to_dict()}
    return {"space": space.to_dict(), **what}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--space", default=str(TABLES / "cued_digits_resnet50.yaml"), help="a space that is small enough to be trained whole"
    )
    parser.add_argument("--task", default="cued_digits")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where proxies train")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="trainings at once, one thread each")
    parser.add_argument("--work", type=Path, help="the partial table; default: benchmarks/tables/SPACE.partial.jsonl")
    parser.add_argument("--out", type=Path, help="the table; default: benchmarks/tables/SPACE.json")
    parser.add_argument("--limit", type=int, help="train at most so many now")
    parser.add_argument("--partial", action="store_true", help="write the table even where trainings are missing")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C does: the trainings under way end, no process stays behind
    space = load_space(args.space)
    usual, recipe = default_settings(args.task, args.device)
    fidelity = usual.changed(rungs=max(RUNGS, usual.rungs))
    work = args.work or TABLES / f"{space.name}.partial.jsonl"
    database = HERE.parent / "build" / "tables" / f"{space.name}.db"  # of latencies, which are this machine's
    database.parent.mkdir(parents=True, exist_ok=True)
    settings = settings_of(args, space, fidelity, recipe) | {"rungs_of_searches": usual.rungs}
    rows = read_work(work, settings)
    latencies = measure(space, database)
    done = {(row["placement"], row["seed"]) for row in rows}
    jobs = [
        ProxyJob(space.host, str(p), fidelity, recipe, seed, args.device)
        for seed in range(args.seeds)
        for p in ordered_placements(space)
        if (str(p), seed) not in done
    ]
    now = jobs[: args.limit]
    begun = time.perf_counter()
    for number, row in enumerate(train_all(now, args.task, args.workers, work), start=1):
        rows.append(row)
        left = (time.perf_counter() - begun) / number * (len(now) - number) / 60
        print(
            f"{number}/{len(now)} {row['placement']} seed {row['seed']}: {row['accuracy']}; {left:.0f} min left",
            flush=True,
        )
    missing = len(jobs) - len(now)
    out = args.out or TABLES / f"{space.name}.json"
    report: Row = {"work": str(work), "trainings": len(rows), "missing": missing}
    if missing == 0 or (args.partial and rows):
        made = {k: v for k, v in settings.items() if k != "space"}
        made |= {"command": f"python benchmarks/make_table.py --space {os.path.relpath(args.space, HERE.parent)} --seeds {args.seeds}"}
        made |= {"latency": {"key": latencies.key, "error": str(latencies.error)}, "machine": platform.processor() or platform.machine()}
        made |= {"versions": {name: version(name) for name in ("nasattn", "torch", "timm")}}
        table = make(space, rows, latencies.table, made)
        table.write(out)
        if missing == 0:
            work.unlink()
        report |= {"table": str(out), "placements": len(table.entries), "noise": round(table.noise(), 5)}
        report["accuracy"] = [min(e.true_accuracy for e in table.entries.values()), max(e.true_accuracy for e in table.entries.values())]
        report["latency"] = [min(e.latency for e in table.entries.values()), max(e.latency for e in table.entries.values())]
    print(json.dumps(report))


if __name__ == "__main__":
    main()
