"""How far latencies can be trusted: beside timm's way to measure, on an idle and on a busy machine.

    python benchmarks/latency.py                             # everything, some 25 minutes on two cores
    python benchmarks/latency.py --parts repeatability aa    # also: table, runtimes

Ours and timm's method take turns, placement by placement. The last line printed is one JSON object with all figures.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

import nasattn
from nasattn.attention import Placement
from nasattn.hosts import get_host
from nasattn.latency import Deployment, HostMeter
from nasattn.report.latency import plot_latencies
from nasattn.search.latencies import HostLatencies, measure_space
from nasattn.space import load_space
from nasattn.store import Store

HOST = "nasattn_resnet50"
PLACEMENTS = (
    "sge_g32,none,none,none",
    "none,ela_l,none,none",
    "none,none,sb,none",
    "none,none,none,ela_t",
    "sge_g16,sge_g16,sge_g16,sge_g16",
    "ela_b,none,lka_k21_d3,none",
    "none,none,ela_t,fsla_c49",
    "lka_k7_d2,sb,sge_g64,ela_s",
)
WARM, STEPS = 10, 40  # of timm's benchmark.py: its defaults
PARTS = ("repeatability", "aa", "table", "runtimes")
BUDGETS = [1 + permille / 1000 for permille in range(5, 150, 5)]
RUNTIME_SPACE = """
description: Attentions that runtimes price differently
host: nasattn_resnet18
stages:
  1: {none: , sge: {groups: [8]}, ela_t: , ela_l: , lka: {kernel: [7]}}
  2: {none: , sge: {groups: [16]}, ela_l: }
  3: {none: }
  4: {none: }
"""


def timm_ms(model: nn.Module, images: torch.Tensor) -> float:
    """Milliseconds a batch as timm's benchmark.py measures: the mean of 40 steps after 10."""
    with torch.no_grad():
        for _ in range(WARM):
            model(images)
        total = 0.0
        for _ in range(STEPS):
            started = time.perf_counter()
            model(images)
            total += time.perf_counter() - started
    return 1e3 * total / STEPS


