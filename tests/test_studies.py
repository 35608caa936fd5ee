"""The shipped studies: each says what it reproduces, and trains as its file says, on a few made images and a reduced host."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nasattn.attention import Placement
from nasattn.config import list_yaml, shipped
from nasattn.errors import TaskError, UsageError
from nasattn.hosts import get_host
from nasattn.hosts.count import count_params
from nasattn.proxy.trainer import ProxyTraining
from nasattn.search.planning import check_buildable, load_study_task
from nasattn.search.study import StudyConfig, make_config, read_study_file
from nasattn.tasks import load_task

NAMES = list_yaml("studies")
OF_PAPERS = [n for n in NAMES if n != "quickstart"]
ON_IMAGENET = [n for n in OF_PAPERS if n != "cifar100_resnet38_sb"]
TINY = {"width": 0.125, "blocks": 1, "resolution": 32, "samples": 12, "val_samples": 8, "epochs": 1, "rungs": 1}
every_study = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of noise around a colour of their own, as a folder of photographs is laid out."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 6)):
        for label in range(3):
            target = folder / split / f"n0000000{label}"
            target.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 160, (40, 48, 3)) + 90 * np.eye(3, dtype=np.int64)[label]
                Image.fromarray(pixels.astype(np.uint8)).save(target / f"{number}.jpg")
    return folder


@pytest.fixture(autouse=True)
def where(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASATTN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NASATTN_DATA", str(images))


def path(name: str) -> Path:
    return shipped("studies") / f"{name}.yaml"


def as_written(name: str) -> StudyConfig:
    """The study on this machine's device."""
    return make_config({**read_study_file(path(name)), "device": "cpu"})


def tiny(name: str, **changes: Any) -> StudyConfig:
    """The study with its own task where that is a folder, and proxies that train in a moment."""
    written = read_study_file(path(name))
    task = written["task"] if name == "quickstart" or name in ON_IMAGENET else "torch/image_folder"
    recipe = {**written.get("recipe", {}), "batch_size": 4, "crop": min(written.get("recipe", {}).get("crop", 0), 4)}
    return make_config({**written, "device": "cpu", "task": task, "fidelity": TINY, "recipe": recipe, **changes})


@every_study
def test_it_says_what_it_reproduces(name: str) -> None:
    config, text = as_written(name), path(name).read_text()
    assert config.name.startswith(name) or name == "quickstart"
    comment = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    assert "eproduces" in comment or "published" in comment
    if name in OF_PAPERS:
        description = read_study_file(path(name))["description"]
        assert "published" in comment and f"nasattn run {name}" in comment
        assert re.search(r"arXiv \d{4}\.\d{5}", comment) and re.search(r"\d\d\.\d", description)
    if name in ON_IMAGENET:
        assert "--task /data/imagenet" in comment and "train/CLASS/" in comment


@every_study
def test_what_it_trains_first_can_be_built(name: str) -> None:
    config = as_written(name)
    host = get_host(config.space.host)
    for text in config.first:
        placement = Placement.parse(text)
        assert placement in config.space or name == "imagenet_cluster"
        assert str(host.build(placement, device="meta").placement) == text
    assert config.trials >= config.retrainings + len(config.first) + 2


@pytest.mark.parametrize("name", [n for n in OF_PAPERS if n != "imagenet_cluster"])
def test_its_proxy_is_the_whole_host(name: str) -> None:
    """But for the stem: all blocks, all channels, all images, at the host's resolution."""
    config = as_written(name)
    host, fidelity = get_host(config.space.host), config.fidelity
    assert (fidelity.width, fidelity.samples, fidelity.val_samples, fidelity.resolution) == (1.0, None, None, host.resolution)
    proxy = host.build_proxy(
        host.native, width=1.0, blocks=fidelity.blocks, stem_stride=fidelity.stem_stride, num_classes=10, device="meta"
    )
    full = host.build(host.native, num_classes=10, device="meta")
    assert abs(count_params(proxy) - count_params(full)) < 10_000
    assert [len(s) for s in host.stage_blocks(proxy)] == [len(s) for s in host.stage_blocks(full)]


@pytest.mark.parametrize("name", [n for n in NAMES if n != "imagenet_cluster"])  # its space is quickstart's
def test_every_choice_can_be_built(name: str) -> None:
    check_buildable(tiny(name))


@every_study
def test_it_trains(name: str) -> None:
    config = tiny(name)
    task = load_study_task(config)
    interesting = config.first[0] if config.first else str(config.space.native())
    for placement in dict.fromkeys([str(config.space.plain()), interesting]):
        training = ProxyTraining(config.job(placement), task)
        report = training.step()
        assert training.done and training.done_steps == 3
        assert torch.isfinite(torch.tensor(report.loss)) and 0 <= report.accuracy <= 1


@pytest.mark.parametrize("name", ON_IMAGENET)
def test_without_its_images_it_says_what_to_give(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASATTN_DATA", str(tmp_path / "none"))
    with pytest.raises(TaskError) as caught:
        load_task(read_study_file(path(name))["task"])
    where = "say where your images are: --task FOLDER, or NASATTN_DATA=FOLDER"
    assert str(caught.value) == f"task torch/image_folder: no folder {tmp_path / 'none'}; {where}"


def test_a_folder_takes_the_place_of_its_task(images: Path) -> None:
    config = tiny("sge_resnet50_imagenet", task=str(images))
    assert config.task == str(images) and load_study_task(config).classes == ("n00000000", "n00000001", "n00000002")


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("sge_g64", r"first must be a list of placements, such as \['sge_g64,sge_g64,none,none'\], got 'sge_g64'"),
        ([3], "first must be a list of placements"),
        (["sge_g64,none"], "first: placement 'sge_g64,none' has 2 tokens, the host has 4 stages"),
        (["sge_g63,none,none,none"], "first: .*63 groups do not divide 256 channels"),
    ],
)
def test_placements_that_cannot_come_first(first: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_config({"space": "resnet50_sge", "first": first})


def test_the_published_parameters_are_those_of_the_hosts() -> None:
    """Each figure in a study's comment that names parameters."""

    def parameters(host: str, placement: str, classes: int = 1000) -> int:
        return count_params(get_host(host).build(placement, num_classes=classes, device="meta"))

    stages = ("none", "sb_p6,none,none", "sb_p6,sb_p6,none", "sb_p6,sb_p6,sb_p6")
    assert [f"{parameters('cifar_resnet38', p, 100) / 1e6:.2f}M" for p in stages] == ["0.43M", "0.45M", "0.46M", "0.48M"]
    assert parameters("nasattn_resnet50", "sge_g64") == 25_559_080
    assert parameters("nasattn_mobilenetv2_100", "none") == 3_504_872
    assert parameters("nasattn_mobilenetv2_100", as_written("ela_mobilenetv2_imagenet").first[-1]) == 3_916_904
    assert parameters("van_b0", "lka_k21_d3") == 4_105_800
    assert parameters("boat_swin_tiny", str(get_host("boat_swin_tiny").native)) == 30_265_186
