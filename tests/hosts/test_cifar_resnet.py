"""CIFAR's ResNets: the sizes of the papers' tables, and what timm asks of a model."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.models import group_parameters
from torch import Tensor

from nasattn.hosts import get_host
from nasattn.hosts.cifar_resnet import CifarResNet
from nasattn.hosts.count import count_macs, count_params


def create(name: str = "cifar_resnet38", seed: int = 0, **kwargs: Any) -> CifarResNet:
    torch.manual_seed(seed)
    model: CifarResNet = timm.create_model(name, **kwargs).eval()
    return model


def image(*size: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "published"),
    [("cifar_resnet38", ("0.43", "0.45", "0.46", "0.48")), ("cifar_resnet65", ("0.71", "0.74", "0.77", "0.80"))],
)
def test_sizes_of_the_spatial_bias_paper(name: str, published: tuple[str, ...]) -> None:
    """Plain, and with Spatial Bias in the first, the first two and all stages (arXiv 2302.12505, CIFAR-100)."""
    placements = ("none,none,none", "sb_p6,none,none", "sb_p6,sb_p6,none", "sb_p6,sb_p6,sb_p6")
    models = [create(name, attn=p, device="meta") for p in placements]
    assert tuple(f"{count_params(m) / 1e6:.2f}" for m in models) == published
    assert all(m.num_classes == 100 for m in models)


def test_a_host_of_three_stages_for_small_images() -> None:
    host = get_host("cifar_resnet38")
    assert (host.blocks, host.channels, host.resolution) == ((4, 4, 4), (64, 128, 256), 32)
    assert str(host.native) == "none,none,none"
    assert count_macs(create(device="meta"), 32) == 60_498_944
    assert [tuple(s.shape) for s in create(features_only=True)(image(32, 32))] == [(2, 64, 32, 32), (2, 128, 16, 16), (2, 256, 8, 8)]
    assert create(features_only=True, out_indices=(1,)).feature_info.reduction() == [2]


def test_the_proxy_of_full_fidelity_is_the_host() -> None:
    host = get_host("cifar_resnet38")
    proxy = host.build_proxy("none,sb_p6,none", width=1.0, blocks=4, stem_stride=1, num_classes=100, seed=0)
    full = create(attn="none,sb_p6,none")
    assert {k: v.shape for k, v in proxy.state_dict().items()} == {k: v.shape for k, v in full.state_dict().items()}
    full.load_state_dict(proxy.state_dict())
    torch.testing.assert_close(full(image(32, 32)), proxy.eval()(image(32, 32)))
    for stride, side in ((1, 8), (2, 4), (4, 2)):
        proxy = host.build_proxy("none", width=0.5, blocks=1, stem_stride=stride, num_classes=10)
        assert proxy.forward_features(image(32, 32)).shape[-2:] == (side, side)  # type: ignore[operator]


def test_the_head_is_replaced_and_the_blocks_are_recomputed() -> None:
    model, x = create(drop_rate=0.25), image(32, 32)
    model.reset_classifier(7)
    assert model(x).shape == (2, 7) and model.get_classifier().out_features == 7 and model.head.drop.p == 0.25
    model.reset_classifier(0)
    assert model(x).shape == (2, 256)
    model = create().train()
    expected = torch.autograd.grad(model(x).sum(), model.stem[0].weight)[0]  # type: ignore[index,arg-type]
    again = create().train()
    again.set_grad_checkpointing()
    torch.testing.assert_close(torch.autograd.grad(again(x).sum(), again.stem[0].weight)[0], expected)  # type: ignore[index,arg-type]


def test_layers_are_ordered_for_timm() -> None:
    model = create(attn="sb_p6,none,none")
    groups = group_parameters(model, model.group_matcher(coarse=True))
    assert len(groups) == 5 and sum(map(len, groups.values())) == len(list(model.parameters()))
