"""BOAT on Swin and CSWin: the published sizes, the authors' checkpoints, any image size, and timm's ways to build and save."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import DropPath
from timm.models import save_for_hf
from timm.models._manipulate import group_parameters
from torch import Tensor, nn

from nasattn.attention.fsla import FeatureSpaceLocalAttention
from nasattn.errors import UsageError
from nasattn.hosts.branch import BranchBlock
from nasattn.hosts.count import count_macs, count_params
from nasattn.hosts.cswin import CSWinTransformer
from nasattn.hosts.cswin_blocks import StripeAttention
from nasattn.hosts.swin import BranchSwin

SMALL: dict[str, dict[str, Any]] = {
    "boat_swin_tiny": {"embed_dim": 8, "depths": (2, 2, 1), "num_heads": (1, 1, 2), "num_classes": 5},
    "boat_cswin_tiny": {"embed_dim": 8, "depths": (1, 2, 1), "num_heads": (1, 2, 4), "split_sizes": (2, 3, 3), "num_classes": 5},
}
both = pytest.mark.parametrize("name", list(SMALL))


def create(name: str, seed: int = 0, **kwargs: Any) -> Any:
    torch.manual_seed(seed)
    return timm.create_model(name, **{**SMALL[name], **kwargs}).eval()


def image(height: int, width: int, batch: int = 2, dtype: torch.dtype = torch.float32, chans: int = 3) -> Tensor:
    return torch.randn(batch, chans, height, width, generator=torch.Generator().manual_seed(1), dtype=dtype)


def blocks_of(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, BranchBlock)]


def of_branch(key: str) -> bool:
    return any(part in ("branch", "branch_norm") for part in key.split("."))


def loaded(name: str, weights: Any, **kwargs: Any) -> Any:
    overlay = {"state_dict": weights, "num_classes": SMALL[name]["num_classes"]}
    return create(name, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs)


@pytest.mark.parametrize(
    ("name", "params", "gmacs", "branches"),
    [
        ("boat_swin_tiny", 30_265_186, 5.197, 5),
        ("boat_swin_small", 55_158_898, 10.216, 11),
        ("boat_swin_base", 97_612_960, 17.963, 11),
        ("boat_cswin_tiny", 26_390_952, 5.200, 14),
        ("boat_cswin_small", 40_112_488, 8.045, 20),
        ("boat_cswin_base", 89_628_712, 17.593, 20),
    ],
)
def test_sizes_of_the_paper(name: str, params: int, gmacs: float, branches: int) -> None:
    model = timm.create_model(name, device="meta")
    assert count_params(model) == params
    assert count_macs(model, 224) / 1e9 == pytest.approx(gmacs, rel=5e-3)
    assert sum(block.branch is not None for block in blocks_of(model)) == branches
    heads = [s[0].branch.heads for s in [[b for b in stage.blocks if b.branch is not None] for stage in stages_of(model)] if s]
    assert heads == list(num_heads_of(name)[: len(heads)])


def stages_of(model: Any) -> Any:
    return model.layers if hasattr(model, "layers") else model.stages


def num_heads_of(name: str) -> tuple[int, ...]:
    if "cswin" in name:
        return (4, 8, 16, 32) if "base" in name else (2, 4, 8, 16)
    return (4, 8, 16, 32) if "base" in name else (3, 6, 12, 24)


def affine(*names: str) -> list[str]:
    return [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]


def swin_names() -> dict[str, str]:
    """Names in the authors' BOAT-Swin with two stages of two blocks and of one, and ours."""
    block = [*affine("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"), "attn.relative_position_bias_table"]
    names = {k: k for k in affine("patch_embed.proj", "patch_embed.norm", "norm")}
    names |= {f"{b}.{k}": f"{b}.{k}" for b in ("layers.0.blocks.0", "layers.0.blocks.1", "layers.1.blocks.0") for k in block}
    names |= {
        "layers.0.blocks.1.attnC.qkv.weight": "layers.0.blocks.1.branch.qkv.weight",
        "layers.0.blocks.1.attnC.qkv.bias": "layers.0.blocks.1.branch.qkv.bias",
        "layers.0.blocks.1.attnC.proj.weight": "layers.0.blocks.1.branch.proj.weight",
        "layers.0.blocks.1.attnC.proj.bias": "layers.0.blocks.1.branch.proj.bias",
        "layers.0.blocks.1.attnC.get_v.weight": "layers.0.blocks.1.branch.get_v.weight",
        "layers.0.blocks.1.attnC.get_v.bias": "layers.0.blocks.1.branch.get_v.bias",
        "layers.0.blocks.1.norm4.weight": "layers.0.blocks.1.branch_norm.weight",
        "layers.0.blocks.1.norm4.bias": "layers.0.blocks.1.branch_norm.bias",
        "layers.0.downsample.reduction.weight": "layers.1.downsample.reduction.weight",
        "layers.0.downsample.norm.weight": "layers.1.downsample.norm.weight",
        "layers.0.downsample.norm.bias": "layers.1.downsample.norm.bias",
        "head.weight": "head.fc.weight",
        "head.bias": "head.fc.bias",
    }
    return names


