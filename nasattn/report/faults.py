"""What went wrong in a study: its failed trials by cause."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nasattn.store.records import EvaluationRecord

MOST_NAMED = 5  # trials of one cause


def faults(trials: Sequence[EvaluationRecord]) -> dict[str, list[EvaluationRecord]]:
    """The failed trials by cause, the most frequent one first. Causes that differ in numbers alone are one, named as first met."""
    found: dict[str, tuple[str, list[EvaluationRecord]]] = {}
    for trial in trials:
        if trial.state == "FAIL":
            cause = cause_of(trial)
            found.setdefault(re.sub(r"\d+", "#", cause), (cause, []))[1].append(trial)
    return dict(sorted(found.values(), key=lambda item: -len(item[1])))


def fault_lines(study: str, trials: Sequence[EvaluationRecord]) -> list[str]:
    """A line for each cause: how many trials failed by it, which, and how to see more."""
    lines = []
    for cause, failed in faults(trials).items():
        named = ", ".join(str(t.trial) for t in failed[:MOST_NAMED]) + (", ..." if len(failed) > MOST_NAMED else "")
        number = f"{len(failed)} trials" if len(failed) > 1 else "1 trial"
        lines.append(f"{number} failed: {cause} (trial {named}; `nasattn show {study} {failed[0].trial}` says all)")
    return lines


def cause_of(trial: EvaluationRecord) -> str:
    """Why a trial failed, in a line: the last one of a traceback, which names the error."""
    lines = (trial.error or "").strip().splitlines()
    if not lines:
        return "no reason was recorded"
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]
