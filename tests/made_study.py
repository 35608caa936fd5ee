"""A study as a search leaves it, written by the driver's own ledger, without training anything."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning

from nasattn.attention import Placement
from nasattn.search.attributes import count_attributes, latency_attributes, limit_attributes
from nasattn.search.events import Event
from nasattn.search.ledger import Ledger
from nasattn.search.limits import Cost, evaluate
from nasattn.search.study import make_config
from nasattn.search.suggestions import DIRECTIONS, OBJECTIVES
from nasattn.store import EvaluationRecord, LatencyRecord, Store, StudyRecord

PLAIN, GOOD, BEST, WORSE, SLOW = (
    "none,none,none,none", "none,sge_g32,none,none", "none,ela_t,none,none", "none,none,none,sge_g32", "fsla_c49,none,none,none",
)  # fmt: skip
ROWS: list[dict[str, Any]] = [
    {"placement": PLAIN, "accuracy": 0.5, "ratio": 1.0},
    {"placement": GOOD, "accuracy": 0.8, "ratio": 1.1},
    {"placement": BEST, "accuracy": 0.9, "ratio": 1.2},
    {"placement": WORSE, "accuracy": 0.48, "ratio": 1.15},
    {"placement": SLOW, "ratio": 1.9},  # above the limit
    {"placement": GOOD, "accuracy": 0.82, "ratio": 1.1, "seed": 1, "held_out": 0.79},
    {"placement": "none,none,ela_t,none", "ratio": 1.05, "error": "RuntimeError: <b>no</b>"},
]


def make_study(
    url: str, rows: Sequence[dict[str, Any]] = ROWS, name: str = "made", notify: Callable[[Event], None] = lambda event: None
) -> Store:
    """Write a study of resnet18_stages with these trials, and a limit of 1.5x; what has no accuracy is above it or has an error."""
    store = Store(url)
    config = make_config({"space": "resnet18_stages", "study": name, "max_latency": "1.5x"})
    store.add_study(StudyRecord(name, config.to_dict(), {"nasattn": "0"}, 0))
    study = optuna.create_study(storage=store.optuna, study_name=name, directions=DIRECTIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(OBJECTIVES)
    ledger = Ledger(study, store, name, config.space.host, notify)
    for row in rows:
        add_trial(ledger, config, row)
    return store


def add_trial(ledger: Ledger, config: Any, row: dict[str, Any]) -> None:
    placement, ratio, seed = row["placement"], row["ratio"], row.get("seed", 0)
    ledger.study.enqueue_trial(config.space.params(Placement.parse(placement)))
    trial = ledger.study.ask()
    config.space.suggest(trial)
    trial.set_user_attr("placement", placement)
    params, macs = 11_700_000 + trial.number, 1_800_000_000
    ledger.store.add_architecture(ledger.host, placement, params, macs)
    latency = LatencyRecord(10 * ratio, 10, ratio, ratio * 0.99, ratio * 1.01, 8, True, True)
    latency_id = ledger.store.add_latency("cpu", ledger.host, placement, latency)
    constraints = evaluate(config.limits, {"latency": Cost(latency.ms, ratio)})
    found = {**count_attributes(params, macs), **latency_attributes(latency), **limit_attributes(constraints)}
    ledger.set_attributes(trial, found)
    for constraint, what in constraints.items():
        trial.set_constraint(constraint, what["excess"])
    fidelity, identity = config.fidelity.to_dict(), f"{placement} {seed}"
    record = EvaluationRecord(
        trial.number, placement, "RUNNING", seed, params, macs, fidelity, identity, latency=latency, constraints=constraints
    )
    if "accuracy" in row:
        live = ledger.begin(trial, record, latency_id)
        for epoch in (1, 2):
            report = {"epoch": epoch, "loss": 2.0 / epoch, "accuracy": row["accuracy"] * epoch / 2, "seconds": 10.0 * epoch, "rung": epoch}
            ledger.note(live, report)
        ledger.end(live, "COMPLETE", accuracy=row["accuracy"], held_out=row.get("held_out"), val_samples=2000, worker="here:1")
    elif "error" in row:
        ledger.end(ledger.begin(trial, record, latency_id), "FAIL", row["error"])
    else:
        above = EvaluationRecord(
            **{**vars(record), "state": "PRUNED", "error": "above --max-latency 1.5x: latency 19 ms, 1.900x; not trained"}
        )
        ledger.untrained(trial, above, latency_id)
