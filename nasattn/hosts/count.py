"""Parameters and multiply-accumulates of a model, counted without running it."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_params(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, resolution: int, in_chans: int = 3) -> int:
    """Multiply-accumulates of one image: half the operations that torch's FlopCounterMode counts.

    Args:
        model: Built on the meta device, so that nothing is computed.
        resolution: Side of the image in pixels.
        in_chans: Its channels.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, in_chans, resolution, resolution, device=device))
    model.train(training)
    return int(counter.get_total_flops()) // 2
