"""How far a study's proxy can be trusted: some of its placements trained much longer, with new seeds, on images no search sees.

The long runs are studies of their own in the same database, one for each seed: they are continued after an interruption,
shared between reports, and open in the dashboard like any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nasattn.attention import Placement
from nasattn.errors import NasattnError, StudyError, UsageError
from nasattn.proxy import ProxyJob, build_proxy
from nasattn.proxy.agreement import Agreement, agree, stratified
from nasattn.proxy.ranks import Floats
from nasattn.proxy.steps import prepared
from nasattn.proxy.trainer import channel_scale
from nasattn.proxy.zero_cost import gradient_norm, naswot
from nasattn.search.cluster import quiet_libraries, ray_cluster
from nasattn.search.driver import run_search
from nasattn.search.events import Event
from nasattn.search.planning import default_workers
from nasattn.search.study import StudyConfig
from nasattn.store import EvaluationRecord, Store
from nasattn.store.records import PROXY_REPORT
from nasattn.tasks import load_task

if TYPE_CHECKING:
    from nasattn.search.worker import Start

FEWEST = 8  # placements of a study that are worth a report
ZERO_COST_IMAGES = 64


@dataclass(frozen=True)
class ProxyReport:
    """What was found, and by how much training.

    Attributes:
        study: Whose proxy it is.
        longer: Times the proxy's epochs that the long runs had.
        long_runs: The names of their studies, one for each seed.
        agreement: Between proxy and long runs, beside the counted predictors.
        stopped: How many of the placements the search had stopped at a rung, whose proxies were trained to the end for this.
    """

    study: str
    longer: int
    long_runs: tuple[str, ...]
    agreement: Agreement
    stopped: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "study": self.study,
            "longer": self.longer,
            "long_runs": list(self.long_runs),
            "agreement": self.agreement.to_dict(),
            "stopped": self.stopped,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ProxyReport:
        """The inverse of :meth:`to_dict`."""
        return cls(
            values["study"],
            values["longer"],
            tuple(values["long_runs"]),
            Agreement.from_dict(values["agreement"]),
            values.get("stopped", 0),
        )


def stored_proxy_report(store: Store, study: str) -> ProxyReport | None:
    """The last report on the proxy of *study*, or None."""
    record = store.report(study, PROXY_REPORT)
    return ProxyReport.from_dict(record.content) if record else None


def run_proxy_report(
    store: Store,
    study: str,
    *,
    placements: int = 20,
    longer: int = 5,
    seeds: int = 2,
    workers: int | None = None,
    address: str | None = None,
    listener: Callable[[Event], None] | None = None,
    start: Start | None = None,
) -> ProxyReport:
    """Train placements of a study longer and compare.

    Placements that the search stopped at a rung take part, below those that it did not, since it was the proxy that decided who is
    stopped. Their proxies are trained to the end first.

    Args:
        store: The database.
        study: With trials that are completed or were stopped at a rung.
        placements: How many, spread evenly over the ranks of the study's accuracies, the best and the worst among them.
        longer: Times the proxy's epochs.
        seeds: Long runs of each placement, none of them with the study's own seed.
        workers: Trainings at once; by default one per CPU or GPU.
        address: A Ray cluster to join; None starts Ray on this machine.
        listener: Called with every event.
        start: What a worker does with a trial; the default trains the proxy.

    Raises:
        UsageError: The study has too few such trials, or a number is too small.
        NasattnError: The trainings were interrupted; the same call continues them.
    """
    for name, value, least in (("placements", placements, FEWEST), ("longer", longer, 2), ("seeds", seeds, 2)):
        if value < least:
            raise UsageError(f"{name} must be at least {least}, got {value}")
    config = replace(StudyConfig.from_stored(store.study(study)), workers=workers)
    trials = ranked(store, study)
    if len(trials) < FEWEST:
        raise StudyError(
            f"study {study!r} has {len(trials)} trained placements with a latency; a report needs at least {FEWEST}: "
            f"continue it by `nasattn search --study {study} --trials {3 * FEWEST} ...`"
        )
    chosen = [trials[i] for i in stratified(np.array([_standing(t, config.fidelity.rungs) for t in trials]), placements, config.seed)]
    stopped = [Placement.parse(t.placement) for t in chosen if t.state != "COMPLETE"]
    longs = [long_run(config, longer, config.seed + 1 + number, len(chosen)) for number in range(seeds)]
    tokens = [Placement.parse(t.placement) for t in chosen]
    quiet_libraries()
    with ray_cluster(address, workers or default_workers(config)):
        proxies = {t.placement: t.accuracy for t in chosen if t.accuracy is not None}
        if stopped:
            whole = replace(config, name=f"{config.name}-x1-s{config.seed}", trials=len(stopped), sampler="random")
            evaluate(store, whole, stopped, listener, start)
            proxies |= accuracy_of(store, whole.name)
        for long in longs:
            evaluate(store, long, tokens, listener, start)
    accuracies = [accuracy_of(store, long.name) for long in longs]
    report = ProxyReport(
        study,
        longer,
        tuple(long.name for long in longs),
        agree(
            [t.placement for t in chosen],
            np.array([proxies.get(t.placement, math.nan) for t in chosen]),
            np.array([[found.get(t.placement, math.nan) for found in accuracies] for t in chosen]),
            np.array([t.latency.ratio for t in chosen if t.latency]),
            counted(config, chosen),
        ),
        len(stopped),
    )
    store.save_report(study, PROXY_REPORT, report.to_dict())
    return report


def ranked(store: Store, study: str) -> list[EvaluationRecord]:
    """Of each placement of *study* that has a latency the first completed trial, else the first that was stopped at a rung."""
    trials = [t for t in store.evaluations(study) if t.latency is not None]
    completed = [t for t in trials if t.state == "COMPLETE" and t.accuracy is not None]
    first: dict[str, EvaluationRecord] = {}
    for trial in (*completed, *(t for t in trials if t.stopped_at_rung)):
        first.setdefault(trial.placement, trial)
    return list(first.values())


def _standing(trial: EvaluationRecord, rungs: int) -> float:
    """What puts trials in the order of the search: the accuracy, 0..1, and for one that was stopped, less by 1 for each rung that it missed."""
    if trial.state == "COMPLETE":
        assert trial.accuracy is not None
        return trial.accuracy
    last = [point for point in trial.curve if "rung" in point][-1]
    return last["accuracy"] - (rungs - last["rung"])


def long_run(config: StudyConfig, longer: int, seed: int, trials: int) -> StudyConfig:
    """The study of the long runs of one seed: *longer* times the epochs, scored on held-out images."""
    fidelity = replace(config.fidelity, epochs=config.fidelity.epochs * longer)
    return replace(
        config, name=f"{config.name}-x{longer}-s{seed}", fidelity=fidelity, seed=seed, trials=trials, sampler="random", held_out=True
    )


def evaluate(
    store: Store, config: StudyConfig, placements: Sequence[Placement], listener: Callable[[Event], None] | None, start: Start | None
) -> None:
    """Train *placements* as the study *config*, as far as the database lacks them. Raises NasattnError when interrupted."""
    result = run_search(config, store.url, listener=listener, start=start, placements=placements)
    if not result.complete:
        raise NasattnError("interrupted: run the same command again to go on")


def accuracy_of(store: Store, study: str) -> dict[str, float]:
    """The accuracy of every completed placement of *study*."""
    return {e.placement: e.accuracy for e in store.evaluations(study, state="COMPLETE") if e.accuracy is not None}


def counted(config: StudyConfig, trials: Sequence[EvaluationRecord]) -> dict[str, Floats]:
    """What is known of each placement without training: parameters, MACs, latency, and two scores of the untrained proxy."""
    task = load_task(config.task, replace(config.task_request(), samples=2000, val_samples=1))
    images, labels = next(task.train.batches(torch.arange(min(ZERO_COST_IMAGES, len(task.train))), ZERO_COST_IMAGES))
    images = prepared(images, channel_scale(task.train.sample(2000)))
    scores: dict[str, list[float]] = {"params": [], "macs": [], "latency": [], "grad_norm": [], "naswot": []}
    for trial in trials:
        job: ProxyJob = replace(config.job(trial.placement), device="cpu")
        model = build_proxy(job, len(task.classes), task.in_chans).to(memory_format=torch.channels_last)
        found = (
            trial.params,
            trial.macs,
            trial.latency.ratio if trial.latency else math.nan,
            gradient_norm(model, images, labels),
            naswot(model, images),
        )
        for name, value in zip(scores, found, strict=True):
            scores[name].append(float(value))
    return {name: np.array(values) for name, values in scores.items()}
