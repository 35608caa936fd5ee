"""What to train next: Optuna's suggestions, without those that are known, under way or above a limit."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState

from nasattn.attention import Placement
from nasattn.latency import RuntimeFailure
from nasattn.search.appraisal import Appraisal, Appraiser
from nasattn.search.attributes import count_attributes, latency_attributes, limit_attributes
from nasattn.search.budget import Budget
from nasattn.search.certification import Certification
from nasattn.search.events import Event, SearchNoted, TrialPaused
from nasattn.search.ledger import FORCED, SEED, Follower, Ledger, LiveTrial
from nasattn.search.rungs import Rungs
from nasattn.search.samplers import FLAT, STATELESS, make_sampler
from nasattn.search.sampling.history import INTERRUPTED, interruptions
from nasattn.search.unseen import draw_unseen
from nasattn.store import EvaluationRecord, Store

if TYPE_CHECKING:
    from nasattn.search.study import StudyConfig
    from nasattn.search.worker import Assignment

OBJECTIVES = ["accuracy", "latency_ratio"]
DIRECTIONS = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
FINISHED = "FINISHED"
REPEATS = 8  # suggestions in a row that are known already or above a limit, before one is drawn among the others
GIVE_UP = 100  # placements above a limit in a row, before the search takes it that there is nothing else


class Suggestions:
    """Asks for placements until one has to be trained; all others are told at once, or with the training that they wait for.

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
        self.config, self.store, self.appraiser, self.notify = config, store, appraiser, notify
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self.study = optuna.create_study(
                storage=store.optuna,
                sampler=make_sampler(config.sampler, config.seed, config.space, appraiser.known_ratio, config.trials),
                study_name=config.name,
                directions=DIRECTIONS,
                load_if_exists=True,
            )
            self.study.set_metric_names(list(OBJECTIVES))
        self.ledger = Ledger(self.study, store, config.name, config.space.host, notify)
        self.flat = config.sampler in FLAT
        self.budget = Budget(config, told)
        cuts = [t.number for t in self.study.get_trials(deepcopy=False) if t.user_attrs.get(INTERRUPTED)]
        self.rungs = Rungs(config, {str(config.space.plain()), str(config.space.native()), *config.first}, cuts)
        self.running: dict[str, LiveTrial] = {}
        self.paused: dict[str, LiveTrial] = {}
        self.told: dict[str, EvaluationRecord] = {}  # by placement: completed, or stopped at a rung
        self.above: set[str] = set()  # placements found above a limit
        self.proxies: set[str] = set()  # that are trained, or in training
        self.exhausted = False
        self.only_queued = False  # evaluate what is queued, suggest nothing
        self.only_retraining = False
        self._names = map(str, itertools.count())
        self.certification = Certification(config.seed)
        self.certifying = self.certified = False  # certified: nothing is left that a retraining would tell
        self.interrupted = {e.placement for e in told if e.state == "INTERRUPTED"}  # queued again
        for record in told:
            self._remember(record)
            if self.told.get(record.placement) is record or (record.state == "INTERRUPTED" and record.seed == config.seed):
                self.rungs.know(record, record.curve)
        self.certified = bool(self.searched) and self.certification.next() is None

    @property
    def counted(self) -> int:
        """The trials that the study has begun."""
        return self.budget.begun

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be trained: a budget is used up, or there is nothing else in the space."""
        return bool(self.ended) and not self.running

    @property
    def ended(self) -> str:
        """Why nothing more begins, in a line; empty while something may."""
        may_retrain = not self.only_queued and not self.certified and self.budget.may_retrain
        return "" if may_retrain else self.searched

    @property
    def searched(self) -> str:
        """Why no new placement begins, in a line; empty while one may."""
        if self.only_queued:
            return "" if self._waiting else "all placements that were asked for are evaluated"
        if self.only_retraining:
            return "the front is certified as far as was asked for"
        if self.exhausted:
            left = "within the limits is evaluated" if self.above else "is evaluated"
            return f"every placement of {self.config.space.name} that was found {left}"
        return self.budget.used_up

    @property
    def _waiting(self) -> bool:
        """Whether a trial is queued."""
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def retrain_only(self, trainings: int) -> None:
        """Suggest nothing new; certify the front by so many trainings."""
        self.only_retraining = True
        self.budget.retrainings, self.budget.fewest = self.budget.retrained + trainings, 1
        self.certified = self.certification.next() is None

    def suggest(self, trial_id: str) -> Assignment | str | None:
        """A placement to train that is not trained yet, or again, to certify the front.

        FINISHED when the budget is spent; None to ask again: at once where a trial stands at a rung now, else after the next report.
        """
        self.ledger.check()
        misses = 0
        while not self.searched:
            trial = self._ask() if misses < REPEATS or self.only_queued else self._ask_unseen(misses)
            if trial is None:  # every placement of the space is evaluated, running or above a limit
                if self.running:
                    return None
                self.exhausted = True
                break
            waited = len(self.paused)
            assignment, missed = self._take(trial_id, trial)
            if assignment is not None or len(self.paused) > waited:
                return assignment
            misses += missed
        return self._retrain(trial_id)

    def _take(self, trial_id: str, trial: Trial) -> tuple[Assignment | None, bool]:
        """What to train for *trial*, if anything; else whether it was suggested in vain."""
        placement, seed = self._placement(trial), trial.user_attrs.get(SEED, self.config.seed)
        identity = self.config.evaluation_identity(str(placement), seed)
        if self._is_known(trial, placement, seed, identity):
            return None, True
        appraisal = self._appraise(trial, placement, seed, identity)
        if appraisal is None:
            return None, str(placement) in self.above
        record = self._record(trial, placement, seed, identity, appraisal)
        self.proxies.add(self.config.proxy(placement))
        if (known := self._first_rungs(record)) is None:
            self.budget.begin(seed)
            self.certification.begin(record.placement, seed)
            self.running[trial_id] = self.ledger.begin(trial, record, appraisal.latency_id, to_the_end=not self._may_stop(record))
            return self._assignment(record), False
        live = self._begin_known(trial, record, appraisal.latency_id, known)
        if live.goes_on:
            self.running[trial_id] = live
            return self._assignment(record), False
        self.paused[next(self._names)] = live
        self.notify(TrialPaused(trial.number))
        return None, False

    def _ask(self) -> Trial:
        """The next trial of Optuna's. What is drawn for it follows from the trials before, so that a study goes on as if never interrupted."""
        if self.config.sampler in STATELESS:
            trials = self.study.get_trials(deepcopy=False)
            seed = np.random.SeedSequence([self.config.seed, len(trials) - interruptions(trials)]).generate_state(1)[0]
            self.study.sampler = make_sampler(self.config.sampler, int(seed) >> 1)
        return self.study.ask()

    def _retrain(self, trial_id: str) -> Assignment | str | None:
        """A likely member of the front, or one in doubt, with another seed."""
        while not self.ended:
            chosen = self.certification.next()
            if chosen is None:
                self.certified = not self.running
                return FINISHED if self.certified else None
            if not self.certifying:
                self.certifying = True
                self.notify(SearchNoted("certifying the front: likely members are trained again with other seeds"))
            if not self._waiting:  # else a retraining that was interrupted comes first
                self.certification.begin(*chosen)  # whatever comes of it
                self.enqueue(Placement.parse(chosen.placement), {SEED: chosen.seed})
            assignment, _ = self._take(trial_id, self._ask())
            if assignment is not None:
                return assignment
        return FINISHED

    def enqueue(self, placement: Placement, attributes: dict[str, Any] | None = None) -> None:
        """Ask for *placement* next, also where the space does not list it."""
        if placement in self.config.space:
            self.study.enqueue_trial(self.config.space.params(placement, self.flat), user_attrs=attributes)
        else:
            self.study.enqueue_trial({}, user_attrs={FORCED: str(placement), **(attributes or {})})

    def _assignment(self, record: EvaluationRecord) -> Assignment:
        return {"job": self.config.job(record.placement, record.seed), "task": self.config.task, "identity": record.identity}

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
        live = (*self.running.values(), *self.paused.values())
        seen = {*self.told, *self.above, *(r.record.placement for r in live)}

        def excluded(placement: Placement) -> bool:
            return self.config.proxy(placement) in self.proxies or self.appraiser.is_ruled_out(placement)

        seed = (self.config.seed, self.counted, len(seen))
        unseen = draw_unseen(space, seen, excluded, seed, thrift=(misses - REPEATS) / GIVE_UP)
        if unseen is None:
            return None
        self.study.enqueue_trial(space.params(unseen, self.flat))
        return self._ask()

    def _is_known(self, trial: Trial, placement: Placement, seed: int, identity: str) -> bool:
        """Whether this training is done or under way already; then the trial is told its values, now or when they are there."""
        for live in (*self.running.values(), *self.paused.values()):
            if live.record.identity == identity:
                self._follow(live, trial, placement, seed, identity)
                return True
        told = self.told.get(str(placement)) if seed == self.config.seed else None
        known = told or self.store.find_evaluation(identity)
        if known is None or not (known.state == "COMPLETE" or told):
            return False
        appraisal = self._appraise(trial, placement, seed, identity)
        if appraisal is None:
            return True
        record = self._record(trial, placement, seed, identity, appraisal)
        if told:
            self.ledger.tell(trial, replace(known, latency=appraisal.latency), reused=True)
            return True
        reused = self.ledger.reuse(trial, record, appraisal.latency_id, known)
        self._remember(reused)
        if seed == self.config.seed:
            self.rungs.know(reused, reused.curve)
        self.budget.complete(reused)
        return True

    def _may_stop(self, record: EvaluationRecord) -> bool:
        """Whether a training may be stopped at a rung; what was asked for is trained to the end."""
        return not self.only_queued and self.rungs.may_stop(record)

    def _first_rungs(self, record: EvaluationRecord) -> EvaluationRecord | None:
        """The training of which the database has the first rungs, where this one may stop at one."""
        known = self.store.find_evaluation(record.identity) if self._may_stop(record) else None
        return known if known is not None and any("rung" in point for point in known.curve) else None

    def _begin_known(self, trial: Trial, record: EvaluationRecord, latency_id: int, known: EvaluationRecord) -> LiveTrial:
        """The trial stands where it was interrupted, or where another study stopped it, as if it had just come there."""
        own = record.placement in self.interrupted
        live = self.ledger.begin_known(trial, record if own else replace(record, reused_from=known.id), latency_id, known)
        self.rungs.know(live.record, live.curve)
        self.budget.begin(record.seed, own)
        return live

    def _follow(self, live: LiveTrial, trial: Trial, placement: Placement, seed: int, identity: str) -> None:
        if live.record.placement == str(placement):
            assert live.record.latency is not None
            attributes = {**count_attributes(live.record.params, live.record.macs), **latency_attributes(live.record.latency)}
            self.ledger.set_attributes(trial, attributes)
            live.followers.append(Follower(trial))
        elif (appraisal := self._appraise(trial, placement, seed, identity)) is not None:  # another placement with the same proxy
            record = self._record(trial, placement, seed, identity, appraisal)
            live.followers.append(Follower(trial, record, appraisal.latency_id))

    def _remember(self, record: EvaluationRecord) -> None:
        self.certification.note(record)
        if record.seed == self.config.seed and (record.state == "COMPLETE" or record.stopped_at_rung):
            self.told[record.placement] = record
            self.proxies.add(self.config.proxy(Placement.parse(record.placement)))

    def _appraise(self, trial: Trial, placement: Placement, seed: int, identity: str) -> Appraisal | None:
        """Costs of the placement, written to the trial. None when it cannot run or is above a limit: the trial is told so."""
        params, macs = self.appraiser.count(placement)
        self.ledger.set_attributes(trial, count_attributes(params, macs))
        fidelity = self.config.fidelity.to_dict()
        record = EvaluationRecord(trial.number, str(placement), "RUNNING", seed, params, macs, fidelity, identity)
        try:
            appraisal = self.appraiser.appraise(placement)
        except (RuntimeFailure, RuntimeError, ValueError, MemoryError) as error:
            cause = str(error) if isinstance(error, RuntimeFailure) else f"{type(error).__name__}: {error}"
            record = replace(record, state="FAIL", error=f"latency measurement failed: {cause}")
            self.ledger.untrained(trial, record, None)
            self.budget.begin(seed)
            self.budget.ended(record)
            return None
        latency = appraisal.latency
        self.ledger.set_attributes(trial, {**latency_attributes(latency), **limit_attributes(appraisal.constraints)})
        for name, found in appraisal.constraints.items():
            trial.set_constraint(name, found["excess"])
        if not appraisal.violations:
            return appraisal
        reason = f"{'; '.join(appraisal.violations)}; not trained"
        record = replace(record, state="PRUNED", error=reason, latency=latency, constraints=appraisal.constraints)
        if str(placement) in self.above:
            self.ledger.tell(trial, record)
        else:
            self.above.add(str(placement))
            self.ledger.untrained(trial, record, appraisal.latency_id)
        return None

    def _record(self, trial: Trial, placement: Placement, seed: int, identity: str, appraisal: Appraisal) -> EvaluationRecord:
        return EvaluationRecord(
            trial=trial.number,
            placement=str(placement),
            state="RUNNING",
            seed=seed,
            params=appraisal.params,
            macs=appraisal.macs,
            fidelity=self.config.fidelity.to_dict(),
            identity=identity,
            latency=appraisal.latency,
            constraints=appraisal.constraints,
        )
