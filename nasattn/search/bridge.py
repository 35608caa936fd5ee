"""The bridge between Optuna, the store and the workers.

Ray's own OptunaSearch, with two objectives, leaves trials RUNNING for ever when a value is NaN or missing, tells stopped
trials as COMPLETE, loses why a trial failed and trains duplicates. Here every trial ends as what it was (see
:class:`~nasattn.search.ledger.Ledger`), nothing is trained twice, and only the database is remembered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nasattn.proxy import Checkpoints
from nasattn.search.events import TrialPaused, TrialResumed
from nasattn.search.ledger import LiveTrial, enqueue_again
from nasattn.search.sampling import PlacementSampler
from nasattn.search.suggestions import Suggestions
from nasattn.store import State

if TYPE_CHECKING:
    from nasattn.search.worker import Assignment

MEASURED = ("accuracy", "held_out", "seconds", "worker")  # of a training that came to its end
MOST_PAUSED = 32  # trials that wait; beyond, the least promising is stopped: Optuna reads all RUNNING trials at every ask
STOPPED = "the search was stopped during this trial; its placement is queued again"


class PlacementSearch(Suggestions):
    """Suggests placements, hears how their trainings go, and tells Optuna and the store exactly what became of them."""

    def next_trial(self) -> tuple[str, Assignment] | None:
        """What to train now, under which id: a paused trial that has proved good enough, else a new placement; None: nothing, for now."""
        while True:
            if (resumed := self._resume()) is not None:
                return resumed
            name, waited = next(self._names), len(self.paused)
            suggested = self.suggest(name)
            if suggested is not None and not isinstance(suggested, str):
                return name, suggested
            if len(self.paused) == waited:
                return None

    def _resume(self) -> tuple[str, Assignment] | None:
        # what is queued stood at a rung or was in training when the search was interrupted: it comes first, so that the same trials are compared
        if self.budget.nothing_goes_on or not self.paused or self._waiting:
            return None
        # one whose first rungs were trained elsewhere becomes a trial of this study by going on
        full = self.budget.is_full
        waiting = {n: live for n, live in self.paused.items() if live.record.reused_from is None or not full}
        name = self.rungs.next(waiting) or self._wanted(waiting)
        if name is None:
            return None
        live = self.running[name] = self.paused.pop(name)
        self.rungs.promote(live)
        self.ledger.note_rung(live)
        if live.record.reused_from is not None:
            self.ledger.own(live)
            self.budget.begin(live.record.seed)
        assert live.record.latency is not None
        self.notify(TrialResumed(live.record.trial, live.record.placement, live.record.latency.ratio))
        return name, self._assignment(live.record)

    def _wanted(self, waiting: Mapping[str, LiveTrial]) -> str | None:
        """Which of the trials that wait at a rung the sampler would rather have trained on than anything new; None where it has no opinion."""
        sampler = self.study.sampler
        if not waiting or self.searched or not isinstance(sampler, PlacementSampler):
            return None
        chosen = sampler.goes_on(self.study, [(live.trial.params, live.left) for live in waiting.values()])
        return None if chosen is None else list(waiting)[chosen]

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> bool:
        """A report that is not the last. Whether the worker goes on with the trial; else it is paused at a rung, or has failed."""
        live = self.running.get(trial_id)
        if live is None:
            return False
        if "epoch" not in result:
            return True
        self._note(live, result)
        if not math.isfinite(result["accuracy"]):
            self.end(trial_id, "FAIL", reason=_not_finite(result), worker=result["worker"])
            return False
        rung = result.get("rung") or 0
        if rung <= live.rung or not self.config.halving:
            return True
        self.rungs.reach(live, rung, result["accuracy"])
        self.ledger.note_rung(live)
        if live.goes_on:
            return True
        self.paused[trial_id] = self.running.pop(trial_id)
        self.notify(TrialPaused(live.record.trial))
        if len(self.paused) > MOST_PAUSED:
            self._stop_at_rung(min(self.paused, key=self._promise))
        return False

    def _promise(self, name: str) -> tuple[int, float]:
        """How likely a paused trial is to go on: how far it is, then its place there."""
        live = self.paused[name]
        place, number = self.rungs.place(live)
        return live.rung, 1 - place / number

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None) -> None:
        """The trial's last result, or its end without one. A dead worker is told by :meth:`lose`, which knows why."""
        if trial_id not in self.running:
            return
        result = result or {}
        if "error" in result:
            self.end(trial_id, "FAIL", reason=result["error"], traceback=result.get("traceback"), worker=result.get("worker"))
        elif not result.get("finished"):
            self.stop(trial_id)
        else:
            self._note(self.running[trial_id], result)
            wrong = None if math.isfinite(result["accuracy"]) else _not_finite(result)
            self.end(trial_id, "FAIL" if wrong else "COMPLETE", reason=wrong, **{k: result.get(k) for k in MEASURED})

    def _note(self, live: LiveTrial, result: dict[str, Any]) -> None:
        self.ledger.note(live, result)
        self.budget.spend(live.record.identity, live.seconds)

    def lose(self, trial_id: str, reason: str) -> None:
        """The trial's worker died."""
        self.end(trial_id, "FAIL", reason=reason)

    def stop(self, trial_id: str) -> None:
        """The trial was stopped with the search; its placement is queued for when the study goes on."""
        live = self.running.get(trial_id) or self.paused[trial_id]
        self.end(trial_id, "INTERRUPTED", reason=STOPPED)
        if live.record.reused_from is None:
            self.budget.begin(live.record.seed, -1)
        enqueue_again(self.study, live.trial)

    def stop_all(self) -> None:
        """The search was stopped."""
        for trial_id in (*self.running, *self.paused):
            self.stop(trial_id)

    def finish(self) -> None:
        """Nothing more will be trained: what still waits at a rung is stopped there."""
        for name in list(self.paused):
            self._stop_at_rung(name)

    def _stop_at_rung(self, name: str) -> None:
        live = self.paused[name]
        place, number = self.rungs.place(live)
        accuracy, rungs = live.curve[-1].get("accuracy", math.nan), self.config.fidelity.rungs
        at = f"stopped at rung {live.rung} of {rungs} with accuracy {accuracy:.3f}"
        self.end(name, "PRUNED", reason=f"{at}: place {place} of {number} there beside those of its latency")

    def end(self, trial_id: str, state: State, reason: str | None = None, **values: Any) -> None:
        """A running or paused trial ended."""
        live = self.running.pop(trial_id, None) or self.paused.pop(trial_id, None)
        if live is None:
            return
        if state == "COMPLETE":
            values["val_samples"] = self.config.fidelity.val_samples
        records = self.ledger.end(live, state, reason, **values)
        if state != "INTERRUPTED":
            Checkpoints().remove(live.record.identity)  # it is told; until now it could be told again
        for record in records:
            self._remember(record)
            self.budget.ended(record)


def _not_finite(result: dict[str, Any]) -> str:
    return f"accuracy is {result['accuracy']} after epoch {result['epoch']:g} (loss {result['loss']})"
