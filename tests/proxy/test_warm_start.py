"""Warm start: the host itself with pretrained weights, attentions that change nothing at first, and a gentle tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from nasattn.errors import UsageError
from nasattn.proxy import Fidelity, ProxyJob, ProxyTraining, Recipe, build_proxy
from nasattn.proxy.network import parameter_groups
from nasattn.tasks import Task, TaskRequest, load_task

FIDELITY = Fidelity(width=1, resolution=32, samples=96, val_samples=40, epochs=2, rungs=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of timm's plain resnet18 with 1,000 classes, whose BatchNorms have seen something."""
    torch.manual_seed(5)
    model = timm.create_model("resnet18")
    for _ in range(3):
        model(torch.randn(8, 3, 64, 64))
    file = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(model.state_dict(), file)
    return file


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", TaskRequest(32, 96, 40))


def job(weights: Path | str, placement: str = "none,none,none,none", host: str = "nasattn_resnet18", **recipe: Any) -> ProxyJob:
    return ProxyJob(host, placement, FIDELITY, Recipe(pretrained=str(weights), **recipe), seed=3)


@pytest.mark.parametrize("placement", ["sge_g32,none,ela_l,none", "sb,sb,none,lka_k21_d3", "none,none,fsla_c49,se"])
def test_attentions_change_nothing_at_first(weights: Path, placement: str) -> None:
    images = torch.randn(2, 3, 64, 64)
    plain, placed = (build_proxy(job(weights, p), 10).eval() for p in ("none,none,none,none", placement))
    assert sum(p.numel() for p in placed.parameters()) > sum(p.numel() for p in plain.parameters())
    torch.testing.assert_close(placed(images), plain(images), rtol=1e-4, atol=1e-5)


def test_the_weights_are_those_of_the_file_but_for_the_head(weights: Path) -> None:
    own = build_proxy(job(weights, "sge_g32,none,none,none"), 10).state_dict()
    theirs = timm.create_model("resnet18", checkpoint_path=str(weights)).state_dict()
    for name, value in theirs.items():
        assert name.startswith("fc.") or torch.equal(own[name], value), name
    assert own["fc.weight"].shape == (10, 512)


def test_the_backbone_has_a_learning_rate_of_its_own(weights: Path) -> None:
    placed = job(weights, "sge_g32,sb,none,none", lr=0.01, backbone_lr=0.0)
    model = build_proxy(placed, 10)
    backbone, new = parameter_groups(model, placed.recipe)
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)].split(".")[2 if names[id(p)].startswith("layer") else 0] for p in new["params"]} == {
        "se",
        "sb",
        "sb_bn",
        "sb_proj",
        "fc",
    }  # type: ignore[attr-defined]
    assert len(backbone["params"]) + len(new["params"]) == len(names)  # type: ignore[arg-type]
    assert (backbone["lr"], new["lr"]) == (0.0, 0.01)


def test_a_rate_of_zero_leaves_the_backbone_alone(weights: Path, digits: Task) -> None:
    training = ProxyTraining(job(weights, "sge_g32,none,none,none", backbone_lr=0.0, weight_decay=0.0), digits)
    before = {n: p.detach().clone() for n, p in training.model.named_parameters()}
    training.step()
    moved = {n for n, p in training.model.named_parameters() if not torch.equal(before[n], p)}
    assert moved and all(".se." in n or n.startswith("fc.") for n in moved)


def test_batch_norm_statistics_are_frozen_at_first(weights: Path, digits: Task) -> None:
    """6 steps in two epochs: the statistics stay as they were in the first half and move in the second; Spatial Bias' own move at once."""
    training = ProxyTraining(job(weights, "sb,none,none,none", frozen_bn=0.5), digits)
    norm = training.model.get_submodule("layer2.0.bn1")
    own = training.model.get_submodule("layer1.0.sb_bn")
    assert isinstance(norm, nn.BatchNorm2d) and isinstance(own, nn.BatchNorm2d)
    start, own_start = norm.running_mean.clone(), own.running_mean.clone()  # type: ignore[union-attr]
    training.step()
    assert torch.equal(norm.running_mean, start) and not torch.equal(own.running_mean, own_start)  # type: ignore[arg-type]
    training.step()
    assert not torch.equal(norm.running_mean, start)  # type: ignore[arg-type]


def test_it_learns(weights: Path) -> None:
    task = load_task("digits", TaskRequest(32, 600, 200))
    training = ProxyTraining(job(weights, "none,sge_g32,none,none", lr=0.003, backbone_lr=0.001), task)
    while not training.done:
        report = training.step()
    assert report.accuracy > 0.3  # chance is 0.1


def test_weights_of_another_network(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the pretrained weights '.*' cannot be used for nasattn_resnet50: .*give a checkpoint file"):
        build_proxy(job(weights, host="nasattn_resnet50"), 10)
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"nothing")
    with pytest.raises(UsageError, match="cannot be used for nasattn_resnet18"):
        build_proxy(job(broken), 10)
    with pytest.raises(UsageError, match=r"'no_such_tag' cannot be used for nasattn_resnet18: .*timm's tags"):
        build_proxy(job("no_such_tag"), 10)


def test_a_native_attention_keeps_its_weights(tmp_path: Path) -> None:
    """MobileNetV3's squeeze-and-excitation: kept where the placement has it, gone where it does not."""
    torch.manual_seed(1)
    plain = timm.create_model("mobilenetv3_small_050")
    file = tmp_path / "mobilenet.safetensors"
    save_file(plain.state_dict(), file)
    from nasattn.hosts import get_host

    native = str(get_host("nasattn_mobilenetv3_small_050").native)
    model = build_proxy(job(file, native, host="nasattn_mobilenetv3_small_050"), 10)
    kept = model.state_dict()
    assert all(torch.equal(kept[n], v) for n, v in plain.state_dict().items() if not n.startswith("classifier"))
