"""Pareto successive halving as a rule: who goes on from a rung."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasattn.front import non_dominated
from nasattn.search.halving import HalvingRule, crowding, local_ranks, ranks, usual_reduction

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=25)


def peeled(accuracy: np.ndarray, latency: np.ndarray) -> np.ndarray:
    """Ranks by their definition."""
    rank, left, number = np.zeros(len(accuracy), int), np.arange(len(accuracy)), 0
    while len(left):
        front = non_dominated(accuracy[left], latency[left])
        rank[left[front]] = number
        left, number = left[~front], number + 1
    return rank


@given(POINTS)
def test_ranks_are_fronts_peeled_off(points: list[tuple[int, int]]) -> None:
    accuracy, latency = np.array(points, float).T
    assert ranks(accuracy, latency).tolist() == peeled(accuracy, latency).tolist()
    assert local_ranks(accuracy, latency, len(points)).tolist() == peeled(accuracy, latency).tolist()


@given(POINTS, st.integers(1, 5))
def test_a_local_rank_is_that_among_the_nearest_in_latency(points: list[tuple[int, int]], neighbours: int) -> None:
    accuracy = np.array([a for a, _ in points], float)
    latency = np.arange(len(points)) ** 1.5  # all different: who is nearest is never a tie
    found = local_ranks(accuracy, latency, neighbours)
    for i in range(len(points)):
        near = np.sort(np.argsort(np.abs(latency - latency[i]), kind="stable")[: neighbours + 1])
        assert found[i] == peeled(accuracy[near], latency[near])[near.tolist().index(i)]


def test_nan_comes_last() -> None:
    accuracy, latency = np.array([0.1, math.nan, 0.3]), np.array([2.0, 0.1, 3.0])
    assert ranks(accuracy, latency).tolist() == local_ranks(accuracy, latency, 2).tolist() == [0, 3, 0]


def test_the_ends_of_a_rank_and_what_stands_alone_are_least_crowded() -> None:
    accuracy, latency = np.array([0.1, 0.2, 0.21, 0.9]), np.array([1.0, 1.1, 1.11, 2.0])
    distance = crowding(accuracy, latency, ranks(accuracy, latency))
    assert distance[0] == distance[3] == math.inf
    assert distance[2] > distance[1]


def filled(reduction: float = 2.0) -> HalvingRule:
    """Fast trials that have learned much by the first rung, slow ones that have not yet; of each the first is the best."""
    rule = HalvingRule(3, reduction, neighbours=3)
    for i in range(8):
        rule.report(f"fast{i}", 1, 0.6 - 0.01 * i, 1.0 + 0.001 * i)
        rule.report(f"slow{i}", 1, 0.3 - 0.01 * i, 2.0 + 0.001 * i)
    return rule


def test_neighbours_in_latency_compete_not_all() -> None:
    """A global rank would stop everything slow."""
    rule = filled(reduction=8)
    assert [t for i in range(8) for t in (f"fast{i}", f"slow{i}") if rule.may_go_on(t, 1)] == ["fast0", "slow0"]


def test_the_more_trials_the_fewer_go_on() -> None:
    assert [round(usual_reduction(n), 1) for n in (1, 24, 60, 200, 10_000)] == [2.0, 2.2, 3.5, 6.4, 6.5]


def test_more_reports_promote_a_paused_trial() -> None:
    rule = HalvingRule(2, 2.0)
    rule.report("a", 1, 0.5, 1.0)
    assert not rule.may_go_on("a", 1) and rule.next({"a"}) is None  # alone: nothing to compare it with
    rule.report("b", 1, 0.4, 1.0)
    assert not rule.may_go_on("b", 1)
    assert rule.next({"a", "b"}) == "a"
    rule.promote("a", 1)
    assert rule.next({"b"}) is None
    rule.report("c", 1, 0.3, 1.0)
    rule.report("d", 1, 0.2, 1.0)
    assert rule.next({"b", "c", "d"}) == "b"


def test_the_furthest_goes_first() -> None:
    rule = filled()
    for trial in ("fast0", "slow0"):
        rule.promote(trial, 1)
    rule.report("fast0", 2, 0.9, 1.0)
    rule.report("slow0", 2, 0.8, 2.0)
    assert rule.next({"fast0", "slow0", "fast1"}) == "fast0"


def test_what_goes_on_whatever_its_rank_is_compared_with_all_the_same() -> None:
    rule = HalvingRule(2, 2.0)
    rule.report("baseline", 1, 0.1, 1.0, goes_on=True)
    rule.report("worse", 1, 0.05, 1.0)
    rule.report("other", 1, 0.01, 1.0)
    assert rule.may_go_on("baseline", 1) and rule.next({"worse", "other"}) is None
    assert rule.place("worse", 1) == (2, 3)


def test_the_first_rung_cuts_most() -> None:
    rule = HalvingRule(3, 4.0)
    for i in range(12):
        for rung in (1, 2):
            rule.report(str(i), rung, 0.9 - 0.01 * i, 1.0)
    assert [sum(rule.may_go_on(str(i), rung) for i in range(12)) for rung in (1, 2)] == [3, 8]


def test_who_fell_behind_keeps_the_place_it_took() -> None:
    """So that no more than one in so many go on, however often a better one comes later."""
    rule = HalvingRule(2, 3.0)
    for i in range(12):  # each better than all before
        rule.report(str(i), 1, 0.01 * i, 1.0)
        if rule.may_go_on(str(i), 1):
            rule.promote(str(i), 1)
    assert sum(rule.may_go_on(str(i), 1) for i in range(12)) == 4
    rule.report("baseline", 1, 0.0, 1.0, goes_on=True)  # takes no other's place
    for i in range(12, 15):
        rule.report(str(i), 1, 0.01 * i, 1.0)
    assert rule.next({"14"}) == "14"


def test_one_rung_decides_nothing() -> None:
    rule = HalvingRule(1)
    rule.report("a", 1, 0.5, 1.0)
    assert rule.may_go_on("a", 1) and rule.next({"a"}) is None


@pytest.mark.parametrize("wrong", [{"rungs": 0}, {"rungs": 2, "reduction": 1.0}, {"rungs": 2, "neighbours": 0}])
def test_what_is_no_rule(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be >= 1 and reduction > 1"):
        HalvingRule(**wrong)  # type: ignore[arg-type]
