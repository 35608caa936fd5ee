"""One step of a proxy's training: prepare the batch, forward, backward, update; as a CUDA graph where there is a GPU.

A small network's step is hundreds of short kernels, which a GPU finishes faster than Python starts them: replayed as a
graph they are started at once. Nothing in a step waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasattn.proxy.augment import augment
from nasattn.proxy.fidelity import Recipe
from nasattn.proxy.muon import Muon, is_matrix
from nasattn.proxy.network import parameter_groups
from nasattn.proxy.precision import autocast

VERSION = 2  # of how steps are made: who makes them otherwise comes to other weights, and goes on from none of these
WARM_UP = 3  # steps before a graph is captured, in which libraries choose their kernels and the optimiser makes its state
DECAY = 0.4  # share of the steps, at the end, in which warmup-stable-decay falls; with .3 accuracies are not told apart from these
Scale = tuple[Tensor, Tensor]


class TrainingStep:
    """The steps of one training.

    When a batch does not fit into memory it is taken in parts whose gradients add up: the recipe's batch stays what it is
    for the optimiser, while BatchNorm sees the parts. The notes say so.

    Args:
        model: On its device.
        recipe: How it is trained.
        steps: Of the whole training.
        scale: Of the pixels, on the device.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, steps: int, scale: Scale) -> None:
        self.model, self.recipe, self.scale = model, recipe, scale
        self.device = scale[0].device
        groups = parameter_groups(model, recipe)
        self.rates = [learning_rates(group["lr"], recipe.warmup, steps, recipe.schedule).to(self.device) for group in groups]
        on_cuda = self.device.type == "cuda"
        self.optimizers = _optimizers(groups, recipe, self.device)
        self.parts = 1
        self.graph: _Graph | None = None
        self.graph_failed = not on_cuda
        self.warm = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What the device made necessary."""
        parts = (f"batch of {self.recipe.batch_size} in {self.parts} parts, for want of memory",) if self.parts > 1 else ()
        return parts + (("no CUDA graph could be captured",) if self.graph_failed and self.device.type == "cuda" else ())

    def __call__(self, number: int, images: Tensor, labels: Tensor, draws: Tensor) -> Tensor:
        """Do step *number* on uint8 images ``(B, C, H, W)``, labels ``(B,)`` and draws ``(B, 3)``. Returns the mean loss, on the device."""
        for optimizer in self.optimizers:
            for group, rates in zip(optimizer.param_groups, self.rates, strict=True):
                group["lr"].copy_(rates[number])
        while True:
            try:
                return self._step(images, labels, draws)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.parts >= len(labels):
                    raise
                self.parts = min(2 * self.parts, len(labels))
                self.forget_graph()
                self.model.zero_grad()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def state(self) -> dict[str, Any]:
        """The optimisers' states and the parts of the batch."""
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers], "parts": self.parts}

    def resume(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` gave."""
        for optimizer, its in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(its)
        self.parts = state["parts"]

    def forget_graph(self) -> None:
        """Capture anew: the network's mode or the batch has changed."""
        self.graph, self.warm = None, 0

    def _step(self, images: Tensor, labels: Tensor, draws: Tensor) -> Tensor:
        if self.graph is not None and self.graph.fits(labels):
            return self.graph(images, labels, draws)
        if self.graph_failed or self.parts > 1:
            return self._compute(images, labels, draws)
        self.warm += 1
        if self.warm <= WARM_UP:
            return _on_side_stream(self._compute, images, labels, draws)
        try:
            self.graph = _Graph(self, images, labels, draws)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self.graph_failed = True
            return self._compute(images, labels, draws)
        return self.graph(images, labels, draws)

    def _compute(self, images: Tensor, labels: Tensor, draws: Tensor) -> Tensor:
        """Forward, backward and update; returns the mean loss of the batch."""
        self.model.zero_grad()
        size = -(-len(labels) // self.parts)
        total = torch.zeros((), device=self.device)
        for part, label, draw in zip(images.split(size), labels.split(size), draws.split(size), strict=True):
            with autocast(self.device, self.recipe.precision):
                logits = self.model(prepared(augment(part, draw, self.recipe), self.scale))
                loss = F.cross_entropy(logits, label, label_smoothing=self.recipe.label_smoothing) * (len(label) / len(labels))
            loss.backward()
            total += loss.detach()
        for optimizer in self.optimizers:
            optimizer.step()
        return total


def _optimizers(groups: list[dict[str, Any]], recipe: Recipe, device: torch.device) -> list[torch.optim.Optimizer]:
    """Each with all groups, of which it takes the parameters that are its own."""

    def own(takes: Callable[[Tensor], bool]) -> list[dict[str, Any]]:
        return [{**g, "params": [p for p in g["params"] if takes(p)], "lr": torch.zeros((), device=device)} for g in groups]

    settings: dict[str, Any] = {"weight_decay": recipe.weight_decay, "fused": True, "capturable": device.type == "cuda"}
    if recipe.optimizer == "adamw":
        return [torch.optim.AdamW(own(lambda p: True), **settings)]
    rest = torch.optim.AdamW(own(lambda p: not is_matrix(p)), betas=(0.9, 0.95), eps=1e-7, **settings)  # as timm's Muon has it
    return [Muon(own(is_matrix), recipe.weight_decay), rest]


class _Graph:
    """A whole step, captured once and replayed on new batches of the same shape."""

    def __init__(self, step: TrainingStep, images: Tensor, labels: Tensor, draws: Tensor) -> None:
        self.inputs = [t.clone() for t in (images, labels, draws)]
        step.model.zero_grad()  # backward then allocates the gradients in the graph's own memory
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = step._compute(*self.inputs)

    def fits(self, labels: Tensor) -> bool:
        return len(labels) == len(self.inputs[1])

    def __call__(self, *batch: Tensor) -> Tensor:
        for held, new in zip(self.inputs, batch, strict=True):
            held.copy_(new, non_blocking=True)
        self.graph.replay()
        return self.loss


def _on_side_stream(compute: Any, *batch: Tensor) -> Tensor:
    """Run on another stream, as the steps before a capture have to be."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        loss: Tensor = compute(*batch)
    torch.cuda.current_stream().wait_stream(stream)
    return loss


def learning_rates(peak: float, warmup: float, steps: int, schedule: str = "one-cycle") -> Tensor:
    """The learning rate of each step, ``(steps,)``; *warmup* is the share of them in which it rises to its *peak*.

    One-cycle (arXiv 1708.07120) is as torch has it. Warmup-stable-decay (2404.06395) rises and falls in straight lines.
    """
    if schedule == "warmup-stable-decay":
        number = torch.arange(steps)
        rising = (number + 1) / max(1, int(warmup * steps))
        falling = (steps - number) / max(1, int(DECAY * steps))
        return peak * torch.minimum(rising, falling).clamp(max=1.0)
    warmup = warmup * 1.001 if warmup * steps == 1 else warmup  # OneCycleLR divides by zero at exactly one step
    holder = torch.optim.SGD([torch.zeros(())], lr=peak)
    cycle = torch.optim.lr_scheduler.OneCycleLR(holder, peak or 1.0, total_steps=steps, pct_start=warmup, cycle_momentum=False)
    rates = []
    for _ in range(steps):
        rates.append(holder.param_groups[0]["lr"])
        holder.step()
        if len(rates) < steps:
            cycle.step()
    return torch.tensor(rates) if peak else torch.zeros(steps)


def prepared(images: Tensor, scale: Scale) -> Tensor:
    """uint8 ``(B, C, H, W)`` as the network takes it: float, of mean 0 and standard deviation 1, channels_last."""
    return images.to(torch.float32, memory_format=torch.channels_last).mul_(scale[0]).add_(scale[1])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU, one of the CPU's allocators or oneDNN, which says no more than that it failed, had no memory left."""
    said = ("can't allocate memory", "Cannot allocate memory", "could not create a primitive")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(phrase in str(error) for phrase in said)
