"""cued_digits: which of two digits is meant? Only a network that relates distant places can tell.

Two handwritten digits (scikit-learn's `load_digits`, real scans), one in the red and one in the green channel, and a
cue in the blue channel, each in another corner of the image. In most images the cue is a bar and names a colour: a
horizontal bar asks for the red digit, a vertical one for the green. In the others it names a place, and the two digits
stand in its row and in its column: a frame asks for the digit in its row, a block for that in its column.

The two digits differ, so whoever cannot use the cue is right in half of the cases at best. The corners lie so far apart
(32 of 48 pixels between them) that no cell of a plain proxy sees a whole digit and the cue: with one block a stage and a
stem of stride 2 its receptive field is 35 pixels wide. The two kinds of cues ask for different things, and so tell
attentions apart that all pass the ceiling: a colour is known everywhere once it is known somewhere (a pooled descriptor
such as SGE's does), a place must be related to another place (strips as ELA's or large kernels do).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from nasattn.errors import TaskError
from nasattn.tasks.scans import Scans, handwritten_digits
from nasattn.tasks.task import Split, Task, TaskRequest, register_task, split_points

TRAIN_SAMPLES, VAL_SAMPLES = 10_000, 2_000
PLACE_SHARE = 0.2  # of the images whose cue names a place
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


@cache
def _scans() -> tuple[Scans, Scans, Scans]:
    """The 1,797 scans, cut into those for training, for validation and held out."""
    images, digits = handwritten_digits()
    order = np.random.default_rng(0).permutation(len(digits))
    train, val, test = np.split(order, split_points(len(order), VAL_SHARE))
    return Scans(images[train], digits[train]), Scans(images[val], digits[val]), Scans(images[test], digits[test])


def _generate(scans: Scans, samples: int, resolution: int, key: tuple[int, int]) -> Split:
    side = max(8, resolution // 6)
    glyphs = F.interpolate(torch.from_numpy(scans.images)[:, None], size=(side, side), mode="bilinear", align_corners=False)[:, 0].numpy()
    drawn = _draw(samples, scans.digits, key)
    patches = np.stack([glyphs[drawn.red], glyphs[drawn.green], _cues(side)[drawn.cue]], 1)
    corners = np.stack([drawn.corner // 2, drawn.corner % 2], 2) * (resolution - side)
    pixels = np.arange(side)
    rows = (corners[:, :, 0, None] + pixels)[:, :, :, None]
    columns = (corners[:, :, 1, None] + pixels)[:, :, None, :]
    images = np.zeros((samples, 3, resolution, resolution), np.uint8)
    images[np.arange(samples)[:, None, None, None], np.arange(3)[:, None, None], rows, columns] = np.round(patches * 255)
    labels = scans.digits[np.where(drawn.names_red, drawn.red, drawn.green)]
    return Split(torch.from_numpy(images), torch.from_numpy(labels))


def _cues(side: int) -> npt.NDArray[np.float32]:
    """The cues: a horizontal bar, a vertical bar, a frame and a block, ``(4, side, side)``."""
    cues = np.zeros((4, side, side), np.float32)
    thickness = max(2, side // 4)
    start = (side - thickness) // 2
    cues[0, start : start + thickness] = 1
    cues[1, :, start : start + thickness] = 1
    cues[2] = 1
    cues[2, thickness:-thickness, thickness:-thickness] = 0
    cues[3, thickness:-thickness, thickness:-thickness] = 1
    return cues


class _Drawn(NamedTuple):
    """What N images show: indices of scans, the cue, for red, green and cue the corner, and whether the red digit is meant."""

    red: npt.NDArray[np.int64]
    green: npt.NDArray[np.int64]
    cue: npt.NDArray[np.int64]
    corner: npt.NDArray[np.int64]
    names_red: npt.NDArray[np.bool_]


def _draw(samples: int, digits: npt.NDArray[np.int64], key: tuple[int, int]) -> _Drawn:
    """Draw the contents of images 0 to *samples* - 1, chunk by chunk, so that image i does not depend on *samples*."""
    chunks = [np.random.default_rng((*key, c)).random((CHUNK, 10)) for c in range(-(-samples // CHUNK))]
    u = np.concatenate([np.zeros((0, 10)), *chunks])[:samples]
    red = (u[:, 0] * len(digits)).astype(np.int64)
    other = (digits[red] + 1 + (u[:, 1] * 9).astype(np.int64)) % 10
    by_digit = np.argsort(digits, kind="stable")
    first = np.searchsorted(digits[by_digit], np.arange(11))
    green = by_digit[first[other] + (u[:, 2] * (first[other + 1] - first[other])).astype(np.int64)]
    cue = (u[:, 3] * 2).astype(np.int64)
    corner = np.argsort(u[:, 4:8], axis=1)[:, :3].astype(np.int64)
    place = u[:, 8] < PLACE_SHARE
    red_in_row = u[:, 9] < 0.5
    in_row, in_column = corner[:, 2] ^ 1, corner[:, 2] ^ 2  # corners are numbered row by row
    corner[place, 0] = np.where(red_in_row, in_row, in_column)[place]
    corner[place, 1] = np.where(red_in_row, in_column, in_row)[place]
    return _Drawn(
        red=red,
        green=green,
        cue=cue + 2 * place,
        corner=corner,
        names_red=np.where(place, (cue == 0) == red_in_row, cue == 0),
    )
