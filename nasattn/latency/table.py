"""The additive table: what each attention adds to each stage of a host, and the latency of a placement predicted from it.

Every entry is a paired ratio, so the speed of the machine at the moment of its measurement drops out: a stage's share of
the plain host, s, and the stage with an attention against the plain stage, r. A placement's ratio is then
``1 + sum over stages of s (r - 1)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nasattn.attention import Placement

NORMAL_95 = 1.96
NONE = "none"


class Ratio(Protocol):
    """A measured ratio with its 95 % interval; a PairedLatency is one, and so is what the store keeps of it."""

    @property
    def ms(self) -> float:
        """Milliseconds of the candidate."""

    @property
    def baseline_ms(self) -> float:
        """Milliseconds of the baseline."""

    @property
    def ratio(self) -> float:
        """Candidate / baseline."""

    @property
    def ratio_low(self) -> float:
        """Lower end."""

    @property
    def ratio_high(self) -> float:
        """Upper end."""


@dataclass(frozen=True)
class TableError:
    """How far a table's predictions are from placements measured end to end, which the table has not seen.

    Attributes:
        placements: How many were measured.
        median: Of the relative errors' absolute values.
        worst: The greatest.
        kendall: Rank correlation, tau-b, of prediction and measurement; None for fewer than three placements.
    """

    placements: int
    median: float
    worst: float
    kendall: float | None

    def __str__(self) -> str:
        rank = f", Kendall tau {self.kendall:.2f}" if self.kendall is not None else ""
        return f"median {self.median:.1%}, worst {self.worst:.1%}{rank} over {self.placements} placements measured end to end"


@dataclass(frozen=True)
class Prediction:
    """A predicted latency: milliseconds, and the ratio to the plain host with its 95 % interval."""

    ms: float
    baseline_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float


@dataclass(frozen=True)
class LatencyTable:
    """The measured entries of one host on one device key.

    Attributes:
        entries: By stage number, from 1, and token; ``none`` holds the plain stage against the plain host, its share.
        error: Standard deviation of the log error that placements measured end to end showed; 0 where none was.
    """

    entries: Mapping[tuple[int, str], Ratio]
    error: float = 0.0

    def missing(self, placement: Placement) -> list[tuple[int, str]]:
        """The entries that a prediction of *placement* lacks, shares of stages first."""
        needed = [(n, str(a)) for n, a in enumerate(placement, start=1) if str(a) != NONE]
        shares = [(n, NONE) for n, _ in needed] or [(1, NONE)]
        return [key for key in (*shares, *needed) if key not in self.entries]

    def share(self, stage: int) -> float:
        """The part of the plain host's time that its stage number *stage* takes."""
        return self.entries[stage, NONE].ratio

    def added(self, stage: int, token: str) -> float:
        """What *token* adds in a stage, as a part of the plain host's latency."""
        return 0.0 if token == NONE else self.share(stage) * (self.entries[stage, token].ratio - 1)

    @property
    def plain_ms(self) -> float:
        """Milliseconds of the plain host: the median over the measurements that it took part in."""
        return float(np.median([e.baseline_ms for (_, token), e in self.entries.items() if token == NONE]))

    def predict(self, placement: Placement) -> Prediction:
        """The latency of *placement*. Its interval holds the entries' own and the table's error.

        Raises:
            KeyError: An entry is missing (see :meth:`missing`).
        """
        stages = [(n, str(a)) for n, a in enumerate(placement, start=1) if str(a) != NONE]
        ratio = 1 + sum(self.added(*stage) for stage in stages)
        variance = 0.0
        for number, token in stages:
            share, entry = self.entries[number, NONE], self.entries[number, token]
            variance += (share.ratio * entry.ratio * _log_sd(entry)) ** 2
            variance += (share.ratio * (entry.ratio - 1) * _log_sd(share)) ** 2
        spread = NORMAL_95 * math.sqrt(variance / ratio**2 + (self.error**2 if stages else 0.0))
        return Prediction(self.plain_ms * ratio, self.plain_ms, ratio, ratio * math.exp(-spread), ratio * math.exp(spread))

    def compare(self, measured: Iterable[tuple[Placement, Ratio]]) -> tuple[TableError | None, float]:
        """The error against placements *measured* end to end, and its standard deviation in logs (about zero).

        Placements that the table cannot predict, and the plain host, do not count. None, 0 where nothing counts.
        """
        pairs = [(p, m) for p, m in measured if not p.is_plain and not self.missing(p)]
        if not pairs:
            return None, 0.0
        predicted, true = [self.predict(p).ratio for p, _ in pairs], [m.ratio for _, m in pairs]
        errors = np.log(np.array(predicted) / np.array(true))
        relative = np.abs(np.expm1(errors))
        tau = _kendall(predicted, true)
        return TableError(len(pairs), float(np.median(relative)), float(relative.max()), tau), float(np.sqrt(np.mean(errors**2)))


def _log_sd(ratio: Ratio) -> float:
    return math.log(ratio.ratio_high / ratio.ratio_low) / (2 * NORMAL_95)


def _kendall(a: Sequence[float], b: Sequence[float]) -> float | None:
    if len(a) < 3:
        return None
    from scipy.stats import kendalltau  # late: its import is a second of every worker's start

    tau = float(kendalltau(a, b).statistic)
    return None if math.isnan(tau) else tau
