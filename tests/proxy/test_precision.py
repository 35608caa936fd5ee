"""In bfloat16 on a CPU the host's usual convolutions compute, and nothing that would be slower or wrong there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nasattn.proxy import Fidelity, ProxyJob, ProxyTraining, Recipe
from nasattn.proxy.defaults import default_settings
from nasattn.proxy.precision import keep_float32, usual_precision
from nasattn.tasks import Task, TaskRequest, load_task

FIDELITY = Fidelity(stem_stride=1, resolution=8, samples=128, val_samples=64, epochs=2, rungs=1)


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", TaskRequest(8, 128, 64))


def begin(task: Task, placement: str = "sge_g8,none,lka_k7_d2,none", host: str = "nasattn_resnet18", **recipe: Any) -> ProxyTraining:
    return ProxyTraining(ProxyJob(host, placement, FIDELITY, Recipe(**{"precision": "bfloat16", **recipe})), task)


def types(model: nn.Module, step: Any) -> dict[str, torch.dtype]:
    """In what type each module inside *model* gave its output during *step*."""
    found: dict[str, torch.dtype] = {}

    def note(name: str) -> Any:
        return lambda module, inputs, output: found.__setitem__(name, output.dtype) if isinstance(output, Tensor) else None

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules()]
    step()
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize(("precision", "host"), [("bfloat16", torch.bfloat16), ("float32", torch.float32)])
def test_convolutions_take_it_and_attentions_and_logits_do_not(digits: Task, precision: str, host: torch.dtype) -> None:
    training = begin(digits, precision=precision)
    found = types(training.model, training.step)
    assert {found[name] for name in ("conv1", "bn1", "layer1.0.conv1", "layer2.0.conv2", "layer3.0.conv1")} == {host}
    inside = [dtype for name, dtype in found.items() if ".se." in name]
    assert inside and set(inside) == {torch.float32}
    assert found[""] == torch.float32  # the logits
    assert all(p.dtype == torch.float32 and p.grad is not None and p.grad.dtype == torch.float32 for p in training.model.parameters())


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_it_learns_what_float32_learns(digits: Task, precision: str, optimizer: str) -> None:
    task = load_task("digits", TaskRequest(8, 1000, 300))
    fidelity = FIDELITY.changed(samples=1000, val_samples=300, epochs=4)
    training = ProxyTraining(
        ProxyJob("nasattn_resnet18", "none,sge_g8,none,none", fidelity, Recipe(optimizer=optimizer, precision=precision)), task
    )
    while not training.done:
        report = training.step()
    assert report.accuracy > 0.8


def test_a_usual_convolution_beside_rare_ones() -> None:
    model = nn.Sequential()
    model.usual = nn.Conv2d(3, 8, 3, padding=1)
    model.patches = nn.Conv2d(8, 16, 4, stride=4)
    model.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
    model.pool, model.flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model.head = nn.Linear(16, 2)
    seen: dict[str, Tensor] = {}
    for name in ("usual", "patches", "depthwise"):
        forward = model.get_submodule(name)._conv_forward  # type: ignore[operator]
        model.get_submodule(name)._conv_forward = lambda x, *rest, name=name, forward=forward: seen.setdefault(name, forward(x, *rest))  # type: ignore[assignment]
    keep_float32(model, (), model.head)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(torch.randn(2, 3, 16, 16))
    assert [seen[name].dtype for name in ("usual", "patches", "depthwise")] == [torch.bfloat16, torch.float32, torch.float32]
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (5, 1), (1, 24), (2, 2), (6, 6)])
def test_gradients_on_maps_narrower_than_a_stride(shape: tuple[int, int]) -> None:
    """Where oneDNN's bfloat16 leaves gradients infinite."""
    conv = nn.Conv2d(8, 16, 3, stride=2, padding=1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.head = nn.Linear(16, 4)
    x = torch.randn(5, 8, *shape).contiguous(memory_format=torch.channels_last)
    wanted = torch.autograd.grad(model(x).square().sum(), conv.weight)[0]
    keep_float32(model, (), model.head)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(x).square().sum()
    found = torch.autograd.grad(loss, conv.weight)[0]
    assert float((found - wanted).norm() / wanted.norm()) < 0.05


@pytest.mark.parametrize("host", ["nasattn_resnet50", "nasattn_convnext_atto", "boat_cswin_tiny", "boat_swin_tiny", "van_b0"])
def test_hosts_train_down_to_single_pixels(digits: Task, host: str) -> None:
    training = begin(digits, "none,none,none,none", host)
    while not training.done:
        report = training.step()
    assert torch.isfinite(torch.tensor([report.loss, report.accuracy])).all()
    assert all(p.isfinite().all() for p in training.model.parameters())


def test_a_cpu_without_onednn(digits: Task) -> None:
    """As on processors for which oneDNN has no bfloat16: slower, not wrong."""
    with torch.backends.mkldnn.flags(enabled=False):
        training = begin(digits)
        while not training.done:
            report = training.step()
    assert torch.isfinite(torch.tensor([report.loss, report.accuracy])).all()


def test_what_a_device_takes_if_nobody_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for feature, precision in (("avx512_bf16", "bfloat16"), ("amx_bf16", "bfloat16"), ("avx2", "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=feature: {"avx2": True, name: True})
        usual_precision.cache_clear()
        assert usual_precision("cpu") == default_settings("digits", "cpu")[1].precision == precision
        assert usual_precision("cuda") == default_settings("cued_digits", "cuda")[1].precision == "bfloat16"
    usual_precision.cache_clear()
