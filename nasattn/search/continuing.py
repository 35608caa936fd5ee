"""A study is begun, or the database is brought to the truth so that it goes on."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from nasattn.attention import Placement
from nasattn.errors import StorageError, StudyError
from nasattn.proxy import Recipe
from nasattn.search.limits import evaluate
from nasattn.search.study import StudyConfig, check_same
from nasattn.store import Store, StudyRecord

if TYPE_CHECKING:
    from nasattn.search.appraisal import Appraiser
    from nasattn.search.bridge import PlacementSearch
    from nasattn.space import SearchSpace

QUEUED = "queued"  # user attribute of a trial that this study's driver queued at its start
PACKAGES = ("nasattn", "torch", "timm", "optuna", "ray", "sqlalchemy", "numpy")


def enter_study(config: StudyConfig, store: Store, fresh: bool) -> StudyConfig:
    """Begin the study in the store, or check that it is the same that the store holds."""
    if fresh:
        name, number = config.name, 2
        while store.find_study(config.name) is not None:
            config, number = replace(config, name=f"{name}-{number}"), number + 1
    stored = store.find_study(config.name)
    if stored is not None:
        check_same(stored.config, config)
    else:
        if config.name in {s.study_name for s in store.optuna.get_all_studies()}:
            raise StudyError(
                f"the database holds an Optuna study {config.name!r} that nasattn did not make: choose another name with --study"
            )
        try:
            store.add_study(StudyRecord(config.name, config.to_dict(), versions(), config.seed))
        except StorageError:
            if (stored := store.find_study(config.name)) is None:  # else another driver began it at this moment
                raise
            check_same(stored.config, config)
    return config


def with_precision(config: StudyConfig, stored: StudyRecord | None) -> StudyConfig:
    """*config* in the precision of the study as the database holds it, where nobody has chosen one: this machine's may be another."""
    if stored is None or "precision" not in config.by_default:
        return config
    return replace(config, recipe=config.recipe.changed(precision=Recipe.from_dict(stored.config["recipe"]).precision))


def reconcile(store: Store, study_name: str) -> None:
    """Bring the database to the truth before a driver starts: what was RUNNING when the last one ended is told FAIL and queued again."""
    import optuna
    from optuna.trial import TrialState

    from nasattn.search.ledger import enqueue_again
    from nasattn.search.sampling.history import INTERRUPTED

    for record in store.evaluations(study_name, state="RUNNING"):
        if record.id is not None:
            store.finish_evaluation(record.id, "INTERRUPTED", error="the driver ended during this trial")
    if study_name not in {s.study_name for s in store.optuna.get_all_studies()}:
        return
    study = optuna.load_study(study_name=study_name, storage=store.optuna)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        store.optuna.set_trial_user_attr(trial._trial_id, "reason", "the driver ended during this trial; its placement is queued again")
        store.optuna.set_trial_user_attr(trial._trial_id, INTERRUPTED, True)
        study.tell(trial.number, state=TrialState.FAIL)
        enqueue_again(study, trial)


def evaluate_again(store: Store, config: StudyConfig, appraiser: Appraiser) -> None:
    """Record what the limits, which may have changed since, say of the trials that the study has already."""
    for record in store.evaluations(config.name):
        if record.id is not None and record.latency is not None and config.limits:
            costs = appraiser.costs(Placement.parse(record.placement), record.latency)
            store.set_constraints(record.id, evaluate(config.limits, costs))


def baselines(space: SearchSpace) -> list[Placement]:
    """What a search begins with: the plain host, and what the network is in its original form where the space offers that."""
    plain, native = space.plain(), space.native()
    return [plain, native] if native != plain and native in space else [plain]


def enqueue(search: PlacementSearch, placements: Sequence[Placement]) -> None:
    """Queue *placements*, also those that the space does not list, but for those that were queued or evaluated before."""
    trials = search.study.get_trials(deepcopy=False)
    known = {trial.user_attrs.get(name) for trial in trials for name in (QUEUED, "placement")}
    for placement in placements:
        if str(placement) not in known:
            search.enqueue(placement, {QUEUED: str(placement)})


def versions() -> dict[str, str]:
    """Versions of Python and the packages that decide a result."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
