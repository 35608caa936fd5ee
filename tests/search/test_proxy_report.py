"""The proxy report and the tuning of proxies, on real Ray and SQLite; only the training is scripted, so that the truth is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nasattn.attention import Placement
from nasattn.errors import NasattnError, StudyError, UsageError
from nasattn.proxy import TrainingReport
from nasattn.proxy.recipe_file import read_recipe_file
from nasattn.search.driver import run_search
from nasattn.search.proxy_report import evaluate, run_proxy_report, stored_proxy_report
from nasattn.search.study import StudyConfig, make_config
from nasattn.search.tune_proxy import Candidate, Tuned, _Suggestions, _tried, _Truth, seconds_per_image, tune_proxy
from nasattn.store import Store
from tests.search.workers import Scripted, start_by_rungs, start_truthful

SPACE = """
host: nasattn_resnet18
stages:
  1: {none: , se: , eca: }
  2: {none: , sge: {groups: [16, 32]}}
  3: {none: }
  4: {none: , ela_t: , se: }
"""
TINY = {"samples": 64, "val_samples": 32, "resolution": 24, "epochs": 1, "blocks": 1, "rungs": 1}


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[Store, str]:
    """A study of ten placements."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "small.yaml").write_text(SPACE)
    url = f"sqlite:///{folder / 'studies.db'}"
    settings: dict[str, Any] = {"fidelity": TINY, "deployment": {"resolution": 64}, "latency_seconds": 0.2, "trials": 10, "certify": 0}
    config = make_config({"space": str(folder / "small.yaml"), "study": "s", "sampler": "random", **settings})
    run_search(config, url, start=start_truthful)
    return Store(url), url


@pytest.fixture(scope="module")
def report(studied: tuple[Store, str]) -> Any:
    return run_proxy_report(studied[0], "s", placements=8, longer=3, seeds=2, start=start_truthful)


def test_placements_are_trained_longer_with_other_seeds_on_held_out_images(studied: tuple[Store, str], report: Any) -> None:
    store, _ = studied
    assert report.long_runs == ("s-x3-s1", "s-x3-s2")
    for number, name in enumerate(report.long_runs, start=1):
        config = store.study(name).config
        assert (config["fidelity"]["epochs"], config["seed"], config["held_out"]) == (3, number, True)
        assert store.study("s").config["fidelity"]["epochs"] == 1 and "held_out" not in store.study("s").config
        trials = store.evaluations(name)
        assert [t.state for t in trials] == ["COMPLETE"] * 8
        assert len({t.placement for t in trials}) == 8


def test_the_ranking_that_the_script_makes_is_found(report: Any) -> None:
    """Scripted: long runs order placements as the proxy does, up to one swap; parameters say nothing of it."""
    agreement = report.agreement
    assert len(agreement.points) == 8 and agreement.seeds == 2 and agreement.dropped == 0
    assert agreement.proxy.tau.value == pytest.approx(1.0)
    assert agreement.ceiling.value == pytest.approx(1.0)
    assert agreement.proxy.regret == 0
    assert [o.name for o in agreement.others] == ["params", "macs", "latency", "grad_norm", "naswot"]
    assert all(o.tau.value is not None and o.tau.value < 1 for o in agreement.others)


def test_it_is_stored_and_not_trained_again(studied: tuple[Store, str], report: Any) -> None:
    store, _ = studied
    assert stored_proxy_report(store, "s") == report
    before = {name: len(store.evaluations(name)) for name in report.long_runs}
    assert run_proxy_report(store, "s", placements=8, longer=3, seeds=2, start=fails).agreement == report.agreement
    assert {name: len(store.evaluations(name)) for name in report.long_runs} == before


def fails(*job: Any) -> Any:
    raise AssertionError("nothing is to be trained")


def test_what_the_search_stopped_takes_part_and_is_trained_to_the_end_first(tmp_path: Path, ray_session: None) -> None:
    (tmp_path / "small.yaml").write_text(SPACE)
    url = f"sqlite:///{tmp_path / 'halved.db'}"
    settings: dict[str, Any] = {"deployment": {"resolution": 64}, "latency_seconds": 0.2, "trials": 10, "certify": 0, "workers": 1}
    fidelity = {**TINY, "epochs": 2, "rungs": 2}
    halved = make_config(
        {"space": str(tmp_path / "small.yaml"), "study": "h", "sampler": "random", "halving": True, "fidelity": fidelity, **settings}
    )
    run_search(halved, url, start=start_by_rungs)
    store = Store(url)
    stopped = {t.placement for t in store.evaluations("h") if t.stopped_at_rung}
    assert 2 <= len(stopped) <= 8
    found = run_proxy_report(store, "h", placements=10, longer=3, seeds=2, start=start_by_rungs)
    assert found.stopped == len(stopped) and len(found.agreement.points) == 10 and found.agreement.dropped == 0
    whole = {t.placement: t for t in store.evaluations("h-x1-s0")}
    assert set(whole) == stopped and {t.state for t in whole.values()} == {"COMPLETE"}
    points = {p.placement: p for p in found.agreement.points}
    assert all(points[p].proxy == whole[p].accuracy for p in stopped)  # what they came to, not what they stood at
    assert all(p.proxy == p.long_run for p in points.values()) and found.agreement.proxy.tau.value == pytest.approx(1.0)
    assert run_proxy_report(store, "h", placements=10, longer=3, seeds=2, start=fails) == found == stored_proxy_report(store, "h")


