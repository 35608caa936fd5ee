"""Finding the recipe: which fidelity ranks placements most like long runs, at a given time per training.

As Accel-NASBench does (arXiv 2404.08005), the fidelity itself is searched: each candidate trains the placements of a study's
proxy report, and its tau with their long runs is what counts.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import optuna

from nasattn.attention import Placement
from nasattn.errors import NasattnError, StudyError, UsageError
from nasattn.hosts import get_host
from nasattn.proxy import Fidelity, ProxyTraining
from nasattn.proxy.agreement import Agreement, Estimate, agree, gained
from nasattn.proxy.recipe_file import write_recipe_file
from nasattn.search.cluster import quiet_libraries, ray_cluster
from nasattn.search.events import Event
from nasattn.search.planning import check_buildable, default_workers
from nasattn.search.proxy_report import accuracy_of, evaluate, ranked, stored_proxy_report
from nasattn.search.study import StudyConfig
from nasattn.store import Store
from nasattn.tasks import load_task

if TYPE_CHECKING:
    from nasattn.search.worker import Start

TIMED_STEPS = 12
FEWEST = 8  # placements, at least, by which a candidate is given up
TRIES = 200  # suggestions, most of which cost too much or are tried already
WIDTHS = (0.0625, 0.125, 0.1875, 0.25, 0.5)
BLOCKS = (1, 2, 3)
SCALES = (0.5, 0.75, 1.0, 1.5)  # of the study's own resolution and samples
EPOCHS = (1, 2, 3, 4, 6, 8)


@dataclass(frozen=True)
class Candidate:
    """A fidelity that was tried.

    Attributes:
        fidelity: The candidate.
        study: The study of its trainings.
        seconds: Median training time of a placement.
        agreement: With the long runs; None when too few trainings finished.
        within: Whether the time is within the limit.
        trained: Number of placements trained.
        given_up: Whether that was half of them, as it was too slow by then or ranked worse than the best before it.
    """

    fidelity: Fidelity
    study: str
    seconds: float
    agreement: Agreement | None
    within: bool
    trained: int = 0
    given_up: bool = False

    @property
    def tau(self) -> float:
        """Kendall's tau-b with the long runs; -1 when there is none."""
        value = self.agreement.proxy.tau.value if self.agreement else None
        return -1.0 if value is None else value


@dataclass(frozen=True)
class Tuned:
    """What was tried, in order, and the best within the limit; None when none was."""

    study: str
    limit: float
    candidates: tuple[Candidate, ...]

    @property
    def best(self) -> Candidate | None:
        """The candidate of the highest tau within the limit; of equal ones the cheapest."""
        within = [c for c in self.candidates if c.within and not c.given_up and c.agreement is not None]
        return max(within, key=lambda c: (round(c.tau, 6), -c.seconds), default=None)

    @property
    def gain(self) -> Estimate | None:
        """How far the best's tau is above that of the study's own fidelity, paired; None where that is the best, or ranks nothing."""
        own, best = self.candidates[0] if self.candidates else None, self.best
        if own is None or best is None or best is own or own.agreement is None or best.agreement is None:
            return None
        return gained(best.agreement, own.agreement)


