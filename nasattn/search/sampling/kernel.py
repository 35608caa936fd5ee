"""How alike two points are: the covariances that the model of accuracy is a sum of.

The prior is hierarchical. Tokens of one form (sge with 16 groups and with 32) share what the form is worth in a slot, options
of equal value share what they add, and forms share across slots what they are worth anywhere. Over slots the covariances are
of first order (additive), of second (pairs) and of all orders, as in additive Gaussian processes (arXiv 1112.4394).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nasattn.search.sampling.domain import Domain, Ints

Floats = npt.NDArray[np.float64]
TERMS = ("main", "pair", "all", "count", "kinds", "cost")
FORM, OPTION = 0.6, 0.25  # of the variance of a token's worth: shared with its form, with equal options; the rest is its own
ALL_RANGE = 1 / 3  # share of the slots over which the covariance of all orders falls to 1/e
KINDS_RANGE = 0.25  # distance of mean features over which points stop being of a kind
COST_RANGE = 0.5  # standard deviations of the cost over which accuracy is alike


@dataclass(frozen=True)
class Kernel:
    """The covariances over the points of a domain."""

    domain: Domain

    @cached_property
    def tables(self) -> list[Floats]:
        """For each slot the covariance of its tokens, ``(t, t)``, of variance 1."""
        tables = []
        for slot in self.domain.slots:
            forms = [t.form for t in slot.tokens]
            same = np.array([[a == b for b in forms] for a in forms], dtype=float)
            alike = np.array([[_alike(dict(a.options), dict(b.options)) for b in slot.tokens] for a in slot.tokens])
            tables.append(FORM * same + OPTION * same * alike + (1 - FORM - OPTION) * np.eye(len(forms)))
        return tables

    @cached_property
    def features(self) -> list[Floats]:
        """For each slot what its tokens are, whatever the slot: ``(t, f)``, rows of length 1."""
        names: dict[object, int] = {}
        for slot in self.domain.slots:
            for token in slot.tokens:
                for key in (("form", token.form), *((token.form, *o) for o in token.options)):
                    names.setdefault(key, len(names))
        features = []
        for slot in self.domain.slots:
            rows = np.zeros((len(slot.tokens), len(names)))
            for row, token in zip(rows, slot.tokens, strict=True):
                row[names["form", token.form]] = np.sqrt(FORM + OPTION if token.options else 1.0)
                for option in token.options:
                    row[names[(token.form, *option)]] = np.sqrt((1 - FORM - OPTION) / len(token.options))
            features.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        return features

    def counts(self, points: Ints) -> Floats:
        """The mean features of *points* over their slots: ``(n, f)``."""
        return np.asarray(sum(f[points[:, s]] for s, f in enumerate(self.features)) / points.shape[1])

    def terms(self, a: Ints, b: Ints, cost_a: Floats | None = None, cost_b: Floats | None = None) -> dict[str, Floats]:
        """The covariances of points *a* ``(m, d)`` and *b* ``(n, d)`` by term, each ``(m, n)``.

        Args:
            a: Points.
            b: Points.
            cost_a: Their standardised costs, ``(m,)``; None: the term ``cost`` is left out.
            cost_b: The same of *b*.
        """
        d = a.shape[1]
        first, second, alike = np.zeros((3, len(a), len(b)))
        for s, table in enumerate(self.tables):
            np.take(table[:, b[:, s]], a[:, s], axis=0, out=alike)  # whole rows, which is fast
            first += alike
            second += np.square(alike, out=alike)
        counts_a, counts_b = self.counts(a), self.counts(b)
        product = counts_a @ counts_b.T
        kinds = product * (2 / (2 * KINDS_RANGE**2))
        kinds -= (counts_a**2).sum(1)[:, None] / (2 * KINDS_RANGE**2)
        kinds -= (counts_b**2).sum(1) / (2 * KINDS_RANGE**2)
        every = (first - d) * (1 / (d * ALL_RANGE))
        pair = np.subtract(np.square(first, out=alike), second, out=second)
        pair /= max(d * (d - 1), 1)
        first /= d
        found = {"main": first, "pair": pair, "all": np.exp(every, out=every), "count": product, "kinds": np.exp(kinds, out=kinds)}
        if cost_a is not None and cost_b is not None:
            cost = np.subtract(cost_a[:, None], cost_b)
            np.square(cost, out=cost)
            cost *= -1 / (2 * COST_RANGE**2)
            found["cost"] = np.exp(cost, out=cost)
        return found

    def diagonal(self, points: Ints, with_cost: bool) -> dict[str, Floats]:
        """The variances of *points* by term, each ``(n,)``."""
        ones, counts = np.ones(len(points)), self.counts(points)
        found = {"main": ones, "pair": ones if points.shape[1] > 1 else 0 * ones, "all": ones, "count": (counts**2).sum(1), "kinds": ones}
        return found | ({"cost": ones} if with_cost else {})


def _alike(a: Mapping[str, object], b: Mapping[str, object]) -> float:
    """How alike options are, 0 to 1: 1 where all are equal, numbers the more the nearer their ratio is to 1."""
    names = {*a, *b}
    return float(np.mean([_alike_values(a.get(n), b.get(n)) for n in names])) if names else 1.0


def _alike_values(a: object, b: object) -> float:
    if a == b:
        return 1.0
    if isinstance(a, bool) or isinstance(b, bool) or not isinstance(a, (int, float)) or not isinstance(b, (int, float)) or min(a, b) <= 0:
        return 0.0
    return float(np.exp(-abs(np.log(a / b)) / np.log(2)))  # 1/e for each doubling
