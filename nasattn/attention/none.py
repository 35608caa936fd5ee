"""``none``: the stage stays as it is."""

from __future__ import annotations

import torch
from torch import Tensor

from nasattn.attention.module import AttentionModule
from nasattn.attention.token import register_attention


@register_attention("none", form="none", paper="the plain stage, without attention")
class NoAttention(AttentionModule):
    """Returns its input, shape ``(B, C, H, W)``. Hosts insert nothing at all for ``none``; this exists for symmetry."""

    def __init__(self, channels: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW

    def extra_repr(self) -> str:
        return str(self.channels)

    def reset_parameters(self) -> None:
        """Nothing to reset."""
