"""Muon, against timm's: what it takes, what it makes of a matrix, and where several steps of it lead."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from timm.optim import muon as timms
from torch import nn

from nasattn.proxy.muon import Muon, is_matrix, orthogonal

SHAPES = [(8, 72), (64, 576), (256, 64), (128, 128), (10, 256), (5, 16), (4, 512), (32, 8)]


def theirs(matrix: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = timms.zeropower_via_newtonschulz(matrix, 5, timms._COEFFICIENTS["quintic"], dtype=matrix.dtype)
    return found


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e3])
def test_matrices_of_all_sizes_are_made_orthogonal_together(dtype: torch.dtype, tolerance: float, size: float) -> None:
    draw = torch.Generator().manual_seed(0)
    matrices = [torch.randn(shape, generator=draw, dtype=dtype) * size for shape in SHAPES for _ in range(2)]
    matrices[0][1] = matrices[0][0]  # of less than full rank
    matrices[3] *= 1e-3
    for matrix, made in zip(matrices, orthogonal(matrices), strict=True):
        assert made.shape == matrix.shape and made.dtype == dtype
        torch.testing.assert_close(made, theirs(matrix), rtol=0, atol=tolerance)


def test_nothing_comes_of_nothing() -> None:
    for made in orthogonal([torch.zeros(8, 16), torch.zeros(16, 8)]):
        assert torch.equal(made, torch.zeros_like(made))
    assert orthogonal([]) == []


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_100", "swin_tiny_patch4_window7_224"])
def test_it_takes_what_timms_takes(name: str) -> None:
    parameters = dict(timm.create_model(name, num_classes=10).named_parameters())
    takes = {n: is_matrix(p) for n, p in parameters.items()}
    assert takes == {n: timms._is_suitable_for_muon(p) for n, p in parameters.items()}
    assert {True, False} == set(takes.values())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_steps_lead_where_timms_lead(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 10, bias=False))
    ours[0].bias, ours[2].bias = None, None
    ours = ours.to(memory_format=layout)  # type: ignore[call-overload]
    other, start = copy.deepcopy(ours), copy.deepcopy(ours)
    rate = torch.tensor(0.02)
    optimizers = [Muon([{"params": list(ours.parameters()), "lr": rate}], weight_decay=0.1)]
    optimizers += [timms.Muon(other.parameters(), lr=0.02, weight_decay=0.1, nesterov=True)]
    for _ in range(5):
        images, labels = torch.randn(32, 3, 8, 8), torch.randint(10, (32,))
        for model, optimizer in zip((ours, other), optimizers, strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    for mine, its, before in zip(ours.parameters(), other.parameters(), start.parameters(), strict=True):
        assert (mine - its).norm() < 0.1 * (its - before).norm()  # timm's works in bfloat16


def test_a_parameter_without_a_gradient_stays() -> None:
    used, unused = nn.Parameter(torch.ones(8, 8)), nn.Parameter(torch.ones(8, 8))
    used.grad = torch.eye(8)
    Muon([{"params": [used, unused], "lr": torch.tensor(0.1)}], weight_decay=0.1).step()
    assert torch.equal(unused, torch.ones(8, 8)) and not torch.equal(used, torch.ones(8, 8))
