"""Pareto successive halving: which trials go on from a rung, by non-dominated rank among those of about the same latency.

The nearest relative is MOASHA (arXiv 2106.12639), which ranks globally and only ever stops. A global rank at an early rung
favours what is fast, because what costs more often learns later too, and so the slow end of the front is never trained. Here a
trial competes with its neighbours in latency, which is known before training; and, as in the first ASHA (arXiv 1810.05934), it
is paused rather than stopped: it may be promoted later, when more trials have shown how good it is.

Most is cut at the first rung, where it saves most; successive halving cuts the same share at every rung. At the same compute the
first keeps more of the front however well or badly the rungs foretell the end (`benchmarks/search.py` on the AdamW table).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

NEIGHBOURS = 6
LATER_REDUCTION = 1.5  # behind the first rung two in three go on

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass
class _Rung:
    """What trials had come to there, and who went on: one in *reduction* may."""

    reduction: float
    accuracy: dict[str, float] = field(default_factory=dict)
    latency: dict[str, float] = field(default_factory=dict)
    promoted: set[str] = field(default_factory=set)
    free: set[str] = field(default_factory=set)  # of them, those that no other had to wait for
    order: list[str] | None = None  # the most promising first; None when it has to be found anew


class HalvingRule:
    """Decides who goes on. It knows no Ray, no clock and no database; trials are any names.

    Of the *n* trials that have come to the first rung the best *n / reduction* may go on, from a later one the best
    *n /* :data:`LATER_REDUCTION`. They are ordered by their non-dominated rank among their neighbours in latency, ties by that
    among all, then by crowding distance: where the front is thin goes first. Nothing waits for a rung to be full: every report is
    judged by what is there.

    Args:
        rungs: Levels of the training, the last of which is its end; 1 promotes nothing because there is nothing to decide.
        reduction: One in so many goes on from the first rung, > 1.
        neighbours: With how many others of about its latency a trial is compared, at least 1.
    """

    def __init__(self, rungs: int, reduction: float = 3.0, neighbours: int = NEIGHBOURS) -> None:
        if rungs < 1 or not reduction > 1 or neighbours < 1:
            raise ValueError(f"rungs and neighbours must be >= 1 and reduction > 1, got {rungs}, {neighbours} and {reduction}")
        self.neighbours = neighbours
        self._rungs = [_Rung(LATER_REDUCTION if i else reduction) for i in range(rungs - 1)]

    def report(self, trial: str, rung: int, accuracy: float, latency: float, goes_on: bool = False) -> None:
        """*trial* has come to *rung*, counted from 1.

        Args:
            trial: Any name; the same at every rung.
            rung: What is no rung, or the last one, is left out.
            accuracy: There; NaN counts as dominated by all.
            latency: In any unit, > 0, always the same for a trial.
            goes_on: It is promoted whatever its rank and takes no other's place, such as a baseline.
        """
        if not 1 <= rung <= len(self._rungs):
            return
        found = self._rungs[rung - 1]
        found.accuracy[trial], found.latency[trial], found.order = accuracy, latency, None
        if goes_on:
            found.promoted.add(trial)
            found.free.add(trial)

    def may_go_on(self, trial: str, rung: int) -> bool:
        """Whether *trial*, which has come to *rung*, is promoted by what is known now."""
        if not 1 <= rung <= len(self._rungs):
            return True
        return trial in self._rungs[rung - 1].promoted or trial in self._best(self._rungs[rung - 1])

    def promote(self, trial: str, rung: int) -> None:
        """*trial* goes on from *rung*."""
        if 1 <= rung <= len(self._rungs):
            self._rungs[rung - 1].promoted.add(trial)

    def next(self, paused: Collection[str]) -> str | None:
        """Which of the *paused* trials goes on, the furthest first; None where none may yet. Promote it to make it so."""
        for found in reversed(self._rungs):
            best = next((trial for trial in self._best(found) if trial in paused and trial not in found.promoted), None)
            if best is not None:
                return best
        return None

    def place(self, trial: str, rung: int) -> tuple[int, int]:
        """The place of *trial* among all that came to *rung*, from 1, and their number."""
        order = _order(self._rungs[rung - 1], self.neighbours)
        return order.index(trial) + 1, len(order)

    def _best(self, rung: _Rung) -> list[str]:
        """Those that may go on: none when as many have, though better ones came later."""
        places = math.floor(len(rung.accuracy) / rung.reduction)
        return _order(rung, self.neighbours)[:places] if len(rung.promoted - rung.free) < places else []


def usual_reduction(trials: int) -> float:
    """One in how many goes on from the first rung in a search of so many trials: 2 for few, which are soon too few to find the front, up to 6.5."""
    return min(6.5, max(2.0, math.sqrt(trials) / 2.2))


def _order(rung: _Rung, neighbours: int) -> list[str]:
    """The trials at a rung, the most promising first."""
    if rung.order is None:
        trials = list(rung.accuracy)
        accuracy = np.array([rung.accuracy[t] for t in trials], float)
        latency = np.log([rung.latency[t] for t in trials])
        rank = ranks(accuracy, latency)
        keys = (-crowding(accuracy, latency, rank), rank, local_ranks(accuracy, latency, neighbours))
        rung.order = [trials[i] for i in np.lexsort(keys)]
    return rung.order


def ranks(accuracy: Floats, latency: Floats) -> Integers:
    """Non-dominated ranks, from 0: those that no other beats, those that only these beat, and so on. ``(n,)``; NaN comes last."""
    rank = np.full(len(accuracy), len(accuracy))
    best: list[float] = []  # of each rank so far, negated: rising from rank to rank
    before, number = (math.nan, math.nan), 0
    for i in np.lexsort((-accuracy, latency)):
        point = (float(accuracy[i]), float(latency[i]))
        if not all(map(math.isfinite, point)):
            continue
        if point != before:  # equal points share a rank
            number = bisect.bisect_right(best, -point[0])
            best[number : number + 1] = [-point[0]]
        rank[i], before = number, point
    return rank


def local_ranks(accuracy: Floats, latency: Floats, neighbours: int) -> Integers:
    """The rank of each trial among itself and its nearest *neighbours* in latency. ``(n,)``; NaN comes last."""
    size = min(neighbours + 1, len(accuracy))
    order = np.argsort(latency, kind="stable")
    a, t = np.nan_to_num(accuracy[order], nan=-np.inf), latency[order]
    first = _nearest(t, size)
    near = first[:, None] + np.arange(size)  # (n, size): neighbours of about the same latency lie side by side
    a_near, t_near = a[near], t[near]
    better = (a_near[:, :, None] >= a_near[:, None, :]) & (t_near[:, :, None] <= t_near[:, None, :])
    better &= (a_near[:, :, None] > a_near[:, None, :]) | (t_near[:, :, None] < t_near[:, None, :])
    depth = np.zeros(near.shape, np.int64)
    for _ in range(size - 1):  # a rank is the longest chain of trials, each of which beats the next
        depth = np.where(better, depth[:, :, None] + 1, 0).max(1)
    found = np.empty(len(accuracy), np.int64)
    found[order] = depth[np.arange(len(a)), np.arange(len(a)) - first]
    return np.where(np.isnan(accuracy), len(accuracy), found)


def _nearest(latency: Floats, size: int) -> Integers:
    """Where the *size* values nearest to each of the sorted *latency*, itself among them, begin. ``(n,)``."""
    first = np.empty(len(latency), np.int64)
    begin = 0
    for i, value in enumerate(latency):
        begin = max(begin, i - size + 1)
        while begin < i and begin + size < len(latency) and latency[begin + size] - value < value - latency[begin]:
            begin += 1
        first[i] = min(begin, len(latency) - size)
    return first


def crowding(accuracy: Floats, latency: Floats, rank: Integers) -> Floats:
    """How far each trial is from the two beside it of its *rank*, each objective in units of its range. ``(n,)``.

    The fastest and the most accurate of a rank have infinity, as in NSGA-II.
    """
    distance = np.zeros(len(accuracy))
    finite = np.isfinite(accuracy)
    spreads = [float(np.ptp(values[finite])) if finite.any() else 0.0 for values in (accuracy, latency)]
    for number in np.unique(rank[finite]):
        members = np.flatnonzero(rank == number)
        for values, spread in zip((accuracy, latency), spreads, strict=True):
            order = members[np.argsort(values[members], kind="stable")]
            distance[order[[0, -1]]] = np.inf
            if len(order) > 2 and spread > 0:
                distance[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / spread
    return distance
