"""The frame of our samplers: the domain, the history, no point twice; a sampler says which point comes next."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Collection
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nasattn.errors import UsageError
from nasattn.search.sampling.domain import Domain, Point
from nasattn.search.sampling.history import History, read_history

DRAWS = 200  # random points tried before all are gone through
ALL_POINTS = 100_000  # of a domain that is gone through
FEW_TRIALS = 64  # up to which a domain is learnt again after every trial


class PointSampler(BaseSampler):
    """Samples points of a categorical domain, none twice while others are left.

    Parameters that are no choices (floats, long ranges of integers), and those that the domain does not know, are drawn at
    random and independently.

    Args:
        domain: What there is to choose; None: learnt from the trials that the study has, the first of which are random then.
        seed: Of the random draws. With the same trials told, the same seed gives the same suggestions, also when the study
            was loaded from its storage meanwhile, and whether or not trials between were interrupted.
    """

    max_objectives = 2

    def __init__(self, domain: Domain | None = None, seed: int | None = None) -> None:
        self._given = domain
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._independent = RandomSampler(self._seed)
        self._lock = threading.Lock()
        self._learnt: tuple[int, Domain | None] = (-1, None)
        self._cache: dict[int, Point | None] = {}
        self._reserved: dict[int, Point] = {}
        self._study: str | None = None

    @abstractmethod
    def choose(self, domain: Domain, history: History, rng: np.random.Generator) -> Point | None:
        """The next point, not in ``history.seen``; None: any that is new."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        if len(study.directions) > self.max_objectives:
            raise UsageError(
                f"{type(self).__name__} takes one or two objectives, got {len(study.directions)}; "
                "drop some, or use NSGAIIISampler or TPESampler of Optuna"
            )
        domain = self._domain(study)
        return dict(domain.distributions) if domain is not None else {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        domain = self._domain(study)
        if domain is None or trial.system_attrs.get("fixed_params"):
            return {}
        with self._lock:
            history = read_history(study, domain, trial.number, self._reserved, self._cache)
            rng = np.random.default_rng([self._seed, history.turn])
            point = self.choose(domain, history, rng)
            if point is None or point in history.seen:
                point = draw_unseen(domain, history.seen, rng)
            self._reserved[trial.number] = point
            return domain.params(point)

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        self._seed = int(np.random.SeedSequence().generate_state(1)[0])
        self._independent.reseed_rng()

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self._reserved.pop(trial.number, None)

    def _domain(self, study: Study) -> Domain | None:
        if study.study_name != self._study:
            self._study, self._learnt = study.study_name, (-1, None)
            self._cache.clear()
            self._reserved.clear()
        if self._given is not None:
            return self._given
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        known, domain = self._learnt
        if len(trials) > (known if known < FEW_TRIALS else 1.2 * known):
            learnt = Domain.of_trials(trials)
            if learnt != domain:
                self._cache.clear()
            self._learnt = (len(trials), learnt)
        return self._learnt[1]

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


def draw_unseen(domain: Domain, seen: Collection[Point], rng: np.random.Generator) -> Point:
    """A random point that is not in *seen*; any where there is no other."""
    drawn: list[Point] = [tuple(p) for p in domain.draw(rng, DRAWS).tolist()]
    unseen = next((p for p in drawn if p not in seen), None)
    if unseen is None and domain.size <= ALL_POINTS and domain.size > len(seen):
        left = [p for p in domain.points() if p not in seen]
        unseen = left[rng.integers(len(left))] if left else None
    return unseen if unseen is not None else drawn[0]
