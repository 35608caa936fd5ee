"""Steps: what does not fit into memory is taken in parts, and the learning rate follows torch's own schedule."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from nasattn.proxy import Fidelity, ProxyJob, ProxyTraining, Recipe
from nasattn.proxy.fidelity import SCHEDULES
from nasattn.proxy.steps import is_out_of_memory, learning_rates
from nasattn.tasks import Task, TaskRequest, load_task

FIDELITY = Fidelity(stem_stride=1, resolution=8, samples=128, val_samples=64, epochs=1, rungs=1)


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", TaskRequest(8, 128, 64))


def begin(task: Task, **recipe: Any) -> ProxyTraining:
    return ProxyTraining(ProxyJob("nasattn_resnet18", "none,none,none,none", FIDELITY, Recipe(**recipe)), task)


def limit_images(training: ProxyTraining, most: int) -> list[int]:
    """Let the network run out of memory on more than *most* images while it trains, as a device would; gives the sizes tried."""
    tried: list[int] = []

    def check(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if module.training:
            tried.append(len(inputs[0]))
            if len(inputs[0]) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    training.model.register_forward_pre_hook(check)
    return tried


def test_a_batch_that_does_not_fit_is_taken_in_parts(digits: Task) -> None:
    training = begin(digits)
    tried = limit_images(training, 10)
    report = training.step()
    assert tried == [32, 16, *[8] * 16]  # found once, then kept: 4 steps of 4 parts
    assert report.notes == ("batch of 32 in 4 parts, for want of memory",)
    assert begin(digits).step().notes == ()


def test_parts_add_up_to_the_gradient_of_the_batch(digits: Task) -> None:
    """With BatchNorm out of play, parts change nothing but rounding."""
    ends = []
    for most in (1000, 10):
        training = begin(digits)
        limit_images(training, most)
        training.model.train()
        for module in training.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.Module.eval(module)
        images, labels = next(training.train.batches(torch.arange(32), 32))
        loss = training.step_once(3, images, labels, torch.zeros(32, 3, dtype=torch.int64))
        ends.append((loss, [p.grad.clone() for p in training.model.parameters() if p.grad is not None]))
    torch.testing.assert_close(ends[0][0], ends[1][0])
    for whole, parts in zip(ends[0][1], ends[1][1], strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-6)


def test_when_not_even_one_image_fits_the_trial_says_so(digits: Task) -> None:
    training = begin(digits)
    tried = limit_images(training, 0)
    with pytest.raises(torch.OutOfMemoryError):
        training.step()
    assert tried == [32, 16, 8, 4, 2, 1]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 128 bytes.",
            True,
        ),
        ("posix_memalign failed:Cannot allocate memory (12)", True),
        ("could not create a primitive", True),
        ("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)", False),
    ],
)
def test_what_torch_says_where_a_cpu_has_no_memory(message: str, expected: bool) -> None:
    assert is_out_of_memory(RuntimeError(message)) == expected


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are Linux's")
def test_a_cpu_without_memory() -> None:
    """The real allocator, in a process that may not grow: a batch of 4,096 images is too much, and is trained all the same."""
    program = """
import resource, torch
torch.set_num_threads(1)
torch.backends.mkldnn.set_flags(False)
from nasattn.proxy import Fidelity, ProxyJob, ProxyTraining, Recipe
from nasattn.tasks import Split, Task
split = Split(torch.randint(256, (4096, 3, 32, 32), dtype=torch.uint8), torch.arange(4096) % 2)
job = ProxyJob("nasattn_resnet18", "none,none,none,none", Fidelity(samples=4096, resolution=32, stem_stride=1, epochs=1, rungs=1), Recipe(batch_size=4096))
training = ProxyTraining(job, Task("t", ("a", "b"), split, Split(split.images[:50], split.labels[:50])))
training.model(torch.zeros(2, 3, 32, 32))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 700 * 2**20, -1))
print(training.step().notes)
"""
    # oneDNN crashes where one of its own small allocations fails; with the allocator's settings of a worker they fail before torch's large ones
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, env=environment)
    assert "batch of 4096 in " in done.stdout, done.stderr[-2000:]


@pytest.mark.parametrize(("steps", "warmup"), [(100, 0.1), (2, 0.5), (7, 0.3), (10, 0.1)])
def test_the_schedule_is_torchs(steps: int, warmup: float) -> None:
    rates = learning_rates(0.01, warmup, steps)
    assert rates.shape == (steps,) and 0 < float(rates.max()) <= 0.0101
    if steps == 100:
        optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps, pct_start=warmup)
        for rate in rates.tolist():
            assert rate == pytest.approx(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 250])
def test_a_rate_is_never_zero_nor_above_its_peak(schedule: str, steps: int) -> None:
    rates = learning_rates(0.01, 0.1, steps, schedule)
    assert rates.shape == (steps,) and rates.min() > 0 and rates.max() <= 0.01 + 1e-9


def test_a_stable_rate_rises_stays_and_falls_to_zero() -> None:
    rates = learning_rates(0.01, 0.1, 100, "warmup-stable-decay")
    assert rates[:10].tolist() == pytest.approx([0.001 * n for n in range(1, 11)])
    assert rates[10:60].tolist() == pytest.approx([0.01] * 50)
    assert rates[60:].tolist() == pytest.approx([0.01 * n / 40 for n in range(40, 0, -1)])


def test_the_recipes_schedule_is_followed(digits: Task) -> None:
    for schedule in SCHEDULES:
        step = begin(digits, schedule=schedule).step_once
        assert step.rates[0].tolist() == learning_rates(Recipe().lr, Recipe().warmup, 4, schedule).tolist()


def test_a_rate_of_zero_stays_zero() -> None:
    assert not learning_rates(0.0, 0.1, 20).any()
