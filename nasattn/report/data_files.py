"""The data behind a report, as CSV files for whoever draws figures of their own."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from nasattn.report.effects import ADDED_FIELDS, Effect
from nasattn.report.faults import cause_of
from nasattn.report.study_data import StudyData
from nasattn.report.tables import front_csv
from nasattn.store import EvaluationRecord

TRIAL_FIELDS = (
    "trial", "placement", "state", "seed", "accuracy", "held_out", "latency_ms", "latency_ratio", "latency_ratio_low", "latency_ratio_high",
    "latency_method", "latency_exclusive", "params", "macs", "seconds", "epochs_trained", "reused", "fault",
)  # fmt: skip
EFFECT_FIELDS = (*(f.name for f in fields(Effect) if f.name != "added"), *ADDED_FIELDS)
GROWTH_FIELDS = ("curve", "training_seconds", "hypervolume", "low", "high")


def write_data(data: StudyData, folder: Path) -> list[Path]:
    """Write ``front.csv``, ``trials.csv``, ``effects.csv`` and ``growth.csv`` into *folder*, which exists; those without rows hold their head.

    Accuracies are shares (0..1), effects points (0..100), as everywhere.
    """
    files = [folder / f"{name}.csv" for name in ("front", "trials", "effects", "growth")]
    files[0].write_text(front_csv(data.front), encoding="utf-8")
    _write(files[1], TRIAL_FIELDS, map(_trial, data.trials))
    _write(files[2], EFFECT_FIELDS, (e.to_dict() for e in data.effects))
    rows = (
        dict(zip(GROWTH_FIELDS, (g.source, *values), strict=True))
        for g in data.growths
        for values in zip(g.seconds, g.volume, g.low, g.high, strict=True)
    )
    _write(files[3], GROWTH_FIELDS, rows)
    return files


def _write(file: Path, names: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as text:
        writer = csv.DictWriter(text, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _trial(t: EvaluationRecord) -> dict[str, Any]:
    found = t.latency
    latency = {
        "latency_ms": found and found.ms,
        "latency_ratio": found and found.ratio,
        "latency_ratio_low": found and found.ratio_low,
        "latency_ratio_high": found and found.ratio_high,
        "latency_method": found and found.method,
        "latency_exclusive": found and found.exclusive,
    }
    own = {name: getattr(t, name) for name in ("trial", "placement", "state", "seed", "accuracy", "held_out", "params", "macs", "seconds")}
    epochs = t.curve[-1].get("epoch") if t.curve else None
    return (
        own | latency | {"epochs_trained": epochs, "reused": t.reused_from is not None, "fault": cause_of(t) if t.state == "FAIL" else None}
    )
