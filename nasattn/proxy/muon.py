"""Muon for small networks on a CPU: the update of each matrix of weights made orthogonal, all matrices of a size at once.

After Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon), with the scale of Liu et al. 2025 (arXiv 2502.16982), as timm's
``Muon`` has it. A proxy holds dozens of matrices so small that starting an operation costs more than its arithmetic, so they are made
orthogonal together, in float32, by way of their Gram matrices, which are square and smaller.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
SMALLEST_SIDE, LONGEST = 4, 128  # matrices with a shorter side, or longer than so many times their shorter side, are left to AdamW
LEAST_NORM = 1e-7
# of the odd polynomials a x + b x^3 + c x^5 that take singular values to about 1, one after the other (modded-nanogpt's)
COEFFICIENTS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, for parameters that :func:`is_matrix` is true of.

    The update of a matrix has the root mean square of AdamW's, so that both take the same learning rates.

    Args:
        groups: Parameter groups, each with an ``lr``, which may be a tensor.
        weight_decay: Times the learning rate, the share that weights lose in a step.
    """

    def __init__(self, groups: list[dict[str, Any]], weight_decay: float) -> None:
        super().__init__(groups, {"weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters that have a gradient. Returns what *closure*, called first, returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            kept = 1 - group["lr"] * group["weight_decay"]
            for p, update in zip(parameters, orthogonal([self._momentum(p).flatten(1) for p in parameters]), strict=True):
                rate = group["lr"] * (0.2 * max(update.shape) ** 0.5)
                p.mul_(kept).sub_(update.mul_(rate).view(p.shape))
        return loss

    def _momentum(self, p: Tensor) -> Tensor:
        """The gradient of *p*, moved towards the mean of those before."""
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p, memory_format=torch.preserve_format)
        return p.grad.lerp(state["momentum"].lerp_(p.grad, 1 - MOMENTUM), MOMENTUM)  # type: ignore[union-attr]


def is_matrix(p: Tensor) -> bool:
    """Whether Muon takes *p*: ``(out, in, ...)``, flattened to ``(out, in * ...)``, neither depthwise nor too narrow (timm's rule)."""
    if p.ndim < 2 or 1 in p.shape[:2]:
        return False
    shorter, longer = sorted((p.shape[0], p[0].numel()))
    return shorter >= SMALLEST_SIDE and longer <= LONGEST * shorter


def orthogonal(matrices: Sequence[Tensor]) -> list[Tensor]:
    """The matrices ``(m, n)`` with their singular values, where they are not far below the others, taken to about 1.

    Every polynomial of the Newton-Schulz iteration is a product with a polynomial of the Gram matrix, so the iteration is done on
    that, and the matrix is multiplied once, with the product of all.
    """
    wide = [m.mT if m.shape[0] > m.shape[1] else m for m in matrices]
    sizes: dict[int, list[int]] = defaultdict(list)
    for i, w in enumerate(wide):
        sizes[w.shape[0]].append(i)
    found: list[Tensor] = list(matrices)
    for members in sizes.values():
        grams = torch.stack([wide[i] @ wide[i].mT for i in members])
        for i, product in zip(members, _iterated(grams), strict=True):
            made = product @ wide[i]
            found[i] = made.mT if wide[i] is not matrices[i] else made
    return found


def _iterated(grams: Tensor) -> Tensor:
    """What the matrices of these Gram matrices ``(k, r, r)`` are to be multiplied by."""
    norms = grams.diagonal(dim1=-2, dim2=-1).sum(-1).clamp_(min=LEAST_NORM**2)[:, None, None]  # Frobenius, squared
    a = grams / norms
    product = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device).div(norms.sqrt())
    for n, (linear, cubic, quintic) in enumerate(COEFFICIENTS, start=1):
        factor = torch.baddbmm(a, a, a, beta=cubic, alpha=quintic)
        factor.diagonal(dim1=-2, dim2=-1).add_(linear)
        product = factor @ product
        if n < len(COEFFICIENTS):
            a = factor @ a @ factor
    return product
