"""How much a study may spend, what it has spent, and why it ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nasattn.front import hypervolume
from nasattn.store import EvaluationRecord

if TYPE_CHECKING:
    from nasattn.search.study import StudyConfig

FEWEST_CERTIFIED = 8  # placements of a study whose front is certified unasked
FEWEST_JUDGED = 10  # trials that have ended before the share of those that failed counts
GROWTH = 0.01  # share of the front's hypervolume that counts as growth

Point = tuple[float, float]  # accuracy, latency ratio


class Budget:
    """Counts the trials that a study has begun, the seconds that its trainings took, and how its front grows.

    A trial counts when its training begins, whether it is trained to the end or stopped at a rung; one that is told from the
    database, or not trained because it is above a limit, is free. The seconds are those of all workers together, what the
    study spent before included: there a stopped training costs what it took. Nothing that trains is broken off when a budget
    is used up.

    Args:
        config: The study's limits.
        told: The evaluations that the study has already.
    """

    def __init__(self, config: StudyConfig, told: Sequence[EvaluationRecord]) -> None:
        self.config = config
        self.begun = 0
        self.retrained = 0  # of them, with other seeds than the study's
        self.retrainings, self.fewest = config.retrainings, FEWEST_CERTIFIED
        self.started = time.monotonic()
        self._failed: list[bool] = []  # each trial of this run that has ended
        self._seconds: dict[str, float] = {}  # by identity: what was interrupted went on from its checkpoint, and its clock as well
        self._points: list[Point] = []
        self._grown = (0, 0)  # the points there were when the front last grew, and the trials begun
        for record in told:
            self.begin(record.seed, record.is_own_trial)
            if record.reused_from is None:
                self.spend(record.identity, record.seconds or 0.0)
            self.complete(record)

    def begin(self, seed: int, trials: int = 1) -> None:
        """So many trials begin; a negative number of them did not count after all."""
        self.begun += trials
        self.retrained += trials * (seed != self.config.seed)

    def spend(self, identity: str, seconds: float) -> None:
        """A training has taken so long by now."""
        self._seconds[identity] = max(seconds, self._seconds.get(identity, 0.0))

    @property
    def seconds(self) -> float:
        """That all trainings took together."""
        return sum(self._seconds.values())

    def ended(self, record: EvaluationRecord) -> None:
        """A trial of this run ended, in whatever state."""
        if record.reused_from is None and record.state in ("COMPLETE", "FAIL"):
            self._failed.append(record.state == "FAIL")
        self.complete(record)

    @property
    def too_many_failures(self) -> str:
        """That more trials failed than may, in a line; empty while that is not so."""
        failed, ended = sum(self._failed), len(self._failed)
        if ended < FEWEST_JUDGED or failed <= self.config.max_failures * ended:
            return ""
        return f"{failed} of {ended} trials failed, a larger share than --max-failures {self.config.max_failures:g}"

    def complete(self, record: EvaluationRecord) -> None:
        """The front grows by a trial, or does not."""
        if self.config.plateau is None or record.state != "COMPLETE" or record.accuracy is None or record.latency is None:
            return
        self._points.append((record.accuracy, record.latency.ratio))
        if growth(self._points[: self._grown[0]], self._points) > GROWTH:
            self._grown = (len(self._points), self.begun)

    @property
    def is_full(self) -> bool:
        """Whether all trials are begun, but for those that certify the front."""
        return self.begun - self.retrained >= self.config.trials - self.config.retrainings

    @property
    def used_up(self) -> str:
        """Why no new placement may begin, in a line; empty while one may."""
        if self.is_full and not self.too_many_failures:
            return f"all {self.config.trials} trials are evaluated"
        return self.nothing_goes_on

    @property
    def may_retrain(self) -> bool:
        """Whether a placement may be trained again; not in a study, or a space, of a few placements."""
        enough = self.begun - self.retrained >= self.fewest and not self.too_many_failures
        return enough and self.retrained < self.retrainings and not self.out_of_time()

    def out_of_time(self, kept: float = 0.0) -> str:
        """Why nothing may begin, when a share of time and training is *kept* for later; empty while it may."""
        config = self.config
        if config.time_budget is not None and time.monotonic() - self.started >= config.time_budget * (1 - kept):
            return f"the time budget of {config.time_budget:g} s is used up"
        if config.compute_budget is not None and self.seconds >= config.compute_budget * (1 - kept):
            return f"the compute budget of {config.compute_budget:g} s of training is used up"
        return ""

    @property
    def nothing_goes_on(self) -> str:
        """Why not even a paused trial may go on; empty while it may."""
        config = self.config
        if self.too_many_failures:
            return self.too_many_failures
        if over := self.out_of_time(config.certify if self.retrainings else 0.0):
            return over
        if config.plateau is not None and self._points and self.begun - self._grown[1] >= config.plateau:
            return f"the front's hypervolume has not grown by {GROWTH:.0%} in the last {config.plateau} trials"
        return ""


def growth(before: Sequence[Point], now: Sequence[Point]) -> float:
    """The share of the hypervolume of *now* that *before* lacks, 0 to 1, both up to the least accurate and the slowest of *now*.

    A first point is all growth.
    """
    if not before:
        return 1.0 if now else 0.0
    points, earlier = np.array(now, float), np.array(before, float)
    reference = (float(points[:, 0].min()), float(points[:, 1].max()))
    volume = hypervolume(points[:, 0], points[:, 1], reference)
    return 1 - hypervolume(earlier[:, 0], earlier[:, 1], reference) / volume if volume > 0 else 0.0
