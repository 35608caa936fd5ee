"""The examples, run on a fresh export: a detector and a segmenter learn from its features."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch

import nasattn.export
from tests.test_export import records

FOLDER = Path(__file__).parents[1] / "examples"
PLACEMENT = "none,sge_g32,ela_l,none"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> str:
    study, trial = records()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nasattn.export, "_prove", lambda model, out, resolution: None)  # which tests/test_export.py looks at
        made = nasattn.export.export_placement(
            study, replace(trial, placement=PLACEMENT), None, tmp_path_factory.mktemp("export") / "model"
        )
    return str(made.folder)


@pytest.fixture(autouse=True)
def as_scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folder of a script is the first on its path."""
    monkeypatch.syspath_prepend(FOLDER)
    yield
    for name in ("shapes", "detection", "segmentation"):
        sys.modules.pop(name, None)


def example(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_shapes_are_where_their_boxes_and_masks_say() -> None:
    shapes = example("shapes")
    seen = set()
    for seed in range(20):
        image, boxes, labels, mask = shapes.draw(seed, 64)
        assert image.shape == (3, 64, 64) and mask.shape == (64, 64) and len(boxes) == len(labels)
        left, top, right, bottom = boxes[-1].long().tolist()  # the last is drawn over the others
        inside = mask[top : bottom + 1, left : right + 1] == labels[-1]
        assert inside.float().mean() > 0.4 and image[:, mask > 0].mean() > image[:, mask == 0].mean()
        seen |= set(labels.tolist())
    assert seen == {1, 2, 3}


def test_a_detector_trains(exported: str, capsys: pytest.CaptureFixture[str]) -> None:
    losses = example("detection").main(["--model", exported, "--steps", "2", "--batch", "1", "--size", "64"])
    assert len(losses) == 2 and all(map(math.isfinite, losses))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 1: loss ") and "classifier" in lines[0] and "rpn_box_reg" in lines[0]
    assert lines[-1].startswith("a new image of ") and "boxes found" in lines[-1]


def test_a_detector_reads_every_stage_of_the_export(exported: str) -> None:
    detector = example("detection").build_detector(exported, 64, frozen_bn=True)
    body = detector.backbone.body
    kinds = {type(m).__name__ for m in body.modules()}
    assert {"SpatialGroupEnhance", "EfficientLocalAttention", "FrozenBatchNorm2d"} <= kinds and "BatchNorm2d" not in kinds
    for block in (m for m in body.modules() if hasattr(m, "bn2")):
        block.bn2.weight.fill_(1)  # a fresh ResNet's residual branches begin at zero
    maps = detector.backbone(torch.randn(1, 3, 64, 64))
    assert {k: tuple(v.shape[1:]) for k, v in maps.items()} == {
        "0": (256, 16, 16), "1": (256, 8, 8), "2": (256, 4, 4), "3": (256, 2, 2), "pool": (256, 1, 1),
    }  # fmt: skip
    sum(m.square().mean() for m in maps.values()).backward()
    carried = [p.grad for n, p in body.named_parameters() if ".se." in n]
    assert carried and all(g is not None and g.any() for g in carried)


@pytest.mark.parametrize(
    ("host", "settings"),
    [
        ("boat_swin_tiny", {"embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 1, 2, 2)}),  # its own features are NHWC
        ("van_b0", {"widths": (8, 16, 24, 32)}),
        ("cifar_resnet38", {}),  # one of its three stages is coarse enough
    ],
)
def test_a_detector_takes_other_hosts(host: str, settings: dict[str, object]) -> None:
    body = timm.create_model(host, features_only=True, **settings)
    maps = example("detection").PyramidBackbone(body)(torch.randn(1, 3, 64, 64))
    assert all(m.shape[1] == 256 for m in maps.values())
    assert [m.shape[-1] for m in maps.values()][:1] == [16]


def test_a_model_of_fine_maps_alone_is_refused() -> None:
    body = timm.create_model("cifar_resnet38", features_only=True, out_indices=(0, 1))
    with pytest.raises(SystemExit, match="no stage of a reduction of 4 or more: a detector needs one, choose another host"):
        example("detection").PyramidBackbone(body)


def test_a_segmenter_learns(exported: str, capsys: pytest.CaptureFixture[str]) -> None:
    losses = example("segmentation").main(["--model", exported, "--steps", "6", "--batch", "4", "--size", "64"])
    assert len(losses) == 6 and losses[-1] < losses[0]
    assert capsys.readouterr().out.splitlines()[0].startswith("step 1: loss ")


def test_a_segmenter_keeps_frozen_statistics(exported: str) -> None:
    segmenter = example("segmentation").build_segmenter(exported, frozen_bn=True).train()
    before = {k: v.clone() for k, v in segmenter.encoder.state_dict().items() if "running" in k}
    segmenter(torch.randn(2, 3, 64, 64))
    assert before and all(torch.equal(v, segmenter.encoder.state_dict()[k]) for k, v in before.items())


def test_a_size_that_does_not_divide_is_refused(exported: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        example("segmentation").main(["--model", exported, "--size", "100"])
    assert "--size must be a multiple of 32, got 100" in capsys.readouterr().err
