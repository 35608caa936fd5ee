"""What each attention adds to the latency in each stage: from the table of stages, else told from placements measured whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nasattn.front import NORMAL_95
from nasattn.latency import LatencyTable, Ratio
from nasattn.report.choices import NONE, Choices
from nasattn.store import EvaluationRecord

LEAST_SD = 0.003  # of a whole placement's log ratio: equal models differ by about so much


@dataclass(frozen=True)
class Added:
    """Milliseconds that one attention adds in one stage, with their 95 % interval.

    Attributes:
        ms: How many.
        low: Lower end.
        high: Upper end.
        source: ``stage``: the stage was measured by itself; ``placements``: told from placements measured whole.
    """

    ms: float
    low: float
    high: float
    source: Literal["stage", "placements"]

    @property
    def sd(self) -> float:
        return (self.high - self.low) / (2 * NORMAL_95)


def added_latencies(choices: Choices, table: LatencyTable, trials: Sequence[EvaluationRecord]) -> dict[tuple[int, str], Added]:
    """By stage and token, as far as the table, or the *trials* that were measured end to end, tell it."""
    measured = [t for t in trials if t.latency and t.latency.method == "pair" and choices.point(t.placement) is not None]
    found = _from_placements(measured)
    for (number, token), entry in table.entries.items():
        if token != NONE and (number, NONE) in table.entries:
            share = table.entries[number, NONE]
            sd = math.hypot(share.ratio * entry.ratio * _log_sd(entry), share.ratio * (entry.ratio - 1) * _log_sd(share))
            ms, spread = table.added(number, token) * table.plain_ms, NORMAL_95 * sd * table.plain_ms
            found[number, token] = Added(ms, ms - spread, ms + spread, "stage")
    offered = {(n, t) for n, tokens in enumerate(choices.tokens, start=1) for t in tokens}
    return {key: found[key] for key in sorted(found) if key in offered}


def _from_placements(trials: Sequence[EvaluationRecord]) -> dict[tuple[int, str], Added]:
    """By linear regression of the added parts of the plain host's time on the tokens, with a wide prior about what a token adds."""
    keys = sorted({(n, t) for trial in trials for n, t in enumerate(trial.placement.split(","), start=1) if t != NONE})
    if not keys:
        return {}
    x = np.array([[trial.placement.split(",")[n - 1] == t for n, t in keys] for trial in trials], dtype=float)
    latencies = [t.latency for t in trials if t.latency]
    y = np.array([found.ratio - 1 for found in latencies])
    noise = np.array([(found.ratio * max(_log_sd(found), LEAST_SD)) ** 2 for found in latencies])
    prior = float(np.mean(y**2)) + 1e-6
    covariance = np.linalg.inv(x.T @ (x / noise[:, None]) + np.eye(len(keys)) / prior)
    mean, sd = covariance @ (x.T @ (y / noise)), np.sqrt(np.diag(covariance))
    plain = float(np.median([found.baseline_ms for found in latencies]))
    ends = zip(keys, plain * mean, plain * NORMAL_95 * sd, strict=True)
    return {key: Added(float(ms), float(ms - spread), float(ms + spread), "placements") for key, ms, spread in ends}


def _log_sd(ratio: Ratio) -> float:
    return math.log(ratio.ratio_high / ratio.ratio_low) / (2 * NORMAL_95)
