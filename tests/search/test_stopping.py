"""Halving, reuse and budgets in a study: asked and told as workers would, on a real database with a table of latencies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from nasattn.attention import Placement
from nasattn.errors import UsageError
from nasattn.front import front
from nasattn.hosts import get_host
from nasattn.proxy import Checkpoints
from nasattn.search.budget import growth
from nasattn.search.continuing import enqueue
from nasattn.search.samplers import SAMPLERS
from nasattn.search.sampling import PlacementSampler
from nasattn.store import Store
from tests.search.fleet import Fleet, begin, configure, space_file, store

__all__ = ["space_file", "store"]


def test_trials_are_stopped_at_rungs_and_told_pruned_with_their_curve(store: Store, space_file: str) -> None:
    search = begin(store, configure(space_file, trials=24))
    fleet = Fleet(search)
    fleet.run()
    records = store.evaluations("s")
    assert {e.state for e in records} == {"COMPLETE", "PRUNED"}
    stopped = [e for e in records if e.stopped_at_rung]
    assert len(records) == 24 and 10 <= len(stopped) <= 20
    assert all(e.accuracy is None and e.curve and e.seconds for e in stopped)
    assert all("stopped at rung" in (e.error or "") for e in stopped)
    trials = {t.number: t for t in search.study.trials}
    for record in records:
        trial = trials[record.trial]
        assert trial.state.name == record.state
        assert trial.user_attrs["rungs"] == [[p["epoch"] / 4, p["accuracy"]] for p in record.curve]
    assert not {m.trial for m in front(records)} & {e.trial for e in stopped}
    assert all(steps == sorted(set(steps)) for steps in fleet.steps.values())  # nothing twice
    assert search.ended == "all 24 trials are evaluated" and search.is_over
    assert sum(e.share_trained for e in records) < 0.75 * 24


def test_the_baseline_is_always_trained_to_the_end(store: Store, space_file: str) -> None:
    search = begin(store, configure(space_file))
    Fleet(search).run()
    plain = next(e for e in store.evaluations("s") if e.placement == "none,none,none,none")
    assert (plain.state, len(plain.curve)) == ("COMPLETE", 3)


def test_a_sampler_that_learns_begins_with_whole_trainings(store: Store, space_file: str) -> None:
    Fleet(begin(store, configure(space_file, sampler="placement", trials=24))).run()
    records = store.evaluations("s")
    assert all(e.state == "COMPLETE" for e in records if e.trial < 12)
    assert sum(e.stopped_at_rung for e in records) >= 4


@pytest.mark.parametrize("sampler", ["auto", "placement", "random", "tpe"])
def test_the_samplers_that_learn_halve_by_default(space_file: str, sampler: str) -> None:
    assert configure(space_file, sampler=sampler, halving=None).halving == (sampler in ("auto", "placement"))
    assert configure(space_file, sampler=sampler, halving=False).halving is False


def test_without_halving_everything_is_trained_to_the_end(store: Store, space_file: str) -> None:
    Fleet(begin(store, configure(space_file, halving=False))).run()
    assert [e.state for e in store.evaluations("s")] == ["COMPLETE"] * 20


def test_what_the_sampler_wants_goes_on_before_anything_new(store: Store, space_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the rule would have it wait, and not before all that was queued stands where it stood."""
    asked: list[int] = []

    def goes_on(self: PlacementSampler, study: optuna.Study, waiting: list[tuple[dict[str, Any], float]]) -> int | None:
        asked.append(len(waiting))
        return max(range(len(waiting)), key=lambda i: waiting[i][1]) if len(waiting) >= 2 else None

    monkeypatch.setattr(PlacementSampler, "goes_on", goes_on)
    config = configure(space_file, sampler="placement", trials=40)
    fleet = Fleet(begin(store, config))
    fleet.run(most=100)
    assert asked and len(fleet.search.paused) <= 2 + fleet.size
    waited = len(fleet.search.paused)
    del asked[:]
    again = Fleet(begin(store, config))
    again.run(most=1)
    assert set(asked) <= {waited, waited + 1, waited - 1}
    again.run()
    assert sum(e.stopped_at_rung for e in store.evaluations("s")) <= 1 + fleet.size


