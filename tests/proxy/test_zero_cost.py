"""Zero-cost scores: what their papers define, on networks small enough to compute by hand, and nothing left behind."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nasattn.proxy import Fidelity, ProxyJob, Recipe, build_proxy
from nasattn.proxy.zero_cost import gradient_norm, naswot

IMAGES = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 10
PLACEMENTS = ["none,none,none,none", "se,none,none,none", "none,sge_g32,ela_t,sb", "lka_k21_d3,none,fsla_c49,none"]


def proxy(placement: str = PLACEMENTS[0], host: str = "nasattn_resnet18") -> nn.Module:
    return build_proxy(ProxyJob(host, placement, Fidelity(blocks=1, stem_stride=1, resolution=16), Recipe(), 0), 10)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_scores_of_proxies_with_attention(placement: str) -> None:
    model = proxy(placement)
    assert gradient_norm(model, IMAGES, LABELS) > 0
    assert math.isfinite(naswot(model, IMAGES))
    assert (gradient_norm(model, IMAGES, LABELS), naswot(model, IMAGES)) == (gradient_norm(model, IMAGES, LABELS), naswot(model, IMAGES))


@pytest.mark.parametrize("host", ["nasattn_convnext_tiny", "nasattn_regnety_004"])
def test_other_hosts_have_scores_too(host: str) -> None:
    model = proxy(host=host)
    assert gradient_norm(model, IMAGES, LABELS) > 0 and math.isfinite(naswot(model, IMAGES))


def test_scores_tell_placements_apart() -> None:
    models = [proxy(p) for p in PLACEMENTS]
    assert len({gradient_norm(m, IMAGES, LABELS) for m in models}) == len(models)
    assert len({naswot(m, IMAGES) for m in models}) > 1


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_left_behind(training: bool) -> None:
    """Weights, statistics, gradients, mode and torch's random numbers are as before, also of a network that drops at random."""
    model = nn.Sequential(proxy("none,sge_g32,none,none"), nn.Dropout(0.5)).train(training)
    frozen = next(model.parameters()).requires_grad_(False)
    (model(IMAGES).sum()).backward()
    state = copy.deepcopy(model.state_dict())
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    hooks = [len(m._forward_pre_hooks) for m in model.modules()]
    drawn = torch.get_rng_state()
    gradient_norm(model, IMAGES, LABELS)
    naswot(model, IMAGES)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    for parameter, before in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is None if before is None else torch.equal(parameter.grad, before)  # type: ignore[arg-type]
    assert all(m.training is training for m in model.modules())
    assert not frozen.requires_grad
    assert [len(m._forward_pre_hooks) for m in model.modules()] == hooks


def test_the_gradient_norm_by_hand() -> None:
    """Norms of each layer's weight gradient, added; biases and normalisations do not count."""
    torch.manual_seed(0)
    first, norm, last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 10)
    model = nn.Sequential(first, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    score = gradient_norm(model, IMAGES, LABELS)
    F.cross_entropy(model(IMAGES), LABELS).backward()
    assert first.weight.grad is not None and last.weight.grad is not None
    assert score == pytest.approx(float(first.weight.grad.norm() + last.weight.grad.norm()), rel=1e-5)


def test_naswot_by_hand() -> None:
    """Codes 110, 011 and 111 share 1, 2 and 2 of 3 units: the determinant of [[3, 1, 2], [1, 3, 2], [2, 2, 3]] is 8."""
    images = torch.tensor([[1.0, 2, -1], [-1, 1, 3], [1, 1, 1]])
    assert naswot(nn.Sequential(nn.Linear(3, 3, bias=False).apply(identity), nn.ReLU()), images) == pytest.approx(math.log(8))
    kernel = np.array([[3, 1, 2], [1, 3, 2], [2, 2, 3]])
    assert np.linalg.det(kernel) == pytest.approx(8)


def identity(layer: nn.Module) -> None:
    assert isinstance(layer, nn.Linear)
    nn.init.eye_(layer.weight)


def test_an_activation_that_works_in_place_is_read_before_it() -> None:
    images = torch.tensor([[1.0, -2.0], [-1.0, 2.0]])
    for activation in (nn.ReLU(), nn.ReLU(inplace=True)):
        assert naswot(nn.Sequential(nn.Linear(2, 2, bias=False).apply(identity), activation), images) == pytest.approx(math.log(4))


def test_scores_that_are_not_defined() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))
    assert math.isnan(naswot(flat, IMAGES))  # nothing that is on or off
    twice = IMAGES[:4].repeat(2, 1, 1, 1)
    assert math.isnan(naswot(proxy(), twice))  # the same image twice
    exploding = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))
    with torch.no_grad():
        exploding[1].weight.fill_(float("inf"))  # type: ignore[operator]
    assert math.isnan(gradient_norm(exploding, IMAGES, LABELS))
