"""Visual Attention Network: Large Kernel Attention (arXiv 2202.09741).

A K x K kernel is decomposed into a (2d-1) x (2d-1) depthwise convolution, a ceil(K/d) x ceil(K/d) depthwise
convolution of dilation d, and a 1x1 convolution; y = x * attn(x).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasattn.attention.token import Option, register_attention
from nasattn.errors import TokenError


def _check(channels: int, options: Mapping[str, int | None]) -> str | None:
    kernel, dilation = options["kernel"] or 0, options["dilation"] or 0
    if dilation >= kernel:
        return f"dilation {dilation} must be smaller than the kernel {kernel}, else nothing is left to dilate"
    return None


@register_attention(
    "lka",
    options=(Option("k", "kernel", 21, minimum=2, shown=True), Option("d", "dilation", 3, shown=True)),
    paper="Visual Attention Network (arXiv 2202.09741)",
    check=_check,
)
class LargeKernelAttention(nn.Module):
    """Gates the input by a decomposed large-kernel convolution of it: ``(B, C, H, W) -> (B, C, H, W)``.

    K = 21 and d = 3 are the paper's choice (its ablation, table 7, also has 7,2; 14,3; 28,4). All three convolutions
    have a bias; there is no sigmoid, normalisation or activation. Any C, any H and W >= 1. Where K/d is even the
    zero padding cannot be symmetric for an odd d: the extra column is at the right and bottom.

    Raises:
        TokenError: ``dilation`` is not smaller than ``kernel``.
    """

    def __init__(
        self,
        channels: int,
        kernel: int = 21,
        dilation: int = 3,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if wrong := _check(channels, {"kernel": kernel, "dilation": dilation}):
            raise TokenError(f"lka_k{kernel}_d{dilation}: {wrong}")
        self.kernel, self.dilation = kernel, dilation
        local, wide = 2 * dilation - 1, -(-kernel // dilation)
        reach = dilation * (wide - 1)
        depthwise = partial(nn.Conv2d, channels, channels, groups=channels, device=device, dtype=dtype)
        self.conv0 = depthwise(local, padding=local // 2)
        self.conv_spatial = depthwise(wide, padding=reach // 2 if reach % 2 == 0 else "same", dilation=dilation)
        self.conv1 = nn.Conv2d(channels, channels, 1, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        for conv in (self.conv0, self.conv_spatial, self.conv1):
            conv.reset_parameters()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        attn: Tensor = self.conv1(self._dilated(self.conv0(x_BCHW)))
        return x_BCHW * attn

    def _dilated(self, x_BCHW: Tensor) -> Tensor:
        conv = self.conv_spatial
        plain = self.dilation == 1 or x_BCHW.device.type != "cpu" or torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if plain or x_BCHW.numel() == 0:
            out: Tensor = conv(x_BCHW)
            return out
        return dilated_by_phases(x_BCHW, conv.weight, conv.bias, self.dilation)

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, dilation={self.dilation}"


def dilated_by_phases(x_BCHW: Tensor, weight_C1KK: Tensor, bias_C: Tensor | None, dilation: int) -> Tensor:
    """A dilated depthwise convolution, "same" padded, as one dense convolution: ``(B, C, H, W) -> (B, C, H, W)``.

    torch has no fast CPU kernel for the dilated form. Positions that are a multiple of the dilation apart never mix, so
    each of the d x d phases is an image of its own in the batch. The sums are those of the plain convolution.
    """
    B, C, H, W = x_BCHW.shape
    d, K = dilation, weight_C1KK.shape[2]
    reach = d * (K - 1)
    h, w = -(-(H + reach) // d), -(-(W + reach) // d)
    before = reach // 2
    padded = F.pad(x_BCHW, (before, w * d - W - before, before, h * d - H - before))
    phases = padded.permute(0, 2, 3, 1).reshape(B, h, d, w, d, C).permute(2, 4, 0, 1, 3, 5).reshape(d * d * B, h, w, C)
    z = F.conv2d(phases.permute(0, 3, 1, 2), weight_C1KK, bias_C, groups=C)
    h, w = z.shape[2:]
    y_BHWC = z.permute(0, 2, 3, 1).reshape(d, d, B, h, w, C).permute(2, 3, 0, 4, 1, 5).reshape(B, h * d, w * d, C)
    y_BCHW = y_BHWC.permute(0, 3, 1, 2)[:, :, :H, :W]
    return y_BCHW.contiguous(memory_format=torch.channels_last if _is_channels_last(x_BCHW) else torch.contiguous_format)


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
