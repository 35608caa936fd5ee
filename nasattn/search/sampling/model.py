"""The Bayesian model of accuracy: a Gaussian process over points with the kernel's terms, weights by empirical Bayes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve_triangular

Floats = npt.NDArray[np.float64]
MEAN_VARIANCE = 1.0  # of the unknown mean of standardised values
NOISE = 0.03  # variance of an observation where nothing is known of it
WEIGHT_SPREAD, NOISE_SPREAD = 2.0, 1.5  # standard deviations of the prior of log weights and of log noise
FIT_POINTS = 160  # observations that weights are fitted to
SWEEPS = 6  # with 3 the weights are not there yet, which costs one or two points of the hypervolume on NAS-Bench-201
JITTER = 1e-6


@dataclass(frozen=True)
class Weights:
    """Variances: of each term of the kernel, and of an observation's noise."""

    terms: Mapping[str, float]
    noise: float

    @classmethod
    def prior(cls, terms: Mapping[str, Floats]) -> Weights:
        return cls(dict.fromkeys(terms, 1.0), NOISE)

    def covariance(self, terms: Mapping[str, Floats]) -> Floats:
        """The sum of *terms* and of the mean's variance."""
        total = np.full_like(terms[next(iter(self.terms))], MEAN_VARIANCE)
        for name, weight in self.terms.items():
            total += weight * terms[name]
        return total


def fit_weights(terms: Mapping[str, Floats], values: Floats, extra: Floats, start: Weights, rng: np.random.Generator) -> Weights:
    """The weights of the greatest posterior density, by a coordinate search from *start*.

    Args:
        terms: Covariances of the observed points, each ``(n, n)``.
        values: Standardised observations, ``(n,)``.
        extra: Variances that single observations have beside the noise, ``(n,)``.
        start: Where the search begins.
        rng: Draws the observations, where there are many.
    """
    if len(values) > FIT_POINTS:
        chosen = rng.choice(len(values), FIT_POINTS, replace=False)
        terms = {n: t[np.ix_(chosen, chosen)] for n, t in terms.items()}
        values, extra = values[chosen], extra[chosen]
    names = list(terms)
    centre = np.array([0.0] * len(names) + [np.log(NOISE)])
    spread = np.array([WEIGHT_SPREAD] * len(names) + [NOISE_SPREAD])
    stack = np.array([terms[n] for n in names]).reshape(len(names), -1)
    n = len(values)

    def loss(log_weights: Floats) -> float:
        covariance = (np.exp(log_weights[:-1]) @ stack).reshape(n, n) + MEAN_VARIANCE
        covariance[np.diag_indices(n)] += np.exp(log_weights[-1]) + JITTER + extra
        try:
            lower = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError:
            return np.inf
        white = solve_triangular(lower, values, lower=True, check_finite=False)
        prior = 0.5 * float((((log_weights - centre) / spread) ** 2).sum())
        return float(0.5 * white @ white + np.log(np.diag(lower)).sum()) + prior

    best = np.log([*(start.terms.get(name, 1.0) for name in names), start.noise])
    least, steps = loss(best), np.ones(len(best))
    for _ in range(SWEEPS):
        for i in range(len(best)):
            for sign in (1, -1):
                tried = best.copy()
                tried[i] += sign * steps[i]
                if (found := loss(tried)) < least:
                    best, least = tried, found
                    steps[i] *= 1.5
                    break
            else:
                steps[i] /= 2
    fitted = np.exp(best).tolist()
    return Weights(dict(zip(names, fitted[:-1], strict=True)), fitted[-1])


@dataclass(frozen=True)
class Posterior:
    """What observations say of all points.

    Attributes:
        weights: Of the terms.
        lower: Cholesky factor of the observations' covariance, ``(n, n)``.
        white: The observations in its coordinates, ``(n,)``.
    """

    weights: Weights
    lower: Floats
    white: Floats

    @classmethod
    def of(cls, terms: Mapping[str, Floats], values: Floats, extra: Floats, weights: Weights) -> Posterior:
        """Condition on *values* ``(n,)`` of points with these *terms*, each with its *extra* variance beside the noise."""
        covariance = weights.covariance(terms)
        covariance[np.diag_indices(len(values))] += weights.noise + JITTER + extra
        lower = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
        return cls(weights, lower, solve_triangular(lower, values, lower=True, check_finite=False))

    def mean(self, terms: Mapping[str, Floats]) -> Floats:
        """Means of points whose covariances with the observed are *terms*, each ``(m, n)``: ``(m,)``."""
        whitened = solve_triangular(self.lower, self.white, lower=True, trans=1, check_finite=False)
        return np.asarray(self.weights.covariance(terms) @ whitened)

    def mean_and_sd(self, terms: Mapping[str, Floats], diagonal: Mapping[str, Floats]) -> tuple[Floats, Floats]:
        """Means and standard deviations of points, each ``(m,)``, given *terms* ``(m, n)`` and their own variances ``(m,)``."""
        projected = solve_triangular(self.lower, self.weights.covariance(terms).T, lower=True, check_finite=False)
        variance = self.weights.covariance(diagonal) - (projected**2).sum(0)
        return np.asarray(projected.T @ self.white), np.sqrt(np.maximum(variance, 1e-9))
