"""Fronts: dominance, hypervolume and the probability of membership. Accuracy is to be large, the latency ratio small."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nasattn.store.records import EvaluationRecord

Tier = Literal["certified", "provisional", "dominated"]
Floats = npt.NDArray[np.float64]

DRAWS = 2000
SURELY = 4.0  # standard errors by which a point is better in both: it is not in one of ten thousand draws
NORMAL_95 = 1.96
SLOWER = 1.05  # a hypervolume's reference latency, times the slowest placement
CERTIFIED_SEEDS = 2  # trainings of a placement, the one that chose it among them
# Probability of membership. In searches of 24, 60 and 200 trials, replayed on a table of 320 placements (benchmarks/README.md), 84 %
# of the certified members were truly on the front, of the others 1 in 6: what lies between a half and this is as a rule a tie.
CERTIFIED_P = 0.75
# How much more than by the number of its images an accuracy varies from seed to seed, in variance: what is taken until
# trainings were repeated, and how many placements with several seeds that outweighs. On cued_digits the estimate was 10 (long
# trainings of 16 placements) and 16 (7 of a search): most differ by 2 to 5, those by hundreds that break through with one seed only.
NOISE, NOISE_WEIGHT = 4.0, 4
LEAST_NOISE = 0.05  # of seeds that happen to agree


@dataclass(frozen=True)
class FrontMember:
    """One point of a study's front; the fields of ``nasattn front --format json``.

    Attributes:
        trial: Number of the trial in Optuna (of the first, where a placement was trained with several seeds).
        placement: The placement.
        accuracy: Mean over its seeds, 0..1.
        accuracy_sd: Standard deviation over the seeds; None with one seed, which says nothing of it.
        accuracy_se: Standard error of `accuracy`, of images and seeds; where a placement has few seeds, how far seeds of others differ counts too.
        seeds: Number of seeds.
        latency_ms: Of the host with the placement: its ratio to the plain host, times that one's median over all measurements of the study. What a
            stopwatch showed at one time depends on what the machine did meanwhile, and would not compare.
        latency_ratio: To the plain host.
        latency_ratio_low: Lower end of its 95 % interval.
        latency_ratio_high: Upper end.
        params: Parameters of the host.
        macs: Multiply-accumulates of one image at deployment resolution.
        tier: On the front `certified` once trained with another seed and measured end to end with nothing else running, if its
            membership is likely (0.75 at least); else `provisional`; off it `dominated`.
        p_member: Probability that no other of the placements appraised beats it, given the errors above. What was never trained may beat it all the same.
        latency_method: `pair`: measured end to end; `table`: predicted from the additive table.
        latency_exclusive: Nothing else used the device meanwhile; else the latency is `shared`, and cannot certify a member.
        gain: Accuracy minus that of the plain host trained in the same way, over the seeds that both have; None where there is none.
        held_out: Mean accuracy on test images that no search sees, of the seeds that were scored on them; None where there are none.
    """

    trial: int
    placement: str
    accuracy: float
    accuracy_sd: float | None
    accuracy_se: float
    seeds: int
    latency_ms: float
    latency_ratio: float
    latency_ratio_low: float
    latency_ratio_high: float
    params: int
    macs: int
    tier: Tier
    p_member: float
    latency_method: str = "pair"
    latency_exclusive: bool = True
    gain: float | None = None
    held_out: float | None = None

    @property
    def on_front(self) -> bool:
        """Whether no other placement beats it."""
        return self.tier != "dominated"

    @property
    def is_plain(self) -> bool:
        """Whether no stage carries an attention."""
        return is_plain(self.placement)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __repr__(self) -> str:
        latency = f"latency {self.latency_ratio:.3f}x ({self.latency_ratio_low:.3f} to {self.latency_ratio_high:.3f})"
        return f"<FrontMember {self.placement}: accuracy {self.accuracy:.3f} ± {self.accuracy_se:.3f}, {latency}, trial {self.trial}, {self.tier}>"

    def _repr_html_(self) -> str:
        from nasattn.report.notebook import member_html

        return member_html(self)


def is_plain(placement: str) -> bool:
    """Whether no stage of *placement* carries an attention."""
    return set(placement.split(",")) == {"none"}


def non_dominated(accuracy: Floats, latency: Floats) -> npt.NDArray[np.bool_]:
    """Which points no other point beats: at least as good in both and better in one.

    Args:
        accuracy: ``(..., n)``, to be large. A NaN in either array makes the point dominated.
        latency: ``(..., n)``, to be small.

    Returns:
        ``(..., n)``, bool. Equal points are all kept.
    """
    valid = ~(np.isnan(accuracy) | np.isnan(latency))
    a = np.where(valid, accuracy, -np.inf)
    t = np.where(valid, latency, np.inf)
    order = np.lexsort((-a, t), axis=-1)  # fastest first, of equally fast ones the most accurate
    a_sorted, t_sorted = np.take_along_axis(a, order, -1), np.take_along_axis(t, order, -1)
    best = np.maximum.accumulate(a_sorted, axis=-1)
    before = np.concatenate([np.full((*a.shape[:-1], 1), -np.inf), best[..., :-1]], axis=-1)
    kept = a_sorted > before
    tie = np.zeros_like(kept)
    tie[..., 1:] = (a_sorted[..., 1:] == a_sorted[..., :-1]) & (t_sorted[..., 1:] == t_sorted[..., :-1])
    for i in np.flatnonzero(tie.any(tuple(range(tie.ndim - 1)))):
        kept[..., i] |= tie[..., i] & kept[..., i - 1]
    out = np.empty_like(kept)
    np.put_along_axis(out, order, kept, -1)
    return out & valid


def hypervolume(accuracy: Floats, latency: Floats, reference: tuple[float, float]) -> float:
    """Area that the points dominate, up to the *reference* ``(accuracy, latency)``; NaN points add nothing."""
    low, slowest = reference
    area, best = 0.0, low
    points = [(t, a) for a, t in zip(accuracy, latency, strict=True) if a > low and t < slowest]
    for t, a in sorted(points, key=lambda p: (p[0], -p[1])):
        if a > best:
            area += (a - best) * (slowest - t)
            best = a
    return area


def membership(accuracy: Floats, accuracy_se: Floats, log_latency: Floats, log_latency_se: Floats, seed: int = 0) -> Floats:
    """Probability that each of n points is on the front, by Monte Carlo over independent normal errors. ``(n,)``.

    A point without error against itself (the baseline's latency ratio is 1 by definition) has a standard error of 0.
    """
    drawn = ~_surely_beaten(accuracy, accuracy_se, log_latency, log_latency_se)
    rng = np.random.default_rng(seed)
    a = accuracy[drawn] + accuracy_se[drawn] * rng.standard_normal((DRAWS, int(drawn.sum())))
    t = log_latency[drawn] + log_latency_se[drawn] * rng.standard_normal(a.shape)
    probability = np.zeros(len(accuracy))
    probability[drawn] = non_dominated(a, t).mean(0)
    return probability


def _surely_beaten(accuracy: Floats, accuracy_se: Floats, log_latency: Floats, log_latency_se: Floats) -> npt.NDArray[np.bool_]:
    """Which points a member of the front beats in both by more than all errors: whom they beat, that member beats too. ``(n,)``."""
    members = non_dominated(accuracy, log_latency)
    higher = accuracy[members] - accuracy[:, None] > SURELY * np.hypot(accuracy_se[members], accuracy_se[:, None])
    faster = log_latency[:, None] - log_latency[members] > SURELY * np.hypot(log_latency_se[members], log_latency_se[:, None])
    return np.asarray((higher & faster).any(1))


def front(evaluations: Sequence[EvaluationRecord]) -> list[FrontMember]:
    """The front of a study's completed trials, fastest first.

    Trials of one placement with different seeds are one point. Trials that did not complete never stand on it.
    """
    return [p for p in appraise(evaluations) if p.on_front]


def appraise(evaluations: Sequence[EvaluationRecord]) -> list[FrontMember]:
    """All placements that a study has completed, fastest first: members of the front and those that are dominated."""
    points = _points(evaluations)
    if not points:
        return []
    accuracy = np.array([p.accuracy for p in points])
    ratio = np.array([p.latency_ratio for p in points])
    ratio_se = np.log([p.latency_ratio_high / p.latency_ratio_low for p in points]) / (2 * NORMAL_95)
    p_member = membership(accuracy, np.array([p.accuracy_se for p in points]), np.log(ratio), ratio_se)
    on_front = non_dominated(accuracy, ratio)
    gains = _gains(evaluations)
    appraised = [
        replace(p, p_member=float(q), gain=gains.get(p.placement), tier=_tier(p, float(q)) if on else "dominated")
        for p, q, on in zip(points, p_member, on_front, strict=True)
    ]
    return sorted(appraised, key=lambda m: m.latency_ratio)


def _tier(member: FrontMember, p_member: float) -> Tier:
    measured = member.latency_method == "pair" and member.latency_exclusive
    return "certified" if measured and member.seeds >= CERTIFIED_SEEDS and p_member >= CERTIFIED_P else "provisional"


def claimed_and_honest(appraised: Sequence[FrontMember]) -> tuple[float, float] | None:
    """What the front claims and what is left of it on images that no search saw.

    Args:
        appraised: All placements of a study (see :func:`appraise`).

    Returns:
        Two hypervolumes of those members that were scored on test images: by their accuracy, and by that on test images. In parts of the
        rectangle between the fastest placement without an error and the slowest with the lowest accuracy. None where no member was.
    """
    tested = [m for m in appraised if m.on_front and m.held_out is not None]
    if not tested:
        return None
    fastest, slowest = min(m.latency_ratio for m in appraised), SLOWER * max(m.latency_ratio for m in appraised)
    lowest = min(min(m.accuracy, m.accuracy if m.held_out is None else m.held_out) for m in appraised)
    whole = (1 - lowest) * (slowest - fastest)
    if whole == 0:
        return None
    ratio = np.array([m.latency_ratio for m in tested])
    claimed, honest = np.array([m.accuracy for m in tested]), np.array([m.held_out for m in tested], float)
    return hypervolume(claimed, ratio, (lowest, slowest)) / whole, hypervolume(honest, ratio, (lowest, slowest)) / whole


def _gains(evaluations: Sequence[EvaluationRecord]) -> dict[str, float]:
    """For each placement, how much more accurate it is than the plain host of the same seed, on average over the seeds."""
    accuracy = {(e.placement, e.seed): e.accuracy for e in evaluations if e.state == "COMPLETE" and e.accuracy is not None}
    plain = {seed: a for (placement, seed), a in accuracy.items() if is_plain(placement)}
    by_placement: dict[str, list[float]] = {}
    for (placement, seed), a in accuracy.items():
        if seed in plain:
            by_placement.setdefault(placement, []).append(a - plain[seed])
    return {placement: float(np.mean(differences)) for placement, differences in by_placement.items()}


def _points(evaluations: Sequence[EvaluationRecord]) -> list[FrontMember]:
    by_placement: dict[str, dict[int, EvaluationRecord]] = {}
    for e in evaluations:
        if e.state == "COMPLETE" and e.accuracy is not None and math.isfinite(e.accuracy) and e.latency is not None:
            by_placement.setdefault(e.placement, {}).setdefault(e.seed, e)
    groups = [list(of_seed.values()) for of_seed in by_placement.values()]
    noise = _usual_noise([_seed_noise(group) for group in groups if len(group) > 1])
    plain_ms = float(np.median([group[0].latency.baseline_ms for group in groups if group[0].latency])) if groups else 0.0
    return [_point(group, noise, plain_ms) for group in groups]


def _usual_noise(repeated: Sequence[tuple[float, int]]) -> float:
    """How far seeds usually differ, in variances of the number of images: a geometric mean over the placements with several seeds.

    One placement that breaks through with one seed and not with another so says much of itself and little of the others.
    """
    logs = [math.log(max(squares / freedom, LEAST_NOISE)) - _mean_log(freedom) for squares, freedom in repeated]
    return math.exp((sum(logs) + NOISE_WEIGHT * math.log(NOISE)) / (len(logs) + NOISE_WEIGHT))


def _mean_log(freedom: int) -> float:
    """The mean of the logarithm of a variance estimated with so many degrees of freedom, when the true one is 1: digamma(f / 2) - log(f / 2)."""
    x, digamma = (0.5, -1.9635100260214235) if freedom % 2 else (1.0, -0.5772156649015329)
    while x < freedom / 2:
        digamma, x = digamma + 1 / x, x + 1
    return digamma - math.log(x)


def _sampling_variance(mean: float, images: int) -> float:
    return max(mean * (1 - mean), 0.25 / images) / images


def _seed_noise(group: Sequence[EvaluationRecord]) -> tuple[float, int]:
    """Sum of squares of one placement's accuracies about their mean, in units of the variance that their number of images explains; and its degrees of freedom."""
    values = np.array([e.accuracy for e in group])
    variance = _sampling_variance(float(values.mean()), group[0].val_samples or 1)
    return float(((values - values.mean()) ** 2).sum() / variance), len(values) - 1


def _point(group: list[EvaluationRecord], noise: float, plain_ms: float) -> FrontMember:
    """The point of one placement's trainings, one a seed, where *noise* is how far seeds differ among all placements."""
    first = group[0]
    assert first.latency is not None
    values = np.array([e.accuracy for e in group])
    tested = [e.held_out for e in group if e.held_out is not None]
    mean = float(values.mean())
    squares, freedom = _seed_noise(group)
    own_noise = max(1.0, (squares + noise * NOISE_WEIGHT) / (freedom + NOISE_WEIGHT))
    return FrontMember(
        trial=first.trial,
        placement=first.placement,
        accuracy=mean,
        accuracy_sd=float(values.std(ddof=1)) if len(values) > 1 else None,
        accuracy_se=math.sqrt(own_noise * _sampling_variance(mean, first.val_samples or 1) / len(values)),
        seeds=len(values),
        latency_ms=first.latency.ratio * plain_ms,
        latency_ratio=first.latency.ratio,
        latency_ratio_low=first.latency.ratio_low,
        latency_ratio_high=first.latency.ratio_high,
        params=first.params,
        macs=first.macs,
        tier="provisional",
        p_member=0.0,
        latency_method=first.latency.method,
        latency_exclusive=first.latency.exclusive,
        held_out=float(np.mean(tested)) if tested else None,
    )