SWIN_BUFFERS = [
    "layers.0.blocks.0.attn.relative_position_index",
    "layers.0.blocks.1.attn.relative_position_index",
    "layers.0.blocks.1.attn_mask",
    "layers.1.blocks.0.attn.relative_position_index",
]


def cswin_names() -> dict[str, str]:
    """Names in the authors' BOAT-CSWin with two stages of two blocks and of one, and ours."""
    block = affine("norm1", "qkv", "attns.0.get_v", "proj", "norm2", "mlp.fc1", "mlp.fc2")
    names = {f"stage1.0.{k}": f"stages.0.blocks.0.{k}" for k in [*block, *affine("attns.1.get_v")]}
    names |= {f"stage1.1.{k}": f"stages.0.blocks.1.{k}" for k in [*block, *affine("attns.1.get_v")]}
    names |= {f"stage2.0.{k}": f"stages.1.blocks.0.{k}" for k in block}
    for theirs, ours in (("stage1.0", "stages.0.blocks.0"), ("stage2.0", "stages.1.blocks.0")):
        names |= {f"{theirs}.content_attn.{k}": f"{ours}.branch.{k}" for k in affine("qkv", "proj", "get_v")}
        names |= {f"{theirs}.norm3.{k}": f"{ours}.branch_norm.{k}" for k in ("weight", "bias")}
    names |= {
        "stage1_conv_embed.0.weight": "stem.conv.weight",
        "stage1_conv_embed.0.bias": "stem.conv.bias",
        "stage1_conv_embed.2.weight": "stem.norm.weight",
        "stage1_conv_embed.2.bias": "stem.norm.bias",
        "merge1.conv.weight": "stages.1.downsample.conv.weight",
        "merge1.conv.bias": "stages.1.downsample.conv.bias",
        "merge1.norm.weight": "stages.1.downsample.norm.weight",
        "merge1.norm.bias": "stages.1.downsample.norm.bias",
        "norm.weight": "norm.weight",
        "norm.bias": "norm.bias",
        "head.weight": "head.fc.weight",
        "head.bias": "head.fc.bias",
    }
    return names


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"model": w, "epoch": 3}, lambda w: {"state_dict": {}, "state_dict_ema": w}])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    ("name", "names", "buffers"), [("boat_swin_tiny", swin_names(), SWIN_BUFFERS), ("boat_cswin_tiny", cswin_names(), [])]
)
def test_the_authors_checkpoints_load(name: str, names: dict[str, str], buffers: list[str], prefix: str, wrap: Any) -> None:
    small = {"depths": (2, 1), "num_heads": (1, 2)} | ({"split_sizes": (2, 3)} if "cswin" in name else {})
    random = {k: torch.randn_like(v) for k, v in create(name, **small).state_dict().items()}
    theirs = {prefix + k: random[ours] for k, ours in names.items()} | {prefix + k: torch.zeros(1) for k in buffers}
    state = loaded(name, wrap(theirs), **small).state_dict()
    assert set(names.values()) == set(state)
    assert all(torch.equal(v, random[k]) for k, v in state.items())


@both
def test_our_own_weights_load_unchanged(name: str) -> None:
    weights = create(name, seed=1).state_dict()
    kept = dict(weights)
    state = loaded(name, weights).state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in state.items())
    assert weights.keys() == kept.keys() == state.keys()


def test_plain_swin_weights_load_and_branches_keep_theirs() -> None:
    small = SMALL["boat_swin_tiny"]
    plain = timm.create_model("swin_tiny_patch4_window7_224", **small).state_dict()
    state, fresh = loaded("boat_swin_tiny", plain).state_dict(), create("boat_swin_tiny").state_dict()
    assert {k for k in state if not of_branch(k)} == set(plain)
    assert all(torch.equal(v, fresh[k] if of_branch(k) else plain[k]) for k, v in state.items())


@both
def test_a_checkpoint_that_lacks_a_weight_is_refused(name: str) -> None:
    weights = create(name).state_dict()
    plain = {k: v for k, v in weights.items() if not of_branch(k)}
    loaded(name, plain)
    for key in ("norm.bias", next(k for k in weights if k.endswith("branch.proj.bias"))):
        with pytest.raises(RuntimeError, match=f'Missing key.*"{key}"'):
            loaded(name, {k: v for k, v in weights.items() if k != key})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        loaded(name, {**plain, "extra.weight": torch.zeros(1)})


