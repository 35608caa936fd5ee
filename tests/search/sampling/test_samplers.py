"""What all samplers of our own have in common: no point twice, reproducible, any Optuna study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from problems import key, latency, suggest, two_objectives

from nasattn.errors import UsageError
from nasattn.search.sampling import Domain, EvolutionSampler, LocalSearchSampler, PlacementSampler, UniformSampler
from nasattn.space import SearchSpace

optuna.logging.set_verbosity(optuna.logging.WARNING)
Make = Callable[[int, Domain | None], optuna.samplers.BaseSampler]
SAMPLERS: dict[str, Make] = {
    "placement": lambda seed, domain: PlacementSampler(domain, seed=seed),
    "local": lambda seed, domain: LocalSearchSampler(domain, seed),
    "evolution": lambda seed, domain: EvolutionSampler(domain, seed),
    "uniform": lambda seed, domain: UniformSampler(domain, seed),
}
every_sampler = pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)


def small_space() -> SearchSpace:
    stages = {"all": {"none": None, "sge": {"groups": [16, 32]}, "ela_t": None, "lka": {"kernel": [7, 21], "dilation": [2, 3]}}}
    return SearchSpace.from_dict("small", {"host": "nasattn_resnet50", "stages": stages})


@every_sampler
def test_no_placement_twice_with_eight_in_flight(make: Make) -> None:
    space = small_space()
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make(0, Domain.of_space(space)))
    running: list[optuna.Trial] = []
    seen = []
    for number in range(200):
        trial = study.ask()
        seen.append(str(space.suggest(trial)))
        running.append(trial)
        if len(running) == 8:
            study.tell(running.pop(number % 8), [0.5 + number % 7 / 20, 1 + number % 5 / 10])
    assert len(set(seen)) == 200


@every_sampler
def test_a_space_is_gone_through_to_its_end(make: Make) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make(1, None))
    seen = set()
    for _ in range(13):  # the first is drawn before anything is known
        trial = study.ask()
        seen.add((trial.suggest_categorical("a", [1, 2, 3, 4]), trial.suggest_int("b", 0, 2)))
        study.tell(trial, [len(seen), trial.params["b"]])
    assert len(seen) == 12


@every_sampler
def test_waiting_points_are_not_suggested(make: Make) -> None:
    domain = Domain.of_space(small_space())
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make(0, domain))
    first = make(0, domain)
    probe = optuna.create_study(directions=["maximize", "minimize"], sampler=first).ask()
    expected = small_space().suggest(probe)
    study.enqueue_trial(small_space().params(expected))
    study.enqueue_trial(small_space().params(expected))
    assert small_space().suggest(study.ask()) == expected  # the queue comes first, as it is
    study.ask()
    assert small_space().suggest(study.ask()) != expected


@every_sampler
def test_the_same_seed_gives_the_same_trials(make: Make) -> None:
    runs = [[key(t.params) for t in two_objectives(make(seed, None), 40).trials] for seed in (5, 5, 6)]
    assert runs[0] == runs[1] != runs[2]


@every_sampler
def test_a_study_goes_on_from_its_storage_as_if_it_had_not_stopped(make: Make, tmp_path: Path) -> None:
    domain = Domain.of_space(small_space())

    def go_on(study: optuna.Study, trials: int) -> None:
        study.optimize(lambda t: (str(small_space().suggest(t)).count("e") / 10, 1 + len(t.params) / 10), n_trials=trials)

    url = f"sqlite:///{tmp_path}/a.db"
    go_on(optuna.create_study(storage=url, study_name="s", directions=["maximize", "minimize"], sampler=make(3, domain)), 12)
    go_on(optuna.load_study(storage=url, study_name="s", sampler=make(3, domain)), 12)
    whole = optuna.create_study(directions=["maximize", "minimize"], sampler=make(3, domain))
    go_on(whole, 24)
    resumed = optuna.load_study(storage=url, study_name="s")
    assert [t.params for t in resumed.trials] == [t.params for t in whole.trials]


@every_sampler
def test_failed_trials_are_not_repeated_and_do_no_harm(make: Make) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make(0, None))
    for number in range(40):
        trial = study.ask()
        params = suggest(trial)
        match number % 3:
            case 0:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            case 1:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            case _:
                study.tell(trial, [0.5, latency(params)])
    later = [key(t.params) for t in study.trials[8:]]
    assert len(set(later)) == len(later)


@every_sampler
def test_one_objective(make: Make) -> None:
    study = optuna.create_study(direction="minimize", sampler=make(0, None))
    study.optimize(lambda t: latency(suggest(t)), n_trials=60)
    if not isinstance(study.sampler, UniformSampler):
        assert study.best_value < 1.1


@every_sampler
def test_parameters_that_are_no_choices_are_drawn_at_random(make: Make) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make(0, None))

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        rate = trial.suggest_float("rate", 1e-4, 1e-1, log=True)
        return trial.suggest_categorical("a", [1, 2, 3]) * rate, trial.suggest_int("wide", 1, 10_000)

    study.optimize(objective, n_trials=15)
    assert len({t.params["rate"] for t in study.trials}) == 15
    assert {t.params["a"] for t in study.trials} == {1, 2, 3}


def test_more_objectives_than_a_sampler_takes() -> None:
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"], sampler=PlacementSampler(seed=0))
    with pytest.raises(UsageError, match="PlacementSampler takes one or two objectives, got 3; drop some, or use NSGAIIISampler"):
        study.ask().suggest_categorical("a", [1, 2])


def test_uniform_places_each_attention_everywhere_first() -> None:
    space = small_space()
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=UniformSampler(Domain.of_space(space), 0))
    found = []
    for _ in range(10):
        trial = study.ask()
        found.append(list(space.suggest(trial)))
        study.tell(trial, [0.5, 1.0])
    uniform = [len(set(p)) == 1 for p in found]
    assert uniform == [True] * 8 + [False] * 2
    assert str(found[0][0]) == "none"
