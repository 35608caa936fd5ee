"""The `placement` sampler: accuracy is learnt, cost is known, and the next point is the one that should widen the front most.

First a screen: the baseline and single changes of it in every slot, of as many forms as there is room for (without a baseline:
a few points in which the tokens of every slot come equally often). Then a Bayesian model of accuracy (see :mod:`kernel`: additive and pair terms,
shared between the options of a form and between slots) and the point of the greatest expected gain in hypervolume
(arXiv 2006.05078), its cost taken as known. Points that run count as if they had reached what the model expects.

Where there is a baseline every other point is chosen for the knee of the front: only what costs at most twice as much above the
cheapest point as the knee does counts then. Up to the dearest point a few percent of cost are next to nothing, so without it
cheap points would be passed over for slightly more accurate ones (benchmarks/README.md has the figures).

Trials that wait at a rung are compared with new points in the same way, by what is expected of them for the training that is left
(:meth:`PlacementSampler.goes_on`): what they came to there is known to the model like any other observation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from optuna.study import Study

from nasattn.front import non_dominated
from nasattn.search.sampling.base import DRAWS, PointSampler
from nasattn.search.sampling.costs import Cost, CostModel, KnownCosts
from nasattn.search.sampling.domain import Domain, Ints, Point
from nasattn.search.sampling.history import Floats, History, read_history
from nasattn.search.sampling.improvement import Scale, expected_hypervolume, expected_improvement
from nasattn.search.sampling.kernel import Kernel
from nasattn.search.sampling.model import Posterior, Weights, fit_weights
from nasattn.search.sampling.rungs import Observed, observe

SCREEN = 4  # points of it without a baseline; with 8 the front of NAS-Bench-201 is up to .06 behind after 12 to 20 trainings
POOL = (640, 2_000)  # points of a larger domain that are compared at an ask, at least and at most
WORK = 320_000  # points times observations; between the two, more are compared while the observations are few
FULL = 1_000  # points of a domain that are all compared
EXACT = 64  # of them, whose costs are asked for
MOST = 600  # observations that the model keeps
REFIT = 1.15  # growth of the observations after which weights are fitted again
LOW = 0.2  # quantile of the accuracies from which hypervolume is counted
KNEE = 0.8  # the cheapest point of the front with this share of what its best gains above that accuracy is its knee
SPAN = 2.0  # how far hypervolume is counted for the knee, in its cost above the cheapest point
NONE_WAITS: Mapping[Point, float] = MappingProxyType({})


class PlacementSampler(PointSampler):
    """Finds the front of an unknown accuracy and a known cost in few trials.

    The first objective is what is learnt, in either direction; the second, if there is one, is the cost. Trials may carry a
    user attribute ``rungs``, a list of ``[share of the training, accuracy]``: what pruned trials reached then counts too.

    Args:
        domain: What there is to choose; None: learnt from the study's trials, the first of which are random then.
        cost: Parameters of a point -> its second objective, as far as that is known before the trial; None where it is not,
            inf for points that must not be suggested. None: learnt from the trials told.
        seed: Of the random draws.
        screen: Points of the screen; None: one for each slot, and two, or four in all where the domain has no baseline.
    """

    def __init__(self, domain: Domain | None = None, cost: Cost | None = None, seed: int | None = None, screen: int | None = None) -> None:
        super().__init__(domain, seed)
        self.cost, self.screen = cost, screen
        self._model: tuple[Domain, Kernel, KnownCosts | None] | None = None
        self._weights: tuple[int, Weights] | None = None

    def choose(self, domain: Domain, history: History, rng: np.random.Generator) -> Point | None:
        kernel, known = self._for(domain)
        begun = _begun(history)
        usual = SCREEN if domain.baseline is None else len(domain.slots) + 2
        number = usual if self.screen is None else self.screen
        point = None
        if begun < number or len(history.told) < 2:
            screen = itertools.islice(screening(domain, np.random.default_rng(self._seed)), 4 * number + begun)
            point = _allowed(screen, known, history)
        if point is None and len(history.told) >= 2:
            point = self._best(domain, kernel, known, history, rng)
        return point or _allowed((tuple(p) for p in domain.draw(rng, DRAWS).tolist()), known, history)

    def goes_on(self, study: Study, waiting: Sequence[tuple[Mapping[str, Any], float]]) -> int | None:
        """Which of the trials that wait at a rung should rather be trained on than any new point.

        Args:
            study: In which they are RUNNING, each with its ``rungs``.
            waiting: Of each its parameters and the share of its training that is left, 0..1.

        Returns:
            Its place among *waiting*; None where a new point promises more, or nothing is known yet.
        """
        domain = self._domain(study)
        if domain is None:
            return None
        points = [domain.point(dict(params)) for params, _ in waiting]
        left = {point: share for point, (_, share) in zip(points, waiting, strict=True) if point is not None}
        with self._lock:
            history = read_history(study, domain, len(study.get_trials(deepcopy=False)), self._reserved, self._cache, left)
            if not left or len(history.told) < 2:
                return None
            chosen = self._best(domain, *self._for(domain), history, np.random.default_rng([self._seed, history.turn]), left)
        return points.index(chosen) if chosen in left else None

    def _for(self, domain: Domain) -> tuple[Kernel, KnownCosts | None]:
        if self._model is None or self._model[0] != domain:
            self._model = (domain, Kernel(domain), KnownCosts(self.cost, domain) if self.cost is not None else None)
            self._weights = None
        return self._model[1:]

    def _best(
        self,
        domain: Domain,
        kernel: Kernel,
        known: KnownCosts | None,
        history: History,
        rng: np.random.Generator,
        waiting: Mapping[Point, float] = NONE_WAITS,
    ) -> Point | None:
        """The most promising of the points that are new and of those *waiting*, of which only a share of the training is left."""
        accuracy = -history.values[:, 0]
        scale = Scale.of(accuracy)
        told_cost = history.values[:, 1] if history.values.shape[1] > 1 else None
        pool = candidates(domain, history, accuracy, told_cost, rng)
        pool = np.vstack([np.array(list(waiting), dtype=np.int64).reshape(-1, pool.shape[1]), pool])
        left = np.concatenate([list(waiting.values()), np.ones(len(pool) - len(waiting))])
        if not len(pool):
            return None
        observed = observe(history, accuracy, scale, MOST)
        costs = None if told_cost is None else self._cost_model(kernel, known, history, told_cost)
        points = np.vstack([observed.points, history.pending])
        if costs is None:
            cost_known = cost_pool = None
        else:
            cost_known, cost_pool = costs.predict(points), costs.predict(pool)
            cost_known[: observed.told] = told_cost[observed.kept]  # type: ignore[index]
        scaled: tuple[Floats | None, Floats | None] = (None, None)
        if cost_known is not None and cost_pool is not None:
            both = _standard(np.concatenate([cost_known, cost_pool]))
            scaled = both[: len(points)], both[len(points) :]
        posterior, mean_known = self._posterior(kernel, history, observed, points, scaled[0])
        mean, sd = posterior.mean_and_sd(kernel.terms(pool, points, scaled[1], scaled[0]), kernel.diagonal(pool, cost_pool is not None))
        count = np.r_[: observed.told, len(observed.points) : len(points)]  # told, and running as if told
        reached = scale.back(mean_known[count])
        if cost_known is None or cost_pool is None:
            return _first(pool, expected_improvement(mean, sd, scale, float(reached.max())) / left, mean + sd)
        reference = (float(np.quantile(accuracy, LOW)), float(max(cost_pool.max(), cost_known.max())))
        if domain.baseline is not None and _begun(history) % 2:
            reference = _knee(reached, cost_known[count], reference)

        def gain(which: Ints, cost: Floats) -> Floats:
            widened = expected_hypervolume(mean[which], sd[which], cost, scale, reached, cost_known[count], reference)
            return np.asarray(widened / left[which])

        score = gain(np.arange(len(pool)), cost_pool)
        if known is None:
            return _first(pool, score, mean + sd)
        order = np.argsort(-score, kind="stable")
        for top in np.split(order, range(EXACT, len(order), EXACT)):  # as a rule the first are enough
            true = [known.of(tuple(p)) for p in pool[top].tolist()]
            exact = np.array([cost_pool[i] if c is None else c for i, c in zip(top, true, strict=True)])
            top, exact = top[np.isfinite(exact)], exact[np.isfinite(exact)]
            if len(top):
                return _first(pool[top], gain(top, exact), (mean + sd)[top])
        return None

    def _posterior(
        self, kernel: Kernel, history: History, observed: Observed, points: Ints, cost: Floats | None
    ) -> tuple[Posterior, Floats]:
        """The model of *points*, of which the first are observed and the others run, and its means there."""
        n = len(observed.points)
        terms = kernel.terms(points, points, cost, cost)
        seen = {name: t[:n, :n] for name, t in terms.items()}
        weights = self._fitted(kernel, history)
        posterior = Posterior.of(seen, observed.values, observed.extra, weights)
        mean = posterior.mean({name: t[:, :n] for name, t in terms.items()})
        if len(points) > n:
            extra = np.concatenate([observed.extra, np.zeros(len(points) - n)])
            posterior = Posterior.of(terms, np.concatenate([observed.values, mean[n:]]), extra, weights)
        return posterior, mean

    def _fitted(self, kernel: Kernel, history: History) -> Weights:
        """The weights, fitted again from time to time, always to the first so many trials: a study that is loaded again finds the same."""
        n = 2
        while n * REFIT + 1 <= len(history.told):
            n = int(n * REFIT + 1)
        if self._weights is None or self._weights[0] != n:
            points, accuracy = history.told[:n], -history.values[:n, 0]
            cost = _standard(history.values[:n, 1]) if history.values.shape[1] > 1 else None
            terms = kernel.terms(points, points, cost, cost)
            values = Scale.of(accuracy).forward(accuracy)
            self._weights = (n, fit_weights(terms, values, np.zeros(n), Weights.prior(terms), np.random.default_rng([self._seed, n])))
        return self._weights[1]

    def _cost_model(self, kernel: Kernel, known: KnownCosts | None, history: History, told_cost: Floats) -> CostModel:
        points, costs = history.told, told_cost
        if known is not None:
            more, their = known.anchors(self._seed)
            points, costs = np.vstack([points, more]), np.concatenate([costs, their])
        return CostModel.fit(kernel, points, costs)


def _begun(history: History) -> int:
    """How many points were asked for so far."""
    return len(history.told) + len(history.pending) + len(history.stopped)


def _knee(accuracy: Floats, cost: Floats, reference: tuple[float, float]) -> tuple[float, float]:
    """Where hypervolume is counted from so that only what is cheap counts; *reference* where the cheapest point is the knee already.

    Args:
        accuracy: ``(n,)``, of the points so far.
        cost: ``(n,)``, theirs.
        reference: From where it is counted otherwise: an accuracy and the greatest cost.
    """
    enough = accuracy >= reference[0] + KNEE * (accuracy.max() - reference[0])
    cheapest, knee = float(cost.min()), float(cost[enough].min())
    return (reference[0], min(cheapest + SPAN * (knee - cheapest), reference[1])) if knee > cheapest else reference


def _allowed(points: Iterable[Point], known: KnownCosts | None, history: History) -> Point | None:
    """The first of *points* that is neither seen nor ruled out by its cost."""
    return next((p for p in points if p not in history.seen and (known is None or known.of(p) != np.inf)), None)


def screening(domain: Domain, rng: np.random.Generator) -> Iterator[Point]:
    """The points to begin with, endless: see the module."""
    d = len(domain.slots)
    if domain.baseline is not None:
        yield domain.baseline
        singles = [_shuffled([p for p in domain.neighbours(domain.baseline) if p[s] != domain.baseline[s]], rng) for s in range(d)]
        yield from _by_form(domain, singles, rng)
    while True:  # every token of a slot equally often
        columns = [rng.permutation(size) for size in domain.sizes.tolist()]
        for i in range(int(domain.sizes.max())):
            yield tuple(int(column[i % len(column)]) for column in columns)


def _by_form(domain: Domain, singles: list[list[Point]], rng: np.random.Generator) -> Iterator[Point]:
    """Single changes, slot after slot, each time of the form that was seen least."""
    seen: dict[Any, int] = {}
    order = rng.permutation(len(singles)).tolist()
    for slot in itertools.cycle(order):
        if not any(singles):
            return
        if singles[slot]:
            forms = [domain.slots[slot].tokens[p[slot]].form for p in singles[slot]]
            best = min(range(len(forms)), key=lambda i: seen.get(forms[i], 0))
            seen[forms[best]] = seen.get(forms[best], 0) + 1
            yield singles[slot].pop(best)


def _shuffled(points: list[Point], rng: np.random.Generator) -> list[Point]:
    return [points[i] for i in rng.permutation(len(points))]


def uniform_points(domain: Domain) -> list[Point]:
    """The points with the same token in every slot, for all tokens that every slot has."""
    named = [{(t.form, t.options): i for i, t in reversed(list(enumerate(slot.tokens)))} for slot in domain.slots]
    return [tuple(tokens[key] for tokens in named) for key in dict(reversed(named[0].items())) if all(key in tokens for tokens in named)]


def candidates(domain: Domain, history: History, accuracy: Floats, cost: Floats | None, rng: np.random.Generator) -> Ints:
    """Points to compare, none of them seen: all of a small domain, else random ones and changes of one or two slots of the best."""
    if domain.size <= FULL:
        found = list(domain.points())
    else:
        pool = int(np.clip(WORK // len(accuracy), *POOL))
        best = np.argsort(-accuracy)[:10] if cost is None else np.flatnonzero(non_dominated(accuracy, cost))
        front: list[Point] = [tuple(p) for p in history.told[best].tolist()]
        near = _shuffled([n for p in front for n in domain.neighbours(p)], rng)[: pool // 2]
        base = np.array(front)[rng.integers(len(front), size=pool // 4)]
        changed = rng.random(base.shape).argsort(1) < 2
        far = np.where(changed, domain.draw(rng, len(base)), base)
        found = [*near, *map(tuple, far.tolist()), *map(tuple, domain.draw(rng, pool // 2).tolist())]
    new = [p for p in dict.fromkeys(found) if p not in history.seen]
    return np.array(new, dtype=np.int64).reshape(-1, len(domain.slots))


def _first(pool: Ints, score: Floats, otherwise: Floats) -> Point:
    """The point of the highest score, or by the other where no score is above zero."""
    return tuple(pool[np.argmax(score if score.max() > 0 else otherwise)].tolist())


def _log(cost: Floats) -> Floats:
    return np.log(cost) if cost.min() > 0 else cost


def _standard(cost: Floats) -> Floats:
    values = _log(cost)
    return np.asarray((values - values.mean()) / (values.std() or 1.0))
