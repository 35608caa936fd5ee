"""Agreement of rankings: against SciPy and by hand, intervals against simulated truth, and what is said of whom."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from nasattn.errors import UsageError
from nasattn.proxy.agreement import (
    Agreement,
    Estimate,
    agree,
    gained,
    hypervolume_kept,
    regret,
    stratified,
)
from nasattn.proxy.ranks import kendall, partial, resamples, seed_to_seed, settled_order, spearman, top_half

Array = np.ndarray


def tied(seed: int, n: int = 18, levels: int = 6) -> tuple[Array, Array]:
    """Two related arrays of few distinct values."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, levels, n)
    return x / levels, (x + rng.integers(0, levels, n)) / levels


def repeated(values: Array, weights: Array) -> Array:
    return np.repeat(values, weights.astype(int))


@pytest.mark.parametrize("seed", range(20))
def test_every_resample_is_what_scipy_says(seed: int) -> None:
    """A weight stands for copies of a placement; ties and copies are handled as SciPy handles them."""
    x, y = tied(seed)
    weights = resamples(len(x), 20, seed)
    assert (weights[0] == 1).all() and (weights.sum(1) == len(x)).all()
    copies = [(repeated(x, w), repeated(y, w)) for w in weights]
    assert kendall(x, y, weights) == pytest.approx([kendalltau(a, b).statistic for a, b in copies])
    assert spearman(x, y, weights) == pytest.approx([spearmanr(a, b).statistic for a, b in copies])


def test_what_has_no_differences_ranks_nothing() -> None:
    weights = np.array([[1.0, 1, 1, 1], [0, 0, 4, 0]])
    rising, flat = np.arange(4.0), np.ones(4)
    for figure in (kendall, spearman):
        assert np.isnan(figure(rising, flat, weights)).all()
        assert np.isnan(figure(flat, rising, weights)).all()
        assert figure(rising, rising, weights).tolist() == [pytest.approx(1.0), pytest.approx(math.nan, nan_ok=True)]


def test_infinite_scores_have_their_rank() -> None:
    weights = np.ones((1, 3))
    assert kendall(np.array([-np.inf, 0.0, np.inf]), np.arange(3.0), weights)[0] == 1


def test_the_partial_correlation_by_hand() -> None:
    """x and y agree only because both follow z: (0.25 - 0.5 * 0.5) = 0. Known what z says, nothing is left."""
    one = lambda *values: partial(*(np.array([v]) for v in values))[0]  # noqa: E731
    assert one(0.25, 0.5, 0.5) == 0
    assert one(0.6, 0.0, 0.0) == pytest.approx(0.6)
    assert one(0.5, -0.5, 0.5) == pytest.approx(0.75 / 0.75)
    assert math.isnan(one(1.0, 1.0, 1.0)) and math.isnan(one(0.3, 1.0, 0.3))


def test_the_partial_correlation_is_that_of_what_latency_leaves_of_the_ranks() -> None:
    _, proxy, long_run, latency = simulated(0)
    ranks = [v.argsort().argsort().astype(float) for v in (proxy, long_run.mean(1), latency)]
    left = [r - np.polyval(np.polyfit(ranks[2], r, 1), ranks[2]) for r in ranks[:2]]
    assert found(0).proxy.partial.value == pytest.approx(np.corrcoef(*left)[0, 1])


def test_the_upper_half() -> None:
    y = np.array([0.1, 0.4, 0.2, 0.3])
    assert top_half(y, np.ones((1, 4))).tolist() == [[False, True, False, True]]
    assert top_half(y, np.array([[3.0, 0, 1, 0]])).tolist()[0][2] is True
    assert top_half(y, np.array([[0.0, 2, 1, 1]])).tolist() == [[False, True, False, False]]  # two copies of the best are the half
    assert top_half(np.array([0.1, 0.2, 0.3]), np.ones((1, 3))).tolist() == [[False, True, True]]  # of three, two
    assert top_half(np.array([0.1, 0.2, 0.2, 0.3]), np.ones((1, 4))).tolist() == [[False, True, True, True]]  # a tie at the edge


