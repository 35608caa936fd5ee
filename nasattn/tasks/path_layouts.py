"""Where pathfinder's paths and markers lie: smooth paths that keep apart, and pairs of ends from which the class cannot be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SHORTEST = 2  # dashes; short paths are learned first, with long ones alone a small network stays at chance for longer
RAREST = 1 / 8  # of as many as the shortest: paths with a dash more are half as many, down to this
CANDIDATES = 512  # pairs of main paths drawn at once
PLACES = 16  # tried for each pair
NEAR = 0.8  # how far from the first path the second is tried, in lengths of the path: farther off, its ends cannot look alike
TRIES = 8  # places tried for each distractor

# lengths in units of the image's side
LENGTH = 0.8  # of the longest main paths
MARGIN = 0.08  # between paths and the image's border
# lengths in units of the period, the length of a dash and the gap behind it
POINTS = 10  # a path is a chain of points, this many a period
DASH_POINTS = 7  # so many of them are in a dash, which is thus 0.6 long; the gap is 0.4
CLEARANCE = 0.8  # the least distance between points of different paths
CELL = 1 / 8  # of the grid that knows which places are too near to a path
SKIPPED = 0.02  # how much nearer than the points that are looked at, every second one, those between them may be
SMALLEST_PERIOD = 6.5  # pixels; below, a gap cannot be seen
# the shape of a path: how far it turns over its length, and how far it swings about that arc, in radians
TURN, SWING = 3.0, 0.5
# how much a connected and an apart pair of ends may differ: in their distances from each other (before one path is moved so
# that these are equal), from the borders and of their middle from the centre (in sides), and in the bearing of their paths (mean cosine)
SAME_DISTANCE, SAME_PLACE, SAME_BEARING = 0.02, 0.06, 0.25


@dataclass(frozen=True)
class PathShape:
    """The lengths that follow from the number of dashes of the longest main paths, in units of the image's side."""

    dashes: int

    @property
    def points(self) -> int:
        """Of the longest main paths."""
        return (self.dashes - 1) * POINTS + DASH_POINTS

    @property
    def period(self) -> float:
        return LENGTH / (self.points - 1) * POINTS

    @property
    def distractor_points(self) -> int:
        return (max(1, self.dashes // 3) - 1) * POINTS + DASH_POINTS

    @property
    def distractors(self) -> int:
        """How many are tried; one that finds no place is left out."""
        return self.dashes

    @property
    def clearance(self) -> float:
        """The least distance between points of different paths."""
        return CLEARANCE * self.period

    @property
    def gap(self) -> float:
        """The distance between the last point of a dash and the first of the next."""
        return (POINTS - DASH_POINTS + 1) / POINTS * self.period

    @property
    def smallest_resolution(self) -> int:
        return int(np.ceil(SMALLEST_PERIOD / self.period))


class Layouts(NamedTuple):
    """What N images show, in units of the side. Points are pairs x, y; a path is ``(2, points)``."""

    main: Floats  # (N, 2, 2, points)
    distractors: Floats  # (N, distractors, 2, distractor_points)
    placed: Bools  # (N, distractors): which distractors are there
    markers: Floats  # (N, 2, 2): x, y of each marker
    labels: Ints  # (N,)


def draw_layouts(shape: PathShape, count: int, rng: np.random.Generator) -> Layouts:
    """Draw *count* layouts, each independent of the others."""
    lengths = np.arange(SHORTEST, shape.dashes + 1)
    shares = np.maximum(0.5 ** (lengths - SHORTEST), RAREST)
    ends = np.round(np.cumsum(shares) / shares.sum() * count).astype(int)
    parts = [
        _main_paths(shape, int(dashes), int(many), rng) for dashes, many in zip(lengths, np.diff(ends, prepend=0), strict=True) if many
    ]
    order = rng.permutation(count)
    main, connected, apart = (np.concatenate(part)[order] for part in zip(*parts, strict=True))
    distractors, placed = _distractors(shape, main, rng)
    labels = rng.integers(0, 2, count)
    markers = np.where(labels[:, None, None] == 1, connected, apart)
    return Layouts(main, distractors, placed, markers, labels)


def _main_paths(shape: PathShape, dashes: int, count: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Pairs of paths that keep clear of each other, ``(N, 2, 2, P)``, and for each a connected and an apart pair of ends, ``(N, 2, 2)``.

    A path of fewer *dashes* than the longest stays at its last point for the rest of its P points.
    """
    last = (dashes - 1) * POINTS + DASH_POINTS - 1
    points = np.minimum(np.arange(shape.points), last)
    found: list[tuple[Floats, Floats, Floats]] = []
    while sum(len(main) for main, _, _ in found) < count:
        shapes = _shapes(shape, (CANDIDATES, 2), last + 1, rng)
        shifts, inside = _places(shapes, PLACES, rng, near=NEAR * last / POINTS * shape.period)
        far = _far_apart(shapes[:, None, ..., :: POINTS // 2] + shifts[..., None], shape.clearance)  # most are refused by a few points
        row, place = np.nonzero(inside.all(2) & far)
        connected, apart, move, alike = _pairs_of_ends(shapes[row][..., [0, -1, POINTS, -1 - POINTS]] + shifts[row, place][..., None], rng)
        paths = shapes[row[alike]][..., points] + shifts[row[alike], place[alike]][..., None]
        paths[:, 1] += move[alike][..., None]
        clear = _far_apart(paths[..., ::2], shape.clearance + SKIPPED * shape.period)
        _, first = np.unique(row[alike][clear], return_index=True)  # one place of each pair of shapes, so that no layout resembles another
        kept = np.flatnonzero(clear)[first]
        found.append((paths[kept], connected[alike][kept], apart[alike][kept]))
    main, connected, apart = (np.concatenate(parts)[:count] for parts in zip(*found, strict=True))
    return main, connected, apart


def _shapes(shape: PathShape, axes: tuple[int, ...], points: int, rng: np.random.Generator) -> Floats:
    """Smooth paths that start at the origin: an arc with a swing about it, ``(*axes, 2, points)``."""
    start, turn, swing, waves, phase = rng.random((5, *axes, 1), np.float32)
    along = np.arange(points - 1, dtype=np.float32) / (shape.points - 1)  # 0..1 over a main path: a distractor is a piece of one
    wave = np.sin(2 * np.pi * ((0.5 + waves) * along + phase))
    heading = 2 * np.pi * start + TURN * (2 * turn - 1) * along + SWING * swing * wave
    paths = np.zeros((*axes, 2, points), np.float32)
    np.cumsum(np.cos(heading), -1, out=paths[..., 0, 1:])
    np.cumsum(np.sin(heading), -1, out=paths[..., 1, 1:])
    return paths * np.float32(shape.period / POINTS)


def _places(paths: Floats, places: int, rng: np.random.Generator, near: float = 1.0) -> tuple[Floats, Bools]:
    """Where to move the paths ``(N, M, 2, P)``: *places* shifts ``(N, places, M, 2)``, even over the image, and False where one does not fit.

    Paths after the first are put no further than *near* from it, along each axis from middle to middle.
    """
    low, high = paths.min(-1)[:, None], paths.max(-1)[:, None]
    room = 1 - 2 * MARGIN - (high - low)
    chance = rng.random((len(paths), places, *room.shape[2:]), np.float32)
    corner: Floats = room * chance
    middle = corner[:, :, :1] + (high - low)[:, :, :1] / 2 - (high - low)[:, :, 1:] / 2
    least, most = np.clip(middle - near, 0, room[:, :, 1:]), np.clip(middle + near, 0, room[:, :, 1:])
    corner[:, :, 1:] = least + (most - least) * chance[:, :, 1:]
    return MARGIN + corner - low, np.broadcast_to((room >= 0).all(-1), corner.shape[:-1])


def _pairs_of_ends(points: Floats, rng: np.random.Generator) -> tuple[Floats, Floats, Floats, Bools]:
    """Two ends that are connected, two that are apart, ``(N, 2, 2)``, a small move of path 1, ``(N, 2)``, and whether some look alike, ``(N,)``.

    The move, which is in the ends already, makes the two distances equal.

    Args:
        points: Of each of two paths the first, the last, and the points one period from them: ``(N, 2, 2, 4)``.
        rng: Chooses among several pairs that look alike.
    """
    ends = points[..., :2].swapaxes(2, 3).reshape(-1, 4, 2)  # first and last of path 0, then of path 1
    inward = points[..., 2:].swapaxes(2, 3).reshape(-1, 4, 2) - ends
    inward /= np.linalg.norm(inward, axis=-1, keepdims=True)
    first, second = np.array([0, 2, 0, 0, 1, 1]), np.array([1, 3, 2, 3, 2, 3])  # two connected pairs, four apart
    across = ends[:, second] - ends[:, first]
    distance = np.linalg.norm(across, axis=-1)
    bearing = ((inward[:, first] - inward[:, second]) * across).sum(-1) / (2 * distance)  # 1: each path sets out for the other end
    to_centre = np.linalg.norm((ends[:, second] + ends[:, first]) / 2 - 0.5, axis=-1)
    to_border = np.minimum(ends, 1 - ends).min(-1)
    nearer, farther = np.minimum(to_border[:, first], to_border[:, second]), np.maximum(to_border[:, first], to_border[:, second])
    measures = np.stack([distance, to_centre, nearer, farther, bearing])
    differ = np.abs(measures[:, :, :2, None] - measures[:, :, None, 2:])
    tolerances = np.array([SAME_DISTANCE, SAME_PLACE, SAME_PLACE, SAME_PLACE, SAME_BEARING], np.float32)
    alike = (differ < tolerances[:, None, None, None]).all(0).reshape(-1, 8)
    chosen = np.argmax(alike * (0.5 + rng.random(alike.shape, np.float32)), 1)
    rows, pairs = np.arange(len(ends)), np.stack([first, second], 1)
    one, other = chosen // 4, 2 + chosen % 4
    stretch = distance[rows, one] / distance[rows, other] - 1
    move: Floats = across[rows, other] * stretch[:, None]
    connected, apart = ends[rows[:, None], pairs[one]], ends[rows[:, None], pairs[other]]
    apart[:, 1] += move
    connected[one == 1] += move[one == 1][:, None]
    return connected, apart, move, alike.any(1)


def _far_apart(paths: Floats, distance: float) -> Bools:
    """Whether the points of the two paths of each pair ``(..., 2, 2, P)`` keep that distance: ``(...)``."""
    dx = paths[..., 0, 0, :, None] - paths[..., 1, 0, None, :]
    dy = paths[..., 0, 1, :, None] - paths[..., 1, 1, None, :]
    far: Bools = (dx * dx + dy * dy).reshape(*dx.shape[:-2], dx.shape[-2] * dx.shape[-1]).min(-1) >= distance**2
    return far


class _Grid:
    """Which cells of N images are so near to a path that no point of another may lie in them."""

    def __init__(self, shape: PathShape, count: int) -> None:
        self.cell = np.float32(CELL * shape.period)
        reach = int(CLEARANCE / CELL) + 2
        self.border = reach
        self.side = int(np.ceil(1 / self.cell)) + 2 * reach
        self.blocked = np.zeros(count * self.side * self.side, np.bool_)
        steps = np.arange(-reach, reach + 1)
        between = np.maximum(np.abs(steps) - 1, 0)  # cells, at the least, between points of two cells so many steps apart
        near = np.hypot(between[:, None], between) * CELL < CLEARANCE + SKIPPED
        self.offsets = (steps[:, None] * self.side + steps)[near]

    def is_free(self, paths: Floats) -> Bools:
        """For the paths ``(N, tries, 2, P)`` whether they touch no blocked cell: ``(N, tries)``."""
        free: Bools = np.logical_not(self.blocked[self._cells(paths, np.arange(len(paths))[:, None, None])].any(-1))
        return free

    def block(self, paths: Floats, rows: Ints) -> None:
        """Keep other paths away from the paths ``(M, 2, P)`` in the images *rows*, ``(M,)``."""
        cells = self._cells(paths[:, :, ::2], rows[:, None])
        self.blocked[(cells[..., None] + self.offsets).reshape(-1)] = True

    def _cells(self, paths: Floats, rows: Ints) -> Ints:
        x, y = ((paths[..., axis, :] / self.cell).astype(np.int64) + self.border for axis in (0, 1))
        cells: Ints = (rows * self.side + y) * self.side + x
        return cells


def _distractors(shape: PathShape, main: Floats, rng: np.random.Generator) -> tuple[Floats, Bools]:
    """Paths ``(N, D, 2, Q)`` that keep clear of all others, and which of them found a place, ``(N, D)``."""
    count = len(main)
    rows = np.arange(count)
    grid = _Grid(shape, count)
    grid.block(main[:, 0], rows)
    grid.block(main[:, 1], rows)
    paths = np.zeros((count, shape.distractors, 2, shape.distractor_points), np.float32)
    placed = np.zeros((count, shape.distractors), np.bool_)
    for d in range(shape.distractors):
        tried = _shapes(shape, (count, TRIES), shape.distractor_points, rng)
        tried += _places(tried, 1, rng)[0][:, 0, :, :, None]  # so short that they fit
        free = grid.is_free(tried)
        paths[:, d], placed[:, d] = tried[rows, free.argmax(1)], free.any(1)
        there = np.flatnonzero(placed[:, d])
        grid.block(paths[there, d], there)
    return paths, placed
