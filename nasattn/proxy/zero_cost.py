"""Zero-cost scores: what a network at its initialisation, and one batch, say of how well it will learn.

They cost a second where a proxy costs minutes, so a proxy has to rank better than they do. They are recorded beside it, never pruned
by: an attention that begins as the identity cannot be told from none by what the network computes at the start.

* ``grad_norm``: Abdelfattah et al. 2021, "Zero-cost proxies for lightweight NAS", arXiv 2101.08134.
* ``naswot``: Mellor et al. 2021, "Neural architecture search without training", arXiv 2006.04647. It stands in for ``synflow``, whose
  conserved flow needs a network that is linear once its weights are positive: a sigmoid gate or a group normalisation is not.

Both work on a copy of the network: its weights, statistics, gradients and mode, and torch's random numbers, are left as they were.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear)
# which a unit is on or off for; by the names of their classes, for timm has its own of the same names
ACTIVATIONS = {"relu", "relu6", "leakyrelu", "prelu", "elu", "gelu", "gelutanh", "quickgelu", "silu", "swish", "hardswish", "mish"}


def gradient_norm(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Sum over the convolutions and linear layers of the Euclidean norm of their weights' gradient, after one batch.

    Args:
        model: ``(B, C, H, W) -> (B, classes)``.
        images: ``(B, C, H, W)``, prepared as for training, on the model's device. B is at least 2: batch normalisation is in training mode.
        labels: ``(B,)``, int64.

    Returns:
        0 or more; NaN where it is not finite.
    """
    with _copied(model) as network:
        with torch.enable_grad():
            F.cross_entropy(network(images), labels).backward()
        gradients = [m.weight.grad for m in network.modules() if isinstance(m, WEIGHTED) and m.weight.grad is not None]
        return _finite(sum(float(g.double().norm()) for g in gradients))


def naswot(model: nn.Module, images: Tensor) -> float:
    """Log-determinant of the kernel of activation codes: large where the images switch different units on.

    A unit is on for an image where the input of its activation is positive. Entry (i, j) of the kernel is the number of units
    that images i and j share the state of, over all ReLU-like activation modules.

    Args:
        model: ``(B, C, H, W) -> (B, classes)``.
        images: ``(B, C, H, W)``, prepared as for training, on the model's device; B is at least 2.

    Returns:
        The score; NaN where the network has no such activation, or two images share the state of every unit.
    """
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)

    def count(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs[0]) == len(images):  # else windows or stripes of the images, not the images
            on = (inputs[0] > 0).flatten(1).float()
            kernel.add_(on @ on.T + (1 - on) @ (1 - on).T)

    with _copied(model) as network, torch.no_grad():
        for module in network.modules():
            if type(module).__name__.lower() in ACTIVATIONS:
                module.register_forward_pre_hook(count)
        network(images)
    sign, log_determinant = torch.linalg.slogdet(kernel)
    return _finite(float(log_determinant)) if sign > 0 else math.nan


@contextmanager
def _copied(model: nn.Module) -> Iterator[nn.Module]:
    """A copy of the model in training mode, without gradients; random numbers drawn meanwhile are drawn again by whoever comes next."""
    network = copy.deepcopy(model).train()
    network.requires_grad_(True)
    network.zero_grad()
    devices = [p.device for p in network.parameters() if p.device.type == "cuda"]
    with torch.random.fork_rng(devices=list(dict.fromkeys(devices))):
        yield network


def _finite(score: float) -> float:
    return score if math.isfinite(score) else math.nan