def test_without_branches_it_is_timms_swin() -> None:
    kwargs = {**SMALL["boat_swin_tiny"], "drop_path_rate": 0.2}
    torch.manual_seed(0)
    plain = timm.create_model("swin_tiny_patch4_window7_224", **kwargs).eval()
    torch.manual_seed(0)
    ours = BranchSwin(**kwargs).eval()
    x = image(224, 224, batch=1)
    assert torch.equal(plain(x), ours(x))
    with torch.no_grad():
        assert not torch.allclose(create("boat_swin_tiny")(x), plain(x))


@both
def test_one_seed_gives_the_backbone_the_same_start(name: str) -> None:
    boat = create(name).state_dict()
    torch.manual_seed(0)
    plain = (CSWinTransformer if "cswin" in name else BranchSwin)(**SMALL[name]).state_dict()
    assert {k for k in boat if not of_branch(k)} == set(plain)
    assert all(torch.equal(v, boat[k]) for k, v in plain.items())


@pytest.mark.parametrize("size", [(12, 12), (5, 9), (3, 2), (1, 1), (7, 12)])
@pytest.mark.parametrize("stripe", [(None, 3), (3, None), (None, None)])
@pytest.mark.parametrize("fused", [True, False])
def test_a_stripe_attends_to_itself_alone(size: tuple[int, int], stripe: tuple[int | None, int | None], fused: bool) -> None:
    attention = StripeAttention(8, 2, stripe, dtype=torch.float64)
    attention.fused_attn = fused
    qkv = torch.randn(3, 2, *size, 8, dtype=torch.float64)
    y = attention(qkv)
    for top in range(0, size[0], stripe[0] or size[0]):
        for left in range(0, size[1], stripe[1] or size[1]):
            place = (slice(None), slice(top, top + (stripe[0] or size[0])), slice(left, left + (stripe[1] or size[1])))
            crop = qkv[:, *place]
            q, k, v = crop.flatten(2, 3).unflatten(3, (2, 4)).transpose(2, 3)
            attended = (torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v).transpose(1, 2).reshape(crop.shape[1:])
            lepe = attention.get_v(crop[2].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            torch.testing.assert_close(y[place], attended + lepe)


@both
@pytest.mark.parametrize("size", [(64, 64), (97, 130), (32, 32), (5, 200)])
def test_any_size_and_no_image_sees_another(name: str, size: tuple[int, int]) -> None:
    model, x = create(name, dtype=torch.float64), image(*size, batch=3, dtype=torch.float64)
    with torch.no_grad():
        y = model(x)
        assert y.shape == (3, 5) and y.isfinite().all()
        for i in range(3):
            torch.testing.assert_close(model(x[i : i + 1]), y[i : i + 1], atol=1e-10, rtol=1e-10)


@both
def test_the_full_network_takes_other_sizes(name: str) -> None:
    model = timm.create_model(name, device="meta")
    for size in ((256, 256), (97, 130)):
        assert model(torch.empty(1, 3, *size, device="meta")).shape == (1, 1000)


@both
def test_head_and_input_channels(name: str) -> None:
    model = create(name, in_chans=1, num_classes=0, drop_rate=0.5)
    x = image(64, 64, chans=1)
    features = model.forward_features(x)
    assert features.shape == (2, 4, 4, 32) and model(x).shape == (2, 32) and model.num_features == 32
    torch.testing.assert_close(model(x), features.mean((1, 2)))
    model.reset_classifier(7, "max")
    assert isinstance(model.get_classifier(), nn.Linear) and model.head.drop.p == 0.5
    torch.testing.assert_close(model(x), model.get_classifier()(features.amax((1, 2))))
    torch.testing.assert_close(model.forward_head(features, pre_logits=True), features.amax((1, 2)))
    weights = create(name, seed=1).state_dict()
    assert loaded(name, weights, in_chans=1, num_classes=3)(x).shape == (2, 3)


@both
def test_features_are_the_intermediates(name: str) -> None:
    model, x = create(name), image(64, 96)
    features = create(name, features_only=True)
    assert features.feature_info.channels() == [8, 16, 32]
    assert features.feature_info.reduction() == [4, 8, 16]
    final, intermediates = model.forward_intermediates(x)
    torch.testing.assert_close(final, model.forward_features(x))
    for got, expected, info in zip(features(x), intermediates, model.feature_info, strict=True):
        assert got.shape == (2, info["num_chs"], 64 // info["reduction"], 96 // info["reduction"])
        assert torch.equal(got, expected)
    normed = model.forward_intermediates(x, indices=[2], norm=True, intermediates_only=True)
    torch.testing.assert_close(normed[0], final.permute(0, 3, 1, 2))
    shorter = create(name, features_only=True, out_indices=(1,))
    assert torch.equal(shorter(x)[0], intermediates[1])
    assert count_params(shorter) < count_params(features)
    early, taken = model.forward_intermediates(x, indices=[0], stop_early=True)
    assert early.shape == (2, 16, 24, 8) and torch.equal(taken[0], intermediates[0])


@both
def test_grad_checkpointing_gives_the_same_gradients(name: str) -> None:
    gradients = []
    for enable in (False, True):
        model = create(name, drop_path_rate=0.0).train()
        model.set_grad_checkpointing(enable)
        model(image(64, 64)).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(a is not None and torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_drop_path_spares_swins_branch_and_not_cswins() -> None:
    x = torch.randn(2, 14, 14, 8)
    swin, cswin = (create(name, drop_path_rate=0.3).train() for name in SMALL)
    block = swin.layers[0].blocks[1]
    assert block.drop_path1.drop_prob == pytest.approx(0.3 / 4)
    block.drop_path1 = block.drop_path2 = DropPath(1.0)
    torch.testing.assert_close(block(x), x + block.branch_output(x))
    assert [getattr(b.drop_path, "drop_prob", 0.0) for b in blocks_of(cswin)] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    block = cswin.stages[0].blocks[0]
    block.drop_path = DropPath(1.0)
    assert torch.equal(block(x), x)


@both
def test_layer_decay_groups_keep_a_block_together(name: str) -> None:
    model = create(name)
    for coarse in (False, True):
        groups = group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
        assert groups.keys() == dict(model.named_parameters()).keys()
        for key in filter(of_branch, groups):
            block = key.split(".branch")[0]
            assert groups[key] == groups[f"{block}.norm1.weight"]
    assert max(groups.values()) == groups["head.fc.weight"]


@both
def test_a_network_built_on_the_meta_device_can_be_initialised(name: str) -> None:
    model = create(name, device="meta").to_empty(device="cpu")
    for p in model.parameters():
        nn.init.constant_(p, torch.nan)
    model.init_weights()
    assert model(image(64, 64)).isfinite().all()
    for block in blocks_of(model):
        assert block.mlp.fc1.weight.std() < 0.03
        if block.branch is not None:
            assert 0.01 < block.branch.qkv.weight.std() < 0.03 and not block.branch.qkv.bias.any()
            assert block.branch.get_v.weight.std() > 0.05 and bool((block.branch_norm.weight == 1).all())
    fresh = create(name)
    assert all(b.branch.qkv.weight.std() < 0.03 for b in blocks_of(fresh) if b.branch is not None)


@both
def test_a_saved_model_comes_back(name: str, tmp_path: Path) -> None:
    model = create(name, **({"unit_scale": True} if "cswin" in name else {}))
    save_for_hf(model, tmp_path, safe_serialization=True)
    back = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = image(97, 130)
    assert torch.equal(back(x), model(x))
    features = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True).eval()
    assert torch.equal(features(x)[-1], model.forward_intermediates(x, intermediates_only=True)[-1])
    if "cswin" in name:
        assert json.loads((tmp_path / "config.json").read_text())["model_args"]["unit_scale"] is True
        assert {m.scale for m in back.modules() if isinstance(m, FeatureSpaceLocalAttention)} == {1.0}


def test_unit_scale_is_off_unless_asked_for() -> None:
    model = create("boat_cswin_tiny")
    assert all(m.scale == (m.qkv.in_features / m.heads) ** -0.5 for m in model.modules() if isinstance(m, FeatureSpaceLocalAttention))
    x = image(64, 64)
    assert not torch.allclose(model(x), create("boat_cswin_tiny", unit_scale=True)(x))


@pytest.mark.parametrize(("stride", "side"), [(1, 32), (2, 16), (4, 8)])
def test_the_stem_of_a_reduced_network(stride: int, side: int) -> None:
    cswin = create("boat_cswin_tiny", stem_stride=stride)
    swin = create("boat_swin_tiny", patch_size=stride, window_size=4)
    for model in (cswin, swin):
        first = model.forward_intermediates(image(32, 32), indices=[0], intermediates_only=True)[0]
        assert first.shape == (2, 8, side, side)
        assert [info["reduction"] for info in model.feature_info] == [stride, 2 * stride, 4 * stride]


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="differ in length; give one value a stage"):
        create("boat_cswin_tiny", depths=(1, 1))
    with pytest.raises(UsageError, match="6 heads do not fit 8 channels"):
        create("boat_cswin_tiny", num_heads=(6, 2, 4))


@both
def test_it_exports(name: str) -> None:
    model = create(name, depths=(2,), num_heads=(1,), **({"split_sizes": (3,)} if "cswin" in name else {}))
    x = image(40, 52, batch=1)  # 130 tokens: two clusters, and windows that do not fit
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x))
