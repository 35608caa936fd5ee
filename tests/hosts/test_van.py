"""VAN: the paper's sizes, the authors' numbers and checkpoints, and what timm asks of a model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models import group_parameters, save_for_hf
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

import nasattn.hosts.van  # registers the models
from nasattn.errors import UsageError
from nasattn.hosts.count import count_macs, count_params
from nasattn.hosts.van import VanAttention, VanBlock, VisualAttentionNetwork, checkpoint_filter_fn

VECTORS = Path(__file__).parents[1] / "attention" / "vectors"
CASES: dict[str, dict[str, Any]] = {c["name"]: c for c in json.loads((VECTORS / "manifest.json").read_text())["cases"]}
SMALL: dict[str, Any] = {"depths": (1, 2, 1, 1), "widths": (8, 16, 24, 32), "num_classes": 3}


def create(name: str = "van_b0", seed: int = 0, **kwargs: Any) -> VisualAttentionNetwork:
    torch.manual_seed(seed)
    return timm.create_model(name, **kwargs).eval()


def small(**kwargs: Any) -> VisualAttentionNetwork:
    """Layer scales of order one, else a fresh network would hardly depend on its blocks."""
    model = create(**{**SMALL, **kwargs})
    for m in model.modules():
        if isinstance(m, VanBlock):
            nn.init.uniform_(m.layer_scale_1, 0.5, 1.0)
            nn.init.uniform_(m.layer_scale_2, 0.5, 1.0)
    return model


def image(*size: int, batch: int = 2, channels: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    [
        ("van_b0", 4_105_800, 0.864),
        ("van_b1", 13_861_800, 2.495),
        ("van_b2", 26_578_472, 4.993),
        ("van_b3", 44_765_608, 8.925),
        ("van_b4", 60_283_176, 12.144),
        ("van_b5", 89_967_688, 17.129),
        ("van_b6", 199_829_416, 38.710),
    ],
)
def test_sizes_of_the_paper(name: str, parameters: int, gmacs: float) -> None:
    model = create(name, device="meta")
    assert count_params(model) == parameters
    assert count_macs(model, 224) / 1e9 == pytest.approx(gmacs, abs=6e-4)
    assert all(t.is_meta for t in (*model.parameters(), *model.buffers()))


def test_the_models_are_timms() -> None:
    assert timm.list_models("van_b*") == [f"van_b{i}" for i in range(7)]
    assert nasattn.hosts.van.van_b0(device="meta").pretrained_cfg["tag"] == "untrained"
    cfg = create("van_b3", device="meta").pretrained_cfg
    assert (cfg["architecture"], cfg["num_classes"], cfg["crop_pct"], cfg["interpolation"]) == ("van_b3", 1000, 0.9, "bicubic")
    with pytest.raises(RuntimeError, match="No pretrained weights exist for van_b3"):
        create("van_b3", device="meta", pretrained=True)


@pytest.mark.parametrize(
    ("name", "build"),
    [("van_attention_c16_9x12", lambda c: VanAttention(16)), ("van_block_c8_eval", lambda c: VanBlock(8, c["mlp_ratio"]))],
)
def test_numbers_of_the_authors(name: str, build: Any) -> None:
    case = CASES[name]
    with np.load(VECTORS / case["file"]) as data:
        arrays = {k: torch.from_numpy(data[k]) for k in data}
    module = build(case["config"]).double()
    module.load_state_dict({k[2:]: v for k, v in arrays.items() if k.startswith("w.")})
    module.train(case["mode"] == "train")
    x = arrays["x"].requires_grad_()
    y = module(x)
    (y * arrays["r"]).sum().backward()
    torch.testing.assert_close(y, arrays["y"], atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(x.grad, arrays["grad_x"], atol=1e-9, rtol=1e-9)
    for key, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, arrays[f"grad_w.{key}"], atol=1e-9, rtol=1e-9)


def authors_checkpoint() -> dict[str, Tensor]:
    """The SMALL network under the authors' names, filled with fixed random numbers."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, out: int, per_group: int, kernel: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, per_group, kernel, kernel), (out,)

    def norm(name: str, channels: int, *extra: str) -> None:
        for key in ("weight", "bias", *extra):
            shapes[f"{name}.{key}"] = (channels,)

    before = 3
    for stage, (depth, C, ratio) in enumerate(zip(SMALL["depths"], SMALL["widths"], (8, 8, 4, 4), strict=True), start=1):
        conv(f"patch_embed{stage}.proj", C, before, 7 if stage == 1 else 3)
        norm(f"patch_embed{stage}.norm", C, "running_mean", "running_var")
        for block in (f"block{stage}.{i}" for i in range(depth)):
            shapes[f"{block}.layer_scale_1"] = shapes[f"{block}.layer_scale_2"] = (C,)
            norm(f"{block}.norm1", C, "running_mean", "running_var")
            conv(f"{block}.attn.proj_1", C, C, 1)
            conv(f"{block}.attn.spatial_gating_unit.conv0", C, 1, 5)
            conv(f"{block}.attn.spatial_gating_unit.conv_spatial", C, 1, 7)
            conv(f"{block}.attn.spatial_gating_unit.conv1", C, C, 1)
            conv(f"{block}.attn.proj_2", C, C, 1)
            norm(f"{block}.norm2", C, "running_mean", "running_var")
            conv(f"{block}.mlp.fc1", C * ratio, C, 1)
            conv(f"{block}.mlp.dwconv.dwconv", C * ratio, 1, 3)
            conv(f"{block}.mlp.fc2", C, C * ratio, 1)
        norm(f"norm{stage}", C)
        before = C
    shapes["head.weight"], shapes["head.bias"] = (SMALL["num_classes"], before), (SMALL["num_classes"],)
    weights: dict[str, Tensor] = {}
    random = np.random.RandomState(0)  # its numbers never change
    for name, shape in shapes.items():
        uniform = torch.from_numpy(random.uniform(-1, 1, shape))
        fan_in = math.prod(shape[1:])
        weights[name] = uniform.abs() + 0.5 if name.endswith("running_var") else uniform * (3 / fan_in) ** 0.5
        if name.endswith("running_var"):
            weights[name.replace("running_var", "num_batches_tracked")] = torch.tensor(7)
    return weights


