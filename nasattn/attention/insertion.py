"""How an attention enters a network: ``x + branch(x)`` for those without a shortcut, and a start as the identity.

Both starts multiply by one scalar that begins at zero, as ReZero does (arXiv 2003.04887): put into a pretrained network,
an attention leaves its function unchanged at first, to the last bit, and learns from the first step on how much of itself
to take. timm's ``init_weights`` calls ``zero_init_last``, so the start survives it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """``x + branch(x)``: how a block inserts an attention that has no shortcut of its own. ``(B, C, H, W)``."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y: Tensor = x_BCHW + self.branch(x_BCHW)
        return y

    def reset_parameters(self) -> None:
        reset_attention(self.branch)


class ZeroStart(nn.Module):
    """``strength * branch(x)`` with a strength that starts at zero: ``(B, C, H, W) -> (B, C, H, W)``."""

    def __init__(self, branch: nn.Module, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.branch = branch
        self.strength = nn.Parameter(torch.zeros((), device=device, dtype=dtype))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW: Tensor = self.branch(x_BCHW)
        return self.strength.to(y_BCHW.dtype) * y_BCHW

    def reset_parameters(self) -> None:
        reset_attention(self.branch)
        self.zero_init_last()

    def zero_init_last(self) -> None:
        """Back to zero."""
        nn.init.zeros_(self.strength)


class IdentityStart(nn.Module):
    """``x + strength * (gate(x) - x)`` with a strength that starts at zero: ``(B, C, H, W) -> (B, C, H, W)``.

    At strength 1 it is the attention alone.
    """

    def __init__(self, attention: nn.Module, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.attention = attention
        self.strength = nn.Parameter(torch.zeros((), device=device, dtype=dtype))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y: Tensor = x_BCHW + self.strength.to(x_BCHW.dtype) * (self.attention(x_BCHW) - x_BCHW)
        return y

    def reset_parameters(self) -> None:
        reset_attention(self.attention)
        self.zero_init_last()

    def zero_init_last(self) -> None:
        """Back to the identity."""
        nn.init.zeros_(self.strength)


def reset_attention(module: nn.Module) -> None:
    """Initialise a module anew: by its own ``reset_parameters``, else its convolutions as timm's ResNet does."""
    reset = getattr(module, "reset_parameters", None)
    if reset is not None:
        reset()
        return
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
