"""How a front grew with the training time that it cost, beside what random choice reaches with as much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nasattn.front import SLOWER, hypervolume
from nasattn.latency import LatencyTable
from nasattn.report.choices import NONE, Choices
from nasattn.report.effects import AccuracyModel
from nasattn.search.sampling.costs import CostModel
from nasattn.search.sampling.kernel import Kernel
from nasattn.search.sampling.model import Floats
from nasattn.store import EvaluationRecord, Store, StudyRecord

FEWEST = 8  # different placements with a latency, from which random choice is predicted
SEQUENCES = 60  # of random placements
STEPS = 60  # at which their hypervolumes are told
LONGEST = 150  # placements of a sequence; beyond, what random choice reaches is not followed
IDENTITY = ("space", "task", "fidelity", "recipe", "device", "deployment")  # what studies share that can be compared


@dataclass(frozen=True)
class Growth:
    """The hypervolume over the seconds of training, as steps.

    Attributes:
        name: Of the study, or empty.
        seconds: Cumulative, ascending, ``(n,)``.
        volume: As parts of the rectangle between the fastest placement without an error and the slowest with the lowest accuracy.
        low: Where most of several runs are above (10 %); equal to volume for a single one.
        high: Where most are below (90 %).
        source: ``study``; ``studies``: other studies that chose at random; ``predicted``: by a model of this study's trials.
    """

    name: str
    seconds: list[float]
    volume: list[float]
    low: list[float]
    high: list[float]
    source: Literal["study", "studies", "predicted"] = "study"


@dataclass(frozen=True)
class Rectangle:
    """What hypervolumes are parts of: the lowest accuracy, the fastest and the slowest latency ratio."""

    lowest: float
    fastest: float
    slowest: float

    @classmethod
    def around(cls, trials: Sequence[EvaluationRecord]) -> Rectangle | None:
        """The one around all completed *trials*; None where there are none, or they are all alike."""
        found = [(t.accuracy, t.latency.ratio) for t in trials if t.state == "COMPLETE" and t.accuracy is not None and t.latency]
        if not found:
            return None
        accuracies, ratios = [a for a, _ in found], [r for _, r in found]
        made = cls(min(accuracies), min(1.0, *ratios), SLOWER * max(ratios))
        return made if max(accuracies) > made.lowest else None

    def share(self, accuracy: Floats, ratio: Floats) -> float:
        """The part that points dominate."""
        whole = (1 - self.lowest) * (self.slowest - self.fastest)
        return hypervolume(accuracy, ratio, (self.lowest, self.slowest)) / whole


def growth(name: str, trials: Sequence[EvaluationRecord], within: Rectangle) -> Growth:
    """How the front of a study's *trials* grew. Trials of one placement with several seeds count by their mean, so that it may also shrink."""
    seconds, known = 0.0, dict[str, tuple[list[float], float]]()
    times, volumes = [0.0], [0.0]
    for trial in sorted(trials, key=lambda t: (t.finished_at is None, t.finished_at.timestamp() if t.finished_at else 0.0, t.trial)):
        if trial.reused_from is None and trial.seconds:
            seconds += trial.seconds
        if trial.state == "COMPLETE" and trial.accuracy is not None and trial.latency:
            known.setdefault(trial.placement, ([], trial.latency.ratio))[0].append(trial.accuracy)
            accuracy, ratio = np.array([np.mean(a) for a, _ in known.values()]), np.array([r for _, r in known.values()])
            times.append(seconds)
            volumes.append(within.share(accuracy, ratio))
    return Growth(name, times, volumes, volumes, volumes)


def random_studies(store: Store, record: StudyRecord) -> list[StudyRecord]:
    """Other studies of the database that chose at random, in the same space, on the same task, with the same proxies on the same device."""
    same = {key: record.config.get(key) for key in IDENTITY}
    others = (s for s in store.studies() if s.name != record.name and s.config.get("sampler") == "random" and not s.config.get("held_out"))
    return [s for s in others if {key: s.config.get(key) for key in IDENTITY} == same]


def mean_growth(runs: Sequence[Growth]) -> Growth:
    """The mean of several runs and where most of them are, up to the seconds that each of them has."""
    end = min(run.seconds[-1] for run in runs)
    at = np.linspace(0.0, end, STEPS)
    volumes = np.array([_at(np.array(run.seconds), np.array(run.volume), at) for run in runs])
    return _summary(at, volumes, "studies", ", ".join(run.name for run in runs))


def predicted_random(
    choices: Choices, trials: Sequence[EvaluationRecord], table: LatencyTable, model: AccuracyModel, within: Rectangle, seconds: float
) -> Growth | None:
    """What placements drawn at random are predicted to reach within so many *seconds* of training.

    Accuracies are joint draws from *model*, with the noise of a training; latencies and training times are sums over the stages, learnt
    from the trials and the *table*. None where the study has too few different placements for that.
    """
    done = [(p, t) for t in trials if t.latency and t.seconds and (p := choices.point(t.placement)) is not None]
    if len({p for p, _ in done}) < FEWEST:
        return None
    kernel, rng = Kernel(choices.domain), np.random.default_rng(0)
    points = np.array([p for p, _ in done], dtype=np.int64)
    ratios, costs = np.array([t.latency.ratio for _, t in done if t.latency]), np.array([t.seconds for _, t in done], dtype=float)
    singles = [(n, i, 1 + table.added(n, t)) for n, i, t in _entries(choices, table)]
    anchors = np.zeros((len(singles), points.shape[1]), dtype=np.int64)
    for row, (number, index, _) in enumerate(singles):
        anchors[row, number - 1] = index
    latency = CostModel.fit(kernel, np.vstack([points, anchors]), np.concatenate([ratios, [r for _, _, r in singles]]))
    training = CostModel.fit(kernel, points, costs)
    number = min(LONGEST, int(np.ceil(1.5 * seconds / np.median(costs))) + 1)
    at, volumes = np.linspace(0.0, seconds, STEPS), np.full((SEQUENCES, STEPS), np.nan)
    for row in range(SEQUENCES):
        drawn = choices.domain.draw(rng, number)
        accuracy, ratio = model.draws(drawn, rng) / 100, latency.predict(drawn)
        ends = np.cumsum(np.maximum(training.predict(drawn), 0.3 * costs.min()))
        grown = np.array([0.0, *(within.share(accuracy[: n + 1], ratio[: n + 1]) for n in range(number))])
        volumes[row] = np.where(at <= ends[-1], _at(np.concatenate([[0.0], ends]), grown, at), np.nan)
    enough = np.isfinite(volumes).all(0)
    return _summary(at[enough], volumes[:, enough], "predicted", "")


def _entries(choices: Choices, table: LatencyTable) -> list[tuple[int, int, str]]:
    return [
        (number, index, token)
        for number, tokens in enumerate(choices.tokens, start=1)
        for index, token in enumerate(tokens)
        if token != NONE and (number, token) in table.entries and (number, NONE) in table.entries
    ]


def _at(times: Floats, values: Floats, at: Floats) -> Floats:
    """The value of a step function at each time."""
    return np.asarray(values[np.searchsorted(times, at, side="right") - 1])


def _summary(at: Floats, volumes: Floats, source: Literal["studies", "predicted"], name: str) -> Growth:
    low, high = np.percentile(volumes, [10, 90], axis=0)
    return Growth(name, at.tolist(), volumes.mean(0).tolist(), low.tolist(), high.tolist(), source)
