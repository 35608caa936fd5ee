"""pathfinder: do the two markers lie on the same dashed path? Only who follows the path from one to the other can tell.

After Linsley et al. 2018, "Learning long-range spatial dependencies with horizontal gated recurrent units"
(arXiv 1805.08315). An image shows two main paths of equally many dashes and some distractors, all smooth, and a disc on each
of two ends: of one main path ("connected") or of both ("apart"). The number of dashes differs from image to image, up to the
one in the task's name, so that an accuracy says how far a network can follow.

Nothing short of following the path must give the class away. So every layout is one in which a connected pair of ends
and an apart pair look alike from the ends: they lie equally far from each other, from the borders and from the centre, and
the paths leave them at similar angles. The class is then drawn for the finished layout and only moves the discs. Different
paths keep twice the distance of two dashes of one path, so that the nearest dash ahead is always the path's own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from nasattn.errors import TaskError
from nasattn.tasks.path_layouts import DASH_POINTS, POINTS, Floats, Ints, Layouts, PathShape, draw_layouts
from nasattn.tasks.task import Split, Task, TaskRequest, register_task

TRAIN_SAMPLES, VAL_SAMPLES = 16_000, 2_000
DASHES, FEWEST, MOST = 7, 3, 16
CHUNK = 250  # images drawn at once
VERSION = 2  # of the images: in the first one all numbers of dashes were equally frequent
# lengths in units of the period, the length of a dash and the gap behind it
WIDTH = 0.2  # of the line
MARKER = 0.32  # the disc's radius


@register_task("pathfinder", takes_parameter=True)
def pathfinder(request: TaskRequest, parameter: str | None = None) -> Task:
    """Generate the task: classes "apart" and "connected", grey images ``(3, R, R)`` with three equal channels.

    A pure function of seed, split and index: image i is the same whatever the number of samples, and the same picture at
    every resolution.

    Args:
        request: What is asked for.
        parameter: The most dashes of a main path, as ``pathfinder/9``. Half as many images have 3 as have 2, a quarter 4, and an eighth
            5, 6 and so on each: short paths are learned first. The longest paths stay as long in the image: more dashes make finer ones,
            nearer neighbours and more distractors, and need a higher resolution.

    Raises:
        TaskError: The number of dashes is not allowed, or the resolution is too low to show the gaps between them.
    """
    shape = PathShape(_read(parameter))
    if request.resolution < shape.smallest_resolution:
        raise TaskError(
            f"pathfinder with {shape.dashes} dashes needs a resolution of at least {shape.smallest_resolution} pixels, got {request.resolution};"
            " raise the resolution or lower the number of dashes"
        )
    train = request.samples if request.samples is not None else TRAIN_SAMPLES
    val = request.val_samples if request.val_samples is not None else VAL_SAMPLES
    return Task(
        name="pathfinder" if parameter is None else f"pathfinder/{parameter}",
        classes=("apart", "connected"),
        train=_generate(shape, train, request.resolution, (request.seed, 0)),
        val=_generate(shape, val, request.resolution, (request.seed, 2 if request.held_out else 1)),
        version=VERSION,
    )


def smallest_resolution(parameter: str | None = None) -> int:
    """At how many pixels a side the gaps between dashes begin to show. Raises TaskError for a number of dashes that is not allowed."""
    return PathShape(_read(parameter)).smallest_resolution


def _read(parameter: str | None) -> int:
    if parameter is None:
        return DASHES
    if parameter not in map(str, range(FEWEST, MOST + 1)):
        raise TaskError(f"pathfinder/DASHES needs an integer from {FEWEST} to {MOST}, got {parameter!r}; write pathfinder/{DASHES}")
    return int(parameter)


def _generate(shape: PathShape, samples: int, resolution: int, key: tuple[int, int]) -> Split:
    images = np.zeros((samples, resolution, resolution), np.uint8)
    labels = np.zeros(samples, np.int64)
    for start in range(0, samples, CHUNK):
        layouts = draw_layouts(shape, CHUNK, np.random.default_rng((*key, shape.dashes, start // CHUNK)))
        wanted = min(CHUNK, samples - start)
        images[start : start + wanted] = render(shape, layouts, resolution)[:wanted]
        labels[start : start + wanted] = layouts.labels[:wanted]
    return Split(torch.from_numpy(images)[:, None].repeat(1, 3, 1, 1), torch.from_numpy(labels))


def render(shape: PathShape, layouts: Layouts, resolution: int) -> npt.NDArray[np.uint8]:
    """White lines and discs on black, with smooth edges: ``(N, R, R)``."""
    count = len(layouts.labels)
    images = np.zeros((count, resolution, resolution), np.float32)
    rows = np.arange(count)
    image, which = np.nonzero(layouts.placed)
    for drawn, paths in ((rows, layouts.main[:, 0]), (rows, layouts.main[:, 1]), (image, layouts.distractors[image, which])):
        dashes = _dashes(paths)
        centres = dashes.swapaxes(1, 2).reshape(-1, 2) * resolution
        _stamp(images, np.repeat(drawn, dashes.shape[2]), centres, WIDTH / 2 * shape.period * resolution)
    _stamp(images, np.repeat(rows, 2), layouts.markers.reshape(-1, 2) * resolution, MARKER * shape.period * resolution)
    return np.round(images * 255).astype(np.uint8)


def _dashes(paths: Floats) -> Floats:
    """Of the paths ``(M, 2, P)`` the points that are in dashes, and those half-way between them: ``(M, 2, Q)``."""
    inside = np.arange(paths.shape[2]) % POINTS < DASH_POINTS
    halfway = (paths[:, :, :-1] + paths[:, :, 1:])[:, :, inside[:-1] & inside[1:]] / 2
    return np.concatenate([paths[:, :, inside], halfway], 2)


def _stamp(images: Floats, rows: Ints, centres: Floats, radius: float) -> None:
    """Draw discs of *radius* pixels at *centres*, ``(M, 2)``, into the images *rows*, ``(M,)``, keeping the brighter value."""
    reach = int(np.ceil(radius + 0.5))
    pixels = np.arange(-reach, reach + 1)
    corner = np.floor(centres).astype(np.int64)
    x, y = (corner[:, axis, None] + pixels for axis in (0, 1))
    dx, dy = (where + np.float32(0.5) - centres[:, axis, None] for axis, where in ((0, x), (1, y)))
    light = np.clip(np.float32(radius + 0.5) - np.sqrt((dx * dx)[:, None, :] + (dy * dy)[:, :, None]), 0, 1)
    side = images.shape[1]
    where = (rows[:, None, None] * side + np.clip(y, 0, side - 1)[:, :, None]) * side + np.clip(x, 0, side - 1)[:, None, :]
    lit = light > 0
    np.maximum.at(images.reshape(-1), where[lit], light[lit])
