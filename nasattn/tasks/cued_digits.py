"""cued_digits: which of two digits is meant? Only a network that relates distant places can tell.

Two handwritten digits (scikit-learn's `load_digits`, real scans), one in the red and one in the green channel, and a
bar in the blue channel, each in another corner of the image. A horizontal bar asks for the red digit, a vertical one
for the green. The two digits differ, so whoever cannot use the cue is right in half of the cases at best. The corners
lie so far apart (32 of 48 pixels between them) that no cell of a plain proxy sees a whole digit and the bar: with one
block a stage and a stem of stride 2 its receptive field is 35 pixels wide.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from nasattn.errors import TaskError
from nasattn.tasks.task import Split, Task, TaskRequest, register_task, split_points

TRAIN_SAMPLES, VAL_SAMPLES = 10_000, 2_000
VAL_SHARE = 0.25  # of the scans, not trained on: one half is for validation, the other is held out
CHUNK = 1000  # images drawn at once
SMALLEST = 24  # pixels; below, the corners are not apart


@register_task("cued_digits")
def cued_digits(request: TaskRequest) -> Task:
    """Generate the task: 10 classes, images ``(3, R, R)`` for any R >= 24.

    A pure function of seed and index: image i is the same whatever the number of samples. Training, validation and
    held-out images never share a scan; which scan is for what is the same for every seed.

    Raises:
        TaskError: The resolution is below 24.
    """
    if request.resolution < SMALLEST:
        raise TaskError(f"cued_digits needs a resolution of at least {SMALLEST} pixels, got {request.resolution}")
    train_scans, *others = _scans()
    which = int(request.held_out)
    train = request.samples if request.samples is not None else TRAIN_SAMPLES
    val = request.val_samples if request.val_samples is not None else VAL_SAMPLES
    return Task(
        name="cued_digits",
        classes=tuple(map(str, range(10))),
        train=_generate(train_scans, train, request.resolution, (request.seed, 0)),
        val=_generate(others[which], val, request.resolution, (request.seed, 1 + which)),
    )


class _Scans(NamedTuple):
    """Scans, ``(N, 8, 8)`` with values in 0..1, and their digits, ``(N,)``."""

    images: npt.NDArray[np.float32]
    digits: npt.NDArray[np.int64]


@cache
def _scans() -> tuple[_Scans, _Scans, _Scans]:
    """The 1,797 scans, cut into those for training, for validation and held out."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    images, digits = scans.images.astype(np.float32) / 16, scans.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(digits))
    train, val, test = np.split(order, split_points(len(order), VAL_SHARE))
    return _Scans(images[train], digits[train]), _Scans(images[val], digits[val]), _Scans(images[test], digits[test])


def _generate(scans: _Scans, samples: int, resolution: int, key: tuple[int, int]) -> Split:
    side = max(8, resolution // 6)
    glyphs = F.interpolate(torch.from_numpy(scans.images)[:, None], size=(side, side), mode="bilinear", align_corners=False)[:, 0].numpy()
    drawn = _draw(samples, scans.digits, key)
    patches = np.stack([glyphs[drawn.red], glyphs[drawn.green], _bars(side)[drawn.cue]], 1)
    corners = np.stack([drawn.corner // 2, drawn.corner % 2], 2) * (resolution - side)
    pixels = np.arange(side)
    rows = (corners[:, :, 0, None] + pixels)[:, :, :, None]
    columns = (corners[:, :, 1, None] + pixels)[:, :, None, :]
    images = np.zeros((samples, 3, resolution, resolution), np.uint8)
    images[np.arange(samples)[:, None, None, None], np.arange(3)[:, None, None], rows, columns] = np.round(patches * 255)
    labels = scans.digits[np.where(drawn.cue == 0, drawn.red, drawn.green)]
    return Split(torch.from_numpy(images), torch.from_numpy(labels))


def _bars(side: int) -> npt.NDArray[np.float32]:
    """The two cues, a horizontal and a vertical bar: ``(2, side, side)``."""
    bars = np.zeros((2, side, side), np.float32)
    thickness = max(2, side // 4)
    start = (side - thickness) // 2
    bars[0, start : start + thickness] = 1
    bars[1, :, start : start + thickness] = 1
    return bars


class _Drawn(NamedTuple):
    """What N images show: indices of scans, the cue, and for red, green and cue the corner."""

    red: npt.NDArray[np.int64]
    green: npt.NDArray[np.int64]
    cue: npt.NDArray[np.int64]
    corner: npt.NDArray[np.int64]


def _draw(samples: int, digits: npt.NDArray[np.int64], key: tuple[int, int]) -> _Drawn:
    """Draw the contents of images 0 to *samples* - 1, chunk by chunk, so that image i does not depend on *samples*."""
    chunks = [np.random.default_rng((*key, c)).random((CHUNK, 8)) for c in range(-(-samples // CHUNK))]
    u = np.concatenate([np.zeros((0, 8)), *chunks])[:samples]
    red = (u[:, 0] * len(digits)).astype(np.int64)
    other = (digits[red] + 1 + (u[:, 1] * 9).astype(np.int64)) % 10
    by_digit = np.argsort(digits, kind="stable")
    first = np.searchsorted(digits[by_digit], np.arange(11))
    green = by_digit[first[other] + (u[:, 2] * (first[other + 1] - first[other])).astype(np.int64)]
    return _Drawn(
        red=red,
        green=green,
        cue=(u[:, 3] * 2).astype(np.int64),
        corner=np.argsort(u[:, 4:8], axis=1)[:, :3].astype(np.int64),
    )
