"""How fast proxies train, and what one comes to, beside what a user would write.

    python benchmarks/proxy.py                           # some 15 minutes on two cores
    python benchmarks/proxy.py --parts speed time        # also: ceiling, memory, seeds, threads, compile

A user's trial is a fresh Ray function trial per placement: timm's ResNet of the same shape with the papers' formulas, contiguous
float32, torchvision's transforms image by image, a DataLoader with workers. Ours is a Ray worker that lives on, with the data
in memory. Both train the same placements at the same fidelity and recipe, in turns, as many at once as there are cores.
The last line printed is one JSON object with all figures.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from nasattn.proxy import Recipe

sys.path.insert(0, str(Path(__file__).parent))
HERE = Path(__file__).parent

PLACEMENTS = (
    "none,none,none,none",
    "none,sge_g32,none,none",
    "ela_l,none,none,ela_t",
    "sge_g16,none,lka_k7_d2,none",
    "none,sb,ela_b,none",
    "none,none,sge_g64,lka_k21_d3",
    "ela_b,none,none,none",
    "none,ela_l,none,none",
    "sge_g32,none,none,sb",
    "none,none,ela_s,none",
    "none,lka_k7_d3,none,none",
    "sb,none,none,ela_t",
)
HOST, TASK = "nasattn_resnet50", "cued_digits"
PARTS = ("speed", "time", "ceiling", "memory", "seeds", "threads", "compile")


def usual_recipe() -> Recipe:
    """That of the task's proxies on a CPU, for both sides."""
    from nasattn.proxy.defaults import default_settings

    return default_settings(TASK, "cpu")[1]


def user_trial(config: dict[str, Any]) -> dict[str, float]:
    """One placement as a user would train it: a fresh process, a DataLoader, transforms image by image. Times in seconds."""
    entered = time.perf_counter()
    import torch.nn.functional as F
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    from nasattn.proxy import Fidelity

    torch.set_num_threads(1)
    fidelity, recipe = Fidelity(**config["fidelity"]), usual_recipe()
    arrays = np.load(config["data"])

    class Images(Dataset):  # type: ignore[type-arg]
        def __init__(self, split: str) -> None:
            self.images, self.labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
            mean, std = arrays["mean"].tolist(), arrays["std"].tolist()
            self.transform = transforms.Compose([transforms.ToPILImage(), transforms.ToTensor(), transforms.Normalize(mean, std)])

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return self.transform(self.images[index]), int(self.labels[index])

    torch.manual_seed(0)
    model = user_model(config["placement"], fidelity)
    workers = config["loader_workers"]
    train = DataLoader(Images("train"), recipe.batch_size, shuffle=True, num_workers=workers, drop_last=True)
    val = DataLoader(Images("val"), 100, num_workers=workers)
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "muon":
        from timm.optim import Muon

        optimizer = Muon(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, nesterov=True)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=len(train) * fidelity.epochs, pct_start=recipe.warmup)
    spent = dict.fromkeys(("start", "data", "forward", "backward", "update", "validation"), 0.0)
    spent["start"] = time.perf_counter() - entered
    accuracy = 0.0
    for _ in range(fidelity.epochs):
        model.train()
        mark = time.perf_counter()
        for images, labels in train:
            moments = [mark, time.perf_counter()]
            loss = F.cross_entropy(model(images), labels)
            moments.append(time.perf_counter())
            optimizer.zero_grad()
            loss.backward()
            moments.append(time.perf_counter())
            optimizer.step()
            schedule.step()
            loss.item()
            mark = time.perf_counter()
            for name, a, b in zip(("data", "forward", "backward", "update"), moments, [*moments[1:], mark], strict=True):
                spent[name] += b - a
        model.eval()
        begun, right = time.perf_counter(), 0
        with torch.no_grad():
            for images, labels in val:
                right += int((model(images).argmax(1) == labels).sum())
        accuracy = right / len(arrays["val_labels"])
        spent["validation"] += time.perf_counter() - begun
    return {"accuracy": accuracy, **spent}


