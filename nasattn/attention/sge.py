"""Spatial Group-wise Enhance: Improving Semantic Feature Learning in Convolutional Networks (arXiv 1905.09646).

Per sample and group of channels: t = <mean over space of x, x at each position>; t = (t - mean t) / (std t + 1e-5);
y = x * sigmoid(weight * t + bias).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nasattn.attention.checks import divides
from nasattn.attention.precision import without_autocast
from nasattn.attention.token import Option, register_attention
from nasattn.errors import TokenError


def _check(channels: int, options: Mapping[str, int | None]) -> str | None:
    return divides(channels, options["groups"], "groups")


@register_attention(
    "sge",
    options=(Option("g", "groups", 64, shown=True, counts_groups=True),),
    paper="Spatial Group-wise Enhance (arXiv 1905.09646)",
    check=_check,
)
class SpatialGroupEnhance(nn.Module):
    """Gates every group of channels by its similarity to the group's mean vector: ``(B, C, H, W) -> (B, C, H, W)``.

    ``groups`` must divide C (64 in the paper, for every stage). ``weight`` starts at 0 and ``bias`` at 1, so at the
    start every activation is scaled by sigmoid(1): the network first learns without the attention (section 3).
    The statistics are computed in float32 for half-precision inputs. Where the authors' code fails (a 1x1 map, whose
    standard deviation is NaN there; channels_last), t is 0 and the gate is sigmoid(bias).

    Raises:
        TokenError: ``groups`` does not divide ``channels``.
    """

    epsilon = 1e-5

    def __init__(self, channels: int, groups: int = 64, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if wrong := _check(channels, {"groups": groups}):
            raise TokenError(f"sge_g{groups}: {wrong}")
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(1, groups, 1, 1, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(1, groups, 1, 1, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.ones_(self.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        B, C, H, W = x_BCHW.shape
        G, N = self.groups, H * W
        with without_autocast(x_BCHW.device):
            z = x_BCHW if x_BCHW.dtype == torch.float64 else x_BCHW.float()
            z_BGDN = z.reshape(B, G, C // G, N)
            t_BGN = (z_BGDN.mean(3, keepdim=True) * z_BGDN).sum(2)
            t_BGN = t_BGN - t_BGN.mean(2, keepdim=True)
            # a norm has gradient 0 at 0, so a constant map gives no NaN
            std_BG1 = torch.linalg.vector_norm(t_BGN, dim=2, keepdim=True) / max(N - 1, 1) ** 0.5
            t_BGHW = (t_BGN / (std_BG1 + self.epsilon)).view(B, G, H, W)
            gate_BGHW = torch.sigmoid(t_BGHW * self.weight.to(z.dtype) + self.bias.to(z.dtype)).to(x_BCHW.dtype)
        return x_BCHW * gate_BGHW.repeat_interleave(C // G, dim=1)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
