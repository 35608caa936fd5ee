"""Parameters, multiply-accumulates and memory of a model, counted without running it."""

from __future__ import annotations

import copy
from typing import Any
from weakref import WeakSet, finalize

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
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


def count_memory(model: nn.Module, resolution: int, batch: int = 1, in_chans: int = 3, dtype: torch.dtype = torch.float32) -> int:
    """Bytes that eager inference needs at its peak: the weights, and the tensors that are alive at the worst moment.

    Counted from the sizes of the tensors that the operators give, so it holds for any device; not what an operator takes
    inside itself, nor what an allocator rounds up.

    Args:
        model: Built on the meta device, so that nothing is computed.
        resolution: Side of the images in pixels.
        batch: Images at once.
        in_chans: Their channels.
        dtype: Of weights and images.
    """
    model = copy.deepcopy(model).to(dtype).eval()
    weights = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    device = next(model.parameters()).device
    memory = _LiveMemory()
    with torch.no_grad(), memory:
        images = torch.empty(batch, in_chans, resolution, resolution, device=device, dtype=dtype)
        model(images)
    return weights + memory.peak


class _LiveMemory(TorchDispatchMode):
    """Counts the bytes of the storages that operators make for as long as they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._known: WeakSet[torch.UntypedStorage] = WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                self._known.add(tensor.untyped_storage())
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage()) not in self._known:
                self._known.add(storage)
                self._grow(storage.nbytes())
                finalize(storage, self._grow, -storage.nbytes()).atexit = False
        return output

    def _grow(self, size: int) -> None:
        self.live += size
        self.peak = max(self.peak, self.live)