def tune_proxy(
    store: Store,
    study: str,
    seconds: float,
    out: Path,
    *,
    candidates: int = 8,
    workers: int | None = None,
    address: str | None = None,
    listener: Callable[[Event], None] | None = None,
    start: Start | None = None,
) -> Tuned:
    """Search the fidelity with the highest tau under *seconds* per training, and write it to *out* as a recipe file.

    Args:
        store: The database.
        study: One with a proxy report, whose long runs are the truth.
        seconds: What a training may take (median over the placements).
        out: The recipe file.
        candidates: How many fidelities are tried, the study's own first.
        workers: Trainings at once; by default one per CPU or GPU.
        address: A Ray cluster to join; None starts Ray on this machine.
        listener: Called with every event.
        start: What a worker does with a trial; the default trains the proxy.

    Raises:
        StudyError: The study has no proxy report.
        UsageError: A number is too small.
        NasattnError: The trainings were interrupted (the same call continues them), or no candidate is within the limit.
    """
    if not seconds > 0 or candidates < 1:
        raise UsageError(f"seconds must be above 0 and candidates at least 1, got {seconds} and {candidates}")
    config = replace(StudyConfig.from_stored(store.study(study)), workers=workers)
    report = stored_proxy_report(store, study)
    if report is None:
        raise StudyError(
            f"study {study!r} has no proxy report, whose long runs tell what is true: run `nasattn proxy-report {study}` first"
        )
    truth = _Truth(store, study, report.agreement)
    tried: list[Candidate] = []
    quiet_libraries()
    with ray_cluster(address, workers or default_workers(config)):
        for fidelity in _Suggestions(config, seconds, tried):
            name = f"{study}-tune-{_digest(fidelity)}"
            candidate = replace(config, name=name, fidelity=fidelity, trials=len(truth.placements), sampler="random")
            tried.append(_tried(candidate, truth, Tuned(study, seconds, tuple(tried)), lambda c, p: evaluate(store, c, p, listener, start)))
            if len(tried) >= candidates:
                break
    tuned = Tuned(study, seconds, tuple(tried))
    if tuned.best is None:
        fastest = f"; the fastest tried took {min(c.seconds for c in tried):.1f} s" if tried else ""
        raise NasattnError(f"no fidelity that was tried trains within {seconds:g} s and ranks anything{fastest}: allow more by --seconds")
    _write(out, tuned, config)
    return tuned


def _tried(config: StudyConfig, truth: _Truth, before: Tuned, train: Callable[[StudyConfig, list[Placement]], None]) -> Candidate:
    """Train the placements by the fidelity of *config*; only every second one where these tell that it is not worth more."""
    placements = [Placement.parse(p) for p in truth.placements]
    half, best = placements[::2], before.best
    if best is not None and best.agreement is not None and len(half) >= FEWEST:
        train(config, half)
        found = truth.judge(config, before.limit, truth.placements[::2])
        if not found.within or found.agreement is None or _is_worse(found.agreement, best.agreement):
            return replace(found, given_up=True)
    train(config, placements)
    return truth.judge(config, before.limit, truth.placements)


def _is_worse(found: Agreement, best: Agreement) -> bool:
    """Whether a proxy ranks nothing, or less like the long runs than the best does by more than chance."""
    high = gained(found, best).high
    return found.proxy.tau.value is None or (high is not None and high < 0)


class _Truth:
    """The long runs of a proxy report."""

    def __init__(self, store: Store, study: str, agreement: Agreement) -> None:
        self.store = store
        self.placements = [p.placement for p in agreement.points]
        self.long = np.array([[np.nan if v is None else v for v in p.long_runs] for p in agreement.points])
        self.latency = np.array([p.latency_ratio for p in agreement.points])
        known = {t.placement: t for t in ranked(store, study)}
        self.params = np.array([float(known[p].params) for p in self.placements])

    def judge(self, config: StudyConfig, limit: float, placements: Sequence[str]) -> Candidate:
        """What the trainings of the study *config* say of these *placements*, whatever others it has."""
        found = {p: a for p, a in accuracy_of(self.store, config.name).items() if p in placements}
        times = [e.seconds for e in self.store.evaluations(config.name, state="COMPLETE") if e.seconds and e.placement in placements]
        proxy = np.array([found.get(p, np.nan) for p in self.placements])
        try:
            agreement = agree(self.placements, proxy, self.long, self.latency, {"params": self.params})
        except UsageError:  # too few finished
            agreement = None
        median = statistics.median(times) if times else float("inf")
        return Candidate(config.fidelity, config.name, median, agreement, median <= limit, len(found))


