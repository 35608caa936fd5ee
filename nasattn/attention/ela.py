"""ELA: Efficient Local Attention for Deep Convolutional Neural Networks (arXiv 2403.01123).

a(v) = sigmoid(GroupNorm(Conv1d(v))); y = x * a(mean of x over W) * a(mean of x over H), with one Conv1d and one
GroupNorm for both directions, as in the authors' code (the paper's formula reads as two).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nasattn.attention.checks import divides
from nasattn.attention.token import Option, register_attention
from nasattn.errors import TokenError

VARIANTS = {
    "t": {"kernel": 5, "conv_channels": 1, "norm_groups": 32},
    "b": {"kernel": 7, "conv_channels": 1, "norm_groups": 16},
    "s": {"kernel": 5, "conv_channels": 8, "norm_groups": 16},
    "l": {"kernel": 7, "conv_channels": 8, "norm_groups": 16},
}


def _check(channels: int, options: Mapping[str, int | None]) -> str | None:
    kernel = options["kernel"]
    if kernel is not None and kernel % 2 == 0:
        return f"kernel {kernel} is even; use an odd kernel, so that the map keeps its size"
    if channels and (wrong := divides(channels, options["norm_groups"], "norm groups")):
        return wrong
    per_group = options["conv_channels"]
    if per_group and channels % per_group:
        return f"{channels} channels cannot be cut into convolution groups of {per_group}; use a multiple of {per_group} channels"
    return None


@register_attention(
    "ela",
    options=(
        Option("k", "kernel", 7, shown=True),
        Option("c", "conv_channels", 8, shown=True),
        Option("n", "norm_groups", 16, shown=True, counts_groups=True),
    ),
    paper="Efficient Local Attention (arXiv 2403.01123)",
    variants=VARIANTS,
    needs_variant="attention 'ela': the paper has four variants, ela_t, ela_b, ela_s and ela_l; choose one "
    "(timm's own `ela` is another module, with two convolutions, GroupNorm(1) and a SiLU, and is not offered as ELA)",
    check=_check,
)
class EfficientLocalAttention(nn.Module):
    """Gates rows and columns by strip-pooled local context: ``(B, C, H, W) -> (B, C, H, W)``.

    ``conv_channels`` is the number of channels in a convolution group (1: depthwise, variants T and B; 8: S and L).
    C must be divisible by ``norm_groups`` and by ``conv_channels``. No reduction, no residual. Initialisation is
    torch's for Conv1d, ones and zeros for GroupNorm. A 1x1 map with one channel a norm group, where torch's
    GroupNorm refuses to train, normalises to the bias.

    Raises:
        TokenError: An even kernel, or C not divisible as above.
    """

    def __init__(
        self,
        channels: int,
        kernel: int = 7,
        conv_channels: int = 8,
        norm_groups: int = 16,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if wrong := _check(channels, {"kernel": kernel, "conv_channels": conv_channels, "norm_groups": norm_groups}):
            raise TokenError(f"ela_k{kernel}_c{conv_channels}_n{norm_groups}: {wrong}")
        self.conv = nn.Conv1d(
            channels, channels, kernel, padding=kernel // 2, groups=channels // conv_channels, bias=False, device=device, dtype=dtype
        )
        self.gn = nn.GroupNorm(norm_groups, channels, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        self.conv.reset_parameters()
        self.gn.reset_parameters()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW * self._gate(x_BCHW.mean(3)).unsqueeze(3) * self._gate(x_BCHW.mean(2)).unsqueeze(2)

    def _gate(self, v_BCL: Tensor) -> Tensor:
        # torch.group_norm, unlike F.group_norm, accepts one value a group
        gn = self.gn
        return torch.sigmoid(torch.group_norm(self.conv(v_BCL), gn.num_groups, gn.weight, gn.bias, gn.eps)).to(v_BCL.dtype)
