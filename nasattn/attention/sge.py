"""Spatial Group-wise Enhance: Improving Semantic Feature Learning in Convolutional Networks (arXiv 1905.09646).

Per sample and group of channels: t = <mean over space of x, x at each position>; t = (t - mean t) / (std t + 1e-5);
y = x * sigmoid(weight * t + bias).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nasattn.attention.checks import divides
from nasattn.attention.module import AttentionModule
from nasattn.attention.precision import by_images, is_channels_last, is_eager, without_autocast
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
class SpatialGroupEnhance(AttentionModule):
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
        self.channels, self.groups = channels, groups
        self.weight = nn.Parameter(torch.empty(1, groups, 1, 1, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(1, groups, 1, 1, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.ones_(self.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return by_images(self._gated, x_BCHW)

    def _gated(self, x_BCHW: Tensor, out: Tensor | None) -> Tensor:
        by_pixel = x_BCHW.device.type == "cpu" and is_eager(x_BCHW) and is_channels_last(x_BCHW)
        x_BGDHW = x_BCHW.unflatten(1, (self.groups, -1))
        with without_autocast(x_BCHW.device):
            z = x_BGDHW if x_BCHW.dtype == torch.float64 else x_BGDHW.float()
            gate_BGHW = self._gate_by_pixel(z) if by_pixel else self._gate_by_plane(z)
        out = None if out is None else out.unflatten(1, (self.groups, -1))
        return torch.mul(x_BGDHW, gate_BGHW.unsqueeze(2).to(x_BCHW.dtype), out=out).flatten(1, 2)

    def _gate_by_plane(self, z_BGDHW: Tensor) -> Tensor:
        B, G, _, H, W = z_BGDHW.shape
        t_BGN = (z_BGDHW.mean((3, 4)).unsqueeze(2) @ z_BGDHW.flatten(3)).squeeze(2)
        t_BGN = t_BGN - t_BGN.mean(2, keepdim=True)
        # a norm has gradient 0 at 0, so a constant map gives no NaN
        std_BG1 = torch.linalg.vector_norm(t_BGN, dim=2, keepdim=True) / max(H * W - 1, 1) ** 0.5
        return self._gate(t_BGN, std_BG1, (1, G, 1)).view(B, G, H, W)

    def _gate_by_pixel(self, z_BGDHW: Tensor) -> Tensor:
        """The same along channels_last memory. Sums are products with ones: torch's own are several times slower there."""
        B, G, D, H, W = z_BGDHW.shape
        N, C = H * W, G * D
        z_BNC = z_BGDHW.permute(0, 3, 4, 1, 2).reshape(B, N, C)
        rows, pixels, channels = (z_BNC.new_ones(n) for n in (H, N, D))
        mean_BC = (rows @ z_BNC.view(B, H, W * C)).view(B, W, C).sum(1) / N
        t_BNG = ((z_BNC * mean_BC.unsqueeze(1)).view(-1, D) @ channels).view(B, N, G)
        t_BNG = t_BNG - (pixels @ t_BNG).unsqueeze(1) / N
        # clamped, a root has gradient 0 at 0
        square_BG = (pixels @ t_BNG.square()).clamp_min(torch.finfo(t_BNG.dtype).tiny)
        std_B1G = (square_BG / max(N - 1, 1)).sqrt().unsqueeze(1)
        return self._gate(t_BNG, std_B1G, (1, 1, G)).view(B, H, W, G).permute(0, 3, 1, 2)

    def _gate(self, t: Tensor, std: Tensor, shape: tuple[int, int, int]) -> Tensor:
        weight, bias = (p.view(shape).to(t.dtype) for p in (self.weight, self.bias))
        return torch.sigmoid(t * (weight / (std + self.epsilon)) + bias)

    def extra_repr(self) -> str:
        return f"{self.channels}, groups={self.groups}"
