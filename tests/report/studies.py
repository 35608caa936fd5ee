"""Whole studies in a database, of known effects, without any training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nasattn.search.study import make_config
from nasattn.store import EvaluationRecord, LatencyRecord, Store, StudyRecord

KEY = "A CPU | eager-torch2.15.0 | batch 1 | 224 px | float32 | 1 thread"
PLAIN = "none,none,none,none"
SHARES = (0.2, 0.2, 0.3, 0.3)
TOKENS = ("none", "sge_g32", "ela_t", "lka_k21_d3")
GAIN = {"none": 0.0, "sge_g32": 0.02, "ela_t": 0.10, "lka_k21_d3": 0.12}  # in stage 2; elsewhere a tenth of it
SLOWER = {"none": 1.0, "sge_g32": 1.05, "ela_t": 1.2, "lka_k21_d3": 2.0}  # of a stage


def accuracy_of(placement: str) -> float:
    return 0.5 + sum((1.0 if n == 2 else 0.1) * GAIN[t] for n, t in enumerate(placement.split(","), start=1))


def ratio_of(placement: str) -> float:
    return 1 + sum(share * (SLOWER[t] - 1) for share, t in zip(SHARES, placement.split(","), strict=True))


def latency_of(placement: str, **values: Any) -> LatencyRecord:
    ratio = ratio_of(placement)
    spread = 0.0 if placement == PLAIN else 0.01
    return replace(LatencyRecord(20 * ratio, 20.0, ratio, ratio - spread, ratio + spread, 9, True, True), **values)


def placements(count: int, seed: int = 0) -> list[str]:
    """The plain host, then others drawn at random, none twice."""
    rng = np.random.default_rng(seed)
    drawn = (",".join(rng.choice(TOKENS, 4)) for _ in range(100 * count))
    return list(dict.fromkeys([PLAIN, *drawn]))[:count]


def add_study(store: Store, name: str, config: Mapping[str, Any] | None = None, **settings: Any) -> StudyRecord:
    stored = make_config({"space": "resnet18_stages", "sampler": "tpe", "study": "s", **settings}).to_dict()
    record = StudyRecord(name, {**stored, **(config or {})}, {"nasattn": "0.1.0", "torch": "2.15.0"}, 0)
    store.add_study(record)
    return record


def add_trials(store: Store, study: str, of: Sequence[str], seed: int = 0, noise: float = 0.003, first: int = 0, **ends: Any) -> None:
    """Completed trials of placements *of*, unless *ends* says otherwise (``state``, ``error``, ...; ``latency=False``: without one)."""
    host, rng = "nasattn_resnet18", np.random.default_rng(seed)
    ends = dict(ends)
    with_latency, state = ends.pop("latency", True), ends.pop("state", "COMPLETE")
    for number, placement in enumerate(of, start=first):
        store.add_architecture(host, placement, 11_000_000 + 1000 * number, 2_000_000_000)
        latency = store.add_latency(KEY, host, placement, latency_of(placement)) if with_latency else None
        record = EvaluationRecord(number, placement, "RUNNING", seed, 11_000_000, 2_000_000_000, {"epochs": 2}, f"{study}{seed}{placement}")
        evaluation = store.start_evaluation(study, host, record, latency)
        values = {"seconds": 20.0, "curve": [{"epoch": 2.0, "loss": 1.0, "accuracy": 0.5, "seconds": 20.0}], **ends}
        if state == "COMPLETE":
            values = {"accuracy": accuracy_of(placement) + noise * rng.standard_normal(), "val_samples": 2000, **values}
        store.finish_evaluation(evaluation, state, **values)


def add_table(store: Store, uncertain: tuple[int, str] | None = None) -> None:
    """The latency table of the stages, of which the entry *uncertain* cannot be told from none."""
    host = "nasattn_resnet18"
    for number, share in enumerate(SHARES, start=1):
        for token in TOKENS:
            ratio = share if token == "none" else SLOWER[token]
            spread = 0.6 if (number, token) == uncertain else 0.01 * ratio
            record = LatencyRecord(20 * ratio, 20.0, ratio, ratio - spread, ratio + spread, 9, True, True, "table")
            store.add_entry(KEY, host, number, token, record)
