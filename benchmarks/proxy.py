"""How fast proxies train, and what one comes to, beside what a user would write.

    python benchmarks/proxy.py                           # some 15 minutes on two cores
    python benchmarks/proxy.py --parts speed time        # also: ceiling, memory, precision, kernels, seeds, threads, compile

A user's trial is a fresh Ray function trial per placement: timm's ResNet of the same shape with the papers' formulas, contiguous
float32, torchvision's transforms image by image, a DataLoader with workers. Ours is a Ray worker that lives on, with the data
in memory. Both train the same placements at the same fidelity and recipe, in turns, as many at once as there are cores.
The last line printed is one JSON object with all figures.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from proxy_steps import compiled, large_kernels, memory, precision, seeds_together, threads  # noqa: E402
from user_proxy import HOST, TASK, save_data, user_trial, user_trials, usual_recipe  # noqa: E402

PLACEMENTS = (
    "none,none,none,none",
    "none,sge_g32,none,none",
    "ela_l,none,none,ela_t",
    "sge_g16,none,lka_k7_d2,none",
    "none,sb,ela_b,none",
    "none,none,sge_g64,lka_k21_d3",
    "ela_b,none,none,none",
    "none,ela_l,none,none",
    "sge_g32,none,none,sb",
    "none,none,ela_s,none",
    "none,lka_k7_d3,none,none",
    "sb,none,none,ela_t",
)
PARTS = ("speed", "time", "ceiling", "memory", "precision", "kernels", "seeds", "threads", "compile")


class Listed:
    """A search that trains a list of placements and keeps what they come to."""

    def __init__(self, placements: tuple[str, ...], fidelity: Any) -> None:
        from nasattn.proxy import ProxyJob

        jobs = ((p, ProxyJob(HOST, p, fidelity, usual_recipe())) for p in placements)
        self.left = [(p, {"job": job, "task": TASK, "identity": f"benchmark-{uuid4().hex}"}) for p, job in jobs]
        self.found: dict[str, dict[str, float]] = {}

    def next_trial(self) -> Any:
        return self.left.pop(0) if self.left else None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> bool:
        return True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any]) -> None:
        self.found[trial_id] = result

    def lose(self, trial_id: str, reason: str) -> None:
        raise RuntimeError(reason)


def our_trials(placements: tuple[str, ...], fidelity: Any, slots: int) -> dict[str, dict[str, float]]:
    """All placements on our own workers, as a search trains them (without its latency measurements)."""
    from nasattn.search.loop import Workers, train_all
    from nasattn.search.worker import start_proxy

    listed = Listed(placements, fidelity)
    train_all(listed, Workers(slots, {"num_cpus": 1.0}, start_proxy))
    return listed.found


def speed(rounds: int, epochs: int) -> dict[str, Any]:
    """Trials per hour of both, in turns on one Ray."""
    import ray

    from nasattn.proxy.defaults import default_settings
    from nasattn.search.cluster import quiet_libraries, ray_cluster

    quiet_libraries()
    slots = len(os.sched_getaffinity(0))
    fidelity = default_settings(TASK, "cpu")[0].changed(epochs=epochs)
    with tempfile.TemporaryDirectory() as folder, ray_cluster(None, slots):
        assert ray.is_initialized()
        data = Path(folder) / "data.npz"
        save_data(data, fidelity)
        config = {"data": str(data), "fidelity": fidelity.to_dict(), "loader_workers": 2}
        runs: dict[str, list[float]] = {"user": [], "ours": []}
        found: dict[str, dict[str, list[float]]] = {"user": {}, "ours": {}}
        for number in range(rounds):
            for who in ("user", "ours") if number % 2 == 0 else ("ours", "user"):
                begun = time.perf_counter()
                results = user_trials(PLACEMENTS, config, slots) if who == "user" else our_trials(PLACEMENTS, fidelity, slots)
                seconds = time.perf_counter() - begun
                runs[who].append(len(PLACEMENTS) * 3600 / seconds)
                for placement, metrics in results.items():
                    found[who].setdefault(placement, []).append(metrics["accuracy"])
                print(f"{who:5s} {len(PLACEMENTS)} trials in {seconds:.1f} s: {runs[who][-1]:.0f} trials/h", flush=True)
    accuracy = {p: {who: round(statistics.mean(found[who][p]), 4) for who in found} for p in PLACEMENTS}
    for placement, both in accuracy.items():
        print(f"  {placement:34s} accuracy user {both['user']:.3f}, ours {both['ours']:.3f}")
    ratio = statistics.median(o / u for o, u in zip(runs["ours"], runs["user"], strict=True))
    print(f"ours / user: {ratio:.2f} (target 2.5)", flush=True)
    return {"trials_per_hour": runs, "ratio": ratio, "target": 2.5, "met": ratio >= 2.5, "accuracy": accuracy, "slots": slots}


def time_spent() -> dict[str, Any]:
    """Where the time of one training of SGE in stage 2 goes, on one thread, alone: the user's and ours."""
    from nasattn.proxy import Fidelity

    fidelity = Fidelity()
    placement = PLACEMENTS[1]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        save_data(data, fidelity)
        user = _fresh("user", {"data": str(data), "fidelity": fidelity.to_dict(), "loader_workers": 2, "placement": placement})
    ours = _fresh("ours", {"placement": placement})
    for who, spent in (("user", user), ("ours", ours)):
        print(f"{who:5s} " + ", ".join(f"{k} {v:.2f} s" for k, v in spent.items() if k != "accuracy"), flush=True)
    return {"user": user, "ours": ours}


