"""ELA: Efficient Local Attention for Deep Convolutional Neural Networks (arXiv 2403.01123).

a(v) = sigmoid(GroupNorm(Conv1d(v))); y = x * a(mean of x over W) * a(mean of x over H), with one Conv1d and one
GroupNorm for both directions, as in the authors' code (the paper's formula reads as two).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasattn.attention.checks import divides
from nasattn.attention.module import AttentionModule
from nasattn.attention.precision import is_channels_last, is_eager, without_autocast
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
class EfficientLocalAttention(AttentionModule):
    """Gates rows and columns by strip-pooled local context: ``(B, C, H, W) -> (B, C, H, W)``.

    ``conv_channels`` is the number of channels in a convolution group (1: depthwise, variants T and B; 8: S and L).
    C must be divisible by ``norm_groups`` and by ``conv_channels``. No reduction, no residual. Initialisation is
    torch's for Conv1d, ones and zeros for GroupNorm. A 1x1 map with one channel a norm group, where torch's
    GroupNorm refuses to train, normalises to the bias. Means and gates are computed in float32 for half-precision inputs.

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
        self.channels, self.kernel, self.conv_channels, self.norm_groups = channels, kernel, conv_channels, norm_groups
        self.conv = nn.Conv1d(
            channels, channels, kernel, padding=kernel // 2, groups=channels // conv_channels, bias=False, device=device, dtype=dtype
        )
        self.gn = nn.GroupNorm(norm_groups, channels, device=device, dtype=dtype)

    def extra_repr(self) -> str:
        return f"{self.channels}, kernel={self.kernel}, conv_channels={self.conv_channels}, norm_groups={self.norm_groups}"

    def reset_parameters(self) -> None:
        self.conv.reset_parameters()
        self.gn.reset_parameters()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        with without_autocast(x_BCHW.device):
            if not is_eager(x_BCHW) or x_BCHW.device.type != "cpu":
                exact = _exact(x_BCHW)
                rows_BCH, columns_BCW = self._gate(x_BCHW.mean(3, dtype=exact)), self._gate(x_BCHW.mean(2, dtype=exact))
                return x_BCHW * rows_BCH.unsqueeze(3).to(x_BCHW.dtype) * columns_BCW.unsqueeze(2).to(x_BCHW.dtype)
            # both gates first: the map is read and written once, not twice
            outer = self._outer_by_pixel(x_BCHW) if is_channels_last(x_BCHW) else self._outer_by_plane(x_BCHW)
            gate_BCHW = outer.to(x_BCHW.dtype)
            if gate_BCHW.requires_grad or x_BCHW.requires_grad:
                return x_BCHW * gate_BCHW
            return gate_BCHW.mul_(x_BCHW)

    def _outer_by_plane(self, x_BCHW: Tensor) -> Tensor:
        rows_BCH, columns_BCW = self._gate(_mean_of_last(x_BCHW)), self._gate(x_BCHW.mean(2, dtype=_exact(x_BCHW)))
        return rows_BCH.unsqueeze(3) * columns_BCW.unsqueeze(2)

    def _outer_by_pixel(self, x_BCHW: Tensor) -> Tensor:
        """The same along channels_last memory, where torch sums planes many times slower."""
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        rows_BHC = self._gate_by_pixel(x_BHWC.mean(2, dtype=_exact(x_BHWC)))
        columns_BWC = self._gate_by_pixel(_mean_of_first(x_BHWC))
        return (rows_BHC.unsqueeze(2) * columns_BWC.unsqueeze(1)).permute(0, 3, 1, 2)

    def _gate_by_pixel(self, v_BLC: Tensor) -> Tensor:
        weight = self.conv.weight.to(v_BLC.dtype)
        if self.conv_channels == 1 and torch.is_grad_enabled() and (v_BLC.requires_grad or weight.requires_grad):
            mixed_BCL = _depthwise_by_shifts(v_BLC, weight).transpose(1, 2)
        else:
            mixed_BCL = self._mix(v_BLC.transpose(1, 2))
        return self._squash(mixed_BCL).transpose(1, 2).contiguous()

    def _gate(self, v_BCL: Tensor) -> Tensor:
        return self._squash(self._mix(v_BCL))

    def _mix(self, v_BCL: Tensor) -> Tensor:
        return F.conv1d(v_BCL, self.conv.weight.to(v_BCL.dtype), padding=self.conv.padding, groups=self.conv.groups)

    def _squash(self, mixed_BCL: Tensor) -> Tensor:
        gn, dtype = self.gn, mixed_BCL.dtype
        # torch.group_norm, unlike F.group_norm, accepts one value a group
        return torch.sigmoid(torch.group_norm(mixed_BCL, gn.num_groups, gn.weight.to(dtype), gn.bias.to(dtype), gn.eps))


def _exact(x: Tensor) -> torch.dtype:
    """In which the means and what follows from them are computed."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


# On CPU a product with ones takes less than half the time of torch's mean over a short last, or a first, dimension.


def _mean_of_last(x_BCHW: Tensor) -> Tensor:
    if x_BCHW.dtype not in (torch.float32, torch.float64):
        return x_BCHW.mean(3, dtype=torch.float32)
    return x_BCHW @ x_BCHW.new_ones(x_BCHW.shape[3]) / x_BCHW.shape[3]


def _depthwise_by_shifts(v_BLC: Tensor, weight_C1K: Tensor) -> Tensor:
    """A depthwise convolution along L. oneDNN's gradients of it take two to four times as long in training on a CPU."""
    length, kernel = v_BLC.shape[1], weight_C1K.shape[2]
    padded_BLC, weight_KC = F.pad(v_BLC, (0, 0, kernel // 2, kernel // 2)), weight_C1K[:, 0].t()
    mixed_BLC = padded_BLC[:, :length] * weight_KC[0]
    for shift in range(1, kernel):
        mixed_BLC = torch.addcmul(mixed_BLC, padded_BLC[:, shift : shift + length], weight_KC[shift])
    return mixed_BLC


def _mean_of_first(x_BHWC: Tensor) -> Tensor:
    B, H, W, C = x_BHWC.shape
    if x_BHWC.dtype not in (torch.float32, torch.float64):
        return x_BHWC.mean(1, dtype=torch.float32)
    return (x_BHWC.new_ones(H) @ x_BHWC.reshape(B, H, W * C)).view(B, W, C) / H
