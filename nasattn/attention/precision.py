"""How a module computes: in the inputs' own precision where autocast would cost accuracy, and along the memory's layout."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

CACHED_VALUES = 2**20


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Turns autocast off on *device*; does nothing on devices that have none, such as ``meta``."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    context: AbstractContextManager[None] = torch.autocast(device.type, enabled=False)
    return context


def is_eager(x: Tensor) -> bool:
    """Whether operations run as they are written; else (compiled, exported, traced, vmapped) the plain formula is wanted."""
    if not isinstance(x, Tensor) or torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return False
    return not torch._C._functorch.is_batchedtensor(x)


def is_channels_last(x_BCHW: Tensor) -> bool:
    """Whether each pixel's channels lie side by side. A map that is also contiguous (1x1, one channel) counts as contiguous."""
    return x_BCHW.is_contiguous(memory_format=torch.channels_last) and not x_BCHW.is_contiguous()


def by_images(gate: Callable[[Tensor, Tensor | None], Tensor], x_BCHW: Tensor) -> Tensor:
    """``gate(x, out=None)``; on CPU and without gradients, a few images at a time into one output.

    The intermediates of a few images stay in the cache; those of a batch are fresh pages of memory each time, which took
    as long as the arithmetic.
    """
    images = max(1, CACHED_VALUES // max(x_BCHW.shape[1:].numel(), 1)) if is_eager(x_BCHW) else 0
    if not images or torch.is_grad_enabled() or x_BCHW.device.type != "cpu" or len(x_BCHW) <= images:
        return gate(x_BCHW, None)
    out_BCHW = torch.empty_like(x_BCHW)
    for part, out in zip(x_BCHW.split(images), out_BCHW.split(images), strict=True):
        gate(part, out)
    return out_BCHW
