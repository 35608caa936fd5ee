"""What a proxy's step and its worker cost, for `proxy.py`: memory, precision, large kernels, threads, torch.compile, two seeds at once."""

from __future__ import annotations

import functools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from user_proxy import HOST, TASK, usual_recipe  # noqa: E402

PLAIN, SGE, PAIR = "none,none,none,none", "none,sge_g32,none,none", "sge_g16,none,lka_k7_d2,none"
NETWORKS = (  # of other kinds, for the precision
    (HOST, PLAIN),
    (HOST, SGE),
    (HOST, "ela_b,ela_b,ela_b,none"),
    (HOST, PAIR),
    (HOST, "none,fsla_c25,sb,none"),
    ("cifar_resnet38", "none,none,none"),
    ("nasattn_convnext_tiny", PLAIN),
    ("nasattn_efficientnet_b0", "none,none,none,none,none"),
    ("nasattn_regnety_032", PLAIN),
    ("van_b0", PLAIN),
    ("boat_swin_tiny", PLAIN),
    ("boat_cswin_tiny", PLAIN),
)


def memory() -> dict[str, Any]:
    """Peak resident memory of a worker after trainings of the heaviest placements, one after another."""
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import proxy_steps; proxy_steps.print_peak()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    from nasattn.search.cluster import RAY_ENVIRONMENT

    environment |= RAY_ENVIRONMENT
    folder = tempfile.TemporaryDirectory()
    environment["NASATTN_CHECKPOINTS"] = folder.name
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    peak = float(done.stdout.splitlines()[-1])
    print(f"peak memory of a worker: {peak:.0f} MB (target 1500)", flush=True)
    return {"peak_mb": peak, "met": peak <= 1500}


def print_peak() -> None:
    """What a worker does, in this process: Ray imported, one training after another."""
    import ray  # noqa: F401

    from nasattn.proxy import Fidelity, ProxyJob
    from nasattn.search.worker import start_proxy

    for placement in ("fsla_c49,fsla_c49,none,none", "lka_k21_d3,lka_k21_d3,sb,ela_l", "none,none,none,none"):
        training = start_proxy(ProxyJob(HOST, placement, Fidelity(), usual_recipe()), TASK, "benchmark")
        training.step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def seeds_together() -> dict[str, Any]:
    """Whether two seeds of one placement train faster as one vectorised network (torch.func) than one after the other."""
    import torch.nn.functional as F
    from torch.func import functional_call, grad, stack_module_state, vmap

    from nasattn.hosts import get_host

    torch.set_num_threads(1)
    build = functools.partial(get_host(HOST).build_proxy, width=0.125, blocks=1, stem_stride=2, num_classes=10)
    images, labels = torch.randn(2, 32, 3, 48, 48), torch.randint(10, (2, 32))
    found = {}
    for placement in (PLAIN, SGE):
        models = [build(placement) for _ in range(2)]
        for model in models:  # vmap refuses running statistics that change in place; the batch's own are what training uses
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.track_running_stats, module.running_mean, module.running_var, module.num_batches_tracked = (
                        False,
                        None,
                        None,
                        None,
                    )
        params, buffers = stack_module_state(models)

        def loss(p: Any, b: Any, x: torch.Tensor, y: torch.Tensor, model: nn.Module = models[0]) -> torch.Tensor:
            return F.cross_entropy(functional_call(model, (p, b), (x,)), y)

        together = vmap(grad(loss))

        def one_by_one(models: list[nn.Module] = models) -> None:
            for number, model in enumerate(models):
                model.zero_grad()
                F.cross_entropy(model(images[number].contiguous(memory_format=torch.channels_last)), labels[number]).backward()

        for model in models:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        times: dict[str, list[float]] = {"together": [], "one_by_one": []}
        for _ in range(12):
            for name, run in (("together", functools.partial(together, params, buffers, images, labels)), ("one_by_one", one_by_one)):
                begun = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - begun)
        medians = {name: 1000 * statistics.median(t) for name, t in times.items()}
        found[placement] = medians | {"ratio": medians["together"] / medians["one_by_one"]}
        print(f"{placement}: two seeds together {medians['together']:.0f} ms, one by one {medians['one_by_one']:.0f} ms", flush=True)
    return found