@contextmanager
def busy_core() -> Iterator[None]:
    """Another process that never rests."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)
        yield
    finally:
        process.kill()
        process.wait()


def moved(idle: float, loaded: float) -> float:
    """By which part a figure moved."""
    return abs(loaded / idle - 1)


def repeatability(max_seconds: float) -> dict[str, Any]:
    """Ratios of the same placements on the idle machine, and while one core is busy."""
    host, cores = get_host(HOST), torch.get_num_threads()
    meter = HostMeter(host, Deployment())
    plain = host.build(host.plain()).eval()
    images = meter.images
    rows = []
    for text in PLACEMENTS:
        model = host.build(text).eval()

        def measure(text: str = text, model: nn.Module = model) -> dict[str, float]:
            pair = meter.measure(Placement.parse(text), max_seconds=max_seconds)
            found = {"ours": pair.ratio, "low": pair.ratio_low, "high": pair.ratio_high}
            for name, threads in (("timm", cores), ("timm_1_thread", 1)):
                torch.set_num_threads(threads)
                found[f"{name}_ms"] = timm_ms(model, images)
                found[name] = found[f"{name}_ms"] / timm_ms(plain, images)
            torch.set_num_threads(cores)
            return found

        idle = measure()
        with busy_core():
            loaded = measure()
        row = {"placement": text, "idle": idle, "loaded": loaded}
        row["moved"] = {name: moved(idle[name], loaded[name]) for name in ("ours", "timm", "timm_1_thread", "timm_ms", "timm_1_thread_ms")}
        rows.append(row)
        shown = ", ".join(f"{name} {value:.1%}" for name, value in row["moved"].items())
        print(f"{text}: {idle['ours']:.3f}x idle, {loaded['ours']:.3f}x loaded; moved: {shown}", flush=True)
    names = rows[0]["moved"]
    summary = {
        name: {"median": statistics.median(r["moved"][name] for r in rows), "worst": max(r["moved"][name] for r in rows)} for name in names
    }
    met = summary["ours"]["median"] <= 0.02 and summary["ours"]["worst"] <= 0.05
    return {"placements": rows, "moved": summary, "target": {"median": 0.02, "worst": 0.05}, "met": met}


def equal_models(repeats: int, max_seconds: float) -> dict[str, Any]:
    """The plain host against a clone of itself, each time with new models."""
    host, logs, timms = get_host(HOST), [], []
    for _ in range(repeats):
        meter = HostMeter(host, Deployment(), calibration_seconds=max_seconds)
        logs.append(math.log(meter.calibration.ratio))
        torch.set_num_threads(1)
        first, second = (host.build(host.plain()).eval() for _ in range(2))
        timms.append(math.log(timm_ms(second, meter.images) / timm_ms(first, meter.images)))
        print(f"A/A: log ratio {logs[-1]:+.4f}, timm's method with one thread {timms[-1]:+.4f}", flush=True)
    within = sum(abs(x) <= 0.01 for x in logs)
    return {
        "log_ratios": logs,
        "timm_log_ratios": timms,
        "within_1_percent": within,
        "timm_within_1_percent": sum(abs(x) <= 0.01 for x in timms),
        "repeats": repeats,
        "met": within >= 0.9 * repeats,
    }


def table(held_out: int, folder: Path, picture: Path | None) -> dict[str, Any]:
    """The whole table of resnet50_stages, its cost and its error; drawn into *picture*."""
    space = load_space("resnet50_stages")
    latencies = HostLatencies(Store(f"sqlite:///{folder / 'table.db'}"), get_host(space.host), Deployment())
    marks: list[tuple[float, str]] = []

    def notify(done: int, total: int, what: str) -> None:
        marks.append((time.perf_counter(), what))
        print(f"{done}/{total} {what}", flush=True)

    found = measure_space(latencies, space, held_out, seed=1, notify=notify)
    if picture is not None:
        plot_latencies([found], picture)
    seconds = [(what, after - begun) for (begun, what), (after, _) in itertools.pairwise(marks)]
    entries = [s for what, s in seconds if what.startswith("stage")]
    # the first entry also builds the host and calibrates the meter
    lazily = entries[1:]
    assert found.error is not None and found.error.kendall is not None
    whole = sum(entries)
    return {
        "entries": len(entries),
        "whole_seconds": whole,
        "entry_seconds": {
            "median": statistics.median(lazily),
            "worst": max(lazily),
            "within_3_s": sum(s <= 3 for s in lazily) / len(lazily),
        },
        "held_out": found.error.placements,
        "median_error": found.error.median,
        "worst_error": found.error.worst,
        "kendall": found.error.kendall,
        "end_to_end_seconds": sum(s for what, s in seconds if what.startswith("end")),
        "added_percent": {f"{n} {token}": 100 * found.table.added(n, token) for n, token in found.table.entries if token != "none"},
        "met": whole <= 300 and found.error.median <= 0.02 and found.error.worst <= 0.05 and found.error.kendall >= 0.9,
    }


def runtimes(folder: Path) -> dict[str, Any]:
    """One search, the tables of three runtimes, and the budgets under which the best placement is not the same in all."""
    path, storage = folder / "runtimes.yaml", f"sqlite:///{folder / 'runtimes.db'}"
    path.write_text(RUNTIME_SPACE)
    names = ("eager", "compile", "onnxruntime")
    costs = {}
    for name in names:
        found = nasattn.measure_table(str(path), storage=storage, runtime=name, held_out=4)
        costs[name] = {
            "plain_ms": found.table.plain_ms,
            "error": str(found.error),
            "added_percent": {f"{n} {t}": 100 * found.table.added(n, t) for n, t in found.table.entries if t != "none"},
            "key": found.key,
        }
        print(f"{name}: {costs[name]}", flush=True)
    study = nasattn.search(str(path), storage=storage, trials=load_space(path).size, seed=0)
    changed = []
    for budget in BUDGETS:
        best = {name: study.best(f"{budget}x", device=costs[name]["key"]) for name in names}
        if len({m.placement for m in best.values()}) > 1:
            members = {n: {"placement": m.placement, "accuracy": m.accuracy, "ratio": m.latency_ratio} for n, m in best.items()}
            spread = max(m.accuracy for m in best.values()) - min(m.accuracy for m in best.values())
            changed.append({"budget": budget, "accuracy_spread": spread, **members})
    clearest = max(changed, key=lambda c: c["accuracy_spread"], default=None)
    print(f"the best placement differs under {len(changed)} of {len(BUDGETS)} budgets, most of all: {clearest}", flush=True)
    return {"tables": costs, "budgets_that_differ": len(changed), "clearest": clearest, "met": bool(changed)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--max-seconds", type=float, default=10.0, help="of one end-to-end measurement")
    parser.add_argument("--repeats", type=int, default=10, help="of A/A")
    parser.add_argument("--held-out", type=int, default=16, help="placements that tell the table's error")
    parser.add_argument("--plot", type=Path, help="a picture of the table: .png, .svg or .pdf")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"torch": torch.__version__, "cores": os.cpu_count(), "host": HOST}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = {
            "repeatability": lambda: repeatability(arguments.max_seconds),
            "aa": lambda: equal_models(arguments.repeats, arguments.max_seconds),
            "table": lambda: table(arguments.held_out, folder, arguments.plot),
            "runtimes": lambda: runtimes(folder),
        }
        for part in arguments.parts:
            started = time.perf_counter()
            figures[part] = run[part]() | {"seconds": time.perf_counter() - started}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
