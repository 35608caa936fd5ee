"""Simple searches to compare with, none of which evaluates a point twice: local search, regularised evolution, uniform points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nasattn.search.sampling.base import PointSampler, draw_unseen
from nasattn.search.sampling.history import Floats
from nasattn.search.sampling.placement import uniform_points

if TYPE_CHECKING:
    from nasattn.search.sampling.domain import Domain, Point
    from nasattn.search.sampling.history import History

STARTS = 5  # random points that a local search begins with
POPULATION, TOURNAMENT = 32, 8  # of the evolution


class LocalSearchSampler(PointSampler):
    """Pareto local search: a random member of the front that still has unseen neighbours, and a random one of these.

    A neighbour differs in one slot. Where no member has any left, a random point. Local search is a strong baseline for
    architectures (arXiv 2004.08996, 2005.02960). Takes any number of objectives.
    """

    max_objectives = 99

    def choose(self, domain: Domain, history: History, rng: np.random.Generator) -> Point | None:
        if len(history.told) + len(history.pending) < STARTS or not len(history.told):
            return None
        front = history.told[ranks(history.values) == 0]
        for place in rng.permutation(len(front)):
            new = [p for p in domain.neighbours(tuple(front[place].tolist())) if p not in history.seen]
            if new:
                return new[rng.integers(len(new))]
        return None


class EvolutionSampler(PointSampler):
    """Regularised evolution (arXiv 1802.01548) with a Pareto tournament.

    The latest completed trials are the population, so that points die of age; of a random few the one of the best
    non-dominated rank, of equals the most lonely, is changed in one slot. Takes any number of objectives.
    """

    max_objectives = 99

    def choose(self, domain: Domain, history: History, rng: np.random.Generator) -> Point | None:
        population, values = history.told[-POPULATION:], history.values[-POPULATION:]
        if len(history.told) + len(history.pending) < min(POPULATION, domain.size // 4) or not len(population):
            return None
        rank, lonely = ranks(values), crowding(values)
        for _ in range(TOURNAMENT):
            entrants = rng.choice(len(population), min(TOURNAMENT, len(population)), replace=False)
            parent = min(entrants, key=lambda i: (rank[i], -lonely[i]))
            new = [p for p in domain.neighbours(tuple(population[parent].tolist())) if p not in history.seen]
            if new:
                return new[rng.integers(len(new))]
        return None


class UniformSampler(PointSampler):
    """The same token in every slot, as papers place an attention by hand; when all of these are seen, random points."""

    max_objectives = 99

    def choose(self, domain: Domain, history: History, rng: np.random.Generator) -> Point | None:
        new = [p for p in uniform_points(domain) if p not in history.seen]
        return new[0] if new else draw_unseen(domain, history.seen, rng)


def ranks(values: Floats) -> npt.NDArray[np.int64]:
    """Non-dominated ranks of objectives to be made small, ``(n, k) -> (n,)``; 0 is the front."""
    beats = (values[:, None] <= values).all(2) & (values[:, None] < values).any(2)
    rank, left, level = np.zeros(len(values), dtype=np.int64), np.ones(len(values), dtype=bool), 0
    while left.any():
        best = left & ~(beats & left[:, None]).any(0)
        rank[best], left = level, left & ~best
        level += 1
    return rank


def crowding(values: Floats) -> Floats:
    """Distance of each point's neighbours along every objective, ``(n, k) -> (n,)``; inf at the ends."""
    distance = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        width = float(column[order[-1]] - column[order[0]]) or 1.0
        distance[order[[0, -1]]] = np.inf
        distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / width
    return distance
