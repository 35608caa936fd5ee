"""A study's configuration: limits, durations, files, and what makes two studies or two trainings the same."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nasattn.config import list_yaml, shipped
from nasattn.errors import NasattnError, StudyError, UsageError
from nasattn.latency import Deployment
from nasattn.proxy import Fidelity, Recipe
from nasattn.proxy.defaults import default_settings
from nasattn.search.limits import Limit
from nasattn.search.planning import alike_in_proxy
from nasattn.search.samplers import SAMPLERS, make_sampler
from nasattn.search.study import StudyConfig, check_same, make_config, parse_duration, read_study_file
from nasattn.space import load_space
from nasattn.store import StudyRecord

SPACE = load_space("resnet18_stages")
PLACEMENT = "none,sge_g16,none,none"
LIMIT = Limit("latency", 1.3, "x")


def stored(config: StudyConfig) -> dict[str, Any]:
    """The configuration as the database gives it back."""
    back: dict[str, Any] = json.loads(json.dumps(config.to_dict()))
    return back


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("1d", 86400), ("0.5s", 0.5)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "0m", "-1h", "1w", "infh", "nanm", "1h30m", "soon"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_duration(text)
    assert str(caught.value) == f"a time budget is a number with s, m, h or d, such as 30m, got {text!r}"


def test_a_configuration_from_keys() -> None:
    settings = {
        "space": "resnet18_stages", "study": "mine", "description": "left out", "task": "digits", "fidelity": {"epochs": 5}, "recipe": {"lr": 0.01},
        "trials": 7, "time_budget": "2h", "sampler": "random", "max_latency": "1.3x", "device": "cpu", "batch": 4, "workers": 2,
        "gpus_per_trial": 0.5, "seed": 3, "latency_seconds": 2.5,
    }  # fmt: skip
    assert make_config(settings) == StudyConfig(
        SPACE,
        "digits",
        replace(default_settings("digits", "cpu")[0], epochs=5),
        replace(default_settings("digits", "cpu")[1], lr=0.01),
        "mine",
        7,
        7200.0,
        "random",
        {"latency": LIMIT},
        "cpu",
        Deployment(batch=4),
        2.5,
        2,
        0.5,
        3,
        by_default=frozenset({"precision"}),
    )


def test_none_stands_for_the_default() -> None:
    settings = dict.fromkeys(("study", "task", "trials", "time_budget", "sampler", "max_latency", "device", "workers", "seed", "fidelity"))
    fidelity, recipe = default_settings("cued_digits", "cpu")
    assert make_config({"space": "resnet18_stages", **settings}) == StudyConfig(
        SPACE, fidelity=fidelity, recipe=recipe, by_default=frozenset({"epochs", "precision"})
    )


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("digits", "resnet18_stages-digits-s3"),
        ("torch/cifar100", "resnet18_stages-cifar100-s3"),
        ("/data/pets/", "resnet18_stages-pets-s3"),
    ],
)
def test_a_study_without_a_name_gets_one(task: str, name: str) -> None:
    assert StudyConfig(SPACE, task, seed=3).name == name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "resnet18_stage"}, "unknown name 'resnet18_stage' in search_spaces: Did you mean 'resnet18_stages'"),
        (
            {"sampler": "tpee"},
            "unknown sampler 'tpee': Did you mean 'tpe'? allowed: auto, placement, random, tpe, nsga2, nsga3, gp, local, evolution, uniform",
        ),
        ({"sampler": ["tpe"]}, "unknown sampler ['tpe']: "),
        ({"device": "gpu"}, "unknown device 'gpu': allowed: cpu, cuda"),
        ({"task": 3}, "task must be the name of a task or a folder, got 3"),
        ({"trials": 0}, "trials must be an integer >= 1, got 0"),
        ({"trials": "24"}, "trials must be an integer >= 1, got '24'"),
        ({"batch": 1.5}, "batch must be an integer >= 1, got 1.5"),
        ({"workers": True}, "workers must be an integer >= 1, got True"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"gpus_per_trial": 0}, "gpus_per_trial must be a number above 0, got 0"),
        ({"gpus_per_trial": "half"}, "gpus_per_trial must be a number above 0, got 'half'"),
        ({"latency_seconds": 0}, "latency_seconds must be a number above 0, got 0"),
        ({"max_latency": 1.3}, "a latency limit is a ratio such as 1.3x or a time such as 12ms, got '1.3'"),
        ({"time_budget": 30}, "a time budget is a number with s, m, h or d, such as 30m, got '30'"),
        ({"fidelity": {"epoch": 2}}, "mine.yaml: fidelity: unknown key 'epoch'; Did you mean 'epochs'?"),
        ({"recipe": {"lr": "1e-3"}}, "lr must be > 0 and a number (YAML reads 1e-3 as text"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(NasattnError) as caught:
        make_config({"space": "resnet18_stages", **settings}, where="mine.yaml: ")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


CHANGES: dict[str, Any] = {
    "space": load_space("resnet50_stages"), "task": "digits", "fidelity": Fidelity(epochs=3), "recipe": Recipe(lr=0.01), "deployment": Deployment(batch=2), "seed": 1,
    "trials": 99, "time_budget": 60.0, "sampler": "random", "limits": {"latency": LIMIT}, "workers": 2, "gpus_per_trial": 0.5, "name": "other",
}  # fmt: skip


@pytest.mark.parametrize("key", CHANGES)
def test_what_a_training_depends_on(key: str) -> None:
    """Two trainings are the same whatever the study around them; the deployment is that of the latency measurement."""
    config = StudyConfig(SPACE, name="one")
    changed = replace(config, **{key: CHANGES[key]})
    same = changed.evaluation_identity(PLACEMENT) == config.evaluation_identity(PLACEMENT)
    assert same == (key not in ("space", "task", "fidelity", "recipe", "seed"))


def test_a_recipe_of_a_release_without_optimisers_is_that_with_adamw_in_one_cycle() -> None:
    """In float32. Its trainings are reused and its studies continued; one that has Muon by default now says what differs."""
    config = StudyConfig(SPACE, name="one")
    older = stored(config)
    assert not {"optimizer", "precision", "schedule"} & older["recipe"].keys()
    assert StudyConfig.from_stored(StudyRecord("one", older, {}, 0)).evaluation_identity(PLACEMENT) == config.evaluation_identity(PLACEMENT)
    check_same(older, config)
    with pytest.raises(StudyError, match=r"\(recipe\.optimizer: 'adamw' -> 'muon'\)"):
        check_same(older, replace(config, recipe=Recipe(optimizer="muon")))
    with pytest.raises(StudyError, match=r"\(recipe\.schedule: 'one-cycle' -> 'warmup-stable-decay'\)"):
        check_same(older, replace(config, recipe=Recipe(schedule="warmup-stable-decay")))


def test_identities_are_short_and_differ_by_placement_but_not_by_space() -> None:
    config = StudyConfig(SPACE)
    identity = config.evaluation_identity(PLACEMENT)
    assert len(identity) == 64 and identity == StudyConfig(SPACE).evaluation_identity(PLACEMENT)
    assert identity != config.evaluation_identity("none,none,none,none")
    smaller = replace(config, space=replace(SPACE, name="mine", stages=(SPACE.stages[0][:1], *SPACE.stages[1:])))
    assert identity == smaller.evaluation_identity(PLACEMENT)


@pytest.mark.parametrize("key", CHANGES)
def test_what_a_study_may_be_continued_with(key: str) -> None:
    config = StudyConfig(SPACE, name="one")
    changed = replace(config, **{key: CHANGES[key]})
    if key not in ("space", "task", "fidelity", "recipe", "deployment", "seed"):
        check_same(stored(config), changed)
        return
    with pytest.raises(StudyError) as caught:
        check_same(stored(config), changed)
    assert str(caught.value).startswith(f"study 'one' was begun with another configuration ({key}")
    assert str(caught.value).endswith("use the same, or begin another study with --study NAME or --fresh")


def test_the_difference_is_shown() -> None:
    config = StudyConfig(SPACE, name="one")
    changed = replace(config, task="digits", fidelity=Fidelity(epochs=3, samples=None), seed=1)
    with pytest.raises(StudyError) as caught:
        check_same(stored(config), changed)
    for difference in ("fidelity.epochs: 2 -> 3", "fidelity.samples: 8000 -> None", "seed: 0 -> 1", "task: 'cued_digits' -> 'digits'"):
        assert difference in str(caught.value)


def test_what_is_stored_says_how_much_was_asked_for() -> None:
    config = StudyConfig(SPACE, trials=7, limits={"latency": LIMIT})
    kept = stored(config)
    assert (kept["space_name"], kept["trials"], kept["sampler"], kept["max_latency"]) == ("resnet18_stages", 7, "auto", "1.3x")


@pytest.mark.parametrize("name", list_yaml("studies"))
def test_the_shipped_studies_load(name: str) -> None:
    path = shipped("studies") / f"{name}.yaml"
    settings = read_study_file(path)
    assert settings["description"]
    assert make_config({**settings, "device": "cpu"}, f"{path}: ").trials >= 1  # some want a GPU, which is not everywhere


def test_there_is_a_study_to_begin_with() -> None:
    assert "quickstart" in list_yaml("studies")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("space: x\ntrial: 3", "unknown key 'trial'; Did you mean 'trials'"),
        ("space: x\n7: 3", "unknown key 7; allowed: "),
        ("task: digits", "key 'space' is missing; name a space or a space file by 'space', or a host by 'host'"),
        ("space: ", "key 'space' is missing; name a space or a space file by 'space', or a host by 'host'"),
        ("space: x\nfidelity: 3", "fidelity must be a mapping, got 3"),
        ("space: x\nrecipe: [lr]", "recipe must be a mapping, got ['lr']"),
        ("- space", "must hold a mapping of keys to values, got list"),
        ("space: [", "line 1: not valid YAML: "),
    ],
)
def test_a_wrong_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(StudyError) as caught:
        read_study_file(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"mine\.yaml: cannot be read: "):
        read_study_file(tmp_path / "mine.yaml")


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers(name: str) -> None:
    assert SAMPLERS[name]
    called = {"auto": "placement", "nsga2": "nsgaii", "nsga3": "nsgaiii"}.get(name, name)
    assert type(make_sampler(name, seed=0)).__name__.lower().startswith(called)


def test_auto_learns_no_model_of_thousands_of_trials() -> None:
    assert type(make_sampler("auto", 0, trials=24)).__name__ == "PlacementSampler"
    assert type(make_sampler("auto", 0, trials=5_000)).__name__ == "EvolutionSampler"


def test_importing_samplers_does_not_import_optuna() -> None:
    code = "import sys, nasattn.search.samplers, nasattn.options; print([m for m in ('optuna', 'torch', 'ray') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_choices_that_proxies_cannot_tell_apart_are_named() -> None:
    settings = {"space": "resnet50_ean_sge", "task": "digits"}
    note = alike_in_proxy(make_config(settings))
    assert "stage 3 has 64 choices and 2 different proxies" in note
    assert "with fidelity blocks 1, width 0.125: raise them" in note
    assert alike_in_proxy(make_config({**settings, "fidelity": {"blocks": 6}})) == ""
    assert alike_in_proxy(make_config({"space": "resnet50_stages", "task": "digits"})) == ""
