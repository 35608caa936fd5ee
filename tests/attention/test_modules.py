"""What is particular to one attention: its maps, its size, its reach. What all have in common is in test_contract.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nasattn.attention import create_attention

CHANNELS = 64


@pytest.mark.parametrize(("token", "maps", "pool"), [("sb", 3, 10), ("sb_p6", 3, 6), ("sb_k1_m2", 2, 10), ("sb_p1", 3, 1)])
def test_spatial_bias_gives_maps(token: str, maps: int, pool: int) -> None:
    module, x = create_attention(token, CHANNELS).eval(), torch.randn(2, CHANNELS, 9, 14)
    bias = module(x)
    assert module.maps == maps
    assert bias.shape == (2, maps, pool, pool)
    resized = module(x, size=(9, 14))
    assert resized.shape == (2, maps, 9, 14)
    torch.testing.assert_close(resized, nn.functional.interpolate(bias, size=(9, 14), mode="bilinear", align_corners=False))


@pytest.mark.parametrize(
    ("token", "parameters"),
    [
        ("none", 0),
        ("sge_g16", 2 * 16),
        ("sge", 2 * 64),
        ("ela_t", 7 * CHANNELS),
        ("ela_b", 9 * CHANNELS),
        ("ela_s", 42 * CHANNELS),
        ("ela_l", 58 * CHANNELS),
        ("lka", (26 + 50 + CHANNELS + 1) * CHANNELS),
        ("lka_k7_d2", (10 + 17 + CHANNELS + 1) * CHANNELS),
        ("fsla", 4 * CHANNELS**2 + 14 * CHANNELS),
        ("sb", 5 * CHANNELS + 2 * 5 + 100 * 100 * 3 + 100),
        ("sb_p6", 5 * CHANNELS + 2 * 5 + 36 * 36 * 3 + 36),
    ],
)
def test_number_of_parameters(token: str, parameters: int) -> None:
    assert sum(p.numel() for p in create_attention(token, CHANNELS).parameters()) == parameters


@pytest.mark.parametrize("size", [(1, 1), (4, 3)])
def test_sge_gates_a_constant_map_by_its_bias(size: tuple[int, int]) -> None:
    x = torch.full((2, 8, *size), 0.5)
    torch.testing.assert_close(create_attention("sge_g4", 8)(x), x * torch.sigmoid(torch.tensor(1.0)))


@pytest.mark.parametrize(("kernel", "dilation"), [(7, 2), (14, 3), (21, 3), (28, 4)])
def test_lka_sees_as_far_as_its_kernel(kernel: int, dilation: int) -> None:
    module = create_attention(f"lka_k{kernel}_d{dilation}", 1, dtype=torch.float64)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(1.0)
    x = torch.ones(1, 1, 65, 65, dtype=torch.float64, requires_grad=True)
    module(x)[0, 0, 32, 32].backward()
    reach = (2 * dilation - 1) + dilation * (-(-kernel // dilation) - 1)
    assert reach >= kernel
    for dim in (0, 1):
        seen = x.grad[0, 0].any(dim).nonzero().squeeze(1)
        assert len(seen) == seen.max() - seen.min() + 1 == reach


@pytest.mark.parametrize("size", [(7, 5), (1, 1), (1, 9), (12, 3)])
@pytest.mark.parametrize("token", ["ela_t", "ela_b", "ela_l"])
def test_ela_learns_the_same_in_both_layouts(token: str, size: tuple[int, int]) -> None:
    """Training along channels_last memory takes another way to the same gradients, also to those of a gradient's."""
    module = create_attention(token, CHANNELS, dtype=torch.float64)
    x = torch.randn(3, CHANNELS, *size, dtype=torch.float64)
    weights = torch.randn_like(x)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        leaf = x.contiguous(memory_format=layout).requires_grad_()
        inputs = [leaf, *module.parameters()]
        once = torch.autograd.grad((module(leaf) * weights).sum(), inputs, create_graph=True)
        found.append([*once, *torch.autograd.grad(sum(g.square().sum() for g in once), inputs)])
    for contiguous, last in zip(*found, strict=True):
        torch.testing.assert_close(last, contiguous, rtol=1e-9, atol=1e-11)
