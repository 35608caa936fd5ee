"""What Optuna keeps of a trial beside its values: user attributes, as its dashboard and its data frames show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nasattn.search.limits import UNITS, show_amount
from nasattn.store import EvaluationRecord, LatencyRecord
from nasattn.store.records import METHODS


def count_attributes(params: int, macs: int) -> dict[str, Any]:
    """Parameters in millions, multiply-accumulates in thousand millions."""
    return {"params_M": round(params / 1e6, 3), "macs_G": round(macs / 1e9, 3)}


def latency_attributes(latency: LatencyRecord) -> dict[str, Any]:
    """Milliseconds, the 95 % interval of the ratio, and how they were found."""
    return {
        "latency_ms": round(latency.ms, 3),
        "latency_interval": f"{latency.ratio_low:.3f}x to {latency.ratio_high:.3f}x",
        "latency_method": METHODS[latency.method] + ("" if latency.exclusive else ", shared"),
    }


def limit_attributes(constraints: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """By a limit's name, such as ``max_latency``, where the trial stands: ``1.412x, above 1.3x``.

    Optuna's own constraints are set beside it; dashboards up to 0.21 know only their old form, and show none without values.
    """
    return {name: f"{_cost(name, c)}, {'within' if c['excess'] <= 0 else 'above'} {c['limit']}" for name, c in constraints.items()}


def result_attributes(record: EvaluationRecord) -> dict[str, Any]:
    """Of a training that came to its end."""
    values: dict[str, Any] = {}
    if record.held_out is not None:
        values["test_accuracy"] = round(record.held_out, 4)
    if record.seconds is not None:
        values["training_seconds"] = round(record.seconds, 1)
    return values


def _cost(name: str, constraint: Mapping[str, Any]) -> str:
    if str(constraint["limit"]).endswith("x"):
        return f"{constraint['ratio']:.3f}x"
    cost = name.removeprefix("max_")
    return show_amount(cost, constraint["amount"]) if cost in UNITS else f"{constraint['amount']:g}"