class _Suggestions:
    """Fidelities to try: the study's own, then Optuna's, where a short timing of the plain host says that they fit the limit."""

    def __init__(self, config: StudyConfig, limit: float, tried: list[Candidate]) -> None:
        self.config, self.limit, self.tried = config, limit, tried
        self.plain: dict[Fidelity, float] = {}  # seconds that the plain host was estimated to take
        self.per_image: dict[tuple[float, int, int], float] = {}  # by width, blocks and resolution, on which alone they depend
        self.study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=config.seed, n_startup_trials=4))

    def __iter__(self) -> Iterator[Fidelity]:
        seen = {self.config.fidelity}
        self._estimate(self.config)
        yield self.config.fidelity
        for _ in range(TRIES):
            trial = self.study.ask()
            fidelity = self._fidelity(trial)
            if fidelity in seen or not self._fits(fidelity):
                self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                continue
            seen.add(fidelity)
            yield fidelity
            self.study.tell(trial, self.tried[-1].tau)

    def _fidelity(self, trial: optuna.Trial) -> Fidelity:
        own = self.config.fidelity
        resolution = own.resolution * trial.suggest_categorical("resolution", SCALES)
        samples = (own.samples or 8000) * trial.suggest_categorical("samples", SCALES)
        return replace(
            own,
            width=trial.suggest_categorical("width", WIDTHS),
            blocks=trial.suggest_categorical("blocks", BLOCKS),
            epochs=trial.suggest_categorical("epochs", EPOCHS),
            resolution=max(8, 8 * round(resolution / 8)),
            samples=round(samples),
        )

    def _fits(self, fidelity: Fidelity) -> bool:
        """Whether the whole space can be built, and trained within the limit: a few steps of the plain host, times what placements took above them."""
        candidate = replace(self.config, fidelity=fidelity)
        try:
            check_buildable(candidate)
            self._estimate(candidate)
        except NasattnError:  # such as a resolution too small for the task
            return False
        above = [c.seconds / self.plain[c.fidelity] for c in self.tried if math.isfinite(c.seconds)]
        return self.plain[fidelity] * (statistics.median(above) if above else 1.0) <= self.limit

    def _estimate(self, config: StudyConfig) -> None:
        """How long the plain proxy of *config* trains."""
        f = config.fidelity
        alike = (f.width, f.blocks, f.resolution)
        if alike not in self.per_image:
            self.per_image[alike] = seconds_per_image(config)
        self.plain[f] = self.per_image[alike] * (f.samples or 8000) * f.epochs


def seconds_per_image(config: StudyConfig) -> float:
    """How long the plain proxy of *config* trains on an image, from a few steps of it."""
    few = replace(config.fidelity, samples=config.recipe.batch_size * TIMED_STEPS, val_samples=100, epochs=1, rungs=1)
    plain = str(get_host(config.space.host).plain())
    task = load_task(
        config.task, replace(config.task_request(), samples=few.samples, val_samples=few.val_samples, resolution=few.resolution)
    )
    training = ProxyTraining(replace(config, fidelity=few).job(plain), task)
    training.step()
    begun = time.perf_counter()
    again = ProxyTraining(replace(config, fidelity=few).job(plain), task)
    again.step()
    return (time.perf_counter() - begun) / (few.samples or 1)


def _digest(fidelity: Fidelity) -> str:
    f = fidelity
    return f"w{f.width:g}-b{f.blocks}-r{f.resolution}-n{f.samples}-e{f.epochs}"


def _write(out: Path, tuned: Tuned, config: StudyConfig) -> None:
    best = tuned.best
    assert best is not None and best.agreement is not None
    how = {
        "study": tuned.study,
        "task": config.task,
        "space": config.space.name,
        "placements": len(best.agreement.points),
        "tau": asdict(best.agreement.proxy.tau),
        "gain": asdict(tuned.gain) if tuned.gain else None,
        "seconds": round(best.seconds, 1),
        "limit": tuned.limit,
        "tried": len(tuned.candidates),
    }
    write_recipe_file(
        out, best.fidelity, config.recipe, how, "Found by nasattn tune-proxy: the highest tau with long runs within the limit"
    )
