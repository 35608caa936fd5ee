"""The bridge to Optuna and the store, asked and told as Ray Tune would, on a real database and with real latencies."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from nasattn.errors import UsageError
from nasattn.search.appraisal import Appraiser
from nasattn.search.bridge import PlacementSearch
from nasattn.search.continuing import baselines, enqueue, enter_study, evaluate_again, reconcile
from nasattn.search.limits import Limit
from nasattn.search.samplers import SAMPLERS
from nasattn.search.study import StudyConfig
from nasattn.search.suggestions import FINISHED
from nasattn.store import Store
from tests.search.test_driver import configure


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One database for the module, so that each placement's latency is measured once."""
    return Store(f"sqlite:///{tmp_path_factory.mktemp('bridge') / 'studies.db'}")


def begin(store: Store, config: StudyConfig, name: str) -> PlacementSearch:
    config = enter_study(replace(config, name=name), store, fresh=False)
    reconcile(store, name)
    appraiser = Appraiser(store, config.space.host, config.deployment, config.limits, max_seconds=0.1)
    search = PlacementSearch(config, store, appraiser, store.evaluations(name), lambda event: None)
    if not search.study.get_trials(deepcopy=False):
        enqueue(search, baselines(search.config.space))
    return search


def report(accuracy: float = 0.7, epoch: int = 2, **more: Any) -> dict[str, Any]:
    return {"epoch": epoch, "loss": 1.0, "accuracy": accuracy, "seconds": 1.0, "worker": "here:1", "finished": epoch == 2, **more}


def drive(search: PlacementSearch, most: int = 50) -> list[str]:
    """Ask and complete trial after trial until the search has enough; the placements in order."""
    placements = []
    for number in range(most):
        trial = search.suggest(f"t{number}")
        if trial == FINISHED:
            return placements
        assert isinstance(trial, dict)
        placements.append(trial["job"].placement)
        search.on_trial_result(f"t{number}", report(epoch=1))
        search.on_trial_complete(f"t{number}", report(accuracy=0.5 + number / 100))
    raise AssertionError("the search did not end")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_goes_through_the_space_without_repetition(store: Store, space_file: str, sampler: str) -> None:
    seed = list(SAMPLERS).index(sampler)  # another seed: nothing is known already
    placements = drive(begin(store, configure(space_file, sampler=sampler, trials=5, seed=seed), sampler))
    assert len(placements) == len(set(placements)) == 5
    assert placements[0] == "none,none,none,none"
    states = {t.state for t in optuna.load_study(study_name=sampler, storage=store.optuna).get_trials()}
    assert states == {TrialState.COMPLETE}


def test_the_values_told_are_those_reported(store: Store, space_file: str) -> None:
    search = begin(store, configure(space_file, trials=1, seed=10), "values")
    search.suggest("a")
    search.on_trial_complete("a", report(accuracy=0.625))
    (evaluation,) = store.evaluations("values")
    assert (evaluation.state, evaluation.accuracy, evaluation.worker) == ("COMPLETE", 0.625, "here:1")
    assert search.study.trials[0].values == [0.625, 1.0]


@pytest.mark.parametrize(
    ("name", "result", "reason"),
    [
        ("nan", report(accuracy=math.nan), "accuracy is nan after epoch 2"),
        ("raised", {"error": "ValueError: no", "traceback": "Traceback ... ValueError: no", "worker": "w"}, "ValueError: no"),
        ("stopped", report(epoch=1), "the search was stopped during this trial"),
        ("silent", None, "the search was stopped during this trial"),
    ],
)
def test_what_did_not_complete_is_told_fail_with_its_reason(
    store: Store, space_file: str, name: str, result: dict[str, Any] | None, reason: str
) -> None:
    search = begin(store, configure(space_file, seed=11), name)
    search.suggest("a")
    search.on_trial_complete("a", result)
    (trial,) = [t for t in search.study.trials if t.state is not TrialState.WAITING]
    assert trial.state is TrialState.FAIL
    assert reason in trial.user_attrs["reason"]
    (evaluation,) = store.evaluations(name)
    assert evaluation.state == ("INTERRUPTED" if result is None or name == "stopped" else "FAIL")
    assert evaluation.accuracy is None and reason in (evaluation.error or "")


