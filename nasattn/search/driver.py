"""The driver of a search: one process that asks, measures and tells; Ray's workers train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nasattn.attention import Placement
from nasattn.front import FrontMember, front
from nasattn.latency import RuntimeFailure
from nasattn.search.cluster import is_joined, quiet_libraries, ray_cluster, workers_with_room
from nasattn.search.continuing import baselines, enqueue, enter_study, evaluate_again, reconcile, with_precision
from nasattn.search.events import Event, SearchNoted, SearchStarted
from nasattn.search.fingerprint import with_data
from nasattn.search.ownership import owned
from nasattn.search.planning import (
    alike_in_proxy,
    check_buildable,
    default_workers,
    fitted,
    load_study_task,
    precision_line,
    space_line,
    task_lines,
    worker_resources,
)
from nasattn.search.publishing import publish
from nasattn.search.study import StudyConfig
from nasattn.store import EvaluationRecord, Store

if TYPE_CHECKING:
    from nasattn.search.bridge import PlacementSearch
    from nasattn.search.latencies import HostLatencies
    from nasattn.search.worker import Start


@dataclass(frozen=True)
class SearchResult:
    """What a search left in the database.

    Attributes:
        study: Its name.
        storage: The database's URL, without its password.
        evaluations: All trials of the study.
        front: The front, fastest first.
        complete: Whether the budget was used up; False after an interruption, or when too many trials failed.
        ended: Why it ended, in a line.
        training_seconds: Of all workers together, over all runs of the study.
        trainings: What was trained, in whole trainings: one that was stopped at a rung counts by its part.
    """

    study: str
    storage: str
    evaluations: list[EvaluationRecord]
    front: list[FrontMember]
    complete: bool
    ended: str = ""
    training_seconds: float = 0.0
    trainings: float = 0.0


def run_search(
    config: StudyConfig,
    storage: str,
    *,
    address: str | None = None,
    fresh: bool = False,
    listener: Callable[[Event], None] | None = None,
    start: Start | None = None,
    placements: Sequence[Placement] | None = None,
    retrain: int | None = None,
) -> SearchResult:
    """Run a study until its budget is used up, continuing it where the database holds it already.

    While it runs, the study is this driver's alone, and a database that is away for a while is waited for.

    Args:
        config: The study.
        storage: URL of the database.
        address: A Ray cluster to join: ``auto``, HOST:PORT or ray://HOST:PORT; None starts Ray on this machine.
        fresh: Begin another study (``NAME-2``, ``NAME-3``, ...) if there is one of this name.
        listener: Called with every event.
        start: What a worker does with a trial; the default trains the proxy.
        placements: Evaluate these instead of a search; latencies stay what the database knows of them.
        retrain: Search nothing, but train placements again with other seeds, at most so many times, to certify the front.

    Raises:
        UsageError: Space, task, database or configuration are not usable, or another driver has the study; nothing has been trained.
        NasattnError: The search cannot go on.
    """
    quiet_libraries()
    from nasattn.search.appraisal import Appraiser
    from nasattn.search.bridge import PlacementSearch

    store = Store(storage)
    worker_resources(config)  # a share of a GPU that Ray cannot give is found now
    check_buildable(config)
    appraiser = Appraiser(store, config.space.host, config.deployment, config.limits, config.latency_seconds)
    appraiser.check_feasible(config.space)
    task = load_study_task(config)
    asked, config = config.fidelity, fitted(config, task)
    stored = None if fresh else store.find_study(config.name)
    config = with_precision(with_data(config, task, stored), stored)
    config = enter_study(config, store, fresh)
    listener = listener or (lambda event: None)
    store.wait_for_outages(lambda line: listener(SearchNoted(line)))
    with owned(store, config.name) as ownership:
        reconcile(store, config.name)
        evaluate_again(store, config, appraiser)
        search = PlacementSearch(config, store, appraiser, store.evaluations(config.name), listener)
        search.ledger.check = ownership.check
        enqueue(search, placements or list(dict.fromkeys([*baselines(config.space), *map(Placement.parse, config.first)])))
        search.only_queued = placements is not None
        if retrain is not None:
            search.retrain_only(retrain)
        workers = config.workers or (None if address is not None or is_joined() else default_workers(config))
        trials = config.trials if retrain is None else search.counted + retrain
        listener(SearchStarted(config.name, trials, search.counted, workers, store.shown, note=alike_in_proxy(config)))
        for note in filter(None, (space_line(config), precision_line(config), *task_lines(asked, config, task))):
            listener(SearchNoted(note))
        return _run(config, search, workers, address, start, measured_at_end=placements is None)


def _run(
    config: StudyConfig, search: PlacementSearch, workers: int | None, address: str | None, start: Start | None, measured_at_end: bool
) -> SearchResult:
    """Train until nothing more begins, measure the front and record it."""
    store, latencies = search.store, search.appraiser.latencies
    finished = unfinished = not search.is_over
    if unfinished:
        finished = _train(config, search, workers, address, start)
    complete = search.is_over and finished == unfinished
    if complete and measured_at_end:
        measure_front(store, config.name, latencies, search.notify, shared_too=unfinished)
    search.ledger.check()
    evaluations = store.evaluations(config.name)
    members = front(evaluations)
    failures = search.budget.too_many_failures
    ended = failures or (search.ended if complete else "interrupted")
    publish(store, config.name, evaluations, ended, search.notify)
    store.save_front(config.name, ((m.trial, m.tier, m.p_member) for m in members))
    return SearchResult(
        config.name,
        store.shown,
        evaluations,
        members,
        complete and not failures,
        ended=ended,
        training_seconds=search.budget.seconds,
        trainings=sum(e.share_trained for e in evaluations),
    )


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


def _train(config: StudyConfig, search: PlacementSearch, workers: int | None, address: str | None, start: Start | None) -> bool:
    """Train until nothing more begins, by as many workers as there is room for if None; False when interrupted."""
    from nasattn.proxy import Checkpoints
    from nasattn.search.loop import Workers, train_all
    from nasattn.search.worker import start_proxy

    Checkpoints().prune()
    needed = worker_resources(config)
    resources = {"num_cpus": needed["CPU"], "num_gpus": needed.get("GPU", 0.0)}
    with ray_cluster(address, workers) as options:
        used, note = workers_with_room(workers, needed)
        if note:
            search.notify(SearchNoted(note))
        try:
            finished = train_all(search, Workers(used, {**resources, **options}, start or start_proxy, config.progress_timeout))
            if finished:
                search.finish()
        finally:
            search.stop_all()
            search.ledger.check()
            reconcile(search.store, config.name)  # a database that was away may have kept a trial of which nobody heard
    return finished
