"""Trials and fronts as data frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import pandas as pd

from nasattn.front import FrontMember
from nasattn.store.records import EvaluationRecord

STATES = ["RUNNING", "COMPLETE", "PRUNED", "FAIL", "INTERRUPTED"]
TIERS = ["certified", "provisional", "dominated"]
METHODS = ["pair", "table"]
# the columns of all trials, in order, and what they hold
TRIALS = {
    "trial": "int64", "placement": "str", "state": pd.CategoricalDtype(STATES), "accuracy": "float64", "held_out": "float64",
    "latency_ratio": "float64", "latency_ratio_low": "float64", "latency_ratio_high": "float64", "latency_ms": "float64",
    "latency_method": pd.CategoricalDtype(METHODS), "latency_exclusive": "boolean", "params": "int64", "macs": "int64", "seed": "int64",
    "retrained": "bool", "reused": "bool", "tier": pd.CategoricalDtype(TIERS), "p_member": "float64", "val_samples": "Int64",
    "epochs": "float64", "training_seconds": "float64", "started_at": "datetime64[us, UTC]", "finished_at": "datetime64[us, UTC]",
    "worker": "str", "error": "str",
}  # fmt: skip
MEMBERS = {"tier": pd.CategoricalDtype(TIERS), "latency_method": pd.CategoricalDtype(METHODS)}
MAYBE = ("accuracy_sd", "gain", "held_out")  # of a member


def trials_frame(trials: Sequence[EvaluationRecord], placements: Sequence[FrontMember], seed: int) -> pd.DataFrame:
    """All trials, a row each.

    Args:
        trials: Of one study.
        placements: What they make (see :func:`nasattn.front.appraise`): ``tier`` and ``p_member`` belong to the placement, not the trial.
        seed: Of the study; trainings with another one are ``retrained``.

    Returns:
        The columns TRIALS, then ``stage1``, ``stage2``, ... as categories.
    """
    known = {p.placement: p for p in placements}
    columns = {name: [_cell(t, known.get(t.placement), seed, name) for t in trials] for name in TRIALS}
    frame = pd.DataFrame({name: pd.Series(values, dtype=TRIALS[name]) for name, values in columns.items()})
    return frame.join(_stages([t.placement for t in trials]))


def members_frame(members: Sequence[FrontMember]) -> pd.DataFrame:
    """Members of a front, a row each: their fields, then ``stage1``, ``stage2``, ... as categories."""
    names = [field.name for field in fields(FrontMember)]
    frame = pd.DataFrame([m.to_dict() for m in members], columns=names)
    return frame.astype({**MEMBERS, **dict.fromkeys(MAYBE, "float64")}).join(_stages([m.placement for m in members]))


def _cell(trial: EvaluationRecord, placement: FrontMember | None, seed: int, name: str) -> object:
    match name:
        case "latency_ratio" | "latency_ratio_low" | "latency_ratio_high" | "latency_ms" | "latency_method" | "latency_exclusive":
            return getattr(trial.latency, name.removeprefix("latency_")) if trial.latency else None
        case "retrained":
            return trial.seed != seed
        case "reused":
            return trial.reused_from is not None
        case "tier" | "p_member":
            return getattr(placement, name) if placement and trial.state == "COMPLETE" else None
        case "training_seconds":
            return trial.seconds
        case "epochs":
            return trial.curve[-1]["epoch"] if trial.curve else None
        case _:
            return getattr(trial, name)


def _stages(placements: Sequence[str]) -> pd.DataFrame:
    """The tokens of each stage."""
    tokens = [placement.split(",") for placement in placements]
    stages = max(map(len, tokens), default=0)
    columns = {f"stage{i + 1}": [row[i] if i < len(row) else None for row in tokens] for i in range(stages)}
    return pd.DataFrame({name: pd.Categorical(values) for name, values in columns.items()}, index=range(len(tokens)))
