"""The proxy networks: every placement builds, starts alive, and shares its start with the others of its seed."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

from nasattn.errors import TokenError, UsageError
from nasattn.hosts import get_host
from nasattn.proxy import Fidelity, ProxyJob, Recipe, build_proxy

HOSTS = pytest.mark.parametrize("host", ["nasattn_resnet50", "nasattn_resnet18"])
PLACEMENTS = ["none", "sb", "sge_g32", "ela_l", "ela_t", "lka_k21_d3", "fsla_c49", "se", "none,sge_g32,sb,fsla_c25"]


def job(host: str, placement: str, seed: int = 0, **fidelity: float) -> ProxyJob:
    tokens = placement if "," in placement else ",".join([placement] * 4)
    return ProxyJob(host, tokens, Fidelity(**fidelity), Recipe(), seed)  # type: ignore[arg-type]


def state(proxy: ProxyJob) -> OrderedDict[str, torch.Tensor]:
    return OrderedDict(build_proxy(proxy, 10).state_dict())


@HOSTS
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_every_attention_builds_and_learns(host: str, placement: str) -> None:
    model = build_proxy(job(host, placement), num_classes=7, in_chans=1)
    out = model(torch.randn(2, 1, 32, 32))
    assert out.shape == (2, 7) and out.isfinite().all()
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@HOSTS
@pytest.mark.parametrize("placement", ["none", "sge_g32", "sb"])
def test_residual_branches_start_alive(host: str, placement: str) -> None:
    blocks = [m for m in build_proxy(job(host, placement, blocks=2), 10).modules() if hasattr(m, "zero_init_last")]
    assert len(blocks) == 8
    for block in blocks:
        last = block.bn3 if host == "nasattn_resnet50" else block.bn2
        assert (last.weight == 1).all()


@HOSTS
def test_shared_layers_start_the_same_whatever_the_placement(host: str) -> None:
    plain = state(job(host, "none"))
    for placement in PLACEMENTS[1:]:
        other = state(job(host, placement))
        assert set(plain) <= set(other)
        assert all(torch.equal(plain[k], other[k]) for k in plain)


def test_the_seed_decides_the_start() -> None:
    one, again, other = (state(job("nasattn_resnet18", "sge_g32", seed=s)) for s in (0, 0, 1))
    assert all(torch.equal(one[k], again[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize(("stem_stride", "side"), [(1, 8), (2, 4), (4, 2)])
def test_stem_stride(stem_stride: int, side: int) -> None:
    model = build_proxy(job("nasattn_resnet18", "none", stem_stride=stem_stride), 10)
    assert model.forward_features(torch.randn(1, 3, 64, 64)).shape[-2:] == (side, side)  # type: ignore[operator]


def test_width_and_blocks() -> None:
    sizes = [sum(p.numel() for p in build_proxy(job("nasattn_resnet18", "none", width=w, blocks=b), 10).parameters()) for w, b in
             ((0.125, 1), (0.125, 2), (0.25, 1))]  # fmt: skip
    assert sizes[0] < sizes[1] < sizes[2]
    deepest = build_proxy(job("nasattn_resnet18", "none", blocks=9), 10)
    assert [len(getattr(deepest, f"layer{n}")) for n in (1, 2, 3, 4)] == [2, 2, 2, 2]  # never deeper than the host


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(TokenError, match="sge_g48 does not fit stage 1 of nasattn_resnet18"):
        build_proxy(job("nasattn_resnet18", "sge_g48"), 10)
    with pytest.raises(UsageError, match="unknown host 'resnet18': Did you mean 'nasattn_resnet18'"):
        build_proxy(job("resnet18", "none"), 10)


def test_the_plain_host_itself_starts_as_timm_does() -> None:
    """Only proxies are revived: the real host keeps timm's zero-initialised last BatchNorm."""
    model = get_host("nasattn_resnet18").build("none")
    assert all((m.bn2.weight == 0).all() for m in model.modules() if isinstance(m, nn.Module) and hasattr(m, "zero_init_last"))


def test_narrow_strided_pointwise_convolutions_are_slices_and_compute_the_same() -> None:
    """oneDNN's gradient of a strided 1x1 convolution of fewer than 16 channels kills the process where channels are last."""
    proxy = job("nasattn_regnety_002", "none,none,none,none")
    host, sliced = get_host(proxy.host), build_proxy(proxy, 10)
    settings: dict[str, Any] = {"width": 0.125, "blocks": 1, "stem_stride": 2, "num_classes": 10, "in_chans": 3, "seed": 0}
    strided = host.build_proxy(host.placement(proxy.placement), **settings)
    strided.load_state_dict(sliced.state_dict())
    narrow = [
        m for m in strided.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.stride == (2, 2) and m.in_channels < 16
    ]
    assert narrow
    assert all(m.stride == (1, 1) or m.in_channels >= 16 for m in sliced.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1))
    images = torch.randn(4, 3, 47, 48)
    torch.testing.assert_close(sliced(images), strided(images))
    (sliced(images).square().sum()).backward()
    (strided(images).square().sum()).backward()
    for own, whole in zip(sliced.parameters(), strided.parameters(), strict=True):
        torch.testing.assert_close(own.grad, whole.grad, rtol=1e-3, atol=1e-4)
    out = sliced.to(memory_format=torch.channels_last)(torch.randn(32, 3, 48, 48).to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in sliced.parameters())