def user_model(placement: str, fidelity: Any) -> nn.Module:
    """timm's ResNet of the proxy's shape in torch's own memory format, each attention computed by its paper's formula."""
    import naive

    from nasattn.attention.ela import EfficientLocalAttention
    from nasattn.attention.lka import LargeKernelAttention
    from nasattn.attention.sge import SpatialGroupEnhance
    from nasattn.hosts import get_host

    model = get_host(HOST).build_proxy(
        placement, width=fidelity.width, blocks=fidelity.blocks, stem_stride=fidelity.stem_stride, num_classes=10
    )
    formulas: dict[type[nn.Module], Callable[..., torch.Tensor]] = {
        SpatialGroupEnhance: naive.sge,
        EfficientLocalAttention: naive.ela,
        LargeKernelAttention: naive.lka,
    }
    for module in model.modules():
        if type(module) in formulas:
            module.forward = functools.partial(formulas[type(module)], module)  # type: ignore[method-assign]
    return model


def user_trials(placements: tuple[str, ...], config: dict[str, Any], slots: int) -> dict[str, dict[str, float]]:
    """All placements as Ray Tune function trials."""
    from ray import tune

    def trainable(trial: dict[str, Any]) -> dict[str, float]:
        sys.path.insert(0, str(HERE))
        import proxy

        return proxy.user_trial(trial)

    with tempfile.TemporaryDirectory() as folder:
        results = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space={**config, "placement": tune.grid_search(list(placements))},
            tune_config=tune.TuneConfig(max_concurrent_trials=slots),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
        return {r.config["placement"]: dict(r.metrics) for r in results}


class Listed:
    """A search that trains a list of placements and keeps what they come to."""

    def __init__(self, placements: tuple[str, ...], fidelity: Any) -> None:
        from nasattn.proxy import ProxyJob

        jobs = ((p, ProxyJob(HOST, p, fidelity, usual_recipe())) for p in placements)
        self.left = [(p, {"job": job, "task": TASK, "identity": f"benchmark-{uuid4().hex}"}) for p, job in jobs]
        self.found: dict[str, dict[str, float]] = {}

    def next_trial(self) -> Any:
        return self.left.pop(0) if self.left else None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> bool:
        return True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any]) -> None:
        self.found[trial_id] = result

    def lose(self, trial_id: str, reason: str) -> None:
        raise RuntimeError(reason)


def our_trials(placements: tuple[str, ...], fidelity: Any, slots: int) -> dict[str, dict[str, float]]:
    """All placements on our own workers, as a search trains them (without its latency measurements)."""
    from nasattn.search.loop import Workers, train_all
    from nasattn.search.worker import start_proxy

    listed = Listed(placements, fidelity)
    train_all(listed, Workers(slots, {"num_cpus": 1.0}, start_proxy))
    return listed.found


def save_data(file: Path, fidelity: Any) -> None:
    """The task's images as a user would have them on disk."""
    from nasattn.tasks import TaskRequest, load_task

    task = load_task(TASK, TaskRequest(fidelity.resolution, fidelity.samples, fidelity.val_samples))
    pixels = task.train.images[:2000].float() / 255
    arrays = {
        f"{name}_{what}": (tensor.permute(0, 2, 3, 1) if what == "images" else tensor).numpy()
        for name, split in (("train", task.train), ("val", task.val))
        for what, tensor in (("images", split.images), ("labels", split.labels))
    }
    np.savez(file, mean=pixels.mean((0, 2, 3)).numpy(), std=pixels.std((0, 2, 3)).numpy(), **arrays)


