"""Pareto successive halving for any user of Ray Tune: a trial scheduler of two objectives, one of which is a latency.

Our own driver applies the same rule without Ray Tune (see :mod:`nasattn.search.loop`)::

    tune.TuneConfig(scheduler=ParetoHalving("accuracy", "latency", rungs=(1, 2, 4)), num_samples=100)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from nasattn.search.halving import NEIGHBOURS, HalvingRule


class ParetoHalving(TrialScheduler):  # type: ignore[misc]
    """Pauses trials at rungs and lets those go on that are good for their latency (see :class:`HalvingRule`).

    Give metrics here and none to ``TuneConfig``. Trials must be able to go on from a checkpoint. When nothing else can run,
    because the search has no more trials or its limit of concurrent ones is full of paused ones, the least promising
    paused trial is stopped.

    Args:
        accuracy: The result that is to be large.
        latency: The result that is to be small; the same in all results of a trial.
        rungs: At which *time_attr* trials are compared, rising. The last is the end, at which trials are stopped.
        time_attr: The result that says how far a trial is.
        reduction: One in so many goes on.
        neighbours: With how many others of about its latency a trial is compared.
    """

    def __init__(
        self,
        accuracy: str,
        latency: str,
        rungs: Sequence[int],
        time_attr: str = "training_iteration",
        reduction: float = 3.0,
        neighbours: int = NEIGHBOURS,
    ) -> None:
        super().__init__()
        if not rungs or sorted(set(rungs)) != list(rungs):
            raise ValueError(f"rungs must rise, such as (1, 2, 4), got {rungs!r}")
        self.accuracy, self.latency, self.rungs, self.time_attr = accuracy, latency, tuple(rungs), time_attr
        self.rule = HalvingRule(len(rungs), reduction, neighbours)
        self._reached: dict[str, int] = {}  # the last rung of each trial, from 1

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._reached[trial.trial_id] = 0

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        name, time = trial.trial_id, result.get(self.time_attr, 0)
        if time >= self.rungs[-1]:
            return str(TrialScheduler.STOP)
        rung = sum(time >= mark for mark in self.rungs)
        if rung <= self._reached[name] or self.accuracy not in result or self.latency not in result:
            return str(TrialScheduler.CONTINUE)
        self._reached[name] = rung
        self.rule.report(name, rung, result[self.accuracy], result[self.latency])
        if not self.rule.may_go_on(name, rung):
            return str(TrialScheduler.PAUSE)
        self.rule.promote(name, rung)
        return str(TrialScheduler.CONTINUE)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """A paused trial that may go on, else a new one."""
        trials = tune_controller.get_trials()
        paused = {t.trial_id: t for t in trials if t.status == Trial.PAUSED}
        promoted = self.rule.next(paused)
        if promoted is not None:
            self.rule.promote(promoted, self._reached[promoted])
            return paused[promoted]
        pending = next((t for t in trials if t.status == Trial.PENDING), None)
        if pending is None and paused and not any(t.status == Trial.RUNNING for t in trials):
            tune_controller.stop_trial(paused[min(paused, key=self._promise)])
        return pending

    def _promise(self, name: str) -> tuple[int, float]:
        place, number = self.rule.place(name, self._reached[name])
        return self._reached[name], 1 - place / number

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        self._reached.pop(trial.trial_id, None)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self._reached.pop(trial.trial_id, None)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        self._reached.pop(trial.trial_id, None)

    def debug_string(self) -> str:
        return f"Pareto halving at {self.rungs} of {self.time_attr}"
