"""The authors' numbers: outputs, every gradient, running statistics and cluster order, in float64 and float32."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from nasattn.attention import Attention, create_attention
from nasattn.attention.fsla import FeatureSpaceLocalAttention, cluster_tokens
from nasattn.hosts.resnet import PlacedBottleneck

VECTORS = Path(__file__).parent / "vectors"
CASES: dict[str, dict[str, Any]] = {c["name"]: c for c in json.loads((VECTORS / "manifest.json").read_text())["cases"]}
BOTTLENECK_PLANES = 16


class VanAttention(nn.Module):
    """x + 1x1(LKA(GELU(1x1(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj_1 = nn.Conv2d(channels, channels, 1)
        self.spatial_gating_unit = create_attention("lka", channels)
        self.proj_2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.proj_2(self.spatial_gating_unit(nn.functional.gelu(self.proj_1(x))))


class VanMlp(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.dwconv = nn.ModuleDict({"dwconv": nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)})
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(nn.functional.gelu(self.dwconv["dwconv"](self.fc1(x))))


class VanBlock(nn.Module):
    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.attn = VanAttention(channels)
        self.norm2 = nn.BatchNorm2d(channels)
        self.mlp = VanMlp(channels, int(channels * ratio))
        self.layer_scale_1 = nn.Parameter(torch.empty(channels))
        self.layer_scale_2 = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer_scale_1[:, None, None] * self.attn(self.norm1(x))
        return x + self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x))


class InvertedResidual(nn.Module):
    """MobileNetV2's block, with ELA on the expanded channels."""

    def __init__(self, channels: int, expand: int) -> None:
        super().__init__()
        hidden = channels * expand
        self.conv = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            create_attention("ela_l", hidden),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


def bottleneck(token: str) -> nn.Module:
    block = PlacedBottleneck.adopt(Bottleneck(64, BOTTLENECK_PLANES))
    attention = Attention.parse(token)
    if attention.form == "widening":
        block.widen(block.create_spatial_bias(attention), attention, identity_start=False)
    else:
        block.insert("out", block.create(attention, "out", identity_start=False))
    return block


BUILD: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "sge_g8_c32_7x7": lambda c: create_attention("sge_g8", 32),
    "sge_g4_c16_2x2": lambda c: create_attention("sge_g4", 16),
    "sge_default_init": lambda c: create_attention("sge_g8", 32),
    "sge_bottleneck_eval": lambda c: bottleneck("sge_g64"),
    "lka_c16_14x14": lambda c: create_attention("lka", 16),
    "lka_c8_1x1": lambda c: create_attention("lka", 8),
    "van_attention_c16_9x12": lambda c: VanAttention(16),
    "van_block_c8_eval": lambda c: VanBlock(8, c["mlp_ratio"]),
    "sb_c16_13x9_eval": lambda c: create_attention("sb", 16),
    "sb_c16_14x14_train": lambda c: create_attention("sb", 16),
    "sb_bottleneck_s1_eval": lambda c: bottleneck("sb"),
    "fsla_swin_n196_c32_h4_b2": lambda c: create_attention("fsla_h4", 32),
    "fsla_cswin_n196_c24_h3_b3_scaleTrue": lambda c: FeatureSpaceLocalAttention(24, heads=3, scale=1.0),
    "ela_official_L_c32_9x7": lambda c: create_attention("ela_l", 32),
    "ela_official_S_c48_6x11": lambda c: create_attention("ela_s", 48),
    "ela_mbv2_block_eval": lambda c: InvertedResidual(16, c["expand"]),
    "ela_T_c32_9x7_shared": lambda c: create_attention("ela_t", 32),
    "ela_B_c32_7x12_shared": lambda c: create_attention("ela_b", 32),
}

# where the vectors name a parameter differently than the modules do
RENAMED = {
    "sge_bottleneck_eval": {"sge.": "se."},
    "sb_bottleneck_s1_eval": {"SB.": "sb."},
    "ela_T_c32_9x7_shared": {"conv_weight_hw": "conv.weight", "gn_weight_hw": "gn.weight", "gn_bias_hw": "gn.bias"},
    "ela_B_c32_7x12_shared": {"conv_weight_hw": "conv.weight", "gn_weight_hw": "gn.weight", "gn_bias_hw": "gn.bias"},
}


def read(name: str, prefix: str) -> dict[str, Tensor]:
    """The arrays of a case that begin with *prefix*, under the names of our modules."""
    with np.load(VECTORS / CASES[name]["file"]) as data:
        named = {k.removeprefix(prefix): torch.from_numpy(data[k]) for k in data if k.startswith(prefix)}
    for old, new in RENAMED.get(name, {}).items():
        named = {k.replace(old, new): v for k, v in named.items()}
    return split_widened(named) if name == "sb_bottleneck_s1_eval" else named


def split_widened(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reference's bn2 and conv3, 3 channels wider, cut into the plain block's and the bias maps'."""
    split = {}
    for name, value in named.items():
        if name.startswith("bn2.") and value.ndim:
            split[name] = value[:BOTTLENECK_PLANES]
            split[name.replace("bn2.", "sb_bn.")] = value[BOTTLENECK_PLANES:]
        elif name.startswith("bn2."):
            split[name] = split[name.replace("bn2.", "sb_bn.")] = value
        elif name == "conv3.weight":
            split[name], split["sb_proj.weight"] = value[:, :BOTTLENECK_PLANES], value[:, BOTTLENECK_PLANES:]
        else:
            split[name] = value
    return split


def load(name: str, dtype: torch.dtype) -> nn.Module:
    case = CASES[name]
    module = BUILD[name](case["config"]).to(dtype)
    module.load_state_dict(read(name, "w."))
    return module.train(case["mode"] == "train")


def run(name: str, module: nn.Module, x: Tensor) -> Tensor:
    if not CASES[name]["layout"].startswith("BNC"):
        return module(x)
    side = int(x.shape[1] ** 0.5)
    return module.forward_tokens(x, side, side)


def test_every_vector_file_has_a_case() -> None:
    assert {c["file"] for c in CASES.values()} == {p.name for p in VECTORS.glob("*.npz")}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_numbers_of_the_reference(name: str, dtype: torch.dtype) -> None:
    module = load(name, dtype)
    tolerance = CASES[name]["tolerance_float64" if dtype == torch.float64 else "tolerance_float32"]

    def check(actual: Tensor, expected: Tensor, what: str) -> None:
        torch.testing.assert_close(actual.double(), expected, **tolerance, msg=lambda text: f"{what}: {text}")

    data = {k: read(name, k)[""] for k in ("x", "y", "r", "grad_x")}
    x = data["x"].to(dtype).requires_grad_()
    y = run(name, module, x)
    (y * data["r"].to(dtype)).sum().backward()

    check(y, data["y"], "y")
    check(x.grad, data["grad_x"], "grad_x")
    expected = read(name, "grad_w.")
    parameters = dict(module.named_parameters())
    assert set(parameters) == set(expected)
    for key, parameter in parameters.items():
        check(parameter.grad, expected[key], f"gradient of {key}")
    state = module.state_dict()
    for key, after in read(name, "after.").items():
        check(state[key], after, f"{key} after the step")


def test_the_training_case_moves_the_running_statistics() -> None:
    after = read("sb_c16_14x14_train", "after.")
    before = read("sb_c16_14x14_train", "w.")
    assert len(after) == 2
    assert all(not torch.equal(after[k], before[k]) for k in after)


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith("fsla")])
def test_clusters_of_the_reference(name: str) -> None:
    module = load(name, torch.float64)
    x = read(name, "x")[""]
    q = module.qkv(x).unflatten(2, (3, module.heads, -1))[:, :, 0].transpose(1, 2)
    levels = int(read(name, "aux.cluster_passes")[""])
    order, real = cluster_tokens(q, levels)
    assert torch.equal(order.flatten(2), read(name, "aux.order")[""])
    assert real.shape == (2**levels, 49) and real.all()


def test_a_fresh_sge_starts_as_the_authors_do() -> None:
    module = create_attention("sge_g8", 32, dtype=torch.float64)
    for key, value in read("sge_default_init", "w.").items():
        assert torch.equal(module.state_dict()[key], value)
    x = read("sge_default_init", "x")[""]
    torch.testing.assert_close(module(x), x * torch.sigmoid(torch.tensor(1.0, dtype=torch.float64)))
