"""The bridge between Ray Tune, Optuna and the store: every trial ends in all three as what it was.

Ray's own OptunaSearch, with two objectives, leaves trials RUNNING for ever when a value is NaN or missing, tells stopped
trials as COMPLETE, and loses why a trial failed. Here COMPLETE means trained to the end with finite values, FAIL carries
its reason, PRUNED is a placement above a limit (never trained), and only the database is remembered.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from optuna.exceptions import ExperimentalWarning
from optuna.study import Study
from optuna.trial import Trial, TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from nasattn.attention import Placement
from nasattn.latency import RuntimeFailure
from nasattn.search.appraisal import Appraisal, Appraiser
from nasattn.search.events import Event, TrialFinished, TrialReported, TrialStarted
from nasattn.search.faults import FORCED, enqueue_again
from nasattn.search.samplers import FLAT, make_sampler
from nasattn.search.unseen import draw_unseen
from nasattn.store import EvaluationRecord, State, Store

if TYPE_CHECKING:
    from nasattn.search.study import StudyConfig

OBJECTIVES = ["accuracy", "latency_ratio"]
MODES = ["max", "min"]
REPEATS = 8  # suggestions in a row that are known already or above a limit, before one is drawn among the others
GIVE_UP = 100  # placements above a limit in a row, before the search takes it that there is nothing else


@dataclass
class _Running:
    """A trial that trains now."""

    trial: Trial
    record: EvaluationRecord
    evaluation: int
    curve: list[dict[str, float]] = field(default_factory=list)
    followers: list[Trial] = field(default_factory=list)  # the same placement, suggested again meanwhile
    notes: tuple[str, ...] = ()  # of its worker


class PlacementSearch(OptunaSearch):  # type: ignore[misc]
    """Suggests placements to Ray Tune and tells Optuna and the store exactly what became of them.

    Args:
        config: The study.
        store: Its database.
        appraiser: Counts and times placements before they are trained.
        told: The evaluations that the study has already.
        notify: Receives the events.
    """

    def __init__(
        self,
        config: StudyConfig,
        store: Store,
        appraiser: Appraiser,
        told: Sequence[EvaluationRecord],
        notify: Callable[[Event], None],
    ) -> None:
        super().__init__(
            space=lambda trial: None,
            metric=list(OBJECTIVES),
            mode=list(MODES),
            sampler=make_sampler(config.sampler, config.seed, config.space, appraiser.known_ratio, config.trials),
            storage=store.optuna,
            study_name=config.name,
        )
        self.config, self.store, self.appraiser, self.notify = config, store, appraiser, notify
        self.study: Study = self._ot_study
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self.study.set_metric_names(list(OBJECTIVES))
        self.flat = config.sampler in FLAT
        self.counted = sum(e.state in ("COMPLETE", "FAIL") and e.reused_from is None for e in told)
        self.told = {e.placement for e in told if e.state == "COMPLETE"}
        self.deadline = time.monotonic() + config.time_budget if config.time_budget else math.inf
        self.running: dict[str, _Running] = {}
        self.above: set[str] = set()  # placements found above a limit
        self.exhausted = False
        self.only_queued = False  # evaluate what is queued, suggest nothing

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next placement to train, as Ray's trial configuration. FINISHED when the budget is spent."""
        if trial_id in self.running:
            return self._ray_config(self.running[trial_id])
        misses = 0
        while not self._budget_is_spent():
            trial = self.study.ask() if misses < REPEATS else self._ask_unseen(misses)
            if trial is None:  # every placement of the space is evaluated, running or above a limit
                self.exhausted = not self.running
                return str(Searcher.FINISHED) if self.exhausted else None
            placement = self._placement(trial)
            identity = self.config.evaluation_identity(str(placement))
            if self._is_known(trial, placement, identity):
                misses += 1
                continue
            appraisal = self._appraise(trial, placement, identity)
            if appraisal is None:
                misses += str(placement) in self.above
                continue
            self.running[trial_id] = self._begin(trial, placement, identity, appraisal)
            return self._ray_config(self.running[trial_id])
        return str(Searcher.FINISHED)

    @property
    def is_over(self) -> bool:
        """Whether the budget of trials or time is used up, or the space is exhausted."""
        return self.exhausted or self._budget_is_spent()

    def _budget_is_spent(self) -> bool:
        if self.only_queued:
            return not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return self.counted >= self.config.trials or time.monotonic() >= self.deadline

    def _ray_config(self, running: _Running) -> dict[str, Any]:
        record = running.record
        return {"job": self.config.job(record.placement), "task": self.config.task, "identity": record.identity}

    def _placement(self, trial: Trial) -> Placement:
        forced = trial.user_attrs.get(FORCED)
        placement = Placement.parse(forced) if forced else self.config.space.suggest(trial, self.flat)
        trial.set_user_attr("placement", str(placement))
        return placement

    def _ask_unseen(self, misses: int) -> Trial | None:
        """A trial of a placement that is neither evaluated, running nor above a limit; None when there is none left."""
        if misses >= GIVE_UP:
            return None
        space = self.config.space
        seen = self.told | self.above | {r.record.placement for r in self.running.values()}
        seed = (self.config.seed, self.counted, len(seen))
        unseen = draw_unseen(space, seen, self.appraiser.is_ruled_out, seed, thrift=(misses - REPEATS) / GIVE_UP)
        if unseen is None:
            return None
        self.study.enqueue_trial(space.params(unseen, self.flat))
        trial: Trial = self.study.ask()
        return trial

    def _is_known(self, trial: Trial, placement: Placement, identity: str) -> bool:
        """Whether this training is done or running already; then the trial is told its values, now or when they are there."""
        for running in self.running.values():
            if running.record.identity == identity:
                trial.set_user_attr("params", running.record.params)
                trial.set_user_attr("macs", running.record.macs)
                running.followers.append(trial)
                return True
        known = self.store.find_evaluation(identity)
        if known is None or known.accuracy is None:
            return False
        appraisal = self._appraise(trial, placement, identity)
        if appraisal is None:
            return True
        record = replace(self._record(trial, placement, identity, appraisal), reused_from=known.id)
        if str(placement) not in self.told:
            self.told.add(str(placement))
            evaluation = self.store.start_evaluation(self.config.name, self.config.space.host, record, appraisal.latency_id)
            values = {k: getattr(known, k) for k in ("accuracy", "val_samples", "curve", "seconds", "worker", "notes")}
            self.store.finish_evaluation(evaluation, "COMPLETE", **values)
            self.notify(TrialFinished(replace(record, state="COMPLETE", **values)))
        self._tell_complete(trial, known.accuracy, appraisal.latency.ratio, reused=True)
        return True

    def _appraise(self, trial: Trial, placement: Placement, identity: str) -> Appraisal | None:
        """Costs of the placement, written to the trial. None when it cannot run or is above a limit: the trial is told so."""
        params, macs = self.appraiser.count(placement)
        trial.set_user_attr("params", params)
        trial.set_user_attr("macs", macs)
        try:
            appraisal = self.appraiser.appraise(placement)
        except (RuntimeFailure, RuntimeError, ValueError, MemoryError) as error:
            cause = str(error) if isinstance(error, RuntimeFailure) else f"{type(error).__name__}: {error}"
            self._fail_unmeasured(trial, placement, identity, f"latency measurement failed: {cause}")
            return None
        latency = appraisal.latency
        trial.set_user_attr("latency_ms", round(latency.ms, 3))
        trial.set_user_attr("latency_interval", [round(latency.ratio_low, 4), round(latency.ratio_high, 4)])
        trial.set_user_attr("latency_method", latency.method)
        for name, found in appraisal.constraints.items():
            trial.set_constraint(name, found["excess"])
        if not appraisal.violations:
            return appraisal
        reason = f"{'; '.join(appraisal.violations)}; not trained"
        trial.set_user_attr("reason", reason)
        self.study.tell(trial, state=TrialState.PRUNED)
        if str(placement) not in self.above:
            self.above.add(str(placement))
            record = replace(self._record(trial, placement, identity, appraisal), state="PRUNED", error=reason)
            self._store_untrained(record, appraisal.latency_id)
        return None

    def _fail_unmeasured(self, trial: Trial, placement: Placement, identity: str, reason: str) -> None:
        params, macs = self.appraiser.count(placement)
        trial.set_user_attr("reason", reason)
        self.study.tell(trial, state=TrialState.FAIL)
        record = EvaluationRecord(
            trial.number, str(placement), "FAIL", self.config.seed, params, macs, self.config.fidelity.to_dict(), identity, error=reason
        )
        self._store_untrained(record, None)
        self.counted += 1

    def _store_untrained(self, record: EvaluationRecord, latency_id: int | None) -> None:
        evaluation = self.store.start_evaluation(self.config.name, self.config.space.host, record, latency_id)
        self.store.finish_evaluation(evaluation, record.state, error=record.error)
        self.notify(TrialFinished(record))

    def _record(self, trial: Trial, placement: Placement, identity: str, appraisal: Appraisal) -> EvaluationRecord:
        return EvaluationRecord(
            trial=trial.number,
            placement=str(placement),
            state="RUNNING",
            seed=self.config.seed,
            params=appraisal.params,
            macs=appraisal.macs,
            fidelity=self.config.fidelity.to_dict(),
            identity=identity,
            latency=appraisal.latency,
            constraints=appraisal.constraints,
        )

    def _begin(self, trial: Trial, placement: Placement, identity: str, appraisal: Appraisal) -> _Running:
        record = self._record(trial, placement, identity, appraisal)
        evaluation = self.store.start_evaluation(self.config.name, self.config.space.host, record, appraisal.latency_id)
        self.counted += 1
        self.notify(TrialStarted(trial.number, str(placement), appraisal.latency.ratio))
        return _Running(trial, record, evaluation)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A report that is not the last."""
        if trial_id in self.running:
            self._note_epoch(self.running[trial_id], result)

    def _note_epoch(self, running: _Running, result: dict[str, Any]) -> None:
        if "epoch" not in result:
            return
        point = {k: result[k] for k in ("epoch", "loss", "accuracy", "seconds", "rung") if result.get(k) is not None}
        # a worker that died may have left no checkpoint: then its trial begins again
        running.curve[:] = [*(p for p in running.curve if p["epoch"] < result["epoch"]), point]
        running.notes = tuple(result.get("notes", ()))
        self.notify(TrialReported(running.record.trial, result["epoch"], self.config.fidelity.epochs, result["accuracy"]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The trial's last result, or its end without one. A dead worker is told by :meth:`lose`, which knows why."""
        if error or trial_id not in self.running:
            return
        running = self.running[trial_id]
        result = result or {}
        if "error" in result:
            self.end(trial_id, "FAIL", reason=result["error"], traceback=result.get("traceback"), worker=result.get("worker"))
        elif not result.get("finished"):
            self.stop(trial_id)
        else:
            self._note_epoch(running, result)
            wrong = (
                None
                if math.isfinite(result["accuracy"])
                else f"accuracy is {result['accuracy']} after epoch {result['epoch']} (loss {result['loss']})"
            )
            self.end(trial_id, "FAIL" if wrong else "COMPLETE", reason=wrong, **{k: result[k] for k in ("accuracy", "seconds", "worker")})

    def lose(self, trial_id: str, reason: str) -> None:
        """The trial's worker died."""
        self.end(trial_id, "FAIL", reason=reason)

    def stop(self, trial_id: str) -> None:
        """The trial was stopped with the search; its placement is queued for when the study goes on."""
        trial = self.running[trial_id].trial
        self.end(trial_id, "INTERRUPTED", reason="the search was stopped during this trial; its placement is queued again")
        enqueue_again(self.study, trial)

    def end(self, trial_id: str, state: State, reason: str | None = None, **values: Any) -> None:
        """Tell Optuna, the store and the listener how a running trial ended."""
        running = self.running.pop(trial_id, None)
        if running is None:
            return
        error = values.pop("traceback", None) or reason
        if state == "COMPLETE":
            self.told.add(running.record.placement)
        else:
            values.pop("accuracy", None)
        values["curve"] = [{k: v for k, v in point.items() if math.isfinite(v)} for point in running.curve]
        values["notes"] = list(running.notes) or None
        if state == "COMPLETE":
            values["val_samples"] = self.config.fidelity.val_samples
        self.store.finish_evaluation(running.evaluation, state, error=error, **values)
        record = replace(running.record, state=state, error=reason, **values)
        for trial in (running.trial, *running.followers):
            if state == "COMPLETE":
                assert record.accuracy is not None and record.latency is not None
                self._tell_complete(trial, record.accuracy, record.latency.ratio, reused=trial is not running.trial)
            else:
                trial.set_user_attr("reason", reason)
                self.study.tell(trial, state=TrialState.FAIL)
        self.notify(TrialFinished(record))

    def _tell_complete(self, trial: Trial, accuracy: float, ratio: float, reused: bool) -> None:
        if reused:
            trial.set_user_attr("reused", True)
        self.study.tell(trial, [accuracy, ratio])

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune pickles the searcher to restore it later; we never do: the database is the only truth."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing is saved beside the database."""

    def restore(self, checkpoint_path: str) -> None:
        """See save."""
