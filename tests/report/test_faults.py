"""What a user is told of trials that failed."""

from __future__ import annotations

from dataclasses import replace

from nasattn.report.faults import fault_lines, faults
from tests.report.records import trial

TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 3, in step\n    raise RuntimeError\nRuntimeError: fell over'


def test_failures_are_told_by_cause() -> None:
    complete = trial(0, "none,none,none,none", 0.5)
    failed = [replace(complete, trial=i, state="FAIL", error=TRACEBACK) for i in range(1, 8)]
    nan = [replace(complete, trial=i, state="FAIL", error=f"accuracy is nan after epoch {i} (loss nan)") for i in (8, 9)]
    trials = [complete, *nan, *failed]
    assert list(faults(trials)) == ["RuntimeError: fell over", "accuracy is nan after epoch 8 (loss nan)"]
    assert fault_lines("s", trials) == [
        "7 trials failed: RuntimeError: fell over (trial 1, 2, 3, 4, 5, ...; `nasattn show s 1` says all)",
        "2 trials failed: accuracy is nan after epoch 8 (loss nan) (trial 8, 9; `nasattn show s 8` says all)",
    ]
    assert fault_lines("s", [complete]) == []