def test_regret_by_hand() -> None:
    y = np.array([0.5, 0.9, 0.7, 0.6])
    assert regret(np.array([1.0, 4, 2, 3]), y) == 0
    assert regret(np.array([1.0, 2, 4, 3]), y) == pytest.approx(0.2)
    assert regret(np.array([1.0, 4, 4, 3]), y) == pytest.approx(0.1)  # either of two
    assert regret(np.full(4, np.nan), y) is None


def test_the_hypervolume_kept_by_hand() -> None:
    """True front: (0.5, 1.0) and (0.9, 1.5); of reference (0.4, 2.0) they keep 0.1 * 1 + 0.4 * 0.5 = 0.3."""
    y, latency, reference = np.array([0.5, 0.9, 0.8]), np.array([1.0, 1.5, 1.5]), (0.4, 2.0)
    kept, chosen = hypervolume_kept(np.array([0.2, 0.3, 0.4]), y, latency, reference)  # takes the 0.8 for the best
    assert (kept, chosen) == (pytest.approx((0.1 + 0.3 * 0.5) / 0.3), 2)
    assert hypervolume_kept(y, y, latency, reference) == (1, 2)
    assert hypervolume_kept(np.array([0.5, 0.4, 0.3]), y, latency, reference) == (pytest.approx(0.1 / 0.3), 1)
    assert hypervolume_kept(np.full(3, np.nan), y, latency, reference) == (None, None)
    assert hypervolume_kept(y, np.full(3, 0.4), latency, reference) == (None, None)  # there is nothing to keep


def test_seed_to_seed() -> None:
    runs = np.array([[1.0, 1, 2], [2, 2, 1], [3, 3, 4], [4, 4, 3]])
    weights = np.ones((1, 4))
    expected = np.mean([kendalltau(runs[:, a], runs[:, b]).statistic for a, b in ((0, 1), (0, 2), (1, 2))])
    assert seed_to_seed(runs, weights)[0] == pytest.approx(expected)
    lost = np.array([[1.0, 5], [2, np.nan], [3, 6], [4, 7]])
    assert seed_to_seed(lost, weights)[0] == 1
    assert np.isnan(seed_to_seed(runs[:, :1], weights)).all()  # a single seed says nothing


def simulated(seed: int, n: int = 20, seeds: int = 2, proxy_noise: float = 0.5, noise: float = 0.3) -> tuple[Array, Array, Array, Array]:
    """Quality, proxy accuracy, long runs and latency of n placements; quality has a standard deviation of 5 points."""
    rng = np.random.default_rng(seed)
    quality = rng.standard_normal(n)
    proxy = 0.5 + 0.05 * (quality + proxy_noise * rng.standard_normal(n))
    long_run = 0.7 + 0.05 * (quality[:, None] + noise * rng.standard_normal((n, seeds)))
    return quality, proxy, long_run, 1 + 0.3 * rng.random(n)


def found(seed: int = 0, n: int = 20, others: dict[str, Array] | None = None, **values: float) -> Agreement:
    _, proxy, long_run, latency = simulated(seed, n, **values)  # type: ignore[arg-type]
    return agree([f"p{i}" for i in range(n)], proxy, long_run, latency, others or {}, seed=seed)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    _, proxy, long_run, _ = simulated(99, n=3000)
    truth = kendalltau(proxy, long_run.mean(1)).statistic
    intervals = [found(seed, n=18).proxy.tau for seed in range(200)]
    held = np.mean([i.low <= truth <= i.high for i in intervals])  # type: ignore[operator]
    assert 0.91 <= held <= 0.995
    assert np.mean([i.value for i in intervals]) == pytest.approx(truth, abs=0.02)


