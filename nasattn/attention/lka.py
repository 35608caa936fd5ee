"""Visual Attention Network: Large Kernel Attention (arXiv 2202.09741).

A K x K kernel is decomposed into a (2d-1) x (2d-1) depthwise convolution, a ceil(K/d) x ceil(K/d) depthwise
convolution of dilation d, and a 1x1 convolution; y = x * attn(x).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
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
        depthwise = {"groups": channels, "device": device, "dtype": dtype}
        self.conv0 = nn.Conv2d(channels, channels, local, padding=local // 2, **depthwise)
        self.conv_spatial = nn.Conv2d(
            channels, channels, wide, padding=reach // 2 if reach % 2 == 0 else "same", dilation=dilation, **depthwise
        )
        self.conv1 = nn.Conv2d(channels, channels, 1, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        for conv in (self.conv0, self.conv_spatial, self.conv1):
            conv.reset_parameters()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        attn: Tensor = self.conv1(self.conv_spatial(self.conv0(x_BCHW)))
        return x_BCHW * attn

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, dilation={self.dilation}"
