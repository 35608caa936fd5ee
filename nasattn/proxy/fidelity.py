"""Fidelity: how far a proxy is reduced. Recipe: how it is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from nasattn.errors import UsageError, did_you_mean

LARGEST_SIDE = 10_000  # pixels
LARGEST_COUNT = 1_000_000_000
OPTIMIZERS = ("adamw", "muon")
PRECISIONS = ("float32", "bfloat16")
SCHEDULES = ("one-cycle", "warmup-stable-decay")
UNRECORDED = (
    ("optimizer", "adamw"),
    ("precision", "float32"),
    ("schedule", "one-cycle"),
    ("dihedral", False),
    ("plain_epochs", 0),
)  # by recipes that knew nothing else


class _Settings:
    """What both have in common: made from a mapping with checked keys, and back."""

    @classmethod
    def from_dict(cls, data: dict[str, Any], where: str = "") -> Self:
        """Build from a mapping; keys left out keep their defaults. Raises UsageError for an unknown key or a bad value."""
        known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
        for key in data:
            if key not in known:
                raise UsageError(f"{where}unknown key {key!r}; {did_you_mean(str(key), known)}allowed: {', '.join(known)}")
        return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    def changed(self, **values: Any) -> Self:
        """A copy with those values that are not None."""
        return replace(self, **{k: v for k, v in values.items() if v is not None})  # type: ignore[type-var]


@dataclass(frozen=True)
class Fidelity(_Settings):
    """The reduced host and the share of the task it is trained on.

    Attributes:
        width: Factor on the channels, 0 < width <= 1.
        blocks: Blocks in each stage.
        stem_stride: 1 or 2: the stem is one 3x3 convolution of that stride; 4: of stride 2, then the max pool.
        resolution: Side of the images in pixels.
        samples: Training images; None takes all.
        val_samples: Validation images; None takes all.
        epochs: Passes over the training images.
        rungs: Levels at which trials of a study are compared: the last is the end of the training, each one before it
            comes after half as many steps.
    """

    width: float = 0.125
    blocks: int = 1
    stem_stride: int = 2
    resolution: int = 48
    samples: int | None = 8_000
    val_samples: int | None = 2_000
    epochs: int = 2
    rungs: int = 3

    def __post_init__(self) -> None:
        _require_number("width", self.width, lambda v: 0 < v <= 1, "0 < width <= 1")
        _require(type(self.stem_stride) is int and self.stem_stride in (1, 2, 4), "stem_stride", self.stem_stride, "1, 2 or 4")
        for name in ("blocks", "epochs", "rungs"):
            _require_count(name, getattr(self, name))
        _require(isinstance(self.resolution, int) and self.resolution >= 8, "resolution", self.resolution, "an integer >= 8")
        _require(self.resolution <= LARGEST_SIDE, "resolution", self.resolution, f"at most {LARGEST_SIDE}")
        for name in ("samples", "val_samples"):
            if getattr(self, name) is not None:
                _require_count(name, getattr(self, name))

    def rung_steps(self, steps: int) -> tuple[int, ...]:
        """After how many of all *steps* each rung lies, in order; short trainings have fewer rungs."""
        return tuple(sorted({steps >> below for below in range(self.rungs)} - {0}))

    def marks(self, steps: int) -> tuple[int, ...]:
        """After how many of all *steps* the proxy is validated: at every rung and at the end of every epoch."""
        return tuple(sorted({*self.rung_steps(steps), *(steps * e // self.epochs for e in range(1, self.epochs + 1))} - {0}))


@dataclass(frozen=True)
class Recipe(_Settings):
    """How a proxy is trained: AdamW or Muon (arXiv 1711.05101, 2502.16982), with a learning rate in one cycle (1708.07120) or level for most of the time (2404.06395).

    Muon (:mod:`nasattn.proxy.muon`) makes the update of each matrix of weights orthogonal and leaves all other parameters to AdamW;
    its updates are as large as AdamW's, so that both take the same learning rates. A step costs more and learns more.

    With *pretrained* the proxy is the host itself, full size, with those weights, and attentions that start as identity; it
    is fine-tuned, and what counts is the difference to the plain host tuned in the same way.

    Attributes:
        batch_size: Images a step.
        lr: The peak of the learning rate.
        weight_decay: The optimiser's, decoupled from the gradient.
        schedule: Of the learning rate after it has risen: ``one-cycle`` falls along a cosine, ``warmup-stable-decay`` stays at the peak and
            falls to zero in the last two fifths of the steps.
        warmup: Share of the steps in which the learning rate rises.
        label_smoothing: Of the cross entropy.
        flip: Mirror training images at random (for photographs; not for digits).
        dihedral: Turn and mirror training images at random, into any of the square's eight symmetries (where there is no up or down).
        crop: Shift training images at random by up to so many pixels each way, edges reflected.
        plain_epochs: Passes over the training images in which a plain proxy is trained first, by the same recipe, from whose weights all
            placements start (:mod:`nasattn.proxy.plain_start`). 0: they start at random.
        pretrained: Where the weights come from: a checkpoint file, or a tag of timm's plain model such as ``a1_in1k`` (which
            timm downloads). Empty: the proxy is a reduced host that starts at random.
        backbone_lr: With *pretrained*, the peak of the learning rate of its layers; *lr* is that of the attentions and the head.
        frozen_bn: With *pretrained*, the share of the steps in which its BatchNorms keep their statistics.
        optimizer: ``adamw`` or ``muon``.
        precision: In which the network computes: ``float32``, or ``bfloat16``, from which parts are kept (:mod:`nasattn.proxy.precision`).
            Weights, gradients and the optimiser's state are float32 in both.
    """

    batch_size: int = 32
    lr: float = 0.005
    weight_decay: float = 0.01
    schedule: str = "one-cycle"
    warmup: float = 0.1
    label_smoothing: float = 0.0
    flip: bool = False
    dihedral: bool = False
    crop: int = 0
    plain_epochs: int = 0
    pretrained: str = ""
    backbone_lr: float = 0.0005
    frozen_bn: float = 0.5
    optimizer: str = "adamw"
    precision: str = "float32"

    def __post_init__(self) -> None:
        _require_count("batch_size", self.batch_size)
        _require_number("lr", self.lr, lambda v: v > 0, "> 0")
        _require_number("weight_decay", self.weight_decay, lambda v: v >= 0, ">= 0")
        _require(self.schedule in SCHEDULES, "schedule", self.schedule, " or ".join(SCHEDULES))
        _require_number("warmup", self.warmup, lambda v: 0 < v < 1, "0 < warmup < 1")
        _require_number("label_smoothing", self.label_smoothing, lambda v: 0 <= v < 1, "0 <= label_smoothing < 1")
        for name in ("flip", "dihedral"):
            _require(isinstance(getattr(self, name), bool), name, getattr(self, name), "true or false")
        _require(type(self.crop) is int and self.crop >= 0, "crop", self.crop, "a number of pixels, 0 or more")
        _require(
            type(self.plain_epochs) is int and 0 <= self.plain_epochs <= LARGEST_COUNT,
            "plain_epochs",
            self.plain_epochs,
            "a number of epochs, 0 or more",
        )
        _require(isinstance(self.pretrained, str), "pretrained", self.pretrained, "a checkpoint file or a tag of timm, such as a1_in1k")
        _require(not (self.pretrained and self.plain_epochs), "plain_epochs", self.plain_epochs, "0 with pretrained weights")
        _require_number("backbone_lr", self.backbone_lr, lambda v: v >= 0, ">= 0")
        _require_number("frozen_bn", self.frozen_bn, lambda v: 0 <= v <= 1, "0 <= frozen_bn <= 1")
        _require(self.optimizer in OPTIMIZERS, "optimizer", self.optimizer, " or ".join(OPTIMIZERS))
        _require(self.precision in PRECISIONS, "precision", self.precision, " or ".join(PRECISIONS))

    def identity(self) -> dict[str, Any]:
        """What makes two recipes the same: without what releases that knew nothing else did not record."""
        return {k: v for k, v in self.to_dict().items() if (k, v) not in UNRECORDED}


def _require_count(name: str, value: Any) -> None:
    _require(isinstance(value, int) and not isinstance(value, bool) and value >= 1, name, value, "an integer >= 1")
    _require(value <= LARGEST_COUNT, name, value, f"at most {LARGEST_COUNT:,}")


def _require_number(name: str, value: Any, holds: Callable[[float], bool], allowed: str) -> None:
    if isinstance(value, str):
        allowed += " and a number (YAML reads 1e-3 as text: write 0.001 or 1.0e-3)"
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    _require(number and holds(value), name, value, allowed)


def _require(holds: bool, name: str, value: Any, allowed: str) -> None:
    if not holds:
        raise UsageError(f"{name} must be {allowed}, got {value!r}")