# what the authors' network returns for the checkpoint above and `authors_image`
AUTHORS_LOGITS = [[0.423097835256, 1.34507883036, 1.336697927703], [0.396624678412, 1.385780288891, 1.32957777851]]


def authors_image() -> Tensor:
    return torch.from_numpy(np.random.RandomState(1).uniform(-2, 2, (2, 3, 45, 70)))


def test_the_authors_network_gives_the_same_logits() -> None:
    model = create(**SMALL, dtype=torch.float64)
    model.load_state_dict(checkpoint_filter_fn(authors_checkpoint(), model))
    x = authors_image()
    torch.testing.assert_close(model(x), torch.tensor(AUTHORS_LOGITS, dtype=torch.float64), atol=1e-9, rtol=1e-9)


def test_names_of_the_authors() -> None:
    theirs = authors_checkpoint()
    ours = checkpoint_filter_fn(theirs, create(**SMALL, device="meta"))
    assert len(ours) == len(theirs)
    for old, new in {
        "patch_embed1.proj.weight": "stages.0.patch_embed.proj.weight",
        "patch_embed4.norm.running_mean": "stages.3.patch_embed.norm.running_mean",
        "block1.0.attn.spatial_gating_unit.conv_spatial.weight": "stages.0.blocks.0.attn.spatial_gating_unit.conv_spatial.weight",
        "block2.1.mlp.dwconv.dwconv.bias": "stages.1.blocks.1.mlp.dwconv.dwconv.bias",
        "block3.0.norm1.num_batches_tracked": "stages.2.blocks.0.norm1.num_batches_tracked",
        "block4.0.layer_scale_2": "stages.3.blocks.0.layer_scale_2",
        "norm1.weight": "stages.0.norm.weight",
        "norm4.bias": "stages.3.norm.bias",
        "head.weight": "head.fc.weight",
        "head.bias": "head.fc.bias",
    }.items():
        assert ours[new] is theirs[old]


def test_wrapped_and_own_checkpoints() -> None:
    model = create(**SMALL)
    plain = checkpoint_filter_fn(authors_checkpoint(), model)
    for wrapper in ("state_dict", "model"):
        wrapped = {wrapper: {f"module.{k}": v for k, v in authors_checkpoint().items()}, "epoch": 300}
        found = checkpoint_filter_fn(wrapped, model)
        assert found.keys() == plain.keys()
    averaged = {k: v + 1 for k, v in authors_checkpoint().items()}
    found = checkpoint_filter_fn({"state_dict": authors_checkpoint(), "state_dict_ema": averaged}, model)
    assert all(torch.equal(found[k], plain[k] + 1) for k in plain), "averaged weights come first, as in timm's loader"
    own = model.state_dict()
    assert list(checkpoint_filter_fn(own, model).items()) == list(own.items())


