"""Upper limits on what a placement may cost: a ratio to the plain host, or an amount in the cost's own unit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nasattn.errors import UsageError

# the units of each cost, and what the user is told of them; a cost's amount is in the unit whose factor is 1
UNITS: dict[str, dict[str, float]] = {
    "latency": {"ms": 1.0},
    "params": {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9},
    "macs": {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12},
    "memory": {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30},
}
EXAMPLES = {
    "latency": "a time such as 12ms",
    "params": "a number such as 30M",
    "macs": "a number such as 5G",
    "memory": "a size such as 200MB",
}


@dataclass(frozen=True)
class Limit:
    """An upper limit on one cost.

    Attributes:
        cost: ``latency``, ``params``, ``macs`` or ``memory``.
        value: In *unit*.
        unit: ``x``: a ratio to the plain host; else one of the cost's units.
    """

    cost: str
    value: float
    unit: str

    @classmethod
    def parse(cls, cost: str, text: str) -> Limit:
        """Read ``1.3x``, ``12ms``, ``30M``, ``200MB``. Raises UsageError for anything else."""
        units = sorted(("x", *UNITS[cost]), key=len, reverse=True)
        unit = next((u for u in units if text.endswith(u)), "")
        try:
            value = float(text.removesuffix(unit)) if unit in units else 0.0
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise UsageError(f"a {cost} limit is a ratio such as 1.3x or {EXAMPLES[cost]}, got {text!r}")
        return cls(cost, value, unit)

    @property
    def name(self) -> str:
        """Of the setting that holds it: ``max_latency``."""
        return f"max_{self.cost}"

    @property
    def flag(self) -> str:
        """Of the command line: ``--max-latency``."""
        return f"--max-{self.cost}"

    def excess(self, amount: float, ratio: float) -> float:
        """How far a cost is above the limit, as a part of the limit; zero or less is allowed.

        Args:
            amount: In the unit whose factor is 1: milliseconds, a number, bytes.
            ratio: To the plain host's.
        """
        return (ratio if self.unit == "x" else amount / UNITS[self.cost][self.unit]) / self.value - 1

    def describe(self, amount: float, ratio: float) -> str:
        """A cost as a message says it: ``latency 30.1 ms, 1.412x``; without an amount that is NaN."""
        return f"{self.cost} {'' if math.isnan(amount) else show_amount(self.cost, amount) + ', '}{ratio:.3f}x"

    def __str__(self) -> str:
        exact = int(self.value) if float(self.value).is_integer() else self.value
        return f"{exact}{self.unit}"


def show_amount(cost: str, amount: float) -> str:
    """An amount in the largest of the cost's decimal units that leaves at least 1, with four digits."""
    units = {unit: factor for unit, factor in UNITS[cost].items() if "i" not in unit}
    rounded = float(f"{amount:.4g}")
    unit = max((u for u in units if rounded >= units[u]), key=lambda u: units[u], default=min(units, key=lambda u: units[u]))
    value = rounded / units[unit]
    digits = f"{value:.4g}" if value < 1e4 else f"{value:.0f}"
    return f"{digits} {unit}" if cost in ("latency", "memory") else digits + unit


@dataclass(frozen=True)
class Cost:
    """What a placement costs: in its unit, and as a ratio to the plain host."""

    amount: float
    ratio: float


def evaluate(limits: Mapping[str, Limit], costs: Mapping[str, Cost]) -> dict[str, dict[str, Any]]:
    """What each limit says of a placement, as it is stored with a trial: by the limit's name the limit, amount, ratio and excess.

    Raises:
        KeyError: A limited cost is not given: a constraint that is not evaluated is an error.
    """
    return {
        limit.name: {
            "limit": str(limit),
            "amount": costs[cost].amount,
            "ratio": costs[cost].ratio,
            "excess": limit.excess(costs[cost].amount, costs[cost].ratio),
        }
        for cost, limit in limits.items()
    }


def violations(limits: Mapping[str, Limit], costs: Mapping[str, Cost]) -> list[str]:
    """A phrase for each limit that is exceeded: ``above --max-latency 1.3x: latency 30.1 ms, 1.412x``."""
    evaluated = evaluate(limits, costs)
    return [
        f"above {limit.flag} {limit}: {limit.describe(costs[cost].amount, costs[cost].ratio)}"
        for cost, limit in limits.items()
        if evaluated[limit.name]["excess"] > 0
    ]