@pytest.mark.slow
def test_a_placement_that_fails_is_left_out_and_counted(studied: tuple[Store, str], report: Any) -> None:
    found = run_proxy_report(studied[0], "s", placements=8, longer=2, seeds=2, start=start_failing_eca)
    lost = sum(p.placement.startswith("eca") for p in report.agreement.points)
    assert lost > 0 and found.agreement.dropped == lost
    studied[0].save_report("s", "proxy", report.to_dict())  # the newest is shown


def test_what_is_known_of_the_placements_asked_for_is_told_and_nothing_else_trained(studied: tuple[Store, str]) -> None:
    store, _ = studied
    known = {t.placement: t.accuracy for t in store.evaluations("s")}
    assert len(known) == 10  # more repeats in a row than make a search draw another placement
    config = replace(StudyConfig.from_stored(store.study("s")), name="again")
    evaluate(store, config, [Placement.parse(p) for p in known], None, start_truthful)
    again = store.evaluations("again")
    assert {t.placement: t.accuracy for t in again} == known
    assert all(t.reused_from is not None for t in again)


def start_failing_eca(job: Any, task: str, identity: str) -> Scripted:
    return FailingEca(job)


class FailingEca(Scripted):
    """eca raises, the others are ordered by their names."""

    def step(self) -> TrainingReport:
        if self.fate == "eca":
            raise RuntimeError("the attention fell over")
        return start_truthful(self.job, "", "").step()

    @property
    def done(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"placements": 3}, "placements must be at least 8, got 3"),
        ({"longer": 1}, "longer must be at least 2, got 1"),
        ({"seeds": 1}, "seeds must be at least 2, got 1"),
    ],
)
def test_too_small_numbers(studied: tuple[Store, str], arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_proxy_report(studied[0], "s", **arguments)  # type: ignore[arg-type]


def test_too_few_trials(tmp_path: Path, ray_session: None) -> None:
    (tmp_path / "small.yaml").write_text(SPACE)
    url = f"sqlite:///{tmp_path / 'few.db'}"
    settings: dict[str, Any] = {"fidelity": TINY, "deployment": {"resolution": 64}, "latency_seconds": 0.2, "trials": 2}
    run_search(make_config({"space": str(tmp_path / "small.yaml"), "study": "few", **settings}), url, start=start_truthful)
    with pytest.raises(StudyError, match="study 'few' has 2 trained placements with a latency; a report needs at least 8"):
        run_proxy_report(Store(url), "few")
    with pytest.raises(StudyError, match="no proxy report, whose long runs tell what is true"):
        tune_proxy(Store(url), "few", 10, tmp_path / "out.yaml")


@pytest.mark.slow
def test_tuning_takes_the_best_within_the_time_and_writes_it(studied: tuple[Store, str], report: Any, tmp_path: Path) -> None:
    """Scripted: more epochs rank better; a training takes a second an epoch, so four epochs are the most that fit."""
    out = tmp_path / "recipe.yaml"
    tuned = tune_proxy(studied[0], "s", 4.5, out, candidates=4, start=start_learning)
    assert len(tuned.candidates) == 4
    assert tuned.candidates[0].fidelity == tuned.candidates[0].fidelity.from_dict(studied[0].study("s").config["fidelity"])
    best = tuned.best
    assert best is not None and best.within and best.seconds <= 4.5
    assert best.tau == max(c.tau for c in tuned.candidates if c.within)
    assert best.tau > tuned.candidates[0].tau or best is tuned.candidates[0]
    fidelity, recipe = read_recipe_file(out)
    assert fidelity == best.fidelity.to_dict()
    used = make_config({"space": "resnet18_stages", "recipe": str(out)})
    assert used.fidelity == best.fidelity and used.recipe.to_dict() == recipe
    assert make_config({"space": "resnet18_stages", "recipe": str(out), "fidelity": {"epochs": 9}}).fidelity.epochs == 9


def test_a_candidate_is_expected_to_take_as_much_above_the_plain_host_as_those_before(studied: tuple[Store, str]) -> None:
    config = StudyConfig.from_stored(studied[0].study("s"))
    plain = seconds_per_image(config) * (config.fidelity.samples or 0) * config.fidelity.epochs
    tried: list[Candidate] = []
    suggestions = _Suggestions(config, 20 * plain, tried)
    assert next(iter(suggestions)) == config.fidelity
    longer = config.fidelity.changed(samples=2 * (config.fidelity.samples or 0))
    assert suggestions._fits(longer)
    tried.append(Candidate(config.fidelity, "s", 500 * plain, None, within=False))
    assert not suggestions._fits(longer)


@pytest.mark.slow
def test_a_fidelity_that_ranks_worse_is_given_up_after_half_of_the_placements(tmp_path: Path, ray_session: None) -> None:
    (tmp_path / "small.yaml").write_text(SPACE)
    store = Store(f"sqlite:///{tmp_path / 'studies.db'}")
    settings: dict[str, Any] = {"fidelity": TINY, "deployment": {"resolution": 64}, "latency_seconds": 0.2, "trials": 16, "certify": 0}
    config = make_config({"space": str(tmp_path / "small.yaml"), "study": "t", "sampler": "random", **settings})
    run_search(config, store.url, start=start_truthful)
    truth = _Truth(store, "t", run_proxy_report(store, "t", placements=16, longer=3, start=start_truthful).agreement)

    def tried(epochs: int, *before: Candidate, samples: int = 64, limit: float = 9.0) -> Candidate:
        fidelity = replace(config.fidelity, epochs=epochs, samples=samples)
        named = replace(config, name=f"t-{epochs}-{samples}", fidelity=fidelity, trials=16)
        return _tried(named, truth, Tuned("t", limit, before), lambda c, placements: evaluate(store, c, placements, None, start_learning))

    first = tried(2)
    assert (first.trained, first.given_up) == (16, False), "nothing to compare it with"
    better = tried(3, first)
    assert (better.trained, better.given_up, better.tau) == (16, False, pytest.approx(1.0))
    for _ in range(2):
        worse = tried(2, first, better, samples=96)
        assert (worse.trained, worse.given_up) == (8, True)
        assert len(store.evaluations("t-2-96")) == 8, "the same call again trains nothing more"
    assert Tuned("t", 9.0, (first, better, replace(worse, seconds=0.1))).best is better
    slow = tried(5, first, better, limit=4.5)
    assert (slow.trained, slow.given_up, slow.within) == (8, True, False)


def start_learning(job: Any, task: str, identity: str) -> Scripted:
    return Learning(job)


class Learning(Scripted):
    """A training of a second an epoch whose ranking is the truth's from three epochs on, and mixed up before."""

    def step(self) -> TrainingReport:
        self.epoch = self.job.fidelity.epochs
        truth = start_truthful(self.job, "", "").step().accuracy
        mixed = (sum(map(ord, self.job.placement)) * 7919 % 101) / 500
        return TrainingReport(self.epoch, 1.0, truth if self.epoch >= 3 else mixed, float(self.epoch))


def test_nothing_fits(studied: tuple[Store, str], report: Any, tmp_path: Path) -> None:
    with pytest.raises(NasattnError, match=r"no fidelity that was tried trains within 0\.05 s .*allow more by --seconds"):
        tune_proxy(studied[0], "s", 0.05, tmp_path / "none.yaml", candidates=1, start=start_learning)
    assert not (tmp_path / "none.yaml").exists()


def test_the_command_shows_what_is_stored(
    studied: tuple[Store, str], report: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nasattn.cli import _run

    picture = tmp_path / "trust.png"
    assert _run(["proxy-report", "s", "--stored", "--storage", studied[1], "--plot", str(picture)]) == 0
    shown = capsys.readouterr().out
    for part in ("proxy", "seed to seed", "params", "macs", "latency", "grad_norm", "naswot", "The proxy, tau 1.00", "Long runs: 3 times"):
        assert part in shown
    assert picture.stat().st_size > 10_000
    assert _run(["proxy-report", "s", "--stored", "--storage", studied[1], "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["proxy"]["tau"]["value"] == pytest.approx(1.0) and values["verdict"].startswith("The proxy, tau 1.00")
    assert _run(["front", "s", "--storage", studied[1]]) == 0
    assert "Proxy: The proxy, tau 1.00" in capsys.readouterr().out
    assert _run(["proxy-report", "s-x3-s1", "--stored", "--storage", studied[1]]) == 2
    assert "has no proxy report yet: run `nasattn proxy-report s-x3-s1`" in capsys.readouterr().err
