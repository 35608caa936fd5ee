"""The placement sampler: it finds more with fewer trainings, and uses what is known."""

from __future__ import annotations

import math
from statistics import mean
from typing import Any

import numpy as np
import optuna
from problems import STAGES, accuracy, key, latency, suggest, two_objectives

from nasattn.attention import Placement
from nasattn.front import hypervolume, non_dominated
from nasattn.search.sampling import Domain, PlacementSampler
from nasattn.space import SearchSpace

optuna.logging.set_verbosity(optuna.logging.WARNING)
REFERENCE = (0.4, 2.0)


def true_hypervolume(study: optuna.Study, seed: int) -> float:
    """Of the true accuracies of the front that the study claims."""
    observed, cost = np.array([t.values for t in study.trials]).T
    front = non_dominated(observed, cost)
    true = np.array([accuracy(t.params, seed) for t in study.trials])
    return hypervolume(true[front], cost[front], REFERENCE)


def test_it_has_after_forty_trials_more_than_random_after_a_hundred() -> None:
    ours = [true_hypervolume(two_objectives(PlacementSampler(seed=s), 40, seed=s), s) for s in range(4)]
    random = [true_hypervolume(two_objectives(optuna.samplers.RandomSampler(seed=s), 100, seed=s), s) for s in range(4)]
    assert mean(ours) > mean(random)


def test_one_objective_is_found_in_few_trials() -> None:
    found = []
    for seed in range(3):
        study = optuna.create_study(direction="maximize", sampler=PlacementSampler(seed=seed))
        study.optimize(lambda t, seed=seed: accuracy(suggest(t), seed) - latency(t.params), n_trials=60)  # type: ignore[misc]
        random = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=seed))
        random.optimize(lambda t, seed=seed: accuracy(suggest(t), seed) - latency(t.params), n_trials=200)  # type: ignore[misc]
        found.append(study.best_value >= random.best_value)
    assert all(found)


def test_it_begins_with_the_plain_host_and_single_replacements() -> None:
    space = SearchSpace.from_dict(
        "s", {"host": "nasattn_resnet50", "stages": {"all": {"none": None, "sge": {"groups": [16, 32]}, "ela_t": None}}}
    )
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=PlacementSampler(Domain.of_space(space), seed=0))
    placements = []
    for _ in range(STAGES + 2):
        trial = study.ask()
        placements.append(space.suggest(trial))
        study.tell(trial, [0.5, 1.0])
    replaced = [[(i, a.name) for i, a in enumerate(p) if a.form != "none"] for p in placements]
    assert replaced[0] == []
    assert {len(r) for r in replaced[1:]} == {1}
    assert {r[0][0] for r in replaced[1:]} == {0, 1, 2, 3}
    assert {r[0][1] for r in replaced[1:]} == {"sge", "ela"}


def test_points_that_are_not_allowed_are_not_suggested() -> None:
    asked = []

    def cost(params: dict[str, object]) -> float:
        asked.append(key(params))
        return latency(params) if latency(params) < 1.2 else math.inf

    probe = two_objectives(optuna.samplers.RandomSampler(seed=0), 60)
    domain = Domain.of_trials(probe.trials)
    study = two_objectives(PlacementSampler(domain, cost, seed=0), 60)
    assert asked
    assert max(t.values[1] for t in study.trials) < 1.2
    assert len(set(asked)) == len(asked)  # each is asked for once


def test_costs_that_are_not_known_are_learnt() -> None:
    probe = two_objectives(optuna.samplers.RandomSampler(seed=0), 60)
    study = two_objectives(PlacementSampler(Domain.of_trials(probe.trials), lambda params: None, seed=0), 60)
    assert len({key(t.params) for t in study.trials}) == 60


def test_what_stopped_trials_reached_counts() -> None:
    """Trials that contain the good attention reach more at the first rung; all but some are stopped there."""

    def run(with_rungs: bool) -> float:
        study = optuna.create_study(direction="maximize", sampler=PlacementSampler(seed=0, screen=8))
        for number in range(40):
            trial = study.ask()
            final = accuracy(suggest(trial), 3)
            early = 0.3 + final / 2
            trial.set_user_attr("rungs", [[0.25, early], [1.0, final]] if number % 4 == 0 or not with_rungs else [[0.25, early]])
            if number % 4 == 0:
                study.tell(trial, final)
            else:
                if not with_rungs:
                    trial.set_user_attr("rungs", [])
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return mean(accuracy(t.params, 3) for t in study.trials[20:])

    assert run(with_rungs=True) > run(with_rungs=False)


def test_of_the_trials_that_wait_the_one_that_promises_most_goes_on() -> None:
    """Unless anything new promises more."""
    forms = {"none": None, "sge": {"groups": [8, 16]}, "ela_t": None, "se": None}
    space = SearchSpace.from_dict("s", {"host": "nasattn_resnet50", "stages": {"all": forms}})
    gains = {"none": 0.0, "sge": 0.1, "ela": 0.02, "se": -0.05}

    def final(placement: Placement) -> float:
        return 0.4 + sum(gains[a.name] for a in placement)

    sampler = PlacementSampler(Domain.of_space(space), lambda params: 1.0 + 0.01 * len(params), seed=0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    assert sampler.goes_on(study, [({}, 0.5)]) is None
    for _ in range(24):
        trial = study.ask()
        accuracy = final(space.suggest(trial))
        trial.set_user_attr("rungs", [[0.5, accuracy / 2], [1.0, accuracy]])
        study.tell(trial, [accuracy, 1.0 + 0.01 * len(trial.params)])

    def wait(early: dict[str, float]) -> list[tuple[dict[str, Any], float]]:
        """Trials of these placements, which no other trial has, with what they came to half the way."""
        waiting = []
        for placement, reached in early.items():
            study.enqueue_trial(space.params(Placement.parse(placement)))
            trial = study.ask()
            space.suggest(trial)
            trial.set_user_attr("rungs", [[0.5, reached]])
            waiting.append((trial.params, 0.5))
        return waiting

    poor = wait({"se,se,se,none": 0.1, "se,se,none,se": 0.1})
    assert sampler.goes_on(study, poor) is None
    best = max(t.values[0] for t in study.trials[:24])
    assert sampler.goes_on(study, [*poor, *wait({"ela_t,none,se,ela_t": 0.6 * best})]) == 2


def test_every_other_suggestion_looks_for_the_knee_of_the_front() -> None:
    """Where a little accuracy can be bought dearly, what is cheap is improved all the same."""
    forms = {"none": None, "sge": {"groups": [8, 16, 32, 64]}, "lka": {"kernel": [7, 14, 21]}}
    space = SearchSpace.from_dict("s", {"host": "nasattn_resnet50", "stages": {"all": forms}})
    costs = {"none": 0.0, "sge": 0.01, "lka": 0.2}
    left = {"none": 1.0, "sge": 0.84, "lka": 0.8}  # of what is wrong without it

    def cost(params: dict[str, object]) -> float:
        return 1 + sum(costs[a.name] for a in space.placement(params))

    study = optuna.create_study(directions=["maximize", "minimize"], sampler=PlacementSampler(Domain.of_space(space), cost, seed=1))
    for _ in range(30):
        trial = study.ask()
        study.tell(trial, [1 - 0.5 * math.prod(left[a.name] for a in space.suggest(trial)), cost(trial.params)])
    asked = [t.values[1] for t in study.trials[STAGES + 2 :]]
    assert sum(c < 1.1 for c in asked[1::2]) >= 10  # of 12
    assert sum(c > 1.1 for c in asked[::2]) >= 6
