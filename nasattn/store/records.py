"""What the store takes and gives: plain frozen records. No SQLAlchemy object leaves the store."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

# Optuna's states, and INTERRUPTED: its driver ended during the trial (FAIL in Optuna), whose placement is queued again
State = Literal["RUNNING", "COMPLETE", "PRUNED", "FAIL", "INTERRUPTED"]


PROXY_REPORT = "proxy"  # kind of the report on how far a study's proxy can be trusted


@dataclass(frozen=True)
class StudyRecord:
    """A study as it was begun."""

    name: str
    config: dict[str, Any]
    versions: dict[str, Any]
    seed: int
    created_at: datetime | None = None


METHODS = {"pair": "measured end to end", "table": "predicted from the table of stages"}  # how a latency was found


@dataclass(frozen=True)
class LatencyRecord:
    """A paired measurement: milliseconds per batch, and the ratio to the baseline with its 95 % interval.

    Attributes:
        ms: Median of the candidate.
        baseline_ms: Median of the baseline.
        ratio: Candidate / baseline.
        ratio_low: Lower end of its interval.
        ratio_high: Upper end.
        pairs: Rounds of the measurement; 0 for a prediction.
        settled: The interval became as narrow as it should.
        exclusive: Nothing else used the device; else the measurement is `shared`, and cannot certify a member of a front.
        method: ``pair``: measured end to end; ``table``: predicted from the table.
        ms_p90: 90th percentile of the candidate.
        baseline_ms_p90: Of the baseline.
        device_ms: Median by the GPU's own clock.
        baseline_device_ms: Of the baseline.
        calibration: Log ratio of the baseline against its clone in the same run of the meter.
        contention: What else used the device.
        environment: What could be read of the machine: clocks, governor, system.
    """

    ms: float
    baseline_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    pairs: int
    settled: bool
    exclusive: bool
    method: Literal["pair", "table"] = "pair"
    ms_p90: float | None = None
    baseline_ms_p90: float | None = None
    device_ms: float | None = None
    baseline_device_ms: float | None = None
    calibration: float | None = None
    contention: str | None = None
    environment: dict[str, Any] | None = None


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
    constraints: dict[str, Any] | None = None
    notes: list[str] | None = None
    held_out: float | None = None
    id: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def stopped_at_rung(self) -> bool:
        """Whether its training was stopped for better ones; else PRUNED is a placement above a limit, which was never trained."""
        return self.state == "PRUNED" and any("rung" in point for point in self.curve)

    @property
    def is_own_trial(self) -> bool:
        """Whether it counts as one of the study's trials: its training, begun here, has ended."""
        return self.reused_from is None and (self.state in ("COMPLETE", "FAIL") or self.stopped_at_rung)

    @property
    def share_trained(self) -> float:
        """The part of a whole training that it had here, 0 to 1."""
        if self.reused_from is not None or not self.curve:
            return float(self.reused_from is None and self.state == "COMPLETE")
        return float(min(1.0, self.curve[-1]["epoch"] / self.fidelity["epochs"]))


@dataclass(frozen=True)
class ReportRecord:
    """What was found out about a study as a whole.

    Attributes:
        study: Name of the study.
        kind: What the report is about, such as ``proxy``.
        content: Plain data for JSON; no NaN, which PostgreSQL refuses.
        created_at: When it was saved.
    """

    study: str
    kind: str
    content: dict[str, Any]
    created_at: datetime | None = None
