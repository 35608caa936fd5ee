"""What the driver costs: seconds per trial of ours, of stock Ray Tune with OptunaSearch, and of plain Optuna, training nothing.

    python benchmarks/driver.py                         # 200 trials with 2 workers, some ten minutes, most of them Ray Tune's
    python benchmarks/driver.py --long 2000             # also ours at 2,000 trials: does a trial cost more with so many before it?
    python benchmarks/driver.py --parts ours optuna     # also: tune

All three ask the same sampler for the placements of one space and write to SQLite files of their own. Latencies come from a
table that is filled beforehand, so nothing is measured. The time of ours is that from the call to the last trial told,
Ray's start left out on both sides. The last line printed is one JSON object with all figures.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

from nasattn.search.cluster import quiet_libraries, ray_cluster

quiet_libraries()

import optuna  # noqa: E402

from nasattn.attention import Placement  # noqa: E402
from nasattn.hosts import get_host  # noqa: E402
from nasattn.latency import LatencyTable  # noqa: E402
from nasattn.proxy import ProxyJob, TrainingReport  # noqa: E402
from nasattn.search.driver import run_search  # noqa: E402
from nasattn.search.events import Event, TrialFinished  # noqa: E402
from nasattn.search.latencies import HostLatencies  # noqa: E402
from nasattn.search.samplers import make_sampler  # noqa: E402
from nasattn.search.study import StudyConfig, make_config  # noqa: E402
from nasattn.store import LatencyRecord, Store  # noqa: E402

SPACE = "resnet18_stages"
PARTS = ("ours", "optuna", "tune")
TINY = {"samples": 64, "val_samples": 2_000, "resolution": 24, "epochs": 1, "rungs": 1}


class Nothing:
    """A training that is over at once."""

    done = False

    def __init__(self, accuracy: float) -> None:
        self.accuracy = accuracy

    def step(self) -> TrainingReport:
        self.done = True
        return TrainingReport(1, 1.0, self.accuracy, 0.0, rung=1)


def start_nothing(job: ProxyJob, task: str, identity: str) -> Nothing:
    return Nothing(accuracy_of(job.placement))


def accuracy_of(placement: str) -> float:
    return sum((i + 1) * ord(c) for i, c in enumerate(placement)) * 2654435761 % 1000 / 1000


def configure(sampler: str, trials: int, workers: int) -> StudyConfig:
    return make_config(
        {"space": SPACE, "study": "driver", "sampler": sampler, "trials": trials, "workers": workers, "fidelity": TINY}
        | {"deployment": {"resolution": 32}, "latency_seconds": 0.05, "certify": 0}  # else it ends where the front is certified
    )


def fill_table(config: StudyConfig, url: str) -> None:
    """Latencies such as a machine on which the table has been measured would have."""
    store, host = Store(url), get_host(config.space.host)
    latencies = HostLatencies(store, host, config.deployment)

    def record(ratio: float) -> LatencyRecord:
        return LatencyRecord(10 * ratio, 10.0, ratio, ratio * 0.99, ratio * 1.01, 9, settled=True, exclusive=True)

    entries = {}
    for stage, tokens in enumerate(config.space.tokens, start=1):
        for number, token in enumerate(dict.fromkeys(("none", *map(str, tokens)))):
            entries[stage, token] = record(0.2 if token == "none" else 1 + number / 50)
            store.add_entry(latencies.key, host.name, stage, token, entries[stage, token])
    table = LatencyTable(entries)
    for row in range(6):
        placement = Placement(tuple(tokens[row % len(tokens)] for tokens in config.space.tokens))
        latencies.count(placement)
        store.add_latency(latencies.key, host.name, str(placement), record(table.predict(placement).ratio if row else 1.0))


def ours(sampler: str, trials: int, workers: int, folder: str) -> dict[str, Any]:
    """Seconds per trial, and those of the first and the last tenth of the trials."""
    config, url = configure(sampler, trials, workers), f"sqlite:///{folder}/ours-{trials}.db"
    fill_table(config, url)
    told: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, TrialFinished):
            told.append(time.perf_counter())

    with ray_cluster(None, workers):
        began = time.perf_counter()
        run_search(config, url, start=start_nothing, listener=listen)
    tenth = max(1, len(told) // 10)
    return {
        "trials": len(told),
        "seconds_per_trial": (told[-1] - began) / len(told),
        "first_told_after": told[0] - began,
        "last_tenth": (told[-1] - told[-tenth - 1]) / tenth,
        "between_trials": (told[-1] - told[0]) / (len(told) - 1),
    }


def plain_optuna(sampler: str, trials: int, workers: int, folder: str) -> dict[str, Any]:
    """`study.optimize` with the same sampler, space and kind of database."""
    config = configure(sampler, trials, workers)
    study = optuna.create_study(
        storage=f"sqlite:///{folder}/optuna-{trials}.db", sampler=make_sampler(sampler, 0), directions=["maximize", "minimize"]
    )

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        return accuracy_of(str(config.space.suggest(trial))), 1.0

    began = time.perf_counter()
    study.optimize(objective, n_trials=trials)
    return {"trials": trials, "seconds_per_trial": (time.perf_counter() - began) / trials}


def stock_tune(sampler: str, trials: int, workers: int, folder: str) -> dict[str, Any]:
    """Ray Tune with its own OptunaSearch and a function trainable, as its documentation does it."""
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    config = configure(sampler, trials, workers)
    stages = enumerate(config.space.tokens, start=1)
    space = {f"stage{i}": optuna.distributions.CategoricalDistribution([str(a) for a in tokens]) for i, tokens in stages}

    def train(config: dict[str, str]) -> None:
        tune.report({"accuracy": len(",".join(config.values())) / 100, "latency": 1.0})

    search = OptunaSearch(
        space=space,
        metric=["accuracy", "latency"],
        mode=["max", "min"],
        sampler=make_sampler(sampler, 0),
        storage=optuna.storages.RDBStorage(f"sqlite:///{folder}/tune-{trials}.db"),
    )
    tuner = tune.Tuner(
        train,
        tune_config=tune.TuneConfig(search_alg=search, num_samples=trials, max_concurrent_trials=workers),
        run_config=tune.RunConfig(storage_path=folder, verbose=0),
    )
    with ray_cluster(None, workers):
        began = time.perf_counter()
        tuner.fit()
        return {"trials": trials, "seconds_per_trial": (time.perf_counter() - began) / trials}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--long", type=int, default=0, help="also this many trials of ours")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    measure: dict[str, Callable[[str, int, int, str], dict[str, Any]]] = {"ours": ours, "optuna": plain_optuna, "tune": stock_tune}
    figures: dict[str, Any] = {"sampler": chosen.sampler, "workers": chosen.workers, "cpus": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory(prefix="driver-") as folder:
        for part in chosen.parts:
            figures[part] = measure[part](chosen.sampler, chosen.trials, chosen.workers, folder)
            print(part, json.dumps(figures[part]), flush=True)
        if chosen.long:
            figures["ours_long"] = ours(chosen.sampler, chosen.long, chosen.workers, folder)
            figures["long_to_short"] = figures["ours_long"]["seconds_per_trial"] / figures["ours"]["seconds_per_trial"]
    if {"ours", "tune"} <= figures.keys():
        figures["ours_to_tune"] = figures["ours"]["seconds_per_trial"] / figures["tune"]["seconds_per_trial"]
    if {"ours", "optuna"} <= figures.keys():
        figures["ours_minus_optuna"] = figures["ours"]["seconds_per_trial"] - figures["optuna"]["seconds_per_trial"]
    print(json.dumps({k: rounded(v) for k, v in figures.items()}))


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
