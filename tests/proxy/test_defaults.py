"""Defaults by task and device, and recipe files in their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from nasattn.errors import NasattnError, TaskError, UsageError
from nasattn.proxy import Fidelity, Recipe
from nasattn.proxy.defaults import default_settings
from nasattn.proxy.recipe_file import read_recipe_file, write_recipe_file
from nasattn.search.study import make_config, read_study_file
from nasattn.tasks import TaskRequest, load_task


@pytest.mark.parametrize("task", ["cued_digits", "digits", "pathfinder", "pathfinder/9", "torch/cifar10", "some/folder"])
def test_a_gpu_trains_larger_proxies(task: str) -> None:
    cpu, gpu = default_settings(task, "cpu")[0], default_settings(task, "cuda")[0]
    assert gpu.width >= cpu.width and gpu.blocks > cpu.blocks and gpu.epochs > cpu.epochs
    assert gpu.resolution == cpu.resolution


@pytest.mark.parametrize("task", ["pathfinder", "pathfinder/3", "pathfinder/6", "pathfinder/16"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_path_of_any_number_of_dashes_is_shown(task: str, device: str) -> None:
    resolution = default_settings(task, device)[0].resolution
    assert len(load_task(task, TaskRequest(resolution, 2, 2)).train) == 2
    with pytest.raises(TaskError, match="needs an integer from 3 to 16, got '2'; write pathfinder/7"):
        make_config({"space": "resnet18_stages", "task": "pathfinder/2"})


def test_digits_are_not_mirrored_and_photographs_are() -> None:
    assert not any(default_settings(t, "cpu")[1].flip for t in ("cued_digits", "digits"))
    assert all(default_settings(t, "cpu")[1].flip for t in ("torch/cifar100", "a/folder"))


def test_paths_have_no_up_nor_down() -> None:
    assert all(default_settings("pathfinder", device)[1].dihedral for device in ("cpu", "cuda"))
    assert not any(default_settings(t, "cpu")[1].dihedral for t in ("cued_digits", "digits", "torch/cifar10", "a/folder"))


def test_small_networks_learn_relations_by_muon_and_large_ones_by_adamw() -> None:
    for task in ("cued_digits", "pathfinder/6"):
        recipe = default_settings(task, "cpu")[1]
        assert (recipe.optimizer, recipe.schedule) == ("muon", "warmup-stable-decay")
        assert {default_settings(task, *large)[1].optimizer for large in (("cuda",), ("cpu", True), ("cuda", True))} == {"adamw"}
    assert default_settings("a/folder", "cpu")[1].optimizer == "adamw"


def test_what_is_given_stands_above_the_defaults() -> None:
    config = make_config({"space": "resnet18_stages", "task": "digits", "fidelity": {"epochs": 9, "samples": None}})
    usual = default_settings("digits", "cpu")[0]
    assert config.fidelity == usual.changed(epochs=9).__class__(**{**usual.to_dict(), "epochs": 9, "samples": None})


def test_pretrained_weights_need_the_whole_host(tmp_path: Path) -> None:
    weights = tmp_path / "w.pth"
    weights.touch()
    config = make_config({"space": "resnet18_stages", "task": "digits", "recipe": {"pretrained": str(weights)}})
    assert config.fidelity.width == 1 and config.recipe.pretrained == str(weights)
    with pytest.raises(UsageError, match=r"fidelity: width must be 1 with pretrained weights, got 0\.5"):
        make_config({"space": "resnet18_stages", "recipe": {"pretrained": "a1_in1k"}, "fidelity": {"width": 0.5}})


def test_a_recipe_file_with_adamw_keeps_it_where_muon_is_the_default(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    write_recipe_file(file, Fidelity(), Recipe(), {}, "how")
    assert make_config({"space": "resnet18_stages", "recipe": str(file)}).recipe == Recipe()


def test_a_recipe_file_goes_round(tmp_path: Path) -> None:
    fidelity, recipe = Fidelity(width=0.25, epochs=3), Recipe(lr=0.001, crop=2)
    file = tmp_path / "mine.yaml"
    write_recipe_file(file, fidelity, recipe, {"tau": 0.8}, "how")
    assert read_recipe_file(file) == (fidelity.to_dict(), recipe.to_dict())
    config = make_config({"space": "resnet18_stages", "recipe": str(file), "fidelity": {"width": 0.5}})
    assert config.fidelity == fidelity.changed(width=0.5) and config.recipe == recipe
    study = tmp_path / "study.yaml"
    study.write_text("space: resnet18_stages\nrecipe: mine.yaml\n")  # beside the study file, wherever it is read from
    assert make_config(read_study_file(study)).recipe == recipe


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("fidelity: {widht: 1}", r"mine\.yaml: fidelity: unknown key 'widht'; Did you mean 'width'"),
        ("fidelitty: {}", r"mine\.yaml: unknown key 'fidelitty'; Did you mean 'fidelity'"),
        ("recipe: [1]", r"mine\.yaml: recipe must be a mapping, got \[1\]"),
        ("fidelity: {width: 2}", "width must be 0 < width <= 1, got 2"),
        ("recipe: {crop: -1}", "crop must be a number of pixels, 0 or more, got -1"),
        ("recipe: {frozen_bn: 2}", "frozen_bn must be"),
    ],
)
def test_a_wrong_recipe_file(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(NasattnError, match=message):
        read_recipe_file(file)


def test_no_recipe_file() -> None:
    with pytest.raises(UsageError, match=r"no recipe file nowhere\.yaml: give a YAML file"):
        make_config({"space": "resnet18_stages", "recipe": "nowhere.yaml"})
