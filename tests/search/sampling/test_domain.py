"""Domains: what a study's parameters are, from a space or from its trials."""

from __future__ import annotations

import optuna
from problems import DILATIONS, GROUPS, KERNELS, STAGES, suggest

from nasattn.search.sampling import Domain
from nasattn.space import SearchSpace

optuna.logging.set_verbosity(optuna.logging.WARNING)


def random_study(trials: int = 80) -> optuna.Study:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda t: float(len(suggest(t))), n_trials=trials)
    return study


def test_dependent_parameters_are_found_in_the_trials() -> None:
    domain = Domain.of_trials(random_study().trials)
    assert domain is not None
    tokens = 2 + len(GROUPS) + len(KERNELS) * len(DILATIONS)  # none and ela have no options
    assert (len(domain.slots), domain.size) == (STAGES, tokens**STAGES)


def test_parameters_and_points_are_the_same_thing() -> None:
    study = random_study()
    domain = Domain.of_trials(study.trials)
    assert domain is not None
    for trial in study.trials:
        point = domain.point(trial.params)
        assert point is not None
        assert domain.params(point) == trial.params


def test_what_is_not_in_a_domain_has_no_point() -> None:
    domain = Domain.of_trials(random_study().trials)
    assert domain is not None
    assert domain.point({}) is None
    assert domain.point({f"s{i}": "eca" for i in range(STAGES)}) is None


def test_no_choices_no_domain() -> None:
    study = optuna.create_study()
    study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=2)
    assert Domain.of_trials(study.trials) is None
    assert Domain.of_trials([]) is None


def test_options_that_change_nothing_are_one_point() -> None:
    """Stage 1 of ResNet-50 has three blocks: every one of them is also the mask 111."""
    stages = {"1": {"none": None, "sge": {"groups": [16, 32], "blocks": ["every", "b111", "last"]}}, "all": {"none": None, "ela_t": None}}
    space = SearchSpace.from_dict("s", {"host": "nasattn_resnet50", "stages": stages})
    domain = Domain.of_space(space)
    assert domain.size == space.size == 5 * 8
    names = {"stage1": "sge", "stage1.sge.groups": 16, "stage2": "none", "stage3": "none", "stage4": "none"}
    points = {domain.point({**names, "stage1.sge.blocks": blocks}) for blocks in ("every", "b111")}
    assert len(points) == 1
    assert domain.baseline == (0, 0, 0, 0)


def test_flat_parameters_mean_the_same_points() -> None:
    space = SearchSpace.from_dict("s", {"host": "nasattn_resnet50", "stages": {"all": {"none": None, "sge": {"groups": [16, 32]}}}})
    domain = Domain.of_space(space)
    for placement in list(space.placements())[::9]:
        assert domain.point(space.params(placement, flat=True)) == domain.point(space.params(placement)) is not None
        assert space.placement(space.params(placement)) == space.placement(space.params(placement, flat=True)) == placement