def _fresh(who: str, config: dict[str, Any]) -> dict[str, float]:
    """Run one trial in a process of its own; its start, with the imports, is counted."""
    code = f"import sys, json, time; sys.path.insert(0, {str(HERE)!r}); import proxy; print(json.dumps(proxy.{who}_time(json.loads(sys.argv[1]))))"
    begun = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, json.dumps(config)], capture_output=True, text=True, env=environment, check=True)
    spent: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    accounted = sum(v for k, v in spent.items() if k not in ("accuracy", "start"))
    spent["start"] = time.perf_counter() - begun - accounted
    return spent


def user_time(config: dict[str, Any]) -> dict[str, float]:
    return user_trial(config)


def ours_time(config: dict[str, Any]) -> dict[str, float]:
    """One training of ours with its parts timed; starts and data are of the first trial of a worker, the others skip them."""
    from nasattn.proxy import Fidelity, ProxyJob, ProxyTraining
    from nasattn.tasks import TaskRequest, load_task

    torch.set_num_threads(1)
    fidelity = Fidelity()
    begun = time.perf_counter()
    task = load_task(TASK, TaskRequest(fidelity.resolution, fidelity.samples, fidelity.val_samples))
    loaded = time.perf_counter() - begun
    training = ProxyTraining(ProxyJob(HOST, config["placement"], fidelity, usual_recipe()), task)
    spent = dict.fromkeys(("start", "data", "forward", "backward", "update", "validation"), 0.0)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            result = function(*args, **kwargs)
            spent[name] += time.perf_counter() - started
            return result

        return call

    forward, backward = training.model.forward, torch.Tensor.backward
    training.model.forward = lambda x: timed("forward", forward)(x) if training.model.training else forward(x)  # type: ignore[method-assign]
    torch.Tensor.backward = timed("backward", backward)  # type: ignore[method-assign, assignment]
    for optimizer in training.step_once.optimizers:
        optimizer.step = timed("update", optimizer.step)  # type: ignore[method-assign]
    training._accuracy = timed("validation", training._accuracy)  # type: ignore[method-assign]
    while not training.done:
        report = training.step()
    torch.Tensor.backward = backward  # type: ignore[method-assign]
    spent["data"] = report.seconds - sum(spent.values())
    return {"accuracy": report.accuracy, **spent, "task": loaded}


def _train(placement: str, **fidelity: Any) -> tuple[float, float]:
    """Accuracy and seconds of one training here."""
    from nasattn.proxy import Fidelity, ProxyJob, ProxyTraining
    from nasattn.tasks import TaskRequest, load_task

    chosen = Fidelity(**fidelity)
    task = load_task(TASK, TaskRequest(chosen.resolution, chosen.samples, chosen.val_samples))
    training = ProxyTraining(ProxyJob(HOST, placement, chosen, usual_recipe()), task)
    while not training.done:
        report = training.step()
    return report.accuracy, report.seconds


def ceiling() -> dict[str, Any]:
    """cued_digits: SGE in stage 2 breaks the ceiling within 30 s on one thread; the plain host does not, however long it trains."""
    torch.set_num_threads(1)
    broken, plain, long = _train("none,sge_g32,none,none"), _train("none,none,none,none"), _train("none,none,none,none", epochs=20)
    again = _train("none,sge_g32,none,none")
    print(f"SGE in stage 2: {broken[0]:.3f} in {broken[1]:.1f} s; plain {plain[0]:.3f}, ten times longer {long[0]:.3f}", flush=True)
    print(f"the same seed again: {again[0]!r} and {broken[0]!r}")
    return {
        "sge_stage_2": {"accuracy": broken[0], "seconds": broken[1], "met": broken[0] >= 0.8 and broken[1] <= 30},
        "plain": plain[0],
        "plain_10x": long[0],
        "plain_met": max(plain[0], long[0]) <= 0.55,
        "same_seed_same_accuracy": again[0] == broken[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"torch": str(torch.__version__), "cores": len(os.sched_getaffinity(0))}
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        "speed": lambda: speed(arguments.rounds, arguments.epochs),
        "time": time_spent,
        "ceiling": ceiling,
        "memory": memory,
        "precision": precision,
        "kernels": large_kernels,
        "seeds": seeds_together,
        "threads": threads,
        "compile": compiled,
    }
    for part in arguments.parts:
        print(f"== {part}", flush=True)
        figures[part] = runs[part]()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