def test_the_same_placement_in_flight_waits_for_the_first(store: Store, space_file: str) -> None:
    search = begin(store, configure(space_file, trials=24, seed=12), "flight")
    asked = [search.suggest(f"t{i}") for i in range(6)]
    placements = [a["job"].placement for a in asked if isinstance(a, dict)]
    assert len(placements) == len(set(placements)) == 6
    for i in range(6):
        search.on_trial_complete(f"t{i}", report())
    trials = search.study.trials
    assert {t.state for t in trials} == {TrialState.COMPLETE}
    by_placement = {t.user_attrs["placement"]: t.values for t in trials if "reused" not in t.user_attrs}
    assert all(t.values == by_placement[t.user_attrs["placement"]] for t in trials)
    assert all({"placement", "params_M", "macs_G"} <= set(t.user_attrs) for t in trials)


def test_what_another_study_trained_is_free(store: Store, space_file: str) -> None:
    config = configure(space_file, trials=3, seed=13)
    first = drive(begin(store, config, "first"))
    second = drive(begin(store, config, "second"))
    assert not set(first) & set(second)
    reused = [e for e in store.evaluations("second") if e.reused_from is not None]
    assert {e.placement for e in reused} <= set(first)
    assert {e.placement: e.accuracy for e in reused}.items() <= {e.placement: e.accuracy for e in store.evaluations("first")}.items()
    assert sum(e.reused_from is None for e in store.evaluations("second")) == 3


def test_an_exhausted_space_ends_the_search(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text("host: nasattn_resnet18\nstages: {1: {none: , ela_t: }, 2: {none: }, 3: {none: }, 4: {none: }}")
    search = begin(store, configure(str(path), trials=10, seed=18), "two")
    assert sorted(drive(search)) == ["ela_t,none,none,none", "none,none,none,none"]
    assert search.is_over


def test_the_baseline_is_trained_where_the_space_lacks_it(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "no_none.yaml"
    path.write_text("host: nasattn_resnet18\nstages: {all: {ela_t: , ela_b: }}")
    first, second = drive(begin(store, configure(str(path), trials=2, seed=19), "no_none"))
    assert first == "none,none,none,none"
    assert "none" not in second


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"max_latency": "0.001ms"}, r"--max-latency 0.001ms cannot be met: the cheapest of the 24 placements of cheap is none,none,none,none with latency "),
        ({"max_latency": "0.9x"}, "--max-latency 0.9x cannot be met: .* raise the limit"),
        ({"max_params": "1M"}, "--max-params 1M cannot be met: .* none,none,none,none with params 11.69M, 1.000x; raise the limit"),
        ({"max_macs": "1G"}, "--max-macs 1G cannot be met: .* with macs 1.814G, 1.000x"),
        ({"max_memory": "10MiB"}, "--max-memory 10MiB cannot be met: .* with memory [0-9.]+ MB, 1.000x"),
    ],
)  # fmt: skip
def test_a_limit_below_the_plain_host_ends_at_once(store: Store, space_file: str, limit: dict[str, str], message: str) -> None:
    config = configure(space_file, seed=14, **limit)
    with pytest.raises(UsageError, match=message):
        Appraiser(store, config.space.host, config.deployment, config.limits, max_seconds=0.1).check_feasible(config.space)


