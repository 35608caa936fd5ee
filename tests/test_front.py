"""Fronts: dominance and hypervolume against their definitions, membership where it is known, and trials to points."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from nasattn.front import appraise, claimed_and_honest, front, hypervolume, membership, non_dominated
from nasattn.store import EvaluationRecord, LatencyRecord

Points = tuple[np.ndarray, np.ndarray]


def by_definition(accuracy: np.ndarray, latency: np.ndarray) -> list[bool]:
    """No other point is at least as good in both and better in one."""
    points = list(zip(accuracy, latency, strict=True))
    beaten = lambda a, t: any(b >= a and u <= t and (b > a or u < t) for b, u in points)  # noqa: E731
    return [not (math.isnan(a) or math.isnan(t) or beaten(a, t)) for a, t in points]


def random_points(seed: int) -> Points:
    """Few distinct values, so that there are ties in either and in both, and some NaN."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 30))
    levels = int(rng.integers(2, 12))
    accuracy, latency = rng.integers(0, levels, (2, n)) / levels + 0.5
    for values in (accuracy, latency):
        values[rng.random(n) < rng.choice([0, 0.2])] = np.nan
    return accuracy, latency


@pytest.mark.parametrize("seed", range(60))
def test_non_dominated_is_what_the_definition_says(seed: int) -> None:
    accuracy, latency = random_points(seed)
    assert non_dominated(accuracy, latency).tolist() == by_definition(accuracy, latency)


def test_many_fronts_at_once() -> None:
    rng = np.random.default_rng(0)
    accuracy, latency = rng.integers(0, 6, (2, 3, 5, 20)).astype(float)
    kept = non_dominated(accuracy, latency)
    assert kept.shape == (3, 5, 20)
    for i in np.ndindex(3, 5):
        assert kept[i].tolist() == by_definition(accuracy[i], latency[i])


def test_no_points_and_nothing_but_nan() -> None:
    nothing = np.array([])
    assert non_dominated(nothing, nothing).shape == (0,)
    assert hypervolume(nothing, nothing, (0.0, 2.0)) == 0
    assert not non_dominated(np.array([np.nan, 0.5]), np.array([1.0, np.nan])).any()


@pytest.mark.parametrize(
    ("accuracy", "latency", "area"),
    [
        ([0.5], [1.0], 0.5 * 1.0),
        ([0.5, 0.5], [1.0, 1.0], 0.5),  # twice the same
        ([0.5, 0.75], [1.0, 1.5], 0.5 * 1.0 + 0.25 * 0.5),  # a staircase of two
        ([0.75, 0.5, 0.6], [1.5, 1.0, 1.6], 0.625),  # in any order, and one dominated
        ([0.5, 0.9], [1.0, 2.0], 0.5),  # at the reference's latency: nothing
        ([-0.5, 0.0, 0.5], [1.0, 1.0, 2.5], 0.0),  # beyond it
        ([0.5, np.nan, 0.9], [1.0, 1.0, np.nan], 0.5),
        ([], [], 0.0),
    ],
)
def test_hypervolume_by_hand(accuracy: list[float], latency: list[float], area: float) -> None:
    assert hypervolume(np.array(accuracy), np.array(latency), (0.0, 2.0)) == pytest.approx(area)


@pytest.mark.parametrize("seed", range(5))
def test_hypervolume_by_throwing_darts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    accuracy, latency = rng.random(12), 1 + rng.random(12)
    darts = rng.random((200_000, 2)) * [1.0, 1.2] + [0.0, 1.0]  # accuracies 0..1, latencies 1..2.2
    hit = ((darts[:, :1] < accuracy) & (darts[:, 1:] > latency)).any(1)
    assert hypervolume(accuracy, latency, (0.0, 2.2)) == pytest.approx(hit.mean() * 1.2, abs=0.006)


def members(accuracy: list[float], se: list[float], latency: list[float], latency_se: list[float]) -> list[float]:
    return membership(np.array(accuracy), np.array(se), np.log(latency), np.array(latency_se)).tolist()