def test_a_proxy_as_good_as_another_is_seldom_called_better() -> None:
    """Both know the quality equally well: at most some 2.5 % may be called better by chance."""

    def called_better(seed: int) -> bool:
        quality, _, _, _ = simulated(seed)
        equal = quality + 0.5 * np.random.default_rng(seed + 10_000).standard_normal(20)
        return found(seed, others={"params": equal}).better

    assert np.mean([called_better(seed) for seed in range(200)]) <= 0.05


def test_figures_of_a_report() -> None:
    quality, proxy, long_run, latency = simulated(3)
    names = [f"p{i}" for i in range(20)]
    noise = np.random.default_rng(5).standard_normal(20)
    report = agree(names, proxy, long_run, latency, {"params": noise, "latency": latency, "grad_norm": quality})
    truth = long_run.mean(1)
    assert report.proxy.tau.value == pytest.approx(kendalltau(proxy, truth).statistic)
    assert report.proxy.spearman.value == pytest.approx(spearmanr(proxy, truth).statistic)
    best = np.argsort(truth)[-10:]
    assert report.proxy.top_half.value == pytest.approx(kendalltau(proxy[best], truth[best]).statistic)
    assert report.ceiling.value == pytest.approx(kendalltau(*long_run.T).statistic)
    assert report.reference == (pytest.approx(truth.min()), pytest.approx(1.05 * latency.max()))
    assert [o.name for o in report.others] == ["params", "latency", "grad_norm"]
    params, by_latency, _ = report.others
    assert params.margin.value == pytest.approx(report.proxy.tau.value - params.tau.value)  # type: ignore[operator]
    assert by_latency.partial == Estimate() and by_latency.tau.value is not None
    assert (by_latency.chosen, by_latency.hypervolume) == (20, 1)  # it takes every placement for a trade
    for each in (report.proxy, *report.others):
        assert each.tau.low <= each.tau.value <= each.tau.high  # type: ignore[operator]
    assert [p.placement for p in report.points] == names
    assert (report.points[4].proxy, report.points[4].long_run) == (proxy[4], pytest.approx(truth[4]))
    assert (report.dropped, report.seeds, report.draws) == (0, 2, 2000)
    again = agree(names, proxy, long_run, latency, {"params": noise, "latency": latency, "grad_norm": quality})
    assert again == report


def test_what_latency_already_says_is_taken_out() -> None:
    """Accuracy follows latency alone, and so does the proxy, each with its own noise: their tau is high, the partial correlation is none."""
    rng = np.random.default_rng(0)
    latency = 1 + rng.random(200)
    proxy, long_run = (latency + 0.3 * rng.standard_normal(200) for _ in range(2))
    report = agree([str(i) for i in range(200)], proxy, long_run[:, None], latency, {}, draws=200)
    assert report.proxy.tau.value > 0.3  # type: ignore[operator]
    assert abs(report.proxy.partial.value) < 0.15  # type: ignore[operator]


def test_a_proxy_that_beats_what_is_counted() -> None:
    noise = np.random.default_rng(1).standard_normal((2, 20))
    report = found(0, others={"params": noise[0], "MACs": noise[1]})
    assert report.better and report.no_better_than == () and report.stronger_reversed == ()


def test_a_proxy_no_better_than_counting() -> None:
    quality, *_ = simulated(0)
    slightly_worse = quality + 0.6 * np.random.default_rng(4).standard_normal(20)
    noise = np.random.default_rng(1).standard_normal(20)
    report = found(0, others={"params": noise, "MACs": slightly_worse})
    macs = report.others[1]
    assert report.proxy.tau.value > macs.tau.value  # type: ignore[operator]
    assert macs.margin.low < 0  # type: ignore[operator]
    assert report.no_better_than == ("MACs",) and not report.better


def test_a_proxy_that_is_noise() -> None:
    noise = np.random.default_rng(7).random(20)
    _, _, long_run, latency = simulated(0)
    report = agree([str(i) for i in range(20)], noise, long_run, latency, {})
    assert report.no_better_than == ("chance",)