def test_a_space_without_none_names_its_cheapest_placement(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "heavy.yaml"
    path.write_text("host: nasattn_resnet18\nstages: {1: {fsla: , se: , lka: }, 2: {none: }, 3: {none: }, 4: {none: }}")
    for limit in ({"max_latency": "0.8x"}, {"max_params": "1.0001x"}):
        config = configure(str(path), **limit)
        with pytest.raises(UsageError, match=r"the cheapest of the 3 placements of heavy is se,none,none,none with"):
            Appraiser(store, config.space.host, config.deployment, config.limits, max_seconds=0.1).check_feasible(config.space)


def test_a_limit_is_evaluated_for_every_trial(store: Store, space_file: str) -> None:
    search = begin(store, replace(configure(space_file, trials=3, seed=15), limits={"latency": Limit("latency", 50, "x")}), "limited")
    drive(search)
    assert all(t.system_attrs["constraints:max_latency"] < 0 for t in search.study.trials)
    stored = [e.constraints["max_latency"] for e in store.evaluations("limited") if e.constraints is not None]
    assert len(stored) == len(store.evaluations("limited"))
    assert all(c["limit"] == "50x" and c["excess"] == c["ratio"] / 50 - 1 for c in stored)


def test_what_exceeds_any_limit_is_not_trained(store: Store, space_file: str) -> None:
    """SGE has 32 or 64 parameters a block and ECA few; SE and GC have thousands: only placements without those are trained."""
    search = begin(store, configure(space_file, trials=6, seed=22, max_params="1.0003x", max_macs="2G", max_memory="1.5x"), "small")
    trained = drive(search)
    assert len(trained) == 6
    for record in store.evaluations("small"):
        found = record.constraints
        assert found is not None and set(found) == {"max_params", "max_macs", "max_memory"}
        assert (record.state == "PRUNED") == any(c["excess"] > 0 for c in found.values())
        assert (record.placement in trained) == (record.params <= 1.0003 * 11_689_512)


def test_a_search_goes_on_to_the_few_that_are_allowed(store: Store, tmp_path: Path) -> None:
    """Of 4,096 placements two are within the limit: they are found, then the search is over."""
    path = tmp_path / "few.yaml"
    heavy = "{none: , lka: {kernel: [7, 14, 21], dilation: [2]}, se: , gc: , cbam: , coord: }"
    path.write_text(
        f"host: nasattn_resnet18\nstages: {{1: {heavy}, 2: {heavy}, 3: {heavy}, 4: {{none: , eca: , lka: , se: , gc: , cbam: , coord: }}}}"
    )
    search = begin(store, configure(str(path), trials=10, seed=23, max_params="11689530"), "few")
    assert sorted(drive(search)) == ["none,none,none,eca", "none,none,none,none"]
    assert search.is_over


def test_limits_that_changed_are_evaluated_again(store: Store, space_file: str) -> None:
    drive(begin(store, configure(space_file, trials=2, seed=24), "changed"))
    assert all(e.constraints in (None, {}) for e in store.evaluations("changed"))
    config = replace(configure(space_file, trials=2, seed=24, max_macs="5G"), name="changed")
    evaluate_again(store, config, Appraiser(store, config.space.host, config.deployment, config.limits))
    assert all(e.constraints is not None and e.constraints["max_macs"]["excess"] < 0 for e in store.evaluations("changed"))


def test_a_space_of_which_only_the_plain_host_is_fast_enough_is_exhausted(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "heavy.yaml"
    path.write_text("host: nasattn_resnet18\nstages: {1: {none: , fsla: {cluster: [25, 49]}}, 2: {none: }, 3: {none: }, 4: {none: }}")
    search = begin(store, configure(str(path), trials=10, seed=21, max_latency="1.01x"), "heavy")
    assert drive(search) == ["none,none,none,none"]
    assert search.is_over
    states = {e.placement: e.state for e in store.evaluations("heavy")}
    assert states["fsla_c49,none,none,none"] == states["fsla_c25,none,none,none"] == "PRUNED"


def test_the_time_budget_begins_nothing_new(store: Store, space_file: str) -> None:
    search = begin(store, configure(space_file, time_budget="1s", seed=16), "timed")
    search.budget.started -= 2
    assert search.suggest("a") == FINISHED
    assert search.is_over


def test_a_placement_that_cannot_run_fails_and_the_search_goes_on(store: Store, tmp_path: Path, broken_attention: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(f"host: nasattn_resnet18\nstages: {{1: {{none: , {broken_attention}: }}, 2: {{none: }}, 3: {{none: }}, 4: {{none: }}}}")
    search = begin(store, configure(str(path), trials=2, seed=20), "broken")
    assert drive(search) == ["none,none,none,none"]
    plain, broken = search.study.trials[0], search.study.trials[-1]  # between them the plain host may have been suggested again
    assert (plain.state, broken.state) == (TrialState.COMPLETE, TrialState.FAIL)
    reason = "latency measurement failed: runtime 'eager' cannot run Stage(1: broken): RuntimeError: no kernel for this"
    assert broken.user_attrs["reason"] == reason
    assert {"placement", "params_M", "macs_G"} <= set(broken.user_attrs)
    assert store.evaluations("broken")[-1].state == "FAIL"


def test_orphans_of_a_dead_driver_are_queued_again(store: Store, space_file: str) -> None:
    config = configure(space_file, trials=3, seed=17)
    dead = begin(store, config, "orphans")
    orphan = dead.suggest("a")
    assert isinstance(orphan, dict)
    search = begin(store, config, "orphans")
    assert [e.state for e in store.evaluations("orphans")] == ["INTERRUPTED"]
    placements = drive(search)
    assert placements[0] == orphan["job"].placement
    assert len(placements) == 3
    states = [t.state for t in search.study.trials]
    assert states.count(TrialState.FAIL) == 1 and TrialState.RUNNING not in states