def test_membership_that_is_certain() -> None:
    assert members([0.5, 0.6, 0.4], [0, 0, 0], [1.0, 1.2, 1.1], [0, 0, 0]) == [1, 1, 0]
    assert members([0.5, 0.9, 0.1], [0.001, 0.001, 0.001], [1.0, 1.2, 1.5], [0, 0.001, 0.001]) == [1, 1, 0]


def test_membership_that_is_even() -> None:
    """Two placements of the same accuracy estimate: whichever is truly better; the faster one stays in any case."""
    faster, slower = members([0.5, 0.5], [0.02, 0.02], [1.0, 1.1], [0, 0])
    assert faster == 1 and slower == pytest.approx(0.5, abs=0.05)
    first, second = members([0.5, 0.6], [0, 0], [1.1, 1.1], [0.01, 0.01])
    assert first == pytest.approx(0.5, abs=0.05) and second == 1


def test_membership_falls_with_the_distance_and_repeats() -> None:
    chances = [members([0.5, 0.5 - gap], [0.02, 0.02], [1.0, 1.1], [0, 0])[1] for gap in (0.0, 0.02, 0.05, 0.2)]
    assert chances == sorted(chances, reverse=True) and chances[-1] == 0
    assert members([0.5, 0.49], [0.02, 0.02], [1.0, 1.1], [0, 0]) == members([0.5, 0.49], [0.02, 0.02], [1.0, 1.1], [0, 0])


@pytest.mark.parametrize("se", [0.002, 0.03, 0.2])
def test_membership_among_many_is_that_of_all_draws(se: float) -> None:
    """Those that are surely beaten are not drawn, which changes nobody's probability."""
    rng = np.random.default_rng(3)
    latency = np.r_[1.0, np.exp(rng.uniform(0, 0.5, 150))]
    accuracy = 0.5 + 0.4 * np.tanh(4 * (latency - 1)) - rng.exponential(0.1, 151)
    latency_se = np.r_[0.0, np.full(150, 0.01)]
    draws = rng.standard_normal((2, 5000, 151))
    expected = non_dominated(accuracy + se * draws[0], np.log(latency) + latency_se * draws[1]).mean(0)
    found = membership(accuracy, np.full(151, se), np.log(latency), latency_se)
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert np.all(found[expected == 0] < 0.005)


PLAIN = "none,none,none,none"


def trial(number: int, placement: str, accuracy: float | None, ratio: float = 1.0, **values: object) -> EvaluationRecord:
    interval = (1.0, 1.0) if placement == PLAIN else (ratio * 0.99, ratio * 1.01)
    latency = LatencyRecord(ratio * 20, 20.0, ratio, *interval, pairs=6, settled=True, exclusive=True)
    record = EvaluationRecord(number, placement, "COMPLETE", 0, 11, 22, {}, "i", latency, accuracy, val_samples=2000)
    return replace(record, **values)  # type: ignore[arg-type]


def test_milliseconds_follow_the_ratios() -> None:
    """One was measured while the machine was twice as slow: its milliseconds would not compare with the others'."""
    slow = LatencyRecord(44.4, 40.0, 1.1, 1.09, 1.11, pairs=6, settled=True, exclusive=True)
    found = front([trial(0, PLAIN, 0.5), trial(1, "se,se,se,se", 0.7, 1.1, latency=slow), trial(2, "sb,sb,sb,sb", 0.8, 1.3)])
    assert [m.latency_ms for m in found] == pytest.approx([20.0, 22.0, 26.0])


