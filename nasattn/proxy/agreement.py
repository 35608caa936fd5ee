"""How far a proxy can be trusted: does it rank placements as a much longer training does, and better than what is merely counted?

A proxy that ranks no better than the number of parameters is worth no training, and a correlation over some twenty placements is a
rough figure: so every figure stands beside those of the counted predictors, and beside its interval.

* Kendall's tau-b and Spearman's rho, ties as usual; and because accuracy and latency rise together and a proxy should know more than
  the latency does, the partial Spearman correlation given latency (Kim 2015, "ppcor", doi 10.5351/CSAM.2015.22.6.665). Kendall's
  partial tau would not do: of normal variables that have in common only their correlation of 0.7 with the latency it is 0.11, the
  partial Spearman 0.01.
* Intervals: percentile bootstrap over placements, 95 %. Seeds are not resampled within a placement: a placement that is drawn carries
  the noise of its seeds already (Davison & Hinkley 1997, "Bootstrap methods and their application", section 3.8). Simulated with 16 to
  24 placements and 2 seeds, such intervals of tau covered the truth in 95 to 98 % of cases; with seeds resampled too they were 3 to
  13 % wider, covered 97 to 100 %, and lay up to 0.03 too low.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from nasattn.errors import UsageError
from nasattn.front import SLOWER, hypervolume, non_dominated
from nasattn.proxy.ranks import Floats, kendall, partial, resamples, rightly_ordered, seed_to_seed, settled_order, spearman, top_half

DRAWS = 2000
FEWEST = 4  # placements; three have but six orders
DIGITS = 9  # of an accuracy: means that differ by rounding alone are ties
CHANCE = "chance"
PROXY = "proxy"


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; None where it is not defined (a predictor without differences ranks nothing)."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class PredictorAgreement:
    """How one predictor ranks the placements, where more is taken for better.

    Attributes:
        name: ``proxy``, ``params``, ...
        tau: Kendall's tau-b with the mean accuracy of the long runs, -1..1.
        spearman: Spearman's rho with it, -1..1.
        top_half: tau-b within the half of the placements that the long runs found the most accurate.
        partial: Partial Spearman correlation given the latency ratio, -1..1; undefined for the latency itself.
        margin: The proxy's tau minus this predictor's, paired; undefined for the proxy.
        regret: Long-run accuracy of the best placement minus that of the predictor's first choice, 0..1 (mean over first choices that tie).
        hypervolume: Share of the true front's hypervolume that the front by (predictor, latency) keeps, 0..1.
        chosen: Number of placements on that front; one that chooses all keeps all.
        settled: Of the pairs that the long runs settle (every run of one above every run of the other), the share that it orders
            rightly, 0..1: what a ranking can be asked for where many placements are equally good.
    """

    name: str
    tau: Estimate
    spearman: Estimate
    top_half: Estimate
    partial: Estimate
    margin: Estimate
    regret: float | None
    hypervolume: float | None
    chosen: int | None
    settled: Estimate = field(default_factory=Estimate)


@dataclass(frozen=True)
class Point:
    """One placement: its proxy accuracy and its long runs' (None: failed), 0..1, and its latency ratio."""

    placement: str
    proxy: float
    long_runs: tuple[float | None, ...]
    latency_ratio: float

    @property
    def long_run(self) -> float:
        """Mean over the seeds that did not fail."""
        return float(np.mean([v for v in self.long_runs if v is not None]))


