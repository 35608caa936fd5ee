"""What became of each trial, told to Optuna, the store and the listener alike.

COMPLETE means trained to the end with a finite accuracy. PRUNED is a placement above a limit, which was never trained, or a
training stopped at a rung, whose curve is kept. FAIL carries its reason. A placement told from the database says from where.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from nasattn.report.curve import curve_svg
from nasattn.search.attributes import result_attributes
from nasattn.search.events import Event, SearchNoted, TrialFinished, TrialReported, TrialStarted
from nasattn.search.sampling.history import INTERRUPTED
from nasattn.store import EvaluationRecord, State, Store
from nasattn.store.artifacts import Artifacts, artifact_folder

FORCED = "forced_placement"  # user attribute of an enqueued trial whose placement the space does not list
SEED = "seed"  # user attribute of an enqueued trial that is to train with another seed than the study's
GONE_ON = "gone_on"  # key of a curve's point: at this rung the trial went on
REUSED = ("accuracy", "held_out", "val_samples", "curve", "seconds", "worker", "notes")  # of another training of the same proxy


@dataclass
class Follower:
    """A trial that waits for another one's training: the same placement suggested again, or another with the same proxy.

    Attributes:
        trial: To be told.
        record: Of the other placement; None for the same one, whose row in the store is enough.
        latency_id: Of the other placement.
    """

    trial: Trial
    record: EvaluationRecord | None = None
    latency_id: int | None = None


@dataclass
class LiveTrial:
    """A trial that trains, or waits at a rung.

    Attributes:
        trial: Optuna's.
        record: As it began.
        evaluation: Its id in the store.
        to_the_end: It is never stopped.
        curve: Its reports so far.
        rung: The last one it came to; 0 before the first.
        followers: Trials that are told what it comes to.
        notes: Of its worker.
    """

    trial: Trial
    record: EvaluationRecord
    evaluation: int
    to_the_end: bool = False
    curve: list[dict[str, float]] = field(default_factory=list)
    rung: int = 0
    followers: list[Follower] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    @property
    def goes_on(self) -> bool:
        """Whether it has gone on from the last rung it came to."""
        return GONE_ON in self._last_rung

    def go_on(self) -> None:
        """It goes on from the last rung it came to."""
        self._last_rung[GONE_ON] = 1.0

    @property
    def _last_rung(self) -> dict[str, float]:
        return next(point for point in reversed(self.curve) if "rung" in point)

    @property
    def left(self) -> float:
        """The share of its training that is left, 0..1."""
        return 1 - (self.curve[-1]["epoch"] / self.record.fidelity["epochs"] if self.curve else 0.0)

    @property
    def seconds(self) -> float:
        """That it has been trained."""
        return self.curve[-1].get("seconds", 0.0) if self.curve else 0.0


class Ledger:
    """Writes what becomes of the trials of one study.

    Args:
        study: Optuna's.
        store: The same database's tables of ours.
        name: Of the study.
        host: Whose placements are evaluated.
        notify: Receives the events.

    Attributes:
        check: Called before anything is written; it raises where another driver has the study now.
    """

    def __init__(self, study: Study, store: Store, name: str, host: str, notify: Callable[[Event], None]) -> None:
        self.study, self.store, self.name, self.host, self.notify = study, store, name, host, notify
        self.check: Callable[[], None] = lambda: None
        folder = artifact_folder(store.url)
        self.artifacts = Artifacts(folder, store.optuna) if folder is not None else None

    def set_attributes(self, trial: Trial, attributes: Mapping[str, Any]) -> None:
        """What Optuna shows of a trial (see :mod:`nasattn.search.attributes`)."""
        for name, value in attributes.items():
            trial.set_user_attr(name, value)

    def begin(self, trial: Trial, record: EvaluationRecord, latency_id: int, to_the_end: bool = False) -> LiveTrial:
        """A training is about to begin."""
        live = LiveTrial(trial, record, self._start(record, latency_id), to_the_end)
        assert record.latency is not None
        self.notify(TrialStarted(trial.number, record.placement, record.latency.ratio))
        return live

    def begin_known(self, trial: Trial, record: EvaluationRecord, latency_id: int, known: EvaluationRecord) -> LiveTrial:
        """A trial of which *known* has the first rungs: it stands where that was stopped."""
        live = self.begin(trial, record, latency_id)
        left_out = set() if record.reused_from is None else {GONE_ON}  # another study's choice
        live.curve = [{k: v for k, v in point.items() if k not in left_out} for point in known.curve]
        live.rung = max((int(p["rung"]) for p in known.curve if "rung" in p), default=0)
        self.note_rung(live)
        return live

    def own(self, live: LiveTrial) -> None:
        """A trial that was told from the database so far is trained further here."""
        self.check()
        live.record = replace(live.record, reused_from=None)
        self.store.set_reused_from(live.evaluation, None)

    def note(self, live: LiveTrial, result: dict[str, Any]) -> None:
        """A report of a training."""
        point = {k: result[k] for k in ("epoch", "loss", "accuracy", "seconds", "rung") if result.get(k) is not None}
        # a worker that died may have left no checkpoint: then its trial begins again
        live.curve[:] = [*(p for p in live.curve if p["epoch"] < result["epoch"]), point]
        live.notes = tuple(result.get("notes", ()))
        epochs = live.record.fidelity["epochs"]
        self.notify(TrialReported(live.record.trial, result["epoch"], epochs, result["accuracy"]))

    def note_rung(self, live: LiveTrial) -> None:
        """A training has come to a rung: kept at once, so that nothing of it is lost with the driver, and samplers see it."""
        self.check()
        live.trial.set_user_attr("rungs", rungs_of(live.curve, live.record.fidelity["epochs"]))
        self.store.note_curve(live.evaluation, finite(live.curve), live.seconds)

    def end(self, live: LiveTrial, state: State, reason: str | None = None, **values: Any) -> list[EvaluationRecord]:
        """A training ended: what is now known of it, and of other placements that waited for it."""
        self.check()
        error = values.pop("traceback", None) or reason
        if state != "COMPLETE":
            values = {k: v for k, v in values.items() if k not in ("accuracy", "held_out")}
        values = {"seconds": live.seconds or None, **values, "curve": finite(live.curve), "notes": list(live.notes) or None}
        self.store.finish_evaluation(live.evaluation, state, error=error, **values)
        record = replace(live.record, state=state, error=reason, **values)
        if rungs := rungs_of(live.curve, record.fidelity["epochs"]):
            live.trial.set_user_attr("rungs", rungs)
        self.tell(live.trial, record)
        self.notify(TrialFinished(record))
        records = [record]
        for follower in live.followers:
            if follower.record is None or state != "COMPLETE":
                self.tell(follower.trial, record, reused=True)
            else:
                assert follower.latency_id is not None
                known = replace(record, id=live.evaluation)
                records.append(self.reuse(follower.trial, follower.record, follower.latency_id, known))
        return records

    def reuse(self, trial: Trial, record: EvaluationRecord, latency_id: int, known: EvaluationRecord) -> EvaluationRecord:
        """A placement whose proxy was trained before: COMPLETE with that accuracy and its own latency."""
        record = replace(record, reused_from=known.id)
        values = {k: getattr(known, k) for k in REUSED}
        evaluation = self._start(record, latency_id)
        self.store.finish_evaluation(evaluation, "COMPLETE", **values)
        record = replace(record, state="COMPLETE", **values)
        self.tell(trial, record, reused=True)
        self.notify(TrialFinished(record))
        return record

    def untrained(self, trial: Trial, record: EvaluationRecord, latency_id: int | None) -> None:
        """A placement that is not trained, for the reason that *record* gives as its error."""
        evaluation = self._start(record, latency_id)
        self.store.finish_evaluation(evaluation, record.state, error=record.error)
        self.tell(trial, record)
        self.notify(TrialFinished(record))

    def tell(self, trial: Trial, record: EvaluationRecord, reused: bool = False) -> None:
        """Tell Optuna what *record* says; *reused* where that was not trained for this trial."""
        self.check()
        if reused:
            trial.set_user_attr("reused", True)
            if record.curve:
                trial.set_user_attr("rungs", rungs_of(record.curve, record.fidelity["epochs"]))
        self._draw(trial, record)
        if record.state == "COMPLETE":
            assert record.accuracy is not None and record.latency is not None
            self.set_attributes(trial, result_attributes(record))
            self.study.tell(trial, [record.accuracy, record.latency.ratio])
            return
        trial.set_user_attr("reason", record.error)
        if record.state == "INTERRUPTED":
            trial.set_user_attr(INTERRUPTED, True)
        self.study.tell(trial, state=TrialState.PRUNED if record.state == "PRUNED" else TrialState.FAIL)

    def _draw(self, trial: Trial, record: EvaluationRecord) -> None:
        """Attach the curve of a training. No search fails for want of a picture: the first that cannot be kept is the last one tried."""
        if self.artifacts is None or not record.curve:
            return
        try:
            self.artifacts.put(trial, "curve.svg", curve_svg(finite(record.curve), f"trial {trial.number}: {record.placement}"))
        except Exception as error:
            self.artifacts = None
            self.notify(SearchNoted(f"the curves of trials are not kept as pictures: {type(error).__name__}: {error}"))

    def _start(self, record: EvaluationRecord, latency_id: int | None) -> int:
        self.check()
        return self.store.start_evaluation(self.name, self.host, record, latency_id)


def rungs_of(curve: list[dict[str, float]], epochs: int) -> list[list[float]]:
    """``[share of the steps, accuracy]`` at each rung of a curve: the user attribute ``rungs``."""
    return [[p["epoch"] / epochs, p["accuracy"]] for p in finite(curve) if "rung" in p and "accuracy" in p]


def finite(curve: list[dict[str, float]]) -> list[dict[str, float]]:
    """Without what is NaN or infinite, which databases refuse."""
    return [{k: v for k, v in point.items() if math.isfinite(v)} for point in curve]


def enqueue_again(study: Study, trial: Trial | FrozenTrial) -> None:
    """Queue the placement of a trial that was stopped, so that it is asked for next."""
    asked = {k: v for k, v in trial.user_attrs.items() if k in (FORCED, SEED)}
    if trial.params or FORCED in asked:
        study.enqueue_trial(trial.params, user_attrs=asked)
