"""Depthwise convolutions on a CPU, where torch's own are slow: dilated ones, and the gradient of the weights on small maps."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from nasattn.attention.precision import is_eager

FEWEST_IMAGES = 8  # in training; below, a map of 3 x 3 pixels gains a millisecond at most, and one of 8 x 8 loses as much
SMALL = 64  # pixels of a map up to which products of matrices are the faster gradient
FAST_KERNEL = 4  # up to which oneDNN's gradient is fast as well, unless the map is smaller than the kernel


def depthwise(conv: nn.Conv2d, x_BCHW: Tensor) -> Tensor:
    """What *conv* computes, ``(B, C, H, W) -> (B, C, H, W)``: depthwise, stride 1, "same" padded, on a CPU."""
    if conv.dilation[0] > 1:
        return dilated_by_phases(x_BCHW, conv.weight, conv.bias, conv.dilation[0])
    return _dense(x_BCHW, conv.weight, conv.bias, conv.kernel_size[0] // 2 if conv.kernel_size[0] % 2 else "same")


def _dense(x_BCHW: Tensor, weight_C1KK: Tensor, bias_C: Tensor | None, padding: int | str) -> Tensor:
    """A depthwise convolution without dilation. The gradient of its weights is computed by matrices where that is faster."""
    if isinstance(padding, str) or not _by_matrices(x_BCHW, weight_C1KK):
        return F.conv2d(x_BCHW, weight_C1KK, bias_C, padding=padding, groups=len(weight_C1KK))
    learnt: Tensor = _ByMatrices.apply(x_BCHW, weight_C1KK, bias_C, padding)
    return learnt


def _by_matrices(x_BCHW: Tensor, weight_C1KK: Tensor) -> bool:
    learns = torch.is_grad_enabled() and weight_C1KK.requires_grad and is_eager(x_BCHW) and not torch.is_autocast_enabled("cpu")
    if not learns or len(x_BCHW) < FEWEST_IMAGES:
        return False
    (H, W), kernel = x_BCHW.shape[2:], weight_C1KK.shape[2]
    return H * W <= SMALL and (kernel > FAST_KERNEL or min(H, W) < kernel)


class _ByMatrices(torch.autograd.Function):
    """The convolution with another gradient of the weights.

    oneDNN takes up to a hundred times as long for that as for the convolution when maps are about as small as the kernel.
    Here every pixel of the input is multiplied with every pixel of the output's gradient, which is one product of matrices a
    channel, and the products that the same tap joins are added up.
    """

    @staticmethod
    def forward(x_BCHW: Tensor, weight_C1KK: Tensor, bias_C: Tensor | None, padding: int) -> Tensor:
        return F.conv2d(x_BCHW, weight_C1KK, bias_C, padding=padding, groups=len(weight_C1KK))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x_BCHW, weight_C1KK, _, ctx.padding = inputs
        ctx.save_for_backward(x_BCHW, weight_C1KK)

    @staticmethod
    def backward(ctx: Any, grad_BChw: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x_BCHW, weight_C1KK = ctx.saved_tensors
        (B, C, H, W), (h, w), kernel = x_BCHW.shape, grad_BChw.shape[2:], weight_C1KK.shape[2]
        x_grad = weight_grad = bias_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = conv2d_input(x_BCHW.shape, weight_C1KK, grad_BChw, padding=ctx.padding, groups=C)
        grad_CBs = grad_BChw.permute(1, 0, 2, 3).reshape(C, B, h * w)
        if ctx.needs_input_grad[1]:
            x_CSB = x_BCHW.permute(1, 2, 3, 0).reshape(C, H * W, B)
            taps = _taps((H, W), (h, w), kernel, ctx.padding, x_BCHW.dtype)
            weight_grad = (torch.bmm(x_CSB, grad_CBs).view(C, -1) @ taps).view_as(weight_C1KK)
        if ctx.needs_input_grad[2]:
            bias_grad = grad_CBs.sum((1, 2))
        return x_grad, weight_grad, bias_grad, None


@lru_cache(maxsize=32)
def _taps(size: tuple[int, int], out: tuple[int, int], kernel: int, padding: int, dtype: torch.dtype) -> Tensor:
    """``(H W h w, K K)``: 1 where a tap leads from a pixel of the input, of *size* H, W, to one of the output, h, w; else 0."""

    def along(axis: int) -> Tensor:
        """``(K, input, output)``, for one axis."""
        tap = torch.arange(size[axis])[:, None] - torch.arange(out[axis]) + padding
        return torch.stack([tap == k for k in range(kernel)]).to(dtype)

    return torch.einsum("ihj,kwl->hwjlik", along(0), along(1)).reshape(-1, kernel * kernel)


def dilated_by_phases(x_BCHW: Tensor, weight_C1KK: Tensor, bias_C: Tensor | None, dilation: int) -> Tensor:
    """A dilated depthwise convolution, "same" padded, as a dense one: ``(B, C, H, W) -> (B, C, H, W)``, channels_last.

    torch has no fast CPU kernel for the dilated form. Positions that are a multiple of the dilation apart never mix, so
    each of the d x d phases is an image of its own in the batch. The sums are those of the plain convolution.
    """
    B, C, H, W = x_BCHW.shape
    d, K = dilation, weight_C1KK.shape[2]
    # an odd kernel reaches whole steps of the dilation to each side, which the convolution of the phases pads itself
    inner = (K - 1) // 2 if K % 2 else 0
    before = d * (K - 1) // 2 - d * inner
    reach = d * (K - 1) - 2 * d * inner
    h, w = -(-(H + reach) // d), -(-(W + reach) // d)
    # one name for every step, so that no step outlives the next
    z = x_BCHW.contiguous(memory_format=torch.channels_last)
    del x_BCHW
    z = F.pad(z, (before, w * d - W - before, before, h * d - H - before))
    z = z.permute(0, 2, 3, 1).reshape(B, h, d, w, d, C).permute(2, 4, 0, 1, 3, 5).reshape(d * d * B, h, w, C)
    z = _dense(z.permute(0, 3, 1, 2), weight_C1KK, bias_C, inner)
    h, w = z.shape[2:]
    z = z.permute(0, 2, 3, 1).reshape(d, d, B, h, w, C).permute(2, 3, 0, 4, 1, 5).reshape(B, h * d, w * d, C)
    return F.pad(z.permute(0, 3, 1, 2), (0, W - w * d, 0, H - h * d))
