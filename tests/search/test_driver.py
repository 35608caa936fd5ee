"""The search on real Ray, Optuna and SQLite; only the training is replaced, where a test needs a fault or speed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from PIL import Image

from nasattn.attention import Placement
from nasattn.errors import NasattnError, StudyError, UsageError
from nasattn.front import front
from nasattn.hosts import get_host
from nasattn.search.cluster import check_reachable
from nasattn.search.driver import SearchResult, measure_front, run_search
from nasattn.search.events import Event, SearchNoted, SearchStarted, TrialFinished, TrialReported, TrialStarted
from nasattn.search.latencies import HostLatencies
from nasattn.search.planning import plan
from nasattn.search.study import StudyConfig, make_config
from nasattn.store import EvaluationRecord, LatencyRecord, Store, StudyRecord
from tests.search.workers import start_scripted

TINY = {"samples": 64, "val_samples": 32, "resolution": 24, "epochs": 2}


def configure(space_file: str, **settings: Any) -> StudyConfig:
    small = {"fidelity": TINY, "deployment": {"resolution": 64}, "latency_seconds": 0.2}
    return make_config({"space": space_file, "study": "s", "sampler": "random", "trials": 4, **small, **settings})


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def optuna_trials(url: str, study: str = "s") -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=study, storage=url).get_trials()


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[SearchResult, str, list[Event]]:
    """A search in which trials raise, give NaN and are killed."""
    from tests.search.conftest import SPACE

    folder = tmp_path_factory.mktemp("faulty")
    (folder / "cheap.yaml").write_text(SPACE)
    url, events = f"sqlite:///{folder / 'studies.db'}", []
    config = configure(str(folder / "cheap.yaml"), trials=14, max_failures=1)
    return run_search(config, url, start=start_scripted, listener=events.append), url, events


def test_every_trial_ends_as_what_it_was(faulty: tuple[SearchResult, str, list[Event]]) -> None:
    result, url, _ = faulty
    assert {m.latency_method for m in result.front} == {"pair"}
    trials = optuna_trials(url)
    assert {t.state for t in trials} == {TrialState.COMPLETE, TrialState.FAIL}
    reasons = {"eca": "RuntimeError: the attention fell over", "se": "accuracy is nan", "gc": "the worker died"}
    seen = set()
    for trial in trials:
        fate = trial.user_attrs["placement"].split(",")[0]
        seen.add(fate)
        assert (trial.state is TrialState.FAIL) == (fate in reasons), trial
        if fate in reasons:
            assert reasons[fate] in trial.user_attrs["reason"]
    assert seen == {"none", "eca", "se", "gc"}
    assert result.complete
    assert sum(e.state in ("COMPLETE", "FAIL") and e.reused_from is None for e in result.evaluations) == 14


def test_the_store_says_the_same_as_optuna(faulty: tuple[SearchResult, str, list[Event]]) -> None:
    result, url, _ = faulty
    trials = {t.number: t for t in optuna_trials(url)}
    for evaluation in result.evaluations:
        trial = trials[evaluation.trial]
        assert (trial.state.name, trial.user_attrs["placement"]) == (evaluation.state, evaluation.placement)
        assert trial.user_attrs["params_M"] == round(evaluation.params / 1e6, 3)
        assert trial.user_attrs["macs_G"] == round(evaluation.macs / 1e9, 3)
        if evaluation.state == "COMPLETE":
            assert evaluation.latency is not None
            assert trial.values[0] == evaluation.accuracy
            low, high = (float(end.removesuffix("x")) for end in trial.user_attrs["latency_interval"].split(" to "))
            assert low - 1e-3 <= trial.values[1] <= high + 1e-3
        else:
            assert evaluation.error
    assert any("Traceback" in (e.error or "") for e in result.evaluations)


def test_the_plain_baseline_is_first(faulty: tuple[SearchResult, str, list[Event]]) -> None:
    result, _, _ = faulty
    assert result.evaluations[0].placement == "none,none,none,none"
    assert result.evaluations[0].latency is not None
    assert result.evaluations[0].latency.ratio == 1.0


def test_failed_trials_are_not_on_the_front(faulty: tuple[SearchResult, str, list[Event]]) -> None:
    result, url, _ = faulty
    complete = {e.trial for e in result.evaluations if e.state == "COMPLETE"}
    assert result.front and {m.trial for m in result.front} <= complete
    assert Store(url).front("s") == [(m.trial, m.tier, m.p_member) for m in sorted(result.front, key=lambda m: m.trial)]


def test_no_placement_is_trained_twice_with_one_seed(faulty: tuple[SearchResult, str, list[Event]]) -> None:
    _, _, events = faulty
    completed = [(e.record.placement, e.record.seed) for e in events if isinstance(e, TrialFinished) and e.record.state == "COMPLETE"]
    assert len(completed) == len(set(completed))


def test_the_listener_hears_of_everything(faulty: tuple[SearchResult, str, list[Event]]) -> None:
    _, _, events = faulty
    assert isinstance(events[0], SearchStarted) and events[0].trials == 14
    assert sum(isinstance(e, TrialStarted) for e in events) == sum(isinstance(e, TrialFinished) for e in events) == 14
    assert {e.epoch for e in events if isinstance(e, TrialReported)} <= {0.5, 1, 2}


def test_objectives_have_their_names_and_directions(faulty: tuple[SearchResult, str, list[Event]]) -> None:
    study = optuna.load_study(study_name="s", storage=faulty[1])
    assert study.metric_names == ["accuracy", "latency_ratio"]
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]


def test_a_study_is_continued_but_not_under_another_configuration(space_file: str, url: str, ray_session: None) -> None:
    config = configure(space_file, trials=2)
    first = run_search(config, url, start=start_scripted)
    again = run_search(config, url, start=start_scripted)
    assert first.evaluations == again.evaluations
    other = replace(config, fidelity=replace(config.fidelity, epochs=3))
    with pytest.raises(StudyError, match=r"fidelity\.epochs: 2 -> 3.*--fresh"):
        run_search(other, url)
    more = run_search(replace(config, trials=3), url, start=start_scripted)
    # a latency may have been measured again, where something else used the machine
    kept = [replace(e, latency=None) for e in more.evaluations[: len(first.evaluations)]]
    assert kept == [replace(e, latency=None) for e in first.evaluations]
    assert sum(e.reused_from is None for e in more.evaluations) == 3


def test_a_study_keeps_its_precision_on_another_machine(
    space_file: str, url: str, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has no instructions for it: unless the user says another, which is another study."""
    run_search(configure(space_file, trials=1, recipe={"precision": "bfloat16"}), url, start=start_scripted)
    for module in ("proxy.defaults", "search.planning"):
        monkeypatch.setattr(f"nasattn.{module}.usual_precision", lambda device: "float32")
    here = configure(space_file, trials=2)
    events: list[Event] = []
    assert len(run_search(here, url, start=start_scripted, listener=events.append).evaluations) == 2
    told = [e.text for e in events if isinstance(e, SearchNoted)]
    assert "the study computes in bfloat16, for which this CPU has no instructions: its proxies take longer here" in told
    assert plan(here, storage=url)["recipe"]["precision"] == "bfloat16"
    assert plan(here)["recipe"]["precision"] == "float32"
    with pytest.raises(StudyError, match=r"recipe\.precision: 'bfloat16' -> 'float32'"):
        run_search(configure(space_file, trials=2, recipe={"precision": "float32"}), url)


