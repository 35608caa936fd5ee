"""Which attention, where: what each adds to accuracy in each stage, by a Bayesian model of a study's trials, beside what it adds to latency.

The model is the samplers' (see :mod:`nasattn.search.sampling.kernel`): a Gaussian process over placements, additive in the stages
with pair and higher terms, in which tokens of a kind share what they are worth. An effect is the mean difference between a
token and ``none`` in one stage over the other choices of the placements that the study completed; as a linear functional of the
process it has a posterior mean and standard deviation of its own. The interval holds for the weights that fit best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from nasattn.front import NORMAL_95
from nasattn.report.added import Added
from nasattn.report.choices import NONE, Choices
from nasattn.search.sampling.domain import Ints
from nasattn.search.sampling.kernel import Kernel
from nasattn.search.sampling.model import Floats, Posterior, Weights, fit_weights
from nasattn.store import EvaluationRecord

FEWEST = 4  # different placements; with fewer there is nothing to compare
CONTEXTS = 64  # placements whose other choices an effect is averaged over
MOST = 600  # trials that the model keeps
DRAWS = 4000  # of gain and latency, for their ratio


@dataclass(frozen=True)
class Effect:
    """What one token does in one stage, against ``none`` there.

    Attributes:
        stage: From 1.
        token: The attention.
        trials: Completed trials that had it there.
        gain: Accuracy added, in points (0..100), averaged over the other choices of the placements that the study completed.
        gain_low: Lower end of its 95 % interval.
        gain_high: Upper end.
        alone: The same in a host that is plain otherwise.
        alone_low: Lower end.
        alone_high: Upper end.
        tried_alone: The trial that trained it in a host that is plain otherwise; None where none did.
        added: What it adds to latency; None where that is not known.
        per_ms: Points of accuracy per added millisecond; None where the latency is not known or cannot be told from zero.
        per_ms_low: Lower end.
        per_ms_high: Upper end.
    """

    stage: int
    token: str
    trials: int
    gain: float
    gain_low: float
    gain_high: float
    alone: float
    alone_low: float
    alone_high: float
    tried_alone: int | None
    added: Added | None
    per_ms: float | None = None
    per_ms_low: float | None = None
    per_ms_high: float | None = None

    @property
    def clear(self) -> bool:
        """Whether the interval of the gain lies on one side of zero."""
        return self.gain_low > 0 or self.gain_high < 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the latency's figures among the others."""
        added = {f"added_{k}": v for k, v in asdict(self.added).items()} if self.added else dict.fromkeys(ADDED_FIELDS)
        return {k: v for k, v in asdict(self).items() if k != "added"} | added


ADDED_FIELDS = ("added_ms", "added_low", "added_high", "added_source")