def speed(rounds: int, epochs: int) -> dict[str, Any]:
    """Trials per hour of both, in turns on one Ray."""
    import ray

    from nasattn.proxy.defaults import default_settings
    from nasattn.search.cluster import quiet_libraries, ray_cluster

    quiet_libraries()
    slots = len(os.sched_getaffinity(0))
    fidelity = default_settings(TASK, "cpu")[0].changed(epochs=epochs)
    with tempfile.TemporaryDirectory() as folder, ray_cluster(None, slots):
        assert ray.is_initialized()
        data = Path(folder) / "data.npz"
        save_data(data, fidelity)
        config = {"data": str(data), "fidelity": fidelity.to_dict(), "loader_workers": 2}
        runs: dict[str, list[float]] = {"user": [], "ours": []}
        found: dict[str, dict[str, list[float]]] = {"user": {}, "ours": {}}
        for number in range(rounds):
            for who in ("user", "ours") if number % 2 == 0 else ("ours", "user"):
                begun = time.perf_counter()
                results = user_trials(PLACEMENTS, config, slots) if who == "user" else our_trials(PLACEMENTS, fidelity, slots)
                seconds = time.perf_counter() - begun
                runs[who].append(len(PLACEMENTS) * 3600 / seconds)
                for placement, metrics in results.items():
                    found[who].setdefault(placement, []).append(metrics["accuracy"])
                print(f"{who:5s} {len(PLACEMENTS)} trials in {seconds:.1f} s: {runs[who][-1]:.0f} trials/h", flush=True)
    accuracy = {p: {who: round(statistics.mean(found[who][p]), 4) for who in found} for p in PLACEMENTS}
    for placement, both in accuracy.items():
        print(f"  {placement:34s} accuracy user {both['user']:.3f}, ours {both['ours']:.3f}")
    ratio = statistics.median(o / u for o, u in zip(runs["ours"], runs["user"], strict=True))
    print(f"ours / user: {ratio:.2f} (target 2.5)", flush=True)
    return {"trials_per_hour": runs, "ratio": ratio, "target": 2.5, "met": ratio >= 2.5, "accuracy": accuracy, "slots": slots}


def time_spent() -> dict[str, Any]:
    """Where the time of one training of SGE in stage 2 goes, on one thread, alone: the user's and ours."""
    from nasattn.proxy import Fidelity

    fidelity = Fidelity()
    placement = PLACEMENTS[1]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        save_data(data, fidelity)
        user = _fresh("user", {"data": str(data), "fidelity": fidelity.to_dict(), "loader_workers": 2, "placement": placement})
    ours = _fresh("ours", {"placement": placement})
    for who, spent in (("user", user), ("ours", ours)):
        print(f"{who:5s} " + ", ".join(f"{k} {v:.2f} s" for k, v in spent.items() if k != "accuracy"), flush=True)
    return {"user": user, "ours": ours}


def _fresh(who: str, config: dict[str, Any]) -> dict[str, float]:
    """Run one trial in a process of its own; its start, with the imports, is counted."""
    code = f"import sys, json, time; sys.path.insert(0, {str(HERE)!r}); import proxy; print(json.dumps(proxy.{who}_time(json.loads(sys.argv[1]))))"
    begun = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, json.dumps(config)], capture_output=True, text=True, env=environment, check=True)
    spent: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    accounted = sum(v for k, v in spent.items() if k not in ("accuracy", "start"))
    spent["start"] = time.perf_counter() - begun - accounted
    return spent


def user_time(config: dict[str, Any]) -> dict[str, float]:
    return user_trial(config)


def ours_time(config: dict[str, Any]) -> dict[str, float]:
    """One training of ours with its parts timed; starts and data are of the first trial of a worker, the others skip them."""
    from nasattn.proxy import Fidelity, ProxyJob, ProxyTraining
    from nasattn.tasks import TaskRequest, load_task

    torch.set_num_threads(1)
    fidelity = Fidelity()
    begun = time.perf_counter()
    task = load_task(TASK, TaskRequest(fidelity.resolution, fidelity.samples, fidelity.val_samples))
    loaded = time.perf_counter() - begun
    training = ProxyTraining(ProxyJob(HOST, config["placement"], fidelity, usual_recipe()), task)
    spent = dict.fromkeys(("start", "data", "forward", "backward", "update", "validation"), 0.0)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            result = function(*args, **kwargs)
            spent[name] += time.perf_counter() - started
            return result

        return call

    forward, backward = training.model.forward, torch.Tensor.backward
    training.model.forward = lambda x: timed("forward", forward)(x) if training.model.training else forward(x)  # type: ignore[method-assign]
    torch.Tensor.backward = timed("backward", backward)  # type: ignore[method-assign, assignment]
    for optimizer in training.step_once.optimizers:
        optimizer.step = timed("update", optimizer.step)  # type: ignore[method-assign]
    training._accuracy = timed("validation", training._accuracy)  # type: ignore[method-assign]
    while not training.done:
        report = training.step()
    torch.Tensor.backward = backward  # type: ignore[method-assign]
    spent["data"] = report.seconds - sum(spent.values())
    return {"accuracy": report.accuracy, **spent, "task": loaded}