def test_a_front_fastest_first() -> None:
    found = front(
        [trial(0, "sb,sb,sb,sb", 0.8, 1.3), trial(1, PLAIN, 0.5), trial(2, "se,se,se,se", 0.7, 1.1), trial(3, "eca,eca,eca,eca", 0.6, 1.2)]
    )
    assert [(m.trial, m.placement, m.accuracy, m.latency_ratio) for m in found] == [
        (1, PLAIN, 0.5, 1.0),
        (2, "se,se,se,se", 0.7, 1.1),
        (0, "sb,sb,sb,sb", 0.8, 1.3),
    ]
    plain = found[0]
    assert (plain.accuracy_sd, plain.seeds, plain.latency_ms, plain.params, plain.macs, plain.tier) == (
        None,
        1,
        20.0,
        11,
        22,
        "provisional",
    )
    assert plain.accuracy_se == pytest.approx(2 * math.sqrt(0.25 / 2000))  # twice that of the number of images, until seeds tell more
    assert all(m.p_member > 0.99 for m in found)


def test_several_seeds_of_a_placement_are_one_point() -> None:
    found = front([trial(3, PLAIN, 0.4), trial(5, PLAIN, 0.5, seed=1), trial(9, PLAIN, 0.6, seed=2), trial(10, PLAIN, 0.6, seed=2)])
    assert [(m.trial, m.seeds) for m in found] == [(3, 3)]
    assert found[0].accuracy == pytest.approx(0.5)
    assert found[0].accuracy_sd == pytest.approx(0.1)
    assert 0.02 < found[0].accuracy_se < 0.1 / math.sqrt(3)  # three seeds weigh against what is usual


def test_seeds_of_others_tell_how_far_one_can_be_trusted() -> None:
    def error(spread: float) -> float:
        repeated = [trial(n, f"sb,sb,sb,{t}", 0.7 + d * spread, 1.2, seed=s) for n, (t, s, d) in enumerate(REPEATED)]
        return {m.placement: m for m in appraise([*repeated, trial(99, PLAIN, 0.5)])}[PLAIN].accuracy_se

    images_alone = math.sqrt(0.25 / 2000)
    assert images_alone <= error(0.0) < 1.5 * images_alone  # where seeds agree, little is left but the number of images
    assert error(0.1) > 5 * images_alone  # where they do not, one training is as uncertain as that


def test_one_placement_that_breaks_through_by_luck_says_little_of_the_others() -> None:
    names = [f"sb,sb,sb,{token}" for token in ("se", "eca", "gc", "nl")]
    steady = [trial(10 * n + s, p, 0.7 + 0.01 * s, 1.2 + n / 10, seed=s) for n, p in enumerate(names) for s in (0, 1)]
    lucky = [trial(90 + s, "sb,sb,sb,sb", 0.9 - 0.35 * s, 1.1, seed=s) for s in (0, 1)]
    alone, beside = ({m.placement: m.accuracy_se for m in appraise(trials)} for trials in (steady, [*steady, *lucky]))
    assert all(beside[p] < 2 * se for p, se in alone.items())
    assert beside["sb,sb,sb,sb"] > 5 * max(alone.values())


REPEATED = [(token, seed, (-1, 0, 1)[seed]) for token in ("se", "eca", "gc", "nl", "cbam", "bat", "coord", "ge") for seed in range(3)]


def test_tiers() -> None:
    def of(*trials: EvaluationRecord) -> dict[str, str]:
        return {m.placement: m.tier for m in appraise([trial(0, PLAIN, 0.5), *trials])}

    sb = "sb,sb,sb,sb"
    once, again = trial(1, sb, 0.8, 1.3), trial(2, sb, 0.8, 1.3, seed=1)
    assert once.latency and again.latency
    assert of(once)[sb] == "provisional"
    assert of(once, replace(again, seed=0))[sb] == "provisional"  # the same training is no other seed
    assert of(once, again)[sb] == "certified"
    for doubt in ({"exclusive": False}, {"method": "table"}):
        latency = replace(once.latency, **doubt)
        assert of(replace(once, latency=latency), replace(again, latency=latency))[sb] == "provisional"
    assert of(once, again, trial(3, "se,se,se,se", 0.9, 1.1))[sb] == "dominated"
    plain_twice = (trial(3, PLAIN, 0.5, seed=1), trial(4, sb, 0.502, 1.3), trial(5, sb, 0.502, 1.3, seed=1))
    assert of(*plain_twice)[sb] == "provisional"  # more accurate by less than the errors: a tie


