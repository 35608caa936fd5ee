"""The driver of a search: one process that asks, measures and tells; Ray's workers train."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from nasattn.attention import Placement
from nasattn.errors import StudyError, UsageError
from nasattn.front import FrontMember, front
from nasattn.hosts import get_host
from nasattn.latency import DeviceKey, RuntimeFailure
from nasattn.search.cluster import quiet_libraries, ray_cluster, scratch_folder
from nasattn.search.events import Event, SearchNoted, SearchStarted
from nasattn.search.limits import evaluate
from nasattn.search.study import StudyConfig, check_same
from nasattn.store import EvaluationRecord, Store, StudyRecord
from nasattn.tasks import Task, load_task

if TYPE_CHECKING:
    from nasattn.search.appraisal import Appraiser
    from nasattn.search.bridge import PlacementSearch
    from nasattn.search.latencies import HostLatencies
    from nasattn.search.worker import Start
    from nasattn.space import SearchSpace

RETRIES = 1  # of a trial whose worker died; it goes on from its checkpoint
PACKAGES = ("nasattn", "torch", "timm", "optuna", "ray", "sqlalchemy", "numpy")


@dataclass(frozen=True)
class SearchResult:
    """What a search left in the database.

    Attributes:
        study: Its name.
        storage: The database's URL, without its password.
        evaluations: All trials of the study.
        front: The front, fastest first.
        complete: Whether the budget was used up; False after an interruption.
        note: What the user should know of how it ended; often empty.
    """

    study: str
    storage: str
    evaluations: list[EvaluationRecord]
    front: list[FrontMember]
    complete: bool
    note: str = ""


def run_search(
    config: StudyConfig,
    storage: str,
    *,
    address: str | None = None,
    fresh: bool = False,
    listener: Callable[[Event], None] | None = None,
    start: Start | None = None,
    placements: Sequence[Placement] | None = None,
) -> SearchResult:
    """Run a study until its budget is used up, continuing it where the database holds it already.

    Args:
        config: The study.
        storage: URL of the database.
        address: A Ray cluster to join; None starts Ray on this machine.
        fresh: Begin another study (``NAME-2``, ``NAME-3``, ...) if there is one of this name.
        listener: Called with every event.
        start: What a worker does with a trial; the default trains the proxy.
        placements: Evaluate these instead of a search; latencies stay what the database knows of them.

    Raises:
        UsageError: Space, task, database or configuration are not usable; nothing has been trained.
        NasattnError: The search cannot go on.
    """
    quiet_libraries()
    from nasattn.search.appraisal import Appraiser
    from nasattn.search.bridge import PlacementSearch

    store = Store(storage)
    check_buildable(config)
    appraiser = Appraiser(store, config.space.host, config.deployment, config.limits, config.latency_seconds)
    appraiser.check_feasible(config.space)
    task = load_study_task(config)
    config = replace(config, fidelity=replace(config.fidelity, val_samples=len(task.val), samples=len(task.train)))
    config = _enter_study(config, store, fresh)
    reconcile(store, config.name)
    listener = listener or (lambda event: None)
    evaluate_again(store, config, appraiser)
    search = PlacementSearch(config, store, appraiser, store.evaluations(config.name), listener)
    if not search.study.get_trials(deepcopy=False):
        enqueue(search, placements or baselines(search.config.space))
    search.only_queued = placements is not None
    workers = config.workers or default_workers(config)
    listener(SearchStarted(config.name, config.trials, search.counted, workers, store.shown, note=alike_in_proxy(config)))
    unfinished = not search.is_over
    if unfinished:
        _run_ray(config, search, workers, address, start)
    if search.is_over and placements is None:
        measure_front(store, config.name, appraiser.latencies, listener, shared_too=unfinished)
    evaluations = store.evaluations(config.name)
    members = front(evaluations)
    store.save_front(config.name, ((m.trial, m.tier, m.p_member) for m in members))
    none_left = f"no other placement of {config.space.name} was found within the limits" if search.exhausted and search.above else ""
    return SearchResult(config.name, store.shown, evaluations, members, complete=search.is_over, note=none_left)


def check_buildable(config: StudyConfig) -> None:
    """Build every choice of the space once on the meta device, on the host and on its proxy.

    Raises:
        UsageError: One cannot be built, with the space, the placement and the cause.
    """
    host = get_host(config.space.host)
    fidelity = config.fidelity
    for row in range(max(len(t) for t in config.space.tokens)):
        placement = Placement(tuple(t[min(row, len(t) - 1)] for t in config.space.tokens))
        try:
            host.build(placement, device="meta")
            if not config.recipe.pretrained:
                host.build_proxy(
                    placement,
                    width=fidelity.width,
                    blocks=fidelity.blocks,
                    stem_stride=fidelity.stem_stride,
                    num_classes=10,
                    device="meta",
                )
        except (RuntimeError, ValueError, TypeError) as error:
            raise UsageError(
                f"{config.space.where('stages')}: {placement} cannot be built on {host.name} or its proxy of width {fidelity.width:g}: {error}"
            ) from None


def alike_in_proxy(config: StudyConfig) -> str:
    """A line that says which choices the proxies of this fidelity cannot tell apart; empty where there are none."""
    host, fidelity = get_host(config.space.host), config.fidelity
    if config.recipe.pretrained:  # the proxies are the host itself
        return ""
    slots = host.proxy_stages(fidelity.width, fidelity.blocks)
    lost = []
    for number, (tokens, offered, blocks) in enumerate(zip(config.space.tokens, slots, host.blocks, strict=True), start=1):
        different = len({offered.scaled(token, fidelity.width, blocks) for token in tokens})
        if different < len(tokens):
            lost.append(f"stage {number} has {len(tokens)} choices and {different} different proxies")
    if not lost:
        return ""
    return f"note: {'; '.join(lost)} with fidelity blocks {fidelity.blocks}, width {fidelity.width:g}: raise them to tell all choices apart"


def load_study_task(config: StudyConfig) -> Task:
    """The task as the workers will load it. Raises TaskError."""
    return load_task(config.task, config.task_request())


def _enter_study(config: StudyConfig, store: Store, fresh: bool) -> StudyConfig:
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
        store.add_study(StudyRecord(config.name, config.to_dict(), versions(), config.seed))
    return config


def reconcile(store: Store, study_name: str) -> None:
    """Bring the database to the truth before a driver starts: what was RUNNING when the last one ended is told FAIL and queued again."""
    import optuna
    from optuna.trial import TrialState

    from nasattn.search.faults import enqueue_again

    for record in store.evaluations(study_name, state="RUNNING"):
        if record.id is not None:
            store.finish_evaluation(record.id, "INTERRUPTED", error="the driver ended during this trial")
    if study_name not in {s.study_name for s in store.optuna.get_all_studies()}:
        return
    study = optuna.load_study(study_name=study_name, storage=store.optuna)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        store.optuna.set_trial_user_attr(trial._trial_id, "reason", "the driver ended during this trial; its placement is queued again")
        study.tell(trial.number, state=TrialState.FAIL)
        enqueue_again(study, trial)


def evaluate_again(store: Store, config: StudyConfig, appraiser: Appraiser) -> None:
    """Record what the limits, which may have changed since, say of the trials that the study has already."""
    for record in store.evaluations(config.name):
        if record.id is not None and record.latency is not None and config.limits:
            costs = appraiser.costs(Placement.parse(record.placement), record.latency)
            store.set_constraints(record.id, evaluate(config.limits, costs))


def measure_front(store: Store, study: str, latencies: HostLatencies, listener: Callable[[Event], None], shared_too: bool) -> None:
    """Measure end to end those members of a study's front whose latency is predicted, and those that take their place then.

    With *shared_too* those as well whose measurement was disturbed; each is tried once.
    """
    from nasattn.search.latencies import read_table

    tried: set[str] = set()

    def unsure(member: FrontMember) -> bool:
        return member.placement not in tried and (member.latency_method == "table" or (shared_too and not member.latency_exclusive))

    while members := [m for m in front(store.evaluations(study)) if unsure(m)]:
        _, error = read_table(store, latencies.key, latencies.host.name)
        told = f"; so far the table of stages predicts with an error of {error}" if error else ""
        listener(SearchNoted(f"measuring {len(members)} of the front end to end{told}"))
        for member in members:
            tried.add(member.placement)
            with suppress(RuntimeFailure):  # its stages ran one by one; then it keeps the prediction
                latency_id, _ = latencies.measure(Placement.parse(member.placement))
                store.set_latency(study, member.placement, latency_id)


def baselines(space: SearchSpace) -> list[Placement]:
    """What a search begins with: the plain host, and what the network is in its original form where the space offers that."""
    plain, native = space.plain(), space.native()
    return [plain, native] if native != plain and native in space else [plain]


def enqueue(search: PlacementSearch, placements: Sequence[Placement]) -> None:
    """Queue *placements*, also those that the space does not list."""
    from nasattn.search.faults import FORCED

    for placement in placements:
        if placement in search.config.space:
            search.study.enqueue_trial(search.config.space.params(placement, search.flat))
        else:
            search.study.enqueue_trial({}, user_attrs={FORCED: str(placement)})


def default_workers(config: StudyConfig) -> int:
    """One worker per CPU, or as many as the GPUs have room for."""
    if config.device == "cuda":
        import torch

        return max(1, int(torch.cuda.device_count() / config.gpus_per_trial))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_ray(config: StudyConfig, search: PlacementSearch, workers: int, address: str | None, start: Start | None) -> None:
    from ray import tune

    from nasattn.proxy import Checkpoints
    from nasattn.search.faults import DeadWorkers
    from nasattn.search.worker import ProxyTrainable, start_proxy

    Checkpoints().prune()
    resources = {"cpu": 1.0, "gpu": config.gpus_per_trial} if config.device == "cuda" else {"cpu": 1.0}
    trainable = tune.with_resources(tune.with_parameters(ProxyTrainable, start=start or start_proxy), resources)
    with ray_cluster(address, workers), scratch_folder() as folder:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(search_alg=search, num_samples=-1, max_concurrent_trials=workers, reuse_actors=True),
            run_config=tune.RunConfig(
                name="search",
                storage_path=folder,
                verbose=0,
                callbacks=[DeadWorkers(search.lose)],
                failure_config=tune.FailureConfig(max_failures=RETRIES),
            ),
        )
        try:
            tuner.fit()
        finally:
            for trial_id in list(search.running):
                search.stop(trial_id)


def versions() -> dict[str, str]:
    """Versions of Python and the packages that decide a result."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def plan(config: StudyConfig) -> dict[str, Any]:
    """What a search would do: every choice is built once and the task loaded, nothing is trained or written. For `--dry-run`."""
    from nasattn.search.appraisal import Appraiser

    check_buildable(config)
    Appraiser(Store("sqlite://"), config.space.host, config.deployment, config.limits).check_feasible(config.space)
    task = load_study_task(config)
    return {
        "study": config.name,
        "space": f"{config.space.name}: {config.space.size:,} placements on {config.space.host}, every choice can be built",
        "task": f"{task.name}: {len(task.train):,} training and {len(task.val):,} validation images, {len(task.classes)} classes",
        "fidelity": config.fidelity.to_dict(),
        "note": alike_in_proxy(config).removeprefix("note: ") or None,
        "recipe": config.recipe.to_dict(),
        "trials": config.trials,
        "sampler": config.sampler,
        "limits": {limit.name: str(limit) for limit in config.limits.values()} or None,
        "deployment": str(DeviceKey.here(config.deployment.at(get_host(config.space.host).resolution))),
        "device": config.device,
        "workers": config.workers or default_workers(config),
        "seed": config.seed,
    }