def large_kernels() -> dict[str, Any]:
    """LKA in training at the maps of a proxy's stages, in batches of 64 on one thread: by the paper's formula and ours, in turns, in CPU time."""
    import naive

    from nasattn.attention.lka import LargeKernelAttention

    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for stage, (channels, side) in enumerate(((32, 24), (64, 12), (128, 6), (256, 3)), start=1):
        x = torch.randn(64, channels, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
        grad = torch.randn_like(x)
        for kernel, dilation in ((7, 2), (7, 3), (14, 3), (21, 2), (21, 3)):
            module = LargeKernelAttention(channels, kernel, dilation).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            runs = {"formula": functools.partial(naive.lka, module), "ours": module}
            times: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(7):
                for name, run in runs.items():
                    begun = time.process_time()
                    run(x).backward(grad)
                    times[name].append(time.process_time() - begun)
            medians = {name: 1000 * statistics.median(t[1:]) for name, t in times.items()}
            found[f"stage {stage}: lka_k{kernel}_d{dilation}"] = medians | {"ratio": medians["formula"] / medians["ours"]}
            print(
                f"stage {stage} lka_k{kernel}_d{dilation}: formula {medians['formula']:.1f} ms, ours {medians['ours']:.1f} ms", flush=True
            )
    return found


def _step_ms(training: Any, batch: tuple[torch.Tensor, ...], repeats: int = 25) -> float:
    """Median milliseconds of a training step."""
    times = []
    for number in range(repeats):
        begun = time.perf_counter()
        training.step_once(number, *batch)
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times[3:])


def _training(placement: str, host: str = HOST, precision: str | None = None) -> tuple[Any, tuple[torch.Tensor, ...]]:
    """A training of the default fidelity, in the usual precision or another, and one batch of it."""
    from nasattn.proxy import Fidelity, ProxyJob, ProxyTraining
    from nasattn.tasks import TaskRequest, load_task

    recipe = usual_recipe().changed(precision=precision)
    size, samples = recipe.batch_size, 10 * recipe.batch_size
    task = load_task(TASK, TaskRequest(48, samples, 50))
    training = ProxyTraining(ProxyJob(host, placement, Fidelity(samples=samples, val_samples=50, epochs=10), recipe), task)
    training.model.train()
    images, labels = next(training.train.batches(torch.arange(size), size))
    return training, (images, labels, torch.zeros(size, 3, dtype=torch.int64))


def precision() -> dict[str, Any]:
    """A step in bfloat16, as far as proxies take it, and one in float32, in turns on one thread: medians of its CPU time."""
    from nasattn.proxy.fidelity import PRECISIONS
    from nasattn.proxy.precision import usual_precision

    torch.set_num_threads(1)
    found: dict[str, Any] = {"usual": usual_precision("cpu")}
    for host, placement in NETWORKS:
        trainings = {name: _training(placement, host, name) for name in PRECISIONS}
        times: dict[str, list[float]] = {name: [] for name in PRECISIONS}
        for number in range(20):
            for name, (training, batch) in trainings.items():
                begun = time.process_time()
                training.step_once(number, *batch)
                times[name].append(1000 * (time.process_time() - begun))
        medians = {name: statistics.median(t[3:]) for name, t in times.items()}
        ratio = medians["bfloat16"] / medians["float32"]
        found[f"{host} {placement}"] = medians | {"ratio": ratio}
        print(f"{host} {placement}: float32 {medians['float32']:.1f} ms, bfloat16 {medians['bfloat16']:.1f} ms, {ratio:.2f}", flush=True)
    return found


def threads() -> dict[str, Any]:
    """A step with one thread and with two: two workers of one thread each do more than one worker of two, unless it is twice as fast."""
    found = {}
    for placement in (PLAIN, PAIR):
        training, batch = _training(placement)
        rounds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(3):
            for count in rounds:
                torch.set_num_threads(count)
                rounds[count].append(_step_ms(training, batch))
        one, two = (statistics.median(rounds[count]) for count in (1, 2))
        found[placement] = {"one_ms": one, "two_ms": two, "speedup": one / two}
        print(f"{placement}: one thread {one:.1f} ms, two {two:.1f} ms: {one / two:.2f} times as fast", flush=True)
    torch.set_num_threads(1)
    return found


def compiled() -> dict[str, Any]:
    """What torch.compile of the whole proxy costs and gains."""
    torch.set_num_threads(1)
    training, batch = _training(SGE)
    eager = _step_ms(training, batch)
    training.step_once.model = torch.compile(training.model)
    begun = time.perf_counter()
    training.step_once(0, *batch)
    seconds = time.perf_counter() - begun
    fast = _step_ms(training, batch)
    print(f"compile: {seconds:.0f} s, then a step takes {fast:.1f} ms instead of {eager:.1f}", flush=True)
    return {"compile_s": seconds, "eager_ms": eager, "compiled_ms": fast}
