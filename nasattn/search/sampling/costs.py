"""The cost of points: asked for where somebody knows it, else learnt as a sum over the slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nasattn.search.sampling.domain import Domain, Ints, Point
from nasattn.search.sampling.kernel import Kernel

Floats = npt.NDArray[np.float64]
Cost = Callable[[dict[str, Any]], float | None]  # parameters -> cost; None where it is not known, inf where it is not allowed
RIDGE = 1e-3  # against weights of variance 1, of standardised costs
ANCHORS = 100  # points whose known costs the sum is learnt from at the start


@dataclass(frozen=True)
class CostModel:
    """Cost, or its logarithm, as a sum over the slots: what latency is, up to a few percent.

    Attributes:
        tables: For each slot what its tokens add, ``(t,)``.
        constant: The rest.
        logarithmic: The sum is of the logarithm.
    """

    tables: Sequence[Floats]
    constant: float
    logarithmic: bool

    @classmethod
    def fit(cls, kernel: Kernel, points: Ints, costs: Floats) -> CostModel:
        """Learn from *points* ``(n, d)`` and their *costs* ``(n,)``, on that scale which predicts better what is left out."""
        scales = [False, True] if costs.min() > 0 else [False]
        fits = [cls._fit(kernel, points, costs, logarithmic) for logarithmic in scales]
        return min(fits, key=lambda f: f[0])[1]

    @classmethod
    def _fit(cls, kernel: Kernel, points: Ints, costs: Floats, logarithmic: bool) -> tuple[float, CostModel]:
        y = np.log(costs) if logarithmic else costs
        mean, sd = float(y.mean()), float(y.std()) or 1.0
        own = [np.linalg.cholesky(t + 1e-9 * np.eye(len(t))) for t in kernel.tables]
        phi = np.hstack([*(o[points[:, s]] for s, o in enumerate(own)), kernel.counts(points)])
        inverse = np.linalg.inv(phi.T @ phi + RIDGE * np.eye(phi.shape[1]))
        weights = inverse @ phi.T @ ((y - mean) / sd)
        leverage = np.minimum(((phi @ inverse) * phi).sum(1), 0.999)
        residual = ((y - mean) / sd - phi @ weights) / (1 - leverage)
        left_out = y - residual * sd
        error = float(np.median(np.abs((np.exp(left_out) if logarithmic else left_out) - costs)))
        ends = np.cumsum([o.shape[1] for o in own])
        shared = weights[ends[-1] :] / len(own)
        tables = [sd * (o @ weights[e - o.shape[1] : e] + f @ shared) for o, e, f in zip(own, ends, kernel.features, strict=True)]
        return error, cls(tables, mean, logarithmic)

    def predict(self, points: Ints) -> Floats:
        """Costs of *points*, ``(n,)``."""
        total = self.constant + np.sum([t[points[:, s]] for s, t in enumerate(self.tables)], axis=0)
        return np.asarray(np.exp(total) if self.logarithmic else total)


class KnownCosts:
    """Costs that somebody knows before a point is evaluated, each asked for once.

    Args:
        cost: Says them.
        domain: Of the points.
    """

    def __init__(self, cost: Cost, domain: Domain) -> None:
        self.cost, self.domain = cost, domain
        self._found: dict[Point, float | None] = {}
        self._anchors: list[Point] = []

    def of(self, point: Point) -> float | None:
        """The cost of *point*; None where it is not known, inf where the point is not allowed."""
        if self._found.get(point) is None:  # what was not known may be by now
            self._found[point] = self.cost(self.domain.params(point))
        return self._found[point]

    def anchors(self, seed: int) -> tuple[Ints, Floats]:
        """Points and their finite costs, from which a sum can be learnt: single changes of the baseline, or random points."""
        if not self._anchors:
            base = self.domain.baseline
            drawn = self.domain.draw(np.random.default_rng(seed), ANCHORS)
            self._anchors = [tuple(p) for p in drawn.tolist()] if base is None else [base, *self.domain.neighbours(base)][: 4 * ANCHORS]
        unknown = [p for p in self._anchors if self._found.get(p) is None]
        if unknown and self.of(unknown[0]) is not None:  # else the others are hardly known either, and asking takes time
            for point in unknown[1:]:
                self.of(point)
        known = [(p, c) for p in self._anchors if (c := self._found.get(p)) is not None and np.isfinite(c)]
        return np.array([p for p, _ in known], dtype=np.int64).reshape(-1, len(self.domain.slots)), np.array([c for _, c in known])
