"""A stage cut out of a host, and the memory that a model needs at inference."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

from nasattn.attention import Attention
from nasattn.errors import TokenError
from nasattn.hosts import get_host
from nasattn.hosts.count import count_memory

NONE = Attention.parse("none")


def kinds(module: nn.Module) -> list[str]:
    return [type(m).__name__ for m in module.modules()]


def efficientnet(device: str = "meta") -> nn.Module:
    host = get_host("nasattn_efficientnet_b0")
    return host.build(host.native, device=device)


@pytest.mark.parametrize("stage", [1, 2, 3, 4, 5])
def test_a_stage_keeps_its_native_attention_where_asked(stage: int) -> None:
    """The very class of timm, not one of ours in its place."""
    host = get_host("nasattn_efficientnet_b0")
    model = efficientnet()
    blocks = host.stage_blocks(model)[stage - 1]
    kept = host.stage_of(model, stage, Attention.parse("se"))
    assert [type(b.se) for b in kept] == [type(b.se) for b in blocks] == [timm.models._efficientnet_blocks.SqueezeExcite] * len(blocks)
    assert kinds(kept)[1:] == [kind for b in blocks for kind in kinds(b)]
    plain = host.stage_of(model, stage, NONE)
    assert not any("SqueezeExcite" in kind for kind in kinds(plain))
    assert len(plain) == len(blocks)


def test_native_attention_in_some_blocks() -> None:
    host = get_host("nasattn_efficientnet_b0")
    stage = host.stage_of(efficientnet(), 2, Attention.parse("se@last"))
    assert ["SqueezeExcite" in kinds(b) for b in stage] == [False] * (len(stage) - 1) + [True]


def test_another_attention_takes_the_natives_place() -> None:
    host = get_host("nasattn_efficientnet_b0")
    stage = host.stage_of(efficientnet(), 3, Attention.parse("ela_b"))
    assert "SqueezeExcite" not in kinds(stage)
    assert kinds(stage).count("EfficientLocalAttention") == len(stage)


def test_the_stage_says_what_it_carries() -> None:
    host = get_host("nasattn_resnet18")
    model = host.build("none", device="meta")
    assert host.stage_of(model, 2, NONE).placement == "2: none"
    assert host.stage_of(model, 4, Attention.parse("sge_g32@b01")).placement == "4: sge_g32@last"


@pytest.mark.parametrize(
    ("name", "attention"), [("nasattn_efficientnet_b0", "none"), ("nasattn_efficientnet_b0", "ela_b"), ("nasattn_resnet18", "sb")]
)
def test_the_source_is_untouched(name: str, attention: str) -> None:
    host = get_host(name)
    model = host.build(host.native).eval()
    before, values = repr(model), copy.deepcopy(model.state_dict())
    stage = host.stage_of(model, 2, Attention.parse(attention))
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.fill_(7.0)
    assert repr(model) == before
    assert all(torch.equal(value, values[key]) for key, value in model.state_dict().items())
    assert list(values) == list(model.state_dict())


def test_a_stage_takes_and_gives_what_it_does_in_the_network() -> None:
    host = get_host("nasattn_resnet18")
    model = host.build("none", device="meta")
    shapes = [
        tuple(host.stage_of(model, 3, Attention.parse(a))(torch.empty(2, 128, 8, 8, device="meta")).shape) for a in ("none", "se", "sb")
    ]
    assert shapes == [(2, 256, 4, 4)] * 3


@pytest.mark.parametrize(
    ("stage", "attention", "message"),
    [
        (1, "sge_g33", "33 groups do not divide 64 channels"),
        (1, "se@b1", "has 1 digits, the stage has 2 blocks"),
        (1, "se@nowhere", "nowhere"),
    ],
)
def test_what_does_not_fit(stage: int, attention: str, message: str) -> None:
    host = get_host("nasattn_resnet18")
    with pytest.raises(TokenError, match=message):
        host.stage_of(host.build("none", device="meta"), stage, Attention.parse(attention))


class Chain(nn.Sequential):
    """Three maps of known sizes: ``(B, 3, 8, 8) -> (B, 4, 8, 8) -> (B, 16, 8, 8) -> (B, 2, 8, 8)``."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 16, 1, bias=False), nn.Conv2d(16, 2, 1))


WEIGHTS = (3 * 4 + 4) + 4 * 16 + (16 * 2 + 2)
PIXELS = 64


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_memory_by_hand(device: str) -> None:
    """The images stay; a layer's input lives until its output is made: 4 and 16 channels at once are the most."""
    assert count_memory(Chain().to(device), 8) == 4 * (WEIGHTS + (3 + 4 + 16) * PIXELS)
    assert count_memory(Chain().to(device), 8, batch=5) == 4 * (WEIGHTS + 5 * (3 + 4 + 16) * PIXELS)
    assert count_memory(Chain().to(device), 8, dtype=torch.bfloat16) == 2 * (WEIGHTS + (3 + 4 + 16) * PIXELS)
    assert count_memory(nn.Sequential(nn.Conv2d(1, 2, 1)).to(device), 8, in_chans=1) == 4 * (4 + 3 * PIXELS)


class Kept(nn.Module):
    """The first map is needed until the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.wide, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.last(self.wide(x))
        y += x  # nothing new
        return y[:, :2]  # a view neither


def test_memory_of_a_skip_a_view_and_an_operation_in_place() -> None:
    weights = 16 + (4 * 16 + 16) + (16 * 4 + 4)
    assert count_memory(Kept().to("meta"), 8) == 4 * (weights + (3 + 4 + 16 + 4) * PIXELS)


def test_buffers_are_weights_too() -> None:
    """Mean, variance (4 bytes) and the number of batches (8 bytes)."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert count_memory(model, 8) == 4 * (16 + 4 * 4) + 8 + 4 * (3 + 4 + 4) * PIXELS


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return get_host("nasattn_resnet18").build("none", device="meta")


def test_nothing_need_be_computed(resnet: nn.Module) -> None:
    real = count_memory(get_host("nasattn_resnet18").build("none"), 64, batch=2)
    assert count_memory(resnet, 64, batch=2) == pytest.approx(real, rel=1e-3)


def test_more_images_need_more_memory(resnet: nn.Module) -> None:
    """The weights once, all else for every image."""
    one, two, four = (count_memory(resnet, 64, batch=batch) for batch in (1, 2, 4))
    assert one < two < four
    assert four - two == 2 * (two - one)
    assert count_memory(resnet, 128, batch=1) > one


def test_half_the_precision_needs_half_the_memory() -> None:
    """But for the indices of the max pooling, which take 8 bytes in any precision."""
    model = get_host("nasattn_resnet18").build("none", device="meta")
    single = count_memory(model, 64)
    assert count_memory(model, 64, dtype=torch.float16) == pytest.approx(single / 2, rel=5e-3)


def test_an_attention_needs_more(resnet: nn.Module) -> None:
    placed = get_host("nasattn_resnet18").build("lka_k21_d3,none,none,none", device="meta")
    assert count_memory(placed, 64) > count_memory(resnet, 64)
