"""Depthwise convolutions as LKA trains them on a CPU: values and gradients are those of torch's own, however the latter are computed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nasattn.attention.depthwise import FEWEST_IMAGES, SMALL, depthwise

SIZES = [(1, 1), (2, 2), (3, 3), (5, 7), (8, 8), (12, 9)]
KERNELS = [(3, 1), (5, 1), (7, 1), (4, 1), (3, 3), (5, 3), (7, 3), (4, 2), (11, 2), (2, 4)]


def convolution(kernel: int, dilation: int, channels: int = 3, bias: bool = True) -> nn.Conv2d:
    torch.manual_seed(kernel)
    return nn.Conv2d(channels, channels, kernel, padding="same", dilation=dilation, groups=channels, bias=bias, dtype=torch.float64)


def maps(size: tuple[int, int], images: int = FEWEST_IMAGES, channels: int = 3) -> Tensor:
    x = torch.randn(images, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def gradients(y: Tensor, x: Tensor, conv: nn.Conv2d) -> list[Tensor]:
    grad = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(2))
    return list(torch.autograd.grad(y, [x, *conv.parameters()], grad))


@pytest.mark.parametrize("images", [1, FEWEST_IMAGES])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel", "dilation"), KERNELS)
def test_it_computes_and_learns_what_torch_does(kernel: int, dilation: int, size: tuple[int, int], images: int) -> None:
    conv, x = convolution(kernel, dilation), maps(size, images)
    ours, theirs = depthwise(conv, x), conv(x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    for mine, other in zip(gradients(ours, x, conv), gradients(theirs, x, conv), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-9)


def by_matrices(y: Tensor) -> bool:
    return "ByMatrices" in str(y.grad_fn)


def test_small_maps_learn_by_matrices_and_nothing_else_does() -> None:
    seven, three = convolution(7, 1), convolution(3, 1)
    assert by_matrices(depthwise(seven, maps((8, 8)))) and SMALL == 64
    assert by_matrices(depthwise(three, maps((2, 2))))  # smaller than the kernel
    assert not by_matrices(depthwise(three, maps((3, 3))))
    assert not by_matrices(depthwise(seven, maps((8, 9))))
    assert not by_matrices(depthwise(seven, maps((8, 8), images=1)))
    with torch.no_grad():
        assert depthwise(seven, maps((8, 8))).grad_fn is None


def test_a_frozen_weight_and_one_without_bias() -> None:
    conv, x = convolution(7, 1, bias=False), maps((4, 4))
    assert len(gradients(depthwise(conv, x), x, conv)) == 2
    conv.weight.requires_grad_(False)
    y = depthwise(conv, x)
    assert not by_matrices(y)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], torch.autograd.grad(conv(x).sum(), x)[0])


def test_only_the_weight_learns() -> None:
    conv, x = convolution(7, 1), maps((4, 4)).detach()
    grads = [torch.autograd.grad(y.square().sum(), list(conv.parameters())) for y in (depthwise(conv, x), conv(x))]
    for mine, other in zip(*grads, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-9)


def test_second_derivatives() -> None:
    conv, x = convolution(5, 1, channels=2), maps((3, 3), channels=2)
    found = []
    for y in (depthwise(conv, x), conv(x)):
        first = torch.autograd.grad(y.square().sum(), [x, conv.weight], create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), [x, conv.weight]))
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


def test_under_autocast_torch_decides() -> None:
    conv = convolution(7, 1).float()
    x = maps((4, 4)).detach().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = depthwise(conv, x), conv(x)
    assert ours.dtype == torch.bfloat16 and not by_matrices(ours)
    for mine, other in zip(gradients(ours, x, conv), gradients(theirs, x, conv), strict=True):
        assert torch.equal(mine, other)


def test_vmapped_and_by_functions() -> None:
    conv, x = convolution(7, 1), maps((4, 4)).detach()

    def loss(weight: Tensor, one: Tensor) -> Tensor:
        return torch.func.functional_call(_Wrapped(conv), {"conv.weight": weight}, (one,)).square().sum()

    weight = conv.weight.detach()
    expected = torch.autograd.grad(conv(x).square().sum(), conv.weight)[0]
    torch.testing.assert_close(torch.func.grad(loss)(weight, x), expected, rtol=0, atol=1e-9)
    by_image = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weight, x[:, None])
    torch.testing.assert_close(by_image.sum(0), expected, rtol=0, atol=1e-9)


class _Wrapped(nn.Module):
    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return depthwise(self.conv, x)
