"""timm's attention modules under their timm names, so that they take part in a search. Nothing of them is written here."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from nasattn.attention.token import Definition, add_definition

COMPARISON = {
    "se": "Squeeze-and-Excitation (arXiv 1709.01507)",
    "ese": "Effective Squeeze-and-Excitation (arXiv 1911.06667)",
    "eca": "Efficient Channel Attention (arXiv 1910.03151)",
    "gc": "Global Context (arXiv 1904.11492)",
    "cbam": "Convolutional Block Attention Module (arXiv 1807.06521)",
    "coord": "Coordinate Attention (arXiv 2103.02907)",
    "sk": "Selective Kernel (arXiv 1903.06586)",
    "nl": "Non-local (arXiv 1711.07971)",
    "bat": "Bilinear Attentional Transforms (CVPR 2020)",
}


def build_timm_attention(name: str, channels: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> nn.Module:
    """timm's ``create_attn(name, channels)``: ``(B, C, H, W) -> (B, C, H, W)``."""
    from timm.layers import create_attn

    module: nn.Module = create_attn(name, channels, device=device, dtype=dtype)
    return module


for _name, _paper in COMPARISON.items():
    add_definition(Definition(name=_name, build=partial(build_timm_attention, _name), paper=f"timm: {_paper}"))
