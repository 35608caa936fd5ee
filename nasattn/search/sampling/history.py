"""What a study's trials say, in points of its domain."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nasattn.search.sampling.domain import Domain, Ints, Point

Floats = npt.NDArray[np.float64]
INTERRUPTED = "interrupted"  # user attribute of a trial whose driver ended during it: another one takes its place
RUNGS = "rungs"  # user attribute of a trial: [share of the training, accuracy] at each rung it reached


@dataclass(frozen=True)
class History:
    """A study so far.

    Attributes:
        told: Points of completed trials, ``(n, d)``, in order.
        values: Their objectives, each to be made small, ``(n, k)``.
        curves: For each of them the accuracies at shares of the training, as far as they are known.
        stopped: Points of pruned trials that have a curve, and of those that wait, ``(m, d)``.
        stopped_curves: Their curves.
        pending: Points that run now, ``(p, d)``.
        seen: All points that were told, run or wait.
        turn: How many trials were asked for before, those that were interrupted left out.
    """

    told: Ints
    values: Floats
    curves: tuple[Mapping[float, float], ...]
    stopped: Ints
    stopped_curves: tuple[Mapping[float, float], ...]
    pending: Ints
    seen: frozenset[Point]
    turn: int


def read_history(
    study: Study,
    domain: Domain,
    own: int,
    reserved: Mapping[int, Point],
    cache: dict[int, Point | None],
    waiting: Collection[Point] = (),
) -> History:
    """The history of *study*.

    Args:
        study: Of one or two objectives.
        domain: Of its points.
        own: Number of the trial that is being asked for.
        reserved: Points given to trials whose parameters the study may not know yet.
        cache: The points of finished trials, by number; filled here.
        waiting: Points of trials that are RUNNING in the study, but wait at a rung and may be stopped there.
    """
    signs = np.array([-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in study.directions])
    told, values, curves, stopped, stopped_curves, pending = [], [], [], [], [], []
    seen: set[Point] = set()
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        if trial.number == own:
            continue
        point = _point(trial, domain, reserved, cache)
        if point is None:
            continue
        seen.add(point)
        if trial.state == TrialState.COMPLETE and np.isfinite(trial.values).all():
            told.append(point)
            values.append(trial.values)
            curves.append(_curve(trial))
        elif (trial.state == TrialState.PRUNED or point in waiting) and (curve := _curve(trial)):
            stopped.append(point)
            stopped_curves.append(curve)
        elif trial.state == TrialState.RUNNING:
            pending.append(point)
    d, k = len(domain.slots), len(signs)
    return History(
        _points(told, d),
        np.array(values, dtype=float).reshape(-1, k) * signs,
        tuple(curves),
        _points(stopped, d),
        tuple(stopped_curves),
        _points(pending, d),
        frozenset(seen),
        own - interruptions(trials[:own]),
    )


def interruptions(trials: Sequence[FrozenTrial]) -> int:
    """How many of *trials* were interrupted."""
    return sum(bool(trial.user_attrs.get(INTERRUPTED)) for trial in trials)


def _points(points: Sequence[Point], d: int) -> Ints:
    return np.array(points, dtype=np.int64).reshape(-1, d)


def _point(trial: FrozenTrial, domain: Domain, reserved: Mapping[int, Point], cache: dict[int, Point | None]) -> Point | None:
    if trial.state.is_finished():
        if trial.number not in cache:
            cache[trial.number] = domain.point(trial.params)
        return cache[trial.number]
    fixed = trial.system_attrs.get("fixed_params", {})  # of an enqueued trial
    found = domain.point({**trial.params, **fixed})
    return found if found is not None else reserved.get(trial.number)


def _curve(trial: FrozenTrial) -> dict[float, float]:
    return {float(share): float(accuracy) for share, accuracy in trial.user_attrs.get(RUNGS, ())}