def test_a_predictor_that_ranks_the_wrong_way_round_is_told() -> None:
    quality, *_ = simulated(0)
    report = found(0, others={"params": -quality, "MACs": np.random.default_rng(1).standard_normal(20)})
    assert report.stronger_reversed == ("params",)
    assert report.better  # where more is taken for better, as it was said beforehand


def test_predictors_that_rank_nothing() -> None:
    one_unknown = np.r_[np.nan, np.arange(19.0)]
    report = found(0, others={"params": np.full(20, 11_000_000), "grad_norm": one_unknown})
    for other in report.others:
        assert (other.tau, other.spearman, other.top_half, other.partial, other.margin) == (Estimate(),) * 5
        assert (other.regret, other.hypervolume, other.chosen) == (None, None, None)
    assert report.better  # than chance, and nothing else ranks


def test_a_proxy_without_differences() -> None:
    quality, _, long_run, latency = simulated(0)
    report = agree([str(i) for i in range(20)], np.full(20, 0.1), long_run, latency, {"params": quality})
    assert report.proxy.tau == Estimate() and report.no_better_than == ("params", "chance")


def test_long_runs_without_differences() -> None:
    _, proxy, _, latency = simulated(0)
    report = agree([str(i) for i in range(20)], proxy, np.full((20, 2), 0.1), latency, {"params": latency})
    assert (report.proxy.tau, report.ceiling, report.proxy.hypervolume) == (Estimate(), Estimate(), None)
    assert report.no_better_than == ("chance",)


def test_failed_runs() -> None:
    _, proxy, long_run, latency = simulated(0)
    long_run[2, 0] = np.nan  # one seed of two: the other counts
    long_run[5] = np.nan  # both: not compared
    proxy[6] = np.nan
    report = agree([f"p{i}" for i in range(20)], proxy, long_run, latency, {"params": np.arange(20)})
    assert report.dropped == 2 and len(report.points) == 18
    assert {"p5", "p6"}.isdisjoint(p.placement for p in report.points)
    point = next(p for p in report.points if p.placement == "p2")
    assert point.long_runs == (None, long_run[2, 1]) and point.long_run == long_run[2, 1]
    kept = [i for i in range(20) if i not in (5, 6)]
    assert report.others[0].tau.value == pytest.approx(kendalltau(kept, np.nanmean(long_run[kept], 1)).statistic)


def test_too_few_placements() -> None:
    _, proxy, long_run, latency = simulated(0, n=6)
    long_run[:3] = np.nan
    with pytest.raises(UsageError, match=r"^3 of 6 placements have a long run, a proxy accuracy and a latency; at least 4 are needed"):
        agree(list("abcdef"), proxy, long_run, latency, {})
    long_run[0, 0] = 0.5
    assert len(agree(list("abcdef"), proxy, long_run, latency, {}).points) == 4


def test_arrays_that_do_not_belong_together() -> None:
    _, proxy, long_run, latency = simulated(0)
    names = [str(i) for i in range(20)]
    for wrong in ({"params": latency[1:]}, {"proxy": latency}):
        with pytest.raises(ValueError, match="expected 20 values of each predictor"):
            agree(names, proxy, long_run, latency, wrong)
    with pytest.raises(ValueError, match="expected 20 values"):
        agree(names, proxy, long_run[:, 0], latency, {})


def test_a_report_goes_through_json() -> None:
    _, proxy, long_run, latency = simulated(0)
    long_run[2, 0] = np.nan
    report = agree([f"p{i}" for i in range(20)], proxy, long_run, latency, {"params": np.ones(20), "latency": latency})
    text = json.dumps(report.to_dict(), allow_nan=False)  # PostgreSQL's JSON knows no NaN
    assert Agreement.from_dict(json.loads(text)) == report
    assert Agreement.from_dict(report.to_dict()) == report
    assert replace(report, no_better_than=("params",)).better is False


