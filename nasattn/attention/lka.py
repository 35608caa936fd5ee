"""Visual Attention Network: Large Kernel Attention (arXiv 2202.09741).

A K x K kernel is decomposed into a (2d-1) x (2d-1) depthwise convolution, a ceil(K/d) x ceil(K/d) depthwise
convolution of dilation d, and a 1x1 convolution; y = x * attn(x).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from nasattn.attention.depthwise import depthwise
from nasattn.attention.module import AttentionModule
from nasattn.attention.precision import by_images, is_channels_last, is_eager
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
class LargeKernelAttention(AttentionModule):
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
        self.channels, self.kernel, self.dilation = channels, kernel, dilation
        local, wide = 2 * dilation - 1, -(-kernel // dilation)
        reach = dilation * (wide - 1)
        conv = partial(nn.Conv2d, channels, channels, groups=channels, device=device, dtype=dtype)
        self.conv0 = conv(local, padding=local // 2)
        self.conv_spatial = conv(wide, padding=reach // 2 if reach % 2 == 0 else "same", dilation=dilation)
        self.conv1 = nn.Conv2d(channels, channels, 1, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        for conv in (self.conv0, self.conv_spatial, self.conv1):
            conv.reset_parameters()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        # compiled code needs the phases as well: there is no other fast kernel to be had
        compiled = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
        if not (compiled or is_eager(x_BCHW)) or x_BCHW.device.type != "cpu" or x_BCHW.numel() == 0 or self._is_small(x_BCHW):
            attn: Tensor = self.conv1(self.conv_spatial(self.conv0(x_BCHW)))
            return x_BCHW * attn
        return by_images(self._gated, x_BCHW)

    @staticmethod
    def _is_small(x_BCHW: Tensor) -> bool:
        """A map smaller than the C x C matrices that training by phases keeps for each image: twice the memory for a fifth of the time."""
        C, H, W = x_BCHW.shape[1:]
        return torch.is_grad_enabled() and C > H * W and not is_channels_last(x_BCHW)

    def _gated(self, x_BCHW: Tensor, out: Tensor | None) -> Tensor:
        # in channels_last the depthwise convolutions are faster; with gradients its copy of x would have to be kept
        z_BCHW = x_BCHW if torch.is_grad_enabled() else x_BCHW.contiguous(memory_format=torch.channels_last)
        return torch.mul(
            x_BCHW, self._mixed(depthwise(self.conv_spatial, depthwise(self.conv0, z_BCHW)), is_channels_last(x_BCHW)), out=out
        )

    def _mixed(self, z_BCHW: Tensor, channels_last: bool) -> Tensor:
        """``conv1``, from channels_last to either layout: as a matrix product it transposes at no cost."""
        conv, (B, C, H, W) = self.conv1, z_BCHW.shape
        if channels_last:
            mixed: Tensor = conv(z_BCHW)
            return mixed
        bias_C1 = conv.bias.unsqueeze(1)  # type: ignore[union-attr]
        return torch.baddbmm(bias_C1, conv.weight.flatten(1).expand(B, C, C), z_BCHW.flatten(2)).view(B, C, H, W)

    def extra_repr(self) -> str:
        return f"{self.channels}, kernel={self.kernel}, dilation={self.dilation}"