@dataclass(frozen=True)
class AccuracyModel:
    """Accuracy of any placement of a grid, in points, as a study's trials tell it.

    Attributes:
        kernel: Over the grid.
        points: Of the trials, ``(n, d)``.
        mean: Of their accuracies, in points.
        sd: Of the same.
        posterior: Of standardised accuracies.
    """

    kernel: Kernel
    points: Ints
    mean: float
    sd: float
    posterior: Posterior

    @classmethod
    def fit(cls, choices: Choices, trials: Sequence[EvaluationRecord]) -> AccuracyModel | None:
        """Learn from completed *trials*; None where fewer than four different placements, or only equal accuracies, are among them."""
        found = [(p, 100 * t.accuracy) for t in trials if t.accuracy is not None and (p := choices.point(t.placement)) is not None]
        if len({p for p, _ in found}) < FEWEST or len({a for _, a in found}) < 2:
            return None
        rng = np.random.default_rng(0)
        if len(found) > MOST:
            found = [found[i] for i in np.sort(rng.choice(len(found), MOST, replace=False))]
        points, accuracy = np.array([p for p, _ in found], dtype=np.int64), np.array([a for _, a in found])
        kernel = Kernel(choices.domain)
        mean, sd = float(accuracy.mean()), float(accuracy.std())
        values, terms, none = (accuracy - mean) / sd, kernel.terms(points, points), np.zeros(len(points))
        weights = fit_weights(terms, values, none, Weights.prior(terms), rng)
        return cls(kernel, points, mean, sd, Posterior.of(terms, values, none, weights))

    def difference(self, a: Ints, b: Ints) -> tuple[float, float]:
        """Mean and standard deviation, in points, of the mean accuracy of *a* ``(m, d)`` minus that of *b*."""
        weights, both = self.posterior.weights, np.vstack([a, b])
        sign = np.concatenate([np.full(len(a), 1 / len(a)), np.full(len(b), -1 / len(b))])
        to_seen = sign @ weights.covariance(self.kernel.terms(both, self.points))
        projected = solve_triangular(self.posterior.lower, to_seen, lower=True, check_finite=False)
        variance = sign @ weights.covariance(self.kernel.terms(both, both)) @ sign - projected @ projected
        return self.sd * float(projected @ self.posterior.white), self.sd * float(np.sqrt(max(variance, 0.0)))

    def draws(self, points: Ints, rng: np.random.Generator) -> Floats:
        """What trainings of *points* ``(m, d)`` might give, in points: one joint draw ``(m,)``, noise included, from 0 to 100."""
        weights = self.posterior.weights
        to_seen = weights.covariance(self.kernel.terms(points, self.points))
        projected = solve_triangular(self.posterior.lower, to_seen.T, lower=True, check_finite=False)
        covariance = weights.covariance(self.kernel.terms(points, points)) - projected.T @ projected
        covariance[np.diag_indices(len(points))] += weights.noise + 1e-6
        drawn = projected.T @ self.posterior.white + cholesky(covariance, lower=True) @ rng.standard_normal(len(points))
        return np.asarray(np.clip(self.mean + self.sd * drawn, 0.0, 100.0))


def effects(
    choices: Choices, trials: Sequence[EvaluationRecord], model: AccuracyModel | None, added: Mapping[tuple[int, str], Added]
) -> list[Effect]:
    """Every token in every stage that offers it, by *model* and what each adds to latency (see :func:`nasattn.report.added.added_latencies`).

    Args:
        choices: The grid.
        trials: The study's completed ones.
        model: Of their accuracy; None gives no effects.
        added: By stage and token.
    """
    if model is None:
        return []
    seen = np.unique(model.points, axis=0)
    rng = np.random.default_rng(0)
    contexts = seen if len(seen) <= CONTEXTS else seen[np.sort(rng.choice(len(seen), CONTEXTS, replace=False))]
    plain = np.zeros((1, seen.shape[1]), dtype=np.int64)
    found = []
    for number, tokens in enumerate(choices.tokens, start=1):
        for index, token in enumerate(tokens):
            if token == NONE:
                continue
            average = model.difference(_with(contexts, number, index), _with(contexts, number, 0))
            alone = model.difference(_with(plain, number, index), plain)
            having = [t for t in trials if t.placement.split(",")[number - 1] == token]
            single = next((t.trial for t in having if sum(a != NONE for a in t.placement.split(",")) == 1), None)
            known = added.get((number, token))
            ratio = per_ms(average, known) if known else (None, None, None)
            found.append(Effect(number, token, len(having), *_interval(average), *_interval(alone), single, known, *ratio))
    return found


def _with(points: Ints, stage: int, index: int) -> Ints:
    changed = points.copy()
    changed[:, stage - 1] = index
    return changed


def _interval(found: tuple[float, float]) -> tuple[float, float, float]:
    mean, sd = found
    return mean, mean - NORMAL_95 * sd, mean + NORMAL_95 * sd


def per_ms(gain: tuple[float, float], added: Added) -> tuple[float | None, float | None, float | None]:
    """Their ratio with its 95 % interval, by draws from both; nothing where the latency's interval holds zero, around which a ratio is anything."""
    if added.low <= 0:
        return None, None, None
    rng = np.random.default_rng(0)
    gains = gain[0] + gain[1] * rng.standard_normal(DRAWS)
    ms = added.ms + added.sd * rng.standard_normal(DRAWS)
    low, high = np.percentile(gains / np.maximum(ms, 0.01 * added.ms), [2.5, 97.5])
    return gain[0] / added.ms, float(low), float(high)
