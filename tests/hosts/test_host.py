"""Hosts: reading placements, full models, and the proxies that a search trains in their place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nasattn.attention import Placement
from nasattn.errors import TokenError, UsageError
from nasattn.hosts import Host, get_host, list_hosts, register_host
from nasattn.hosts.host import scale_channels
from nasattn.space import load_space

CARRIED = [(space, str(token)) for space in ("resnet18_stages", "resnet50_stages") for token in load_space(space).tokens[0]]


def proxy(host: Host, placement: str, width: float = 0.125, stem_stride: int = 2, seed: int = 0, **kwargs: Any) -> nn.Module:
    host.placement(placement)
    torch.manual_seed(seed)
    return host.build_proxy(placement, width=width, blocks=1, stem_stride=stem_stride, **{"num_classes": 10, **kwargs})


def image(side: int, channels: int = 3, batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(1))


def test_hosts_are_known_by_name() -> None:
    assert {"nasattn_resnet18", "nasattn_resnet50"} <= set(list_hosts())
    host = get_host("nasattn_resnet50")
    assert len(host.stages) == 4
    assert str(host.native) == "none,none,none,none"
    assert host.channels == (256, 512, 1024, 2048)
    assert host.blocks == (3, 4, 6, 3)
    assert host.resolution == 224
    assert get_host("nasattn_resnet18").channels == (64, 128, 256, 512)
    with pytest.raises(UsageError, match="unknown host 'resnet50': Did you mean 'nasattn_resnet50'"):
        get_host("resnet50")
    with pytest.raises(UsageError, match="'nasattn_resnet50' is registered already"):
        register_host(host)


def test_placement_reads_and_checks() -> None:
    host = get_host("nasattn_resnet18")
    assert str(host.placement("none,sge,ela_t,lka")) == "none,sge_g64,ela_t,lka_k21_d3"
    assert str(host.placement("sb")) == "sb,sb,sb,sb"
    assert host.placement(["sb", "sb", "sb", "none"]) == Placement.parse("sb,sb,sb,none")
    assert str(host.plain()) == "none,none,none,none"
    assert host.plain().is_plain


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        ("none,none", "has 2 tokens, the host has 4 stages"),
        ("none,none,sge_g512,none", "sge_g512 does not fit stage 3 of nasattn_resnet18: 512 groups do not divide 256 channels; allowed"),
        ("none,none,none,ela_t_n3", "does not fit stage 4 of nasattn_resnet18: 3 norm groups"),
        ("none,none,none,foo", "unknown attention 'foo'"),
    ],
)
def test_placement_errors_name_the_stage(placement: str, message: str) -> None:
    with pytest.raises(TokenError, match=message):
        get_host("nasattn_resnet18").placement(placement)


def test_every_attention_of_a_full_host_is_where_its_stage_says() -> None:
    model = get_host("nasattn_resnet50").build("sge_g8,none,sb,fsla", num_classes=10, device="meta")
    carrying = {name.split(".")[0] for name, _ in model.named_modules() if name.endswith((".se", ".sb"))}
    assert carrying == {"layer1", "layer3", "layer4"}
    for stage, blocks in enumerate(get_host("nasattn_resnet50").blocks, start=1):
        assert len(getattr(model, f"layer{stage}")) == blocks
    assert all(type(b.se).__name__ == "SpatialGroupEnhance" for b in model.layer1)
    assert model.fc.out_features == 10


@pytest.mark.parametrize(("channels", "width", "scaled"), [(64, 0.125, 8), (64, 1, 64), (64, 0.1, 8), (64, 0.01, 8), (512, 0.3, 152)])
def test_widths_are_multiples_of_eight(channels: int, width: float, scaled: int) -> None:
    assert scale_channels(channels, width) == scaled


def test_the_proxys_placement_keeps_channels_per_group() -> None:
    host = get_host("nasattn_resnet50")
    assert str(host.proxy_placement("sge_g64,ela_t,fsla,lka", 0.125)) == "sge_g8,ela_k5_c1_n4,fsla_c49,lka_k21_d3"
    assert str(host.proxy_placement("sge,ela_b,sb,none", 1.0)) == "sge_g64,ela_b,sb,none"


@pytest.mark.parametrize("name", ["nasattn_resnet18", "nasattn_resnet50"])
@pytest.mark.parametrize("width", [0.0625, 0.1, 0.125, 0.3, 0.5, 0.7, 1.0])
def test_a_proxy_of_any_width_can_carry_what_the_host_can(name: str, width: float) -> None:
    for placement in ("sge_g64", "sge_g16,sge_g128,sge_g1,sge_g256", "ela_t,ela_b,fsla_h2,se"):
        model = proxy(get_host(name), placement, width=width, device="meta")
        assert model(image(32).to("meta")).shape == (2, 10)


@pytest.mark.parametrize(("space", "token"), CARRIED)
def test_every_choice_of_the_shipped_spaces_trains_in_a_proxy(space: str, token: str) -> None:
    host = get_host(load_space(space).host)
    model = proxy(host, token)
    y = model(image(32))
    assert y.shape == (2, 10)
    nn.functional.cross_entropy(y, torch.tensor([1, 2])).backward()
    assert y.isfinite().all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(("stem_stride", "side"), [(1, 32), (2, 16), (4, 8)])
@pytest.mark.parametrize("name", ["nasattn_resnet18", "nasattn_resnet50"])
def test_the_stem_sets_the_resolution(name: str, stem_stride: int, side: int) -> None:
    model = proxy(get_host(name), "none", stem_stride=stem_stride, in_chans=1, num_classes=3).eval()
    x = image(32, channels=1)
    first, *_ = model.forward_intermediates(x, indices=[1], intermediates_only=True)
    assert first.shape[-2:] == (side, side)
    assert model(x).shape == (2, 3)


def test_a_proxy_has_the_hosts_stages_and_fewer_blocks() -> None:
    model = proxy(get_host("nasattn_resnet50"), "sb,sb,sb,sge")
    assert [len(getattr(model, f"layer{n}")) for n in (1, 2, 3, 4)] == [1, 1, 1, 1]
    assert model.placement == "sb,sb,sb,sge_g8"
    assert [getattr(model, f"layer{n}")[-1].channels_at("out") for n in (1, 2, 3, 4)] == [32, 64, 128, 256]


def test_one_seed_gives_proxies_the_same_shared_layers() -> None:
    host = get_host("nasattn_resnet18")
    plain = proxy(host, "none").state_dict()
    for placement in ("lka,sb,fsla,ela_l", "se", "cbam"):
        placed = proxy(host, placement).state_dict()
        assert all(torch.equal(v, placed[k]) for k, v in plain.items())
    assert not torch.equal(plain["conv1.weight"], proxy(host, "none", seed=1).state_dict()["conv1.weight"])


def test_a_proxy_refuses_what_does_not_fit() -> None:
    with pytest.raises(TokenError, match="does not fit stage 1"):
        get_host("nasattn_resnet18").proxy_placement("sge_g128", 0.5)
    with pytest.raises(TokenError, match="has 2 tokens"):
        get_host("nasattn_resnet18").proxy_placement("sge_g8,none", 0.5)
