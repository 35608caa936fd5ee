"""Rank correlations of a few placements, in thousands of resamples at once.

A resample is a weight per placement (how often it was drawn), and tau-b of it a quadratic form of the weights: so thousands of
resamples are a few matrix products.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def resamples(n: int, draws: int, seed: int) -> Floats:
    """``(1 + draws, n)``: how often each of n placements is drawn. The first row is once each: the placements as they are."""
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), draws)
    return np.vstack([np.ones(n), drawn])


def kendall(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Kendall's tau-b of x and y, ``(n,)``, in each resample, ``(draws, n)``: ``(draws,)``, NaN where either has no differences."""
    sx, sy = _signs(x), _signs(y)
    pairs = [((weights @ s) * weights).sum(-1) for s in (sx * sy, np.abs(sx), np.abs(sy))]
    return _divide(pairs[0], np.sqrt(pairs[1] * pairs[2]))


def spearman(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Spearman's rho of x and y, ``(n,)``, in each resample, ``(draws, n)``: ``(draws,)``, NaN where either has no differences."""
    dx, dy = _centred_ranks(x, weights), _centred_ranks(y, weights)
    xy, xx, yy = ((weights * a * b).sum(-1) for a, b in ((dx, dy), (dx, dx), (dy, dy)))
    return _divide(xy, np.sqrt(xx * yy))


def partial(xy: Floats, xz: Floats, yz: Floats) -> Floats:
    """The partial correlation of x and y given z, from the three correlations; NaN where z orders x or y completely."""
    rest = (1 - xz**2) * (1 - yz**2)
    return _divide(xy - xz * yz, np.sqrt(np.where(rest > 1e-9, rest, 0.0)))


def top_half(y: Floats, weights: Floats) -> npt.NDArray[np.bool_]:
    """Which placements are in the upper half by y, ``(n,)``, of each resample, ``(draws, n)``; those that tie at its edge are in."""
    above = weights @ (y[:, None] > y[None, :])
    return np.asarray(above < weights.sum(-1, keepdims=True) / 2)


def seed_to_seed(runs: Floats, weights: Floats) -> Floats:
    """tau-b between two columns of ``(n, seeds)``, mean over their pairs, in each resample; over the placements that have both."""
    taus = []
    for a, b in itertools.combinations(runs.T, 2):
        both = np.isfinite(a) & np.isfinite(b)
        taus.append(kendall(a[both], b[both], weights[:, both]))
    stack = np.array(taus).reshape(-1, len(weights))
    known = ~np.isnan(stack)
    return _divide(np.where(known, stack, 0.0).sum(0), known.sum(0).astype(float))


def settled_order(runs: Floats) -> Floats:
    """``(n, n)``: 1 where every run of the first placement, ``(n, runs)``, is above every run of the second, -1 the other way, else 0.

    Of two equal placements with two runs each, one pair in three is settled by chance.
    """
    lowest, highest = np.nanmin(runs, 1), np.nanmax(runs, 1)
    above = (lowest[:, None] > highest[None, :]).astype(float)
    return np.asarray(above - above.T)


def rightly_ordered(x: Floats, order: Floats, weights: Floats) -> Floats:
    """Share of the pairs that *order* settles, ``(n, n)``, in which x agrees, in each resample: ``(draws,)``; ties in x count half, NaN in x ranks nothing."""
    if np.isnan(x).any():
        return np.full(len(weights), np.nan)
    agreeing, settled = (((weights @ s) * weights).sum(-1) for s in (order * _signs(x), np.abs(order)))
    return (1 + _divide(agreeing, settled)) / 2


def _signs(values: Floats) -> Floats:
    """``(n, n)``: 1 where the first is larger, -1 where the second is, 0 where they tie or either is NaN."""
    larger = (values[:, None] > values[None, :]).astype(float)
    return np.asarray(larger - larger.T)


def _centred_ranks(values: Floats, weights: Floats) -> Floats:
    """``(draws, n)``: each placement's rank in the resample, minus the mean rank; equal values share theirs."""
    return np.asarray(weights @ (_signs(values).T / 2))


def _divide(a: Floats, b: Floats) -> Floats:
    """a / b, NaN where b is 0."""
    return np.asarray(np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b > 0))
