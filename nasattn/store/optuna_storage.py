"""Optuna's storage on the study database, which waits for a database that is away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState

from nasattn.store.patience import Patience, patient

OF_THE_CACHE = (
    "_create_new_trial",
    "_set_trial_param",
    "_get_trials",
    "_get_best_trial_id",
)  # what Optuna's cache calls beside the interface


class PatientStorage(RDBStorage):
    """Optuna's own, whose calls are made again while the database is away.

    Args:
        url: Of the database.
        engine_kwargs: For SQLAlchemy's engine.
        patience: How long it waits.
    """

    def __init__(self, url: str, engine_kwargs: dict[str, Any], patience: Patience) -> None:
        self.patience = patience
        super().__init__(url, engine_kwargs=engine_kwargs)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Tell a trial. Where it is told already because only the answer of the first try was lost, that is well."""
        tries = 0

        def tell() -> bool:
            nonlocal tries
            tries += 1
            try:
                return RDBStorage.set_trial_state_values(self, trial_id, state, values)
            except UpdateFinishedTrialError:
                if tries == 1:
                    raise
                return True

        return bool(self.patience.call(tell))


for _name in (*BaseStorage.__abstractmethods__, *OF_THE_CACHE):
    if _name not in vars(PatientStorage):
        setattr(PatientStorage, _name, patient(getattr(RDBStorage, _name)))
