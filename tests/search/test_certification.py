"""Which placement is trained again: members first, then those in doubt, until nothing is; and what that does to a front."""

from __future__ import annotations

import numpy as np

from nasattn.front import appraise, non_dominated
from nasattn.search.certification import MOST_SEEDS, next_retraining
from nasattn.store import EvaluationRecord, LatencyRecord

PLAIN = "none,none,none,none"
IMAGES = 2000


def trial(number: int, placement: str, accuracy: float, ratio: float, seed: int = 0) -> EvaluationRecord:
    interval = (1.0, 1.0) if ratio == 1 else (ratio * 0.99, ratio * 1.01)
    latency = LatencyRecord(ratio * 20, 20.0, ratio, *interval, pairs=6, settled=True, exclusive=True)
    return EvaluationRecord(number, placement, "COMPLETE", seed, 1, 2, {}, "i", latency, accuracy, val_samples=IMAGES)


def choose(trials: list[EvaluationRecord], begun: dict[str, set[int]] | None = None) -> tuple[str, int] | None:
    own: dict[str, set[int]] = {}
    for t in trials:
        own.setdefault(t.placement, set()).add(t.seed)
    return next_retraining(appraise(trials), {p: s | (begun or {}).get(p, set()) for p, s in own.items()}, seed=0)


def test_members_without_a_second_seed_come_first() -> None:
    trials = [trial(0, PLAIN, 0.5, 1.0), trial(1, "sb,none,none,none", 0.9, 1.2), trial(2, "se,none,none,none", 0.905, 1.3)]
    first = choose(trials)
    assert first == ("se,none,none,none", 1)
    trials.append(trial(3, "se,none,none,none", 0.92, 1.3, seed=1))
    assert choose(trials) in [(PLAIN, 1), ("sb,none,none,none", 1)]


def test_the_most_accurate_member_comes_first() -> None:
    """It is what users export, and what luck has chosen from most; the membership of others may be in greater doubt."""
    trials = [trial(0, PLAIN, 0.5, 1.0), trial(1, "sb,none,none,none", 0.6, 1.2), trial(2, "se,none,none,none", 0.61, 1.203)]
    trials.append(trial(3, "gc,none,none,none", 0.9, 1.3))
    likely = {m.placement: m.p_member for m in appraise(trials) if m.on_front}
    assert min(likely, key=lambda p: abs(likely[p] - 0.5)) != "gc,none,none,none"
    assert choose(trials) == ("gc,none,none,none", 1)
    trials.append(trial(4, "gc,none,none,none", 0.9, 1.3, seed=1))
    again = choose(trials)
    assert again is not None and again[0] != "gc,none,none,none"


def test_then_the_member_that_claims_most_though_others_are_in_greater_doubt() -> None:
    """Whether the plain host or one a little slower is on the front says little; who adds forty points says much."""
    trials = [trial(0, PLAIN, 0.5, 1.0), trial(1, "se,none,none,none", 0.502, 1.004), trial(2, "sb,none,none,none", 0.93, 1.05)]
    trials += [trial(3 + seed, "gc,none,none,none", 0.95, 1.3, seed) for seed in (0, 1)]
    doubt = {m.placement: m.p_member * (1 - m.p_member) for m in appraise(trials)}
    assert doubt["sb,none,none,none"] < min(doubt[PLAIN], doubt["se,none,none,none"])
    assert choose(trials) == ("sb,none,none,none", 1)


def test_what_is_running_counts() -> None:
    trials = [trial(0, PLAIN, 0.5, 1.0), trial(1, "sb,none,none,none", 0.9, 1.2)]
    first = choose(trials)
    assert first is not None
    second = choose(trials, {first[0]: {1}})
    assert second is not None and {first[0], second[0]} == {PLAIN, "sb,none,none,none"}
    assert choose(trials, {PLAIN: {1}, "sb,none,none,none": {1}}) is None


def test_seeds_of_failed_trainings_are_not_used_again_and_end() -> None:
    trials = [trial(0, PLAIN, 0.5, 1.0)]
    assert choose(trials, {PLAIN: {1}}) is None  # tried: nothing to learn by trying the same
    doubtful = [trial(0, PLAIN, 0.5, 1.0), trial(1, "sb,none,none,none", 0.505, 1.2)]
    assert choose(doubtful, {PLAIN: {1}, "sb,none,none,none": {1, 2}}) == ("sb,none,none,none", 3)
    assert choose(doubtful, {PLAIN: {1}, "sb,none,none,none": set(range(MOST_SEEDS))}) is None


def test_bad_luck_is_found_out_too() -> None:
    trials = [trial(0, PLAIN, 0.5, 1.0), trial(1, "sb,none,none,none", 0.9, 1.2), trial(2, "se,none,none,none", 0.895, 1.19)]
    trials += [trial(3, PLAIN, 0.5, 1.0, 1), trial(4, "sb,none,none,none", 0.9, 1.2, 1), trial(5, "se,none,none,none", 0.895, 1.19, 1)]
    trials += [trial(6, "eca,none,none,none", 0.899, 1.21)]  # dominated by a little
    assert choose(trials) == ("eca,none,none,none", 1)


def test_nothing_is_left_where_nothing_is_in_doubt() -> None:
    points = [(PLAIN, 0.5, 1.0), ("sb,none,none,none", 0.7, 1.2), ("se,none,none,none", 0.9, 1.4), ("gc,none,none,none", 0.4, 1.5)]
    trials = [trial(n, p, a, r, seed) for n, (p, a, r, seed) in enumerate((*point, seed) for point in points for seed in (0, 1))]
    assert choose(trials) is None
    assert next_retraining([], {}, 0) is None


def search_and_certify(seed: int, retrainings: int) -> tuple[float, float]:
    """A search that saw 40 placements once: the share of its front that is truly on it, and of what is certified after retraining."""
    rng = np.random.default_rng(seed)
    ratio = 1 + rng.random(40) / 2
    ratio[0] = 1.0
    truth = 0.9 + 0.06 * (1 - np.exp(-6 * (ratio - 1))) * rng.uniform(0.8, 1.0, 40)
    sd = 2 * np.sqrt(truth * (1 - truth) / IMAGES)
    names = [f"sge_g{n + 1},none,none,none" for n in range(40)]
    truly = dict(zip(names, non_dominated(truth, ratio), strict=True))
    trials = [trial(n, p, truth[n] + sd[n] * rng.standard_normal(), ratio[n]) for n, p in enumerate(names)]
    claimed = float(np.mean([truly[m.placement] for m in appraise(trials) if m.tier != "dominated"]))
    for _ in range(retrainings):
        chosen = choose(trials)
        if chosen is None:
            break
        n = names.index(chosen[0])
        trials.append(trial(len(trials), chosen[0], truth[n] + sd[n] * rng.standard_normal(), ratio[n], chosen[1]))
    return claimed, float(np.mean([truly[m.placement] for m in appraise(trials) if m.tier == "certified"]))


def test_what_is_certified_is_true_more_often() -> None:
    shares = np.array([search_and_certify(seed, retrainings=10) for seed in range(10)])
    assert shares[:, 1].mean() > max(0.8, shares[:, 0].mean() + 0.05)
