"""A proxy's training as a user would write it, for `proxy.py`: a fresh Ray function trial, a DataLoader, transforms image by image."""

from __future__ import annotations

import functools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from nasattn.proxy import Recipe

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
HOST, TASK = "nasattn_resnet50", "cued_digits"


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
    model = user_model(config["placement"], fidelity, int(arrays["train_labels"].max()) + 1)
    workers = config["loader_workers"]
    train = DataLoader(Images("train"), recipe.batch_size, shuffle=True, num_workers=workers, drop_last=True)
    val = DataLoader(Images("val"), 100, num_workers=workers)
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "muon":
        from timm.optim import Muon

        optimizer = Muon(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, nesterov=True)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    schedule = user_schedule(optimizer, recipe, len(train) * fidelity.epochs)
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


def user_schedule(optimizer: torch.optim.Optimizer, recipe: Any, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The recipe's schedule, as torch offers it."""
    if recipe.schedule == "one-cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=steps, pct_start=recipe.warmup)
    from nasattn.proxy.steps import DECAY

    rising, falling = max(1, int(recipe.warmup * steps)), max(1, int(DECAY * steps))
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min(1.0, (i + 1) / rising, (steps - i) / falling))


def user_model(placement: str, fidelity: Any, classes: int) -> nn.Module:
    """timm's ResNet of the proxy's shape in torch's own memory format, each attention computed by its paper's formula."""
    import naive

    from nasattn.attention.ela import EfficientLocalAttention
    from nasattn.attention.lka import LargeKernelAttention
    from nasattn.attention.sge import SpatialGroupEnhance
    from nasattn.hosts import get_host

    model = get_host(HOST).build_proxy(
        placement, width=fidelity.width, blocks=fidelity.blocks, stem_stride=fidelity.stem_stride, num_classes=classes
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
        import user_proxy

        return user_proxy.user_trial(trial)

    with tempfile.TemporaryDirectory() as folder:
        results = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space={**config, "placement": tune.grid_search(list(placements))},
            tune_config=tune.TuneConfig(max_concurrent_trials=slots),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
        return {r.config["placement"]: dict(r.metrics) for r in results}


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
