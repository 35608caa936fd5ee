"""Spatial Bias for attention-free non-local neural networks (arXiv 2302.12505).

maps = Conv1d over (positions as channels) of pool(relu(BN(conv1x1(x)))): a few global maps that a host concatenates
behind the channels of its spatial convolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasattn.attention.module import AttentionModule
from nasattn.attention.precision import is_channels_last, is_eager
from nasattn.attention.token import Option, register_attention


@register_attention(
    "sb",
    options=(Option("p", "pool", 10), Option("k", "kernel", 3), Option("m", "maps", 3)),
    form="widening",
    paper="Spatial Bias (arXiv 2302.12505)",
)
class SpatialBias(AttentionModule):
    """Computes a few maps that know the whole image: ``(B, C, H, W) -> (B, maps, P, P)``, or ``(B, maps, *size)``.

    It does not keep its input's shape: a host widens its block by ``maps`` channels. Reduced maps = maps + kernel - 1
    (5 for the paper's 3 maps and kernel 3); P = ``pool`` is 10 in the paper, 6 in its CIFAR networks. The maps are
    resized by size, bilinearly with align_corners=False: the authors' code resizes by one scale factor, which fails
    on non-square maps and gives 55 for 56 when traced; it also fails at batch 1. A single value per channel in
    training (batch 1, 1x1 map), where a batch has no variance, is normalised with the running statistics.
    """

    def __init__(
        self,
        channels: int,
        pool: int = 10,
        kernel: int = 3,
        maps: int = 3,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.pool, self.kernel, self.maps = channels, pool, kernel, maps
        reduced = maps + kernel - 1
        self.feature_reduction = nn.Sequential(
            nn.Conv2d(channels, reduced, 1, bias=False, device=device, dtype=dtype),
            nn.BatchNorm2d(reduced, device=device, dtype=dtype),
        )
        self.sb_conv = nn.Conv1d(pool * pool, pool * pool, kernel, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        for layer in (*self.feature_reduction, self.sb_conv):
            layer.reset_parameters()

    def forward(self, x_BCHW: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """The bias maps, ``(B, maps, P, P)``; with *size* = (H', W') resized to ``(B, maps, H', W')``."""
        conv, norm = self.feature_reduction
        z_BRHW = conv(x_BCHW)
        if self.training and z_BRHW.numel() == z_BRHW.shape[1]:
            z_BRHW = F.batch_norm(z_BRHW, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)  # type: ignore[arg-type]
        else:
            z_BRHW = norm(z_BRHW)
        z_BRPP = F.adaptive_avg_pool2d(F.relu(z_BRHW), self.pool)
        bias_BMPP = self._exchange(z_BRPP.flatten(2)).view(-1, self.maps, self.pool, self.pool)
        if is_eager(x_BCHW) and is_channels_last(x_BCHW):  # a concatenation of two layouts is several times slower
            bias_BMPP = bias_BMPP.contiguous(memory_format=torch.channels_last)
        if size is None:
            return bias_BMPP
        return F.interpolate(bias_BMPP, size=size, mode="bilinear", align_corners=False)

    def _exchange(self, z_BRQ: Tensor) -> Tensor:
        """``sb_conv``, whose channels are the Q = P * P positions, as one matrix product: it gives the maps as they are used."""
        conv = self.sb_conv
        windows_BMQK = torch.stack([z_BRQ[:, k : k + self.maps] for k in range(conv.kernel_size[0])], dim=3)
        return F.linear(windows_BMQK.flatten(2), conv.weight.flatten(1), conv.bias)

    def extra_repr(self) -> str:
        return f"{self.channels}, pool={self.pool}, kernel={self.kernel}, maps={self.maps}"
