"""Trials, members of a front and studies as a search leaves them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from nasattn.front import FrontMember
from nasattn.proxy import Recipe
from nasattn.space import load_space
from nasattn.store import EvaluationRecord, LatencyRecord, StudyRecord

LATENCY = LatencyRecord(ms=33.0, baseline_ms=30.0, ratio=1.1, ratio_low=1.09, ratio_high=1.12, pairs=9, settled=True, exclusive=True)
FIDELITY = {"width": 0.125, "blocks": 1, "epochs": 2}
CURVE = [{"epoch": 1, "loss": 2.25, "accuracy": 0.5, "seconds": 4.0}, {"epoch": 2, "seconds": 8.0}]


def trial(number: int, placement: str = "none,sge_g32,none,none", accuracy: float | None = 0.75, **values: object) -> EvaluationRecord:
    record = EvaluationRecord(
        number,
        placement,
        "COMPLETE",
        0,
        23_512_345,
        4_100_000_000,
        FIDELITY,
        "i",
        LATENCY,
        accuracy,
        2000,
        CURVE,
        seconds=8.4,
        worker="here:1",
    )
    return replace(record, **values)  # type: ignore[arg-type]


def member(number: int = 3, placement: str = "none,sge_g32,ela_l,lka_k21_d3", **values: object) -> FrontMember:
    made = FrontMember(
        number, placement, 0.7512, None, 0.0123, 1, 33.04, 1.1004, 1.0901, 1.1102, 23_512_345, 4_100_000_000, "provisional", 0.87
    )
    return replace(made, **values)  # type: ignore[arg-type]


def study(name: str = "one") -> StudyRecord:
    space = load_space("resnet50_stages")
    config = {"space": space.to_dict(), "space_name": space.name, "task": "cued_digits", "recipe": Recipe(precision="bfloat16").identity()}
    return StudyRecord(name, config, {}, 7, datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC))
