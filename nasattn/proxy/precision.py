"""In which precision proxies compute: what their recipe says, by default bfloat16 where the device multiplies in it.

Of bfloat16 on a CPU some parts of a network are kept, where it loses time or is wrong. Weights, gradients and the optimiser's
state are float32 everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial

import torch
from torch import Tensor, nn


@cache
def usual_precision(device: str) -> str:
    """What proxies on *device*, ``cpu`` or ``cuda``, train in if nobody says: bfloat16 on CUDA and on CPUs that have instructions for it."""
    able = torch.cpu.get_capabilities()
    return "bfloat16" if device == "cuda" or any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16")) else "float32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """In which a network's forward computes in *precision*; a step that is captured may not keep casts between uses."""
    return nullcontext() if precision == "float32" else torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


def keep_float32(model: nn.Module, attentions: Iterable[nn.Module], head: nn.Module) -> None:
    """Let parts of a network on a CPU compute in float32 under autocast: the *attentions*, the *head*, and all convolutions but usual ones.

    oneDNN's depthwise convolutions take up to three times as long in bfloat16; other rare ones are wrong there (see :func:`_is_usual`).
    Of logits of eight bits several are the greatest.
    """
    convolutions = {m for m in model.modules() if isinstance(m, nn.Conv2d)}
    usual = {m for m in convolutions if _is_usual(m)}
    for module in {*attentions} | convolutions - usual:
        module.forward = partial(_in_float32, module.forward)  # type: ignore[method-assign]
    for module in usual:
        if module.stride != (1, 1):
            module.forward = partial(_unless_narrow, module.forward, module.stride)  # type: ignore[method-assign]
    head.forward = partial(_in_float32, head.forward, back=False)


def _is_usual(conv: nn.Conv2d) -> bool:
    """1x1 or 3x3, padded to give every pixel one, of stride 1 or 2, neither grouped nor dilated.

    In torch 2.15 oneDNN's bfloat16 gives a wrong output for a 4x4 convolution of a 4x4 map of stride 4 (16 to 32 channels: 1.3 times the
    output's own norm away), and for a map narrower than the stride gradients of the weights that are far off or infinite (alike: pytorch
    issues 163347 and 169688). Of 10,000 usual ones of random shapes none was further than 2.1 % from float32.
    """
    side = conv.kernel_size[0]
    padded = conv.padding == (side // 2, side // 2) and conv.padding_mode == "zeros"
    simple = conv.groups == 1 and conv.dilation == (1, 1) and conv.stride in ((1, 1), (2, 2))
    return type(conv) is nn.Conv2d and conv.kernel_size in ((1, 1), (3, 3)) and padded and simple


def _in_float32(forward: Callable[[Tensor], Tensor], x: Tensor, *, back: bool = True) -> Tensor:
    """What *forward* gives without autocast, in the type of *x* if *back*."""
    with torch.autocast("cpu", enabled=False):
        y = forward(x.float())
    return y.to(x.dtype) if back else y


def _unless_narrow(forward: Callable[[Tensor], Tensor], stride: tuple[int, ...], x: Tensor) -> Tensor:
    """*forward* as it is, without autocast on maps narrower than the stride."""
    narrow = x.shape[-2] < stride[0] or x.shape[-1] < stride[1]
    return _in_float32(forward, x) if narrow else forward(x)