def test_no_more_than_so_many_wait(store: Store, space_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least promising are told before the end, and are not promoted any more."""
    monkeypatch.setattr("nasattn.search.bridge.MOST_PAUSED", 3)
    fleet = Fleet(begin(store, configure(space_file)))
    fleet.run(most=20)
    assert len(fleet.search.paused) <= 3
    early = [e.placement for e in store.evaluations("s") if e.stopped_at_rung]
    fleet.run()
    assert early and set(early) <= {e.placement for e in store.evaluations("s") if e.stopped_at_rung}
    assert len(store.evaluations("s")) == 20


def test_a_killed_driver_loses_no_rung(store: Store, space_file: str) -> None:
    """What was paused is RUNNING in the database: it is queued again, stands where it stood, and is not trained twice."""
    dead = Fleet(begin(store, configure(space_file)))
    dead.run(most=14)
    paused = {p.record.placement: p.curve for p in dead.search.paused.values()}
    assert len(paused) >= 3
    fleet = Fleet(begin(store, configure(space_file)))
    fleet.progress = dict(dead.progress)  # their checkpoints
    fleet.run()
    assert all(e.state in ("COMPLETE", "PRUNED", "INTERRUPTED") for e in store.evaluations("s"))
    assert not [t for t in fleet.search.study.trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
    ended = {e.placement: e for e in store.evaluations("s") if e.state != "INTERRUPTED"}
    for placement, curve in paused.items():
        kept = ended[placement].curve[: len(curve)]
        assert [{**point, "gone_on": 0} for point in kept] == [{**point, "gone_on": 0} for point in curve]  # it may have gone on since
    assert sum(e.is_own_trial for e in store.evaluations("s")) == 20


def test_a_search_that_is_stopped_queues_what_was_paused(store: Store, space_file: str) -> None:
    fleet = Fleet(begin(store, configure(space_file)))
    fleet.run(most=14)
    left = len(fleet.search.running) + len(fleet.search.paused)
    fleet.search.stop_all()
    trials = fleet.search.study.trials
    assert sum(t.state is TrialState.WAITING for t in trials) == left
    assert not any(t.state is TrialState.RUNNING for t in trials)
    assert not fleet.search.is_over


def test_a_stopped_training_leaves_no_checkpoint(store: Store, space_file: str) -> None:
    fleet = Fleet(begin(store, configure(space_file)))
    fleet.run(most=14)
    identity = next(iter(fleet.search.paused.values())).record.identity
    checkpoints = Checkpoints()
    checkpoints.save(identity, {})
    fleet.search.finish()
    assert checkpoints.load(identity) is None


def test_rungs_known_from_another_study_are_free(store: Store, space_file: str) -> None:
    first = Fleet(begin(store, configure(space_file), "first"))
    first.run()
    second = Fleet(begin(store, configure(space_file, halving=True), "second"))
    second.progress = {i: max(steps) for i, steps in first.steps.items()}
    second.run()
    again = [i for i in second.steps if i in first.steps]
    assert all(not set(second.steps[i]) & set(first.steps[i]) for i in again)
    assert sum(e.is_own_trial for e in store.evaluations("second")) == 20


def test_placements_with_the_same_proxy_are_trained_once(store: Store, tmp_path: Path) -> None:
    """At an eighth of the width, 8 and 16 groups are one proxy: the second placement has its accuracy and its own latency."""
    path = tmp_path / "alike.yaml"
    path.write_text("host: nasattn_resnet18\nstages: {1: {none: }, 2: {none: , sge: {groups: [8, 16]}}, 3: {none: }, 4: {none: }}")
    config = configure(str(path), halving=False)
    config = replace(config, fidelity=replace(config.fidelity, width=0.0625))
    stages = get_host(config.space.host).proxy_placement("none,sge_g8,none,none", 0.0625)
    assert stages == get_host(config.space.host).proxy_placement("none,sge_g16,none,none", 0.0625)
    search = begin(store, config)
    enqueue(search, [Placement.parse(p) for p in ("none,sge_g8,none,none", "none,sge_g16,none,none")])
    fleet = Fleet(search)
    fleet.run()
    records = {e.placement: e for e in store.evaluations("s")}
    assert len(fleet.steps) == 2 and len(records) == 3
    one, two = records["none,sge_g8,none,none"], records["none,sge_g16,none,none"]
    assert one.accuracy == two.accuracy and two.reused_from == one.id
    assert one.latency is not None and two.latency is not None and one.latency.ratio < two.latency.ratio
    assert search.ended == "every placement of alike that was found is evaluated"


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_nothing_is_trained_twice_with_eight_in_flight(store: Store, space_file: str, sampler: str) -> None:
    fleet = Fleet(begin(store, configure(space_file, sampler=sampler, trials=40)), size=8)
    fleet.run()
    assert len(fleet.steps) == 40
    assert all(steps == sorted(set(steps)) for steps in fleet.steps.values())


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_sampler_trains_a_duplicate_in_200_trials(store: Store, space_file: str, sampler: str) -> None:
    fleet = Fleet(begin(store, configure(space_file, sampler=sampler, trials=200)), size=8)
    fleet.run()
    assert len(fleet.steps) == 200
    assert all(steps == sorted(set(steps)) for steps in fleet.steps.values())


def test_the_compute_budget_counts_all_workers_and_what_was_spent_before(store: Store, space_file: str) -> None:
    config = configure(space_file, compute_budget="30s", halving=False)
    first = begin(store, config)
    Fleet(first, size=2).run()
    assert first.ended == "the compute budget of 30 s of training is used up"
    assert 30 <= first.budget.seconds <= 30 + 2 * 4
    assert begin(store, config).ended == first.ended
    assert begin(store, replace(config, compute_budget=60.0)).ended == ""


def test_the_search_ends_when_the_front_no_longer_grows(store: Store, space_file: str) -> None:
    search = begin(store, configure(space_file, plateau=5, trials=200, halving=False))
    Fleet(search).run()
    assert search.ended == "the front's hypervolume has not grown by 1% in the last 5 trials"
    assert 6 <= len(store.evaluations("s")) < 200
    assert begin(store, configure(space_file, plateau=5, trials=200, halving=False)).ended == search.ended


def test_growth_of_a_front() -> None:
    assert growth([], [(0.5, 1.0)]) == 1.0
    front = [(0.5, 1.0), (0.9, 1.5), (0.4, 2.0)]
    assert growth(front, [*front, (0.6, 1.9)]) == 0.0
    assert growth(front, [*front, (0.9, 1.1)]) > 0.1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"plateau": 0}, "plateau must be an integer >= 1, got 0"),
        ({"halving": "no"}, "halving must be true or false, got 'no'"),
        ({"compute_budget": "2"}, "a compute budget is a number with s, m, h or d, such as 30m, got '2'"),
    ],
)
def test_wrong_budgets(space_file: str, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        configure(space_file, **wrong)
    assert str(caught.value) == message