def test_what_did_not_complete_is_never_on_it() -> None:
    lost = [
        trial(1, "sb,sb,sb,sb", 0.99, 0.5, state="FAIL"),
        trial(2, "se,se,se,se", 0.99, 0.5, state="PRUNED"),
        trial(3, "eca,eca,eca,eca", 0.99, 0.5, state="RUNNING"),
        trial(4, "gc,gc,gc,gc", 0.99, 0.5, state="INTERRUPTED"),
        trial(5, "nl,nl,nl,nl", math.nan, 0.5),
        trial(6, "bat,bat,bat,bat", None, 0.5),
        trial(7, "cbam,cbam,cbam,cbam", 0.99, latency=None),
    ]
    assert front(lost) == []
    assert [m.trial for m in front([*lost, trial(8, PLAIN, 0.1)])] == [8]


def test_no_trials() -> None:
    assert front([]) == []


def test_accuracies_at_the_ends_leave_a_doubt() -> None:
    """All or none of the validation images right does not mean that there is no error."""
    for accuracy in (0.0, 1.0):
        (member,) = front([trial(0, PLAIN, accuracy, val_samples=100)])
        assert 0 < member.accuracy_se < 0.02


def test_fields_of_the_json() -> None:
    (member,) = front([trial(0, PLAIN, 0.5)])
    fields = json.loads(json.dumps(member.to_dict()))
    promised = {"trial", "placement", "accuracy", "accuracy_sd", "seeds", "latency_ms", "latency_ratio", "latency_ratio_low",
                "latency_ratio_high", "params", "macs", "tier", "p_member"}  # fmt: skip
    assert promised <= set(fields)


def test_the_gain_is_over_the_plain_host_of_the_same_seed() -> None:
    found = front(
        [
            trial(0, PLAIN, 0.5, seed=0),
            trial(1, PLAIN, 0.6, seed=1),
            trial(2, "sb,sb,sb,sb", 0.8, 1.3, seed=0),
            trial(3, "sb,sb,sb,sb", 0.85, 1.3, seed=1),
            trial(4, "se,se,se,se", 0.9, 1.4, seed=2),  # no plain host of this seed
            trial(5, "gc,gc,gc,gc", 0.95, 1.5, seed=1),
        ]
    )
    gains = {m.placement.split(",")[0]: m.gain for m in found}
    assert gains["none"] == 0 and gains["se"] is None
    assert gains["sb"] == pytest.approx((0.3 + 0.25) / 2) and gains["gc"] == pytest.approx(0.35)


def test_without_the_plain_host_there_is_no_gain() -> None:
    assert front([trial(0, "sb,sb,sb,sb", 0.8, 1.3)])[0].gain is None


def test_what_is_left_of_a_front_on_test_images() -> None:
    trials = [trial(0, PLAIN, 0.5), trial(1, "sb,sb,sb,sb", 0.9, 1.4), trial(2, "se,se,se,se", 0.7, 2.0)]
    assert claimed_and_honest(appraise(trials)) is None
    trials += [trial(3, PLAIN, 0.5, seed=1, held_out=0.48), trial(4, "sb,sb,sb,sb", 0.88, 1.4, seed=1, held_out=0.86)]
    found = claimed_and_honest(appraise(trials))
    whole = (1 - 0.48) * (2.1 - 1.0)  # the lowest accuracy is that of the plain host on test images; 1.05 times the slowest
    assert found is not None
    assert found[0] == pytest.approx(((0.5 - 0.48) * 1.1 + (0.89 - 0.5) * 0.7) / whole)
    assert found[1] == pytest.approx((0.86 - 0.48) * 0.7 / whole)


def test_test_images_of_a_placement_off_the_front_claim_nothing() -> None:
    trials = [trial(0, PLAIN, 0.5), trial(1, "se,se,se,se", 0.4, 2.0, held_out=0.4)]
    assert claimed_and_honest(appraise(trials)) is None
    assert claimed_and_honest([]) is None