def test_real_proxies_are_trained(space_file: str, url: str, ray_session: None) -> None:
    """The default worker: the same seed gives the same accuracies in another database."""
    config = configure(space_file, trials=1)
    (first,) = run_search(config, url).evaluations
    (second,) = run_search(config, url.replace("studies", "others")).evaluations
    assert first.accuracy is not None and first.accuracy == second.accuracy
    assert [(p["epoch"], p["rung"]) for p in first.curve] == [(1, 1), (2, 2)]


def test_a_folder_of_images_may_be_named_from_here(
    space_file: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_session: None
) -> None:
    """Workers run in another directory than the driver."""
    for split in ("train", "val"):
        for label, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
            (tmp_path / "images" / split / label).mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (30 + i, 40), colour).save(tmp_path / "images" / split / label / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    (evaluation,) = run_search(configure(space_file, task="images", trials=1), url).evaluations
    assert (evaluation.state, evaluation.error) == ("COMPLETE", None)
    assert Store(url).study("s").config["task"] == str(tmp_path / "images")


def test_an_unreachable_cluster_is_one_line() -> None:
    with pytest.raises(NasattnError, match="Ray cannot be reached at 127.0.0.1:1: .*leave --address out"):
        check_reachable("127.0.0.1:1")


def test_an_unbuildable_choice_is_found_before_anything_runs(tmp_path: Path, url: str) -> None:
    path = tmp_path / "narrow.yaml"
    path.write_text("host: nasattn_resnet18\nstages: {all: {none: , fsla: {heads: [3]}}}")
    with pytest.raises(UsageError, match="heads"):
        run_search(configure(str(path)), url)


def test_members_of_the_front_are_measured_end_to_end(space_file: str, url: str) -> None:
    """Predicted ones always, disturbed ones after trials were trained; whoever takes their place as well."""
    config, store, events = configure(space_file), Store(url), []
    store.add_study(StudyRecord("s", config.to_dict(), {}, 0))
    ratios = {
        "none,none,none,none": (0.5, 1.0, "pair"),
        "se,none,none,none": (0.6, 0.5, "table"),
        "none,none,none,ela_t": (0.7, 1.01, "pair"),
    }
    latencies = HostLatencies(store, get_host(config.space.host), config.deployment, max_seconds=0.05)
    for number, (placement, (accuracy, ratio, method)) in enumerate(ratios.items()):
        latency = LatencyRecord(ratio * 9, 9.0, ratio, ratio, ratio, 9, True, exclusive=method == "table", method=method)  # type: ignore[arg-type]
        latencies.count(Placement.parse(placement))
        latency_id = store.add_latency(latencies.key, config.space.host, placement, latency)
        record = EvaluationRecord(number, placement, "RUNNING", 0, 1, 2, {}, f"{number}")
        evaluation = store.start_evaluation("s", config.space.host, record, latency_id)
        store.finish_evaluation(evaluation, "COMPLETE", accuracy=accuracy, val_samples=100)

    measure_front(store, "s", latencies, events.append, shared_too=False)
    found = {e.placement: e.latency for e in store.evaluations("s") if e.latency is not None}
    assert found["se,none,none,none"].method == "pair" and found["se,none,none,none"].ratio != 0.5
    assert found["none,none,none,ela_t"].ratio == 1.01  # disturbed, and left as it is
    assert [type(e) for e in events] == [SearchNoted]

    measure_front(store, "s", latencies, events.append, shared_too=True)
    found = {e.placement: e.latency for e in store.evaluations("s") if e.latency is not None}
    assert found["none,none,none,ela_t"].ratio != 1.01
    assert all(m.latency_method == "pair" for m in front(store.evaluations("s")))


def test_a_plan_trains_nothing(space_file: str) -> None:
    figures = plan(configure(space_file))
    assert figures["trials"] == 4 and figures["space"]["placements"] == 24


def test_named_placements_come_first(space_file: str, url: str, ray_session: None) -> None:
    named = ["none,sge_g32,none,ela_t", "none,none,none,none", "sb,none,none,none"]  # the last is not in the space
    result = run_search(configure(space_file, trials=3, first=named, workers=1), url, start=start_scripted)
    assert [e.placement for e in result.evaluations] == ["none,none,none,none", "none,sge_g32,none,ela_t", "sb,none,none,none"]
    assert Store(url).study("s").config["first"] == named