@dataclass(frozen=True)
class Agreement:
    """What :func:`agree` found.

    Attributes:
        points: The placements compared.
        dropped: Number of those left out, without any finite long run, proxy accuracy or latency.
        seeds: Long runs of each placement.
        draws: Resamples behind each interval.
        reference: Of the hypervolumes: the lowest long-run accuracy, and 1.05 times the slowest placement's latency ratio.
        proxy: The proxy.
        others: The counted predictors, in the order given.
        ceiling: tau-b of one seed's long runs with another's, mean over the pairs of seeds: as far as one long run can be trusted.
        no_better_than: Predictors (or ``chance``: a tau of 0) whose tau the proxy's does not exceed, or not beyond the paired interval.
        stronger_reversed: Predictors that would rank better than the proxy if less of them were taken for better.
        settled_pairs: Number of pairs of placements that the long runs settle, of n (n - 1) / 2.
    """

    points: tuple[Point, ...]
    dropped: int
    seeds: int
    draws: int
    reference: tuple[float, float]
    proxy: PredictorAgreement
    others: tuple[PredictorAgreement, ...]
    ceiling: Estimate
    no_better_than: tuple[str, ...]
    stronger_reversed: tuple[str, ...]
    settled_pairs: int = 0

    @property
    def better(self) -> bool:
        """Whether the proxy ranks better than every counted predictor, and than chance."""
        return not self.no_better_than

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without NaN."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Agreement:
        """The inverse of :meth:`to_dict`, also after JSON has made lists of its tuples."""
        return cls(
            points=tuple(Point(**{**p, "long_runs": tuple(p["long_runs"])}) for p in values["points"]),
            dropped=values["dropped"],
            seeds=values["seeds"],
            draws=values["draws"],
            reference=(values["reference"][0], values["reference"][1]),
            proxy=_predictor(values["proxy"]),
            others=tuple(map(_predictor, values["others"])),
            ceiling=Estimate(**values["ceiling"]),
            no_better_than=tuple(values["no_better_than"]),
            stronger_reversed=tuple(values["stronger_reversed"]),
            settled_pairs=values["settled_pairs"],
        )


def _predictor(values: Mapping[str, Any]) -> PredictorAgreement:
    fields: dict[str, Any] = {k: Estimate(**v) if isinstance(v, Mapping) else v for k, v in values.items()}
    return PredictorAgreement(**fields)


def agree(
    placements: Sequence[str],
    proxy: Floats,
    long_run: Floats,
    latency: Floats,
    others: Mapping[str, Floats],
    draws: int = DRAWS,
    seed: int = 0,
) -> Agreement:
    """Compare a proxy's ranking of n placements, and that of other predictors, with the ranking by long runs.

    Args:
        placements: n names.
        proxy: ``(n,)``, the accuracy that the proxy gave, 0..1.
        long_run: ``(n, seeds)``, the accuracy after the long training, 0..1; NaN for a run that failed.
        latency: ``(n,)``, ratio to the plain host.
        others: By name ``(n,)``: params, MACs, latency, zero-cost scores. One that holds a NaN, or one value only, ranks nothing.
        draws: Resamples for the intervals.
        seed: Of the resamples.

    Raises:
        UsageError: Fewer than 4 placements have a long run, a proxy accuracy and a latency.
    """
    every = {PROXY: proxy, **others}
    if PROXY in others or long_run.ndim != 2 or any(v.shape != (len(placements),) for v in (latency, long_run[:, 0], *every.values())):
        raise ValueError(
            f"expected {len(placements)} values of each predictor, (placements, seeds) long runs, and no other called {PROXY!r}"
        )
    used = np.isfinite(long_run).any(1) & np.isfinite(proxy) & np.isfinite(latency)
    if used.sum() < FEWEST:
        raise UsageError(
            f"{used.sum()} of {len(placements)} placements have a long run, a proxy accuracy and a latency; "
            f"at least {FEWEST} are needed to compare rankings: train more placements"
        )
    runs, ratio = np.where(np.isfinite(long_run), long_run, np.nan)[used], latency[used]
    truth: Floats = np.asarray(np.nanmean(runs, 1)).round(DIGITS)
    weights = resamples(len(truth), draws, seed)
    reference = (float(truth.min()), float(SLOWER * ratio.max()))
    proxy_tau, order = kendall(_rankable(proxy[used]), truth, weights), settled_order(runs.round(DIGITS))
    found = [_compare(name, _rankable(v[used]), truth, ratio, weights, reference, proxy_tau, order) for name, v in every.items()]
    return Agreement(
        points=tuple(
            Point(placements[i], float(proxy[i]), tuple(float(v) if np.isfinite(v) else None for v in long_run[i]), float(latency[i]))
            for i in map(int, np.flatnonzero(used))
        ),
        dropped=int((~used).sum()),
        seeds=runs.shape[1],
        draws=draws,
        reference=reference,
        proxy=found[0],
        others=tuple(found[1:]),
        ceiling=estimate(seed_to_seed(runs, weights)),
        no_better_than=_no_better_than(found[0], found[1:]),
        stronger_reversed=tuple(f.name for f in found[1:] if -(f.tau.value or 0.0) > max(0.0, found[0].tau.value or 0.0)),
        settled_pairs=int(np.abs(order).sum()) // 2,
    )


