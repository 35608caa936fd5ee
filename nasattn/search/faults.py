"""Trials that end without a result of their own: their worker died, or their driver did."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial
from ray.tune import Callback

FORCED = "forced_placement"  # user attribute of an enqueued trial whose placement the space does not list


def enqueue_again(study: Study, trial: Trial | FrozenTrial) -> None:
    """Queue the placement of a trial that was stopped, so that it is asked for next."""
    forced = {k: v for k, v in trial.user_attrs.items() if k == FORCED}
    if trial.params or forced:
        study.enqueue_trial(trial.params, user_attrs=forced)


class DeadWorkers(Callback):  # type: ignore[misc]
    """Hears of trials that Ray gave up, because their worker was killed, ran out of memory, or its node is gone.

    Args:
        tell: Called with Ray's id of the trial and the reason.
    """

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        self.tell = tell

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.tell(trial.trial_id, f"the worker died: {_first_cause(trial.error_file)}")


def _first_cause(error_file: str | None) -> str:
    """One line of what Ray wrote of a failure: the exception's own line if there is one, else the first."""
    text = Path(error_file).read_text(errors="replace") if error_file and Path(error_file).exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("Failure #")]
    exceptions = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Exit)\b", line)]
    return exceptions[-1] if exceptions else (lines or ["no message"])[0]
