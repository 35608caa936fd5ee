"""The store: studies, architectures, evaluations, latencies, fronts and reports, in Optuna's database."""

from __future__ import annotations

from nasattn.store.records import EvaluationRecord, LatencyRecord, ReportRecord, State, StudyRecord
from nasattn.store.store import Store

__all__ = ["EvaluationRecord", "LatencyRecord", "ReportRecord", "State", "Store", "StudyRecord"]