@pytest.mark.parametrize(("n", "count"), [(200, 16), (200, 24), (30, 20), (17, 16)])
def test_a_stratified_choice(n: int, count: int) -> None:
    """Best and worst are in it, nothing twice, and no stretch of ranks is left out."""
    scores = np.random.default_rng(n).random(n)
    chosen = stratified(scores, count, seed=3)
    assert len(set(chosen)) == len(chosen) == count
    assert scores[chosen].tolist() == sorted(scores[chosen])
    assert (chosen[0], chosen[-1]) == (scores.argmin(), scores.argmax())
    ranks = scores.argsort().argsort()[chosen]
    assert max(np.diff(ranks)) <= 2 * math.ceil((n - 2) / (count - 2))
    assert stratified(scores, count, seed=3) == chosen
    if n > 2 * count:
        assert stratified(scores, count, seed=4) != chosen


def test_a_choice_of_few() -> None:
    scores = np.array([0.3, np.nan, 0.1, 0.2])
    assert stratified(scores, 10) == [2, 3, 0]  # all there are; what has no score is not chosen
    assert stratified(scores, 2) == [2, 0]
    assert len(set(stratified(np.full(6, 0.5), 4))) == 4
    assert stratified(np.array([np.nan]), 2) == []
    with pytest.raises(UsageError, match="at least 2, got 1"):
        stratified(scores, 1)


def test_pairs_that_every_run_settles() -> None:
    """Of four placements the first two overlap in their runs: five of six pairs are settled, and the proxy has one of them wrong."""
    runs = np.array([[0.50, 0.60], [0.55, 0.58], [0.70, 0.72], [0.90, 0.95]])
    order = settled_order(runs)
    assert order[0].tolist() == [0, 0, -1, -1] and (order == -order.T).all()
    found = agree(list("abcd"), np.array([0.3, 0.2, 0.6, 0.5]), runs, np.array([1.0, 1.1, 1.2, 1.3]), {"same": np.ones(4)})
    assert found.settled_pairs == 5
    assert found.proxy.settled.value == pytest.approx(4 / 5)
    assert found.others[0].settled.value is None
    assert Agreement.from_dict(found.to_dict()) == found


def test_a_tie_of_the_predictor_is_half_right() -> None:
    runs = np.array([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3], [0.4, 0.4]])
    found = agree(list("abcd"), np.array([0.1, 0.1, 0.3, 0.4]), runs, np.array([1.0, 1.1, 1.2, 1.3]), {})
    assert found.settled_pairs == 6 and found.proxy.settled.value == pytest.approx(5.5 / 6)


def test_a_gain_is_paired_over_the_placements_of_both() -> None:
    rng = np.random.default_rng(3)
    truth = rng.standard_normal(20)
    runs, latency, names = truth[:, None] + rng.normal(0, 0.1, (20, 2)), 1 + rng.random(20), [f"p{i}" for i in range(20)]
    noisy = truth + rng.normal(0, 1, 20)
    with_one_failed = np.where(np.arange(20) == 4, np.nan, truth)
    one, other = (agree(names, proxy, runs, latency, {}) for proxy in (with_one_failed, noisy))
    kept = np.arange(20) != 4
    found, mean = gained(one, other), runs.mean(1)
    expected = kendalltau(truth[kept], mean[kept]).statistic - kendalltau(noisy[kept], mean[kept]).statistic
    assert found.value == pytest.approx(expected)
    assert found.low is not None and found.high is not None and found.low < expected < found.high
    assert gained(other, other).value == gained(other, other).high == 0
    swapped = gained(other, one)
    assert (swapped.value, swapped.low) == (pytest.approx(-expected), pytest.approx(-found.high))
    few = agree(names[:4], truth[:4], runs[:4], latency[:4], {})
    assert gained(few, agree(names[3:], truth[3:], runs[3:], latency[3:], {})) == Estimate()
