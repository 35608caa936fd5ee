"""The store: studies, architectures, evaluations, latencies and fronts, in Optuna's database."""

from __future__ import annotations

from nasattn.store.records import EvaluationRecord, LatencyRecord, State, StudyRecord
from nasattn.store.store import Store

__all__ = ["EvaluationRecord", "LatencyRecord", "State", "Store", "StudyRecord"]