def gained(one: Agreement, other: Agreement, seed: int = 0) -> Estimate:
    """How far the tau of *one* proxy is above that of *other*, over the placements of both, with a paired interval."""
    theirs = {p.placement: p.proxy for p in other.points}
    points = [p for p in one.points if p.placement in theirs]
    if len(points) < FEWEST:
        return Estimate()
    truth = np.array([p.long_run for p in points]).round(DIGITS)
    weights = resamples(len(points), one.draws, seed)
    ranked = (np.array(v) for v in ([p.proxy for p in points], [theirs[p.placement] for p in points]))
    mine, against = (kendall(_rankable(v), truth, weights) for v in ranked)
    return estimate(mine - against)


def stratified(scores: Floats, count: int, seed: int = 0) -> list[int]:
    """Choose *count* of n placements spread over their scores: the best, the worst, and one of each quantile between them.

    Args:
        scores: ``(n,)``; one that is NaN is never chosen.
        count: How many, at least 2; all, where there are not more.
        seed: Decides which of a quantile, and the order of equal scores.

    Returns:
        Indices into *scores*, lowest score first.
    """
    if count < 2:
        raise UsageError(f"the number of placements to train longer must be at least 2, got {count}")
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(np.flatnonzero(~np.isnan(scores)))
    order = shuffled[np.argsort(scores[shuffled], kind="stable")]
    if len(order) <= count:
        return [int(i) for i in order]
    inner = [rng.choice(stratum) for stratum in np.array_split(order[1:-1], count - 2)] if count > 2 else []
    return [int(i) for i in (order[0], *inner, order[-1])]


def estimate(values: Floats) -> Estimate:
    """The figure of the placements as they are and the 95 % interval of its resamples, ``(1 + draws,)``.

    A resample in which the figure is not defined (NaN) is left out; where that is more than half of them, there is no interval.
    """
    if np.isnan(values[0]):
        return Estimate()
    drawn = values[1:][~np.isnan(values[1:])]
    if 2 * len(drawn) < len(values):
        return Estimate(float(values[0]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(float(values[0]), float(low), float(high))


def regret(x: Floats, y: Floats) -> float | None:
    """How much y the first choice by x gives away; the mean over those that tie."""
    return None if np.isnan(x).any() else float(y.max() - y[x == x.max()].mean())


def hypervolume_kept(x: Floats, y: Floats, latency: Floats, reference: tuple[float, float]) -> tuple[float | None, int | None]:
    """Share of the true front's hypervolume that the front by (x, latency) keeps when its members have their true y; and their number."""
    whole = hypervolume(y, latency, reference)
    if np.isnan(x).any() or whole == 0:
        return None, None
    chosen = non_dominated(x, latency)
    return float(hypervolume(y[chosen], latency[chosen], reference) / whole), int(chosen.sum())


def _compare(
    name: str, x: Floats, truth: Floats, latency: Floats, weights: Floats, reference: tuple[float, float], proxy_tau: Floats, order: Floats
) -> PredictorAgreement:
    tau, rho = kendall(x, truth, weights), spearman(x, truth, weights)
    kept, chosen = hypervolume_kept(x, truth, latency, reference)
    return PredictorAgreement(
        name=name,
        tau=estimate(tau),
        spearman=estimate(rho),
        top_half=estimate(kendall(x, truth, weights * top_half(truth, weights))),
        partial=estimate(partial(rho, spearman(x, latency, weights), spearman(truth, latency, weights))),
        margin=Estimate() if name == PROXY else estimate(proxy_tau - tau),
        regret=regret(x, truth),
        hypervolume=kept,
        chosen=chosen,
        settled=estimate(rightly_ordered(x, order, weights)),
    )


def _no_better_than(proxy: PredictorAgreement, others: Sequence[PredictorAgreement]) -> tuple[str, ...]:
    """Better than all means better than each at 95 %: that needs no correction for their number."""
    names = [o.name for o in others if o.tau.value is not None and (o.margin.low is None or o.margin.low <= 0)]
    return tuple(names) if proxy.tau.low is not None and proxy.tau.low > 0 else (*names, CHANCE)


def _rankable(values: Floats) -> Floats:
    """The values as floats, all NaN where they rank nothing: one is NaN, or all are equal."""
    return np.full(len(values), np.nan) if np.isnan(values).any() or (values == values[0]).all() else values.astype(float)