def _train(placement: str, **fidelity: Any) -> tuple[float, float]:
    """Accuracy and seconds of one training here."""
    from nasattn.proxy import Fidelity, ProxyJob, ProxyTraining
    from nasattn.tasks import TaskRequest, load_task

    chosen = Fidelity(**fidelity)
    task = load_task(TASK, TaskRequest(chosen.resolution, chosen.samples, chosen.val_samples))
    training = ProxyTraining(ProxyJob(HOST, placement, chosen, usual_recipe()), task)
    while not training.done:
        report = training.step()
    return report.accuracy, report.seconds


def ceiling() -> dict[str, Any]:
    """cued_digits: SGE in stage 2 breaks the ceiling within 30 s on one thread; the plain host does not, however long it trains."""
    torch.set_num_threads(1)
    broken, plain, long = _train("none,sge_g32,none,none"), _train("none,none,none,none"), _train("none,none,none,none", epochs=20)
    again = _train("none,sge_g32,none,none")
    print(f"SGE in stage 2: {broken[0]:.3f} in {broken[1]:.1f} s; plain {plain[0]:.3f}, ten times longer {long[0]:.3f}", flush=True)
    print(f"the same seed again: {again[0]!r} and {broken[0]!r}")
    return {
        "sge_stage_2": {"accuracy": broken[0], "seconds": broken[1], "met": broken[0] >= 0.8 and broken[1] <= 30},
        "plain": plain[0],
        "plain_10x": long[0],
        "plain_met": max(plain[0], long[0]) <= 0.55,
        "same_seed_same_accuracy": again[0] == broken[0],
    }


def memory() -> dict[str, Any]:
    """Peak resident memory of a worker after trainings of the heaviest placements, one after another."""
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import proxy; proxy.print_peak()"
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
    for placement in PLACEMENTS[:2]:
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


def _step_ms(training: Any, batch: tuple[torch.Tensor, ...], repeats: int = 25) -> float:
    """Median milliseconds of a training step."""
    times = []
    for number in range(repeats):
        begun = time.perf_counter()
        training.step_once(number, *batch)
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times[3:])


def _training(placement: str) -> tuple[Any, tuple[torch.Tensor, ...]]:
    """A training of the default fidelity and one batch of it."""
    from nasattn.proxy import Fidelity, ProxyJob, ProxyTraining
    from nasattn.tasks import TaskRequest, load_task

    recipe = usual_recipe()
    size, samples = recipe.batch_size, 10 * recipe.batch_size
    task = load_task(TASK, TaskRequest(48, samples, 50))
    training = ProxyTraining(ProxyJob(HOST, placement, Fidelity(samples=samples, val_samples=50, epochs=10), recipe), task)
    training.model.train()
    images, labels = next(training.train.batches(torch.arange(size), size))
    return training, (images, labels, torch.zeros(size, 3, dtype=torch.int64))


def threads() -> dict[str, Any]:
    """A step with one thread and with two: two workers of one thread each do more than one worker of two, unless it is twice as fast."""
    found = {}
    for placement in PLACEMENTS[:4:3]:
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
    training, batch = _training(PLACEMENTS[1])
    eager = _step_ms(training, batch)
    training.step_once.model = torch.compile(training.model)
    begun = time.perf_counter()
    training.step_once(0, *batch)
    seconds = time.perf_counter() - begun
    fast = _step_ms(training, batch)
    print(f"compile: {seconds:.0f} s, then a step takes {fast:.1f} ms instead of {eager:.1f}", flush=True)
    return {"compile_s": seconds, "eager_ms": eager, "compiled_ms": fast}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"torch": str(torch.__version__), "cores": len(os.sched_getaffinity(0))}
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        "speed": lambda: speed(arguments.rounds, arguments.epochs),
        "time": time_spent,
        "ceiling": ceiling,
        "memory": memory,
        "seeds": seeds_together,
        "threads": threads,
        "compile": compiled,
    }
    for part in arguments.parts:
        print(f"== {part}", flush=True)
        figures[part] = runs[part]()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
