"""Computing in the inputs' own precision where autocast would cost accuracy: statistics, clustering, sorting."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Turns autocast off on *device*; does nothing on devices that have none, such as ``meta``."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    context: AbstractContextManager[None] = torch.autocast(device.type, enabled=False)
    return context