def test_an_authors_file_is_pretrained_weights(tmp_path: Path) -> None:
    torch.save({"state_dict": authors_checkpoint()}, tmp_path / "van.pth")
    overlay = {"file": str(tmp_path / "van.pth"), "num_classes": 3}
    whole = create(**SMALL, pretrained=True, pretrained_cfg_overlay=overlay, dtype=torch.float64)
    torch.testing.assert_close(whole(authors_image()), torch.tensor(AUTHORS_LOGITS, dtype=torch.float64))
    other = create(**{**SMALL, "num_classes": 7}, in_chans=1, pretrained=True, pretrained_cfg_overlay=overlay)
    assert other(image(32, 32, channels=1)).shape == (2, 7)
    torch.testing.assert_close(other.stages[3].blocks[0].mlp.fc2.weight.double(), whole.stages[3].blocks[0].mlp.fc2.weight)
    features = create(**SMALL, pretrained=True, pretrained_cfg_overlay=overlay, features_only=True, dtype=torch.float64)
    torch.testing.assert_close(features(authors_image())[-1], whole.forward_features(authors_image()))


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (32, 32), (33, 80), (61, 40)])
def test_any_input_size(size: tuple[int, int]) -> None:
    model = small()
    assert model(image(*size)).shape == (2, 3)
    for stage, feature in enumerate(model.forward_intermediates(image(*size), intermediates_only=True)):
        reduction = 4 * 2**stage
        assert feature.shape[1:] == (SMALL["widths"][stage], *(-(-s // reduction) for s in size))


def test_other_inputs_and_outputs() -> None:
    x = image(40, 56)
    assert small(in_chans=1)(x[:, :1]).shape == (2, 3)
    model = small(num_classes=0)
    assert isinstance(model.get_classifier(), nn.Identity)
    assert torch.equal(model(x), model.forward_head(model.forward_features(x), pre_logits=True))
    assert model(x).shape == (2, 32)
    assert small(num_classes=0, global_pool="")(x).shape == (2, 32, 2, 2)
    assert small(dtype=torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16
    assert small(stem_stride=1).forward_features(x).shape == (2, 32, 5, 7)
    assert [f["reduction"] for f in small(stem_stride=1).feature_info] == [1, 2, 4, 8]


def test_the_classifier_can_be_replaced() -> None:
    model, x = small(), image(40, 56)
    weight = model.get_classifier().weight
    model.reset_classifier(5)
    assert model.num_classes == 5 and model(x).shape == (2, 5)
    model.reset_classifier(3, "")
    assert model(x).shape == (2, 3, 2, 2)
    with torch.no_grad():
        model.get_classifier().weight.copy_(weight[:, :, None, None])
        model.get_classifier().bias.zero_()
    torch.testing.assert_close(model(x).mean((2, 3)), small()(x))


def test_features_are_the_intermediates() -> None:
    model, x = small(), image(48, 80)
    final, intermediates = model.forward_intermediates(x)
    assert torch.equal(final, model.forward_features(x))
    assert torch.equal(final, intermediates[-1])
    features = small(features_only=True)
    assert features.feature_info.channels() == list(SMALL["widths"])
    assert features.feature_info.reduction() == [4, 8, 16, 32]
    assert features.feature_info.module_name() == [f"stages.{i}" for i in range(4)]
    assert all(torch.equal(a, b) for a, b in zip(features(x), intermediates, strict=True))
    two = small(features_only=True, out_indices=(0, 2))
    assert all(torch.equal(a, b) for a, b in zip(two(x), intermediates[0:3:2], strict=True))
    assert len(two.model.stages) == 3 and two.model.num_features == 24


def test_intermediates_may_stop_early() -> None:
    model, x = small(), image(48, 80)
    last, taken = model.forward_intermediates(x, indices=[1], stop_early=True)
    assert last.shape == (2, 16, 6, 10) and torch.equal(last, taken[0])
    assert [t.shape[1] for t in model.forward_intermediates(x, indices=2, intermediates_only=True)] == [24, 32]
    with pytest.raises(UsageError, match="output_fmt 'NHWC' is not offered"):
        model.forward_intermediates(x, output_fmt="NHWC")
    assert model.prune_intermediate_layers([-1], prune_head=False) == [3] and model(x).shape == (2, 3)
    assert model.prune_intermediate_layers([1]) == [1]
    assert model(x).shape == (2, 16, 6, 10)
    model.reset_classifier(5, "avg")
    assert model(x).shape == (2, 5)


def test_stages_of_different_numbers_are_refused() -> None:
    with pytest.raises(UsageError, match="give one of each per stage"):
        create(depths=(1, 1, 1), device="meta")


def test_checkpointing_recomputes_and_gives_the_same_gradients() -> None:
    gradients, calls = [], []
    for enable in (False, True):
        model = small(drop_path_rate=0.4, dtype=torch.float64).train()
        model.set_grad_checkpointing(enable)
        model.stages[1].blocks[1].register_forward_pre_hook(lambda *_, enable=enable: calls.append(enable))
        torch.manual_seed(3)
        model(image(48, 40, dtype=torch.float64)).square().sum().backward()
        gradients.append({k: p.grad for k, p in model.named_parameters()})
    assert calls == [False, True, True]
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, msg=lambda text, key=key: f"{key}: {text}")


def test_stochastic_depth_skips_branches_of_images() -> None:
    torch.manual_seed(0)
    plain, dropping = VanBlock(8).train(), VanBlock(8, drop_path=0.5).train()
    nn.init.zeros_(plain.layer_scale_2)  # leaves the attention's branch
    dropping.load_state_dict(plain.state_dict())
    x = image(6, 5, batch=64, channels=8)
    branch, kept = plain(x) - x, dropping(x) - x
    skipped = kept.flatten(1).abs().amax(1) == 0
    assert 10 < skipped.sum() < 54
    torch.testing.assert_close(kept[~skipped], 2 * branch[~skipped], atol=1e-6, rtol=1e-4)
    assert torch.equal(dropping.eval()(x), plain.eval()(x))


@pytest.mark.parametrize(("name", "rate"), [("van_b0", 0.1), ("van_b1", 0.1), ("van_b2", 0.1), ("van_b3", 0.2), ("van_b4", 0.0)])
def test_stochastic_depth_grows_linearly(name: str, rate: float) -> None:
    model = create(name, device="meta")
    rates = [getattr(b.drop_path, "drop_prob", 0.0) for stage in model.stages for b in stage.blocks]
    assert rates == pytest.approx(np.linspace(0, rate, len(rates)).tolist())
    assert create(name, device="meta", drop_path_rate=0.4).stages[3].blocks[-1].drop_path.drop_prob == pytest.approx(0.4)


def test_weights_start_as_the_authors_do() -> None:
    built = create()
    emptied = create(device="meta").to_empty(device="cpu")
    emptied.init_weights()
    for model in (built, emptied):
        stage = model.stages[0]
        expected = {
            stage.patch_embed.proj: (2 / (49 * 32)) ** 0.5,
            stage.blocks[0].mlp.dwconv.dwconv: (2 / 9) ** 0.5,
            stage.blocks[0].attn.spatial_gating_unit.conv0: (2 / 25) ** 0.5,
            stage.blocks[0].mlp.fc1: (2 / 256) ** 0.5,
            model.head.fc: 0.02,
        }
        for layer, std in expected.items():
            assert layer.weight.std().item() == pytest.approx(std, rel=0.1)
            assert not layer.bias.any()
        assert (stage.blocks[0].layer_scale_1 == 0.01).all() and (stage.blocks[2].layer_scale_2 == 0.01).all()
        assert (stage.norm.weight == 1).all() and (stage.blocks[1].norm2.running_var == 1).all()


def test_layers_are_ordered_for_layer_wise_learning_rates() -> None:
    model = create(device="meta")
    layer = group_parameters(model, model.group_matcher(), reverse=True)
    assert layer["stages.0.patch_embed.proj.weight"] == 0
    assert layer["stages.0.blocks.0.mlp.fc1.weight"] == 1
    assert layer["stages.0.norm.weight"] == layer["stages.0.blocks.2.norm1.weight"] == 3
    assert layer["stages.1.patch_embed.proj.bias"] == layer["stages.1.blocks.0.layer_scale_1"] == 4
    assert layer["stages.3.norm.bias"] == 13 and layer["head.fc.weight"] == 14
    coarse = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    assert coarse["stages.0.blocks.2.norm1.weight"] == 1 and coarse["head.fc.weight"] == 5
    groups = param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.8)
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    scale = model.stages[2].blocks[0].layer_scale_1
    assert all(g["weight_decay"] == 0 for g in groups if any(p is scale for p in g["params"]))


def test_the_gating_unit_can_be_replaced() -> None:
    model, x = small(), image(32, 48)
    before = model(x)
    for stage in model.stages:
        for block in stage.blocks:
            block.attn.spatial_gating_unit = nn.Identity()
    assert model(x).shape == before.shape and not torch.allclose(model(x), before)


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    model = small(num_classes=5, stem_stride=2)
    save_for_hf(model, tmp_path, safe_serialization=True)
    back = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = image(40, 56)
    assert torch.equal(back(x), model(x))
    assert back.feature_info[0]["reduction"] == 2
    features = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True).eval()
    assert torch.equal(features(x)[-1], model.forward_features(x))


def test_export() -> None:
    model, x = create(), image(64, 64)
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x))


def test_a_trace_takes_other_sizes() -> None:
    model = small()
    traced = torch.jit.trace(model, image(64, 64))
    for x in (image(64, 64), image(40, 97, batch=3)):
        torch.testing.assert_close(traced(x), model(x), atol=1e-5, rtol=1e-4)
