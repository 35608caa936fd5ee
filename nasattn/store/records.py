"""What the store takes and gives: plain frozen records. No SQLAlchemy object leaves the store."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

# Optuna's states, and INTERRUPTED: its driver ended during the trial (FAIL in Optuna), whose placement is queued again
State = Literal["RUNNING", "COMPLETE", "PRUNED", "FAIL", "INTERRUPTED"]


@dataclass(frozen=True)
class StudyRecord:
    """A study as it was begun."""

    name: str
    config: dict[str, Any]
    versions: dict[str, Any]
    seed: int
    created_at: datetime | None = None


@dataclass(frozen=True)
class LatencyRecord:
    """A paired measurement: milliseconds per batch, and the ratio to the plain host with its 95 % interval."""

    ms: float
    baseline_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    pairs: int
    settled: bool
    exclusive: bool


@dataclass(frozen=True)
class EvaluationRecord:
    """One trial of a study with everything known of it."""

    trial: int
    placement: str
    state: State
    seed: int
    params: int
    macs: int
    fidelity: dict[str, Any]
    identity: str
    latency: LatencyRecord | None = None
    accuracy: float | None = None
    val_samples: int | None = None
    curve: list[dict[str, float]] = field(default_factory=list)
    seconds: float | None = None
    worker: str | None = None
    error: str | None = None
    reused_from: int | None = None
    id: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
