"""Where the trainings of a study stand, and which of them go on: the halving rule, applied to what the database and the workers say."""

from __future__ import annotations

import bisect
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from nasattn.search.halving import HalvingRule, usual_reduction
from nasattn.search.ledger import GONE_ON, LiveTrial
from nasattn.search.samplers import LEARNING
from nasattn.store import EvaluationRecord

if TYPE_CHECKING:
    from nasattn.search.study import StudyConfig

FEWEST = 8  # trials of a study that are worth halving: a front of fewer says little
WHOLE = 12  # trials that are trained to the end before any is stopped, where the sampler learns from what trials came to


class Rungs:
    """A training is known here by its identity, so that the rule hears of it once, whoever tells, and whenever it goes on.

    Args:
        config: The study.
        baselines: Placements that are never stopped.
        interrupted: Numbers of the trials that were interrupted, rising; another trial took the place of each.
    """

    def __init__(self, config: StudyConfig, baselines: Collection[str], interrupted: Sequence[int]) -> None:
        self.config, self.baselines, self.interrupted = config, baselines, interrupted
        self.rule = HalvingRule(config.fidelity.rungs if config.halving else 1, usual_reduction(config.trials))

    def may_stop(self, record: EvaluationRecord) -> bool:
        """Whether a training may be stopped at a rung; a baseline and a retraining are trained to the end."""
        wanted = record.seed != self.config.seed or record.placement in self.baselines
        turn = record.trial - bisect.bisect_left(self.interrupted, record.trial)  # as if no trial had been interrupted
        taught = turn >= WHOLE or self.config.sampler not in LEARNING
        return bool(self.config.halving) and self.config.trials >= FEWEST and taught and not wanted

    def know(self, record: EvaluationRecord, curve: Sequence[dict[str, float]]) -> None:
        """What the database has of a training: it has gone on from every rung, unless it is not complete: then perhaps from the last."""
        rungs = [point for point in curve if "rung" in point and "accuracy" in point]
        free = not self.may_stop(record) or record.reused_from is not None
        for point in rungs:
            if record.latency is not None:
                rung, gone_on = int(point["rung"]), record.state == "COMPLETE" or point is not rungs[-1] or GONE_ON in point
                self.rule.report(record.identity, rung, point["accuracy"], record.latency.ratio, goes_on=free and gone_on)
                if gone_on:
                    self.rule.promote(record.identity, rung)

    def reach(self, live: LiveTrial, rung: int, accuracy: float) -> None:
        """A trial has come to a rung; where it may, it goes on from there."""
        live.rung = rung
        if live.record.seed == self.config.seed:  # what is trained again stands there already
            assert live.record.latency is not None
            self.rule.report(live.record.identity, rung, accuracy, live.record.latency.ratio, goes_on=live.to_the_end)
        if live.to_the_end or self.rule.may_go_on(live.record.identity, rung):
            self.promote(live)

    def promote(self, live: LiveTrial) -> None:
        """A trial goes on from the rung that it stands at."""
        if live.record.seed == self.config.seed:
            self.rule.promote(live.record.identity, live.rung)
        live.go_on()

    def next(self, paused: Mapping[str, LiveTrial]) -> str | None:
        """Which of the paused trials goes on, by its name there; None where none may yet."""
        names = {live.record.identity: name for name, live in paused.items()}
        identity = self.rule.next(names)
        return None if identity is None else names[identity]

    def place(self, live: LiveTrial) -> tuple[int, int]:
        """The place of a trial among all that came to its rung, from 1, and their number."""
        return self.rule.place(live.record.identity, live.rung)
