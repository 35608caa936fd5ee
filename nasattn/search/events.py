"""What a search tells whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass

from nasattn.store.records import EvaluationRecord


@dataclass(frozen=True)
class SearchStarted:
    """The search is about to run: the study's name, trainings wanted and already there, workers, and what the user should know.

    Workers are None where the cluster decides; a SearchNoted says how many as soon as it is joined.
    """

    study: str
    trials: int
    finished: int
    workers: int | None
    storage: str
    note: str = ""


@dataclass(frozen=True)
class TrialStarted:
    """A placement's latency is known and its proxy begins to train."""

    trial: int
    placement: str
    latency_ratio: float


@dataclass(frozen=True)
class TrialReported:
    """A trial has come to a rung or to the end of an epoch."""

    trial: int
    epoch: float
    epochs: int
    accuracy: float


@dataclass(frozen=True)
class TrialPaused:
    """A trial waits at a rung: others of about its latency were better so far. It goes on if that changes, else it ends PRUNED."""

    trial: int


@dataclass(frozen=True)
class TrialResumed:
    """A paused trial goes on."""

    trial: int
    placement: str
    latency_ratio: float


@dataclass(frozen=True)
class TrialFinished:
    """A trial ended, in whatever state."""

    record: EvaluationRecord


@dataclass(frozen=True)
class SearchNoted:
    """Something that the user should know, in one line."""

    text: str


Event = SearchStarted | SearchNoted | TrialStarted | TrialReported | TrialPaused | TrialResumed | TrialFinished
