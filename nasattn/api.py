"""The Python API: search, open a study, look at its front, export from it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasattn.errors import NasattnError, StudyError, UsageError
from nasattn.front import FrontMember, front
from nasattn.storage_url import check_storage
from nasattn.store import EvaluationRecord, Store, StudyRecord
from nasattn.store.records import PROXY_REPORT

if TYPE_CHECKING:
    from nasattn.export import Exported
    from nasattn.search.events import Event
    from nasattn.search.latencies import SpaceLatencies
    from nasattn.search.proxy_report import ProxyReport
    from nasattn.search.tune_proxy import Tuned

DEFAULT_STORAGE = "sqlite:///nasattn.db"


def default_storage(storage: str | None = None) -> str:
    """*storage*, else the environment's NASATTN_STORAGE, else ``sqlite:///nasattn.db``.

    Raises:
        StorageError: Its password stands where messages would show it (see :func:`nasattn.storage_url.check_storage`).
    """
    return check_storage(storage or os.environ.get("NASATTN_STORAGE") or DEFAULT_STORAGE)


class Study:
    """A study in a database.

    Args:
        store: The database.
        name: The study's name.

    Raises:
        StudyError: There is no such study, or its record is damaged.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self.record: StudyRecord = store.study(name)
        self.name = name
        kinds = {"space_name": str, "space": dict, "task": str, "fidelity": dict, "recipe": dict, "device": str, "seed": int}
        wrong = [key for key, kind in kinds.items() if not isinstance(self.record.config.get(key), kind)]
        if wrong or not isinstance(self.record.config["space"].get("host"), str):
            raise StudyError(
                f"the record of study {name!r} is damaged: wrong or missing is {', '.join(wrong) or 'space.host'}; use a copy of the database, or another study"
            )

    def trials(self) -> list[EvaluationRecord]:
        """All trials, in order of their numbers."""
        return self._store.evaluations(self.name)

    def trial(self, number: int) -> EvaluationRecord:
        """One trial. Raises StudyError with the numbers there are."""
        trials = {t.trial: t for t in self.trials()}
        if number not in trials:
            known = f"{min(trials)} to {max(trials)}" if trials else "none yet"
            raise StudyError(f"study {self.name!r} has no trial {number}: there are {known}; `nasattn front {self.name}` lists the best")
        return trials[number]

    def front(self, device: str | None = None) -> list[FrontMember]:
        """The front, fastest first, from the trials as they are now.

        Args:
            device: A device key, or a part of one that fits no other: the front that the same trained proxies make there, by
                what the database holds of that device (see :meth:`without_latency`).

        Raises:
            StudyError: No such device key, or more than one.
        """
        return front(self.trials() if device is None else self._trials_on(device))

    def without_latency(self, device: str) -> list[str]:
        """The completed placements of which nothing is known on the device key *device*; they are not on its front."""
        return [t.placement for t in self._trials_on(device) if t.state == "COMPLETE" and t.latency is None]

    def _trials_on(self, device: str) -> list[EvaluationRecord]:
        from nasattn.search.latencies import find_latencies

        return find_latencies(self._store, self.record.config["space"]["host"], device, self.trials())

    def best(self, max_latency: str | None = None, device: str | None = None) -> FrontMember:
        """The most accurate member of the front, within *max_latency* (``1.2x`` or ``12ms``) if given, on *device* (see :meth:`front`).

        Raises:
            StudyError: No trial has completed, or none is within the limit.
        """
        members = self.front(device)
        if not members:
            raise StudyError(f"study {self.name!r} has no completed trial: continue it with `nasattn search --study {self.name} ...`")
        if max_latency is None:
            return max(members, key=lambda m: m.accuracy)
        from nasattn.search.limits import Limit

        limit = Limit.parse("latency", max_latency)
        within = [m for m in members if limit.excess(m.latency_ms, m.latency_ratio) <= 0]
        if not within:
            fastest = members[0]
            raise StudyError(
                f"no member of the front is within {limit}: the fastest is {fastest.placement} with {fastest.latency_ratio:.3f}x, {fastest.latency_ms:.1f} ms; raise the limit"
            )
        return max(within, key=lambda m: m.accuracy)

    def export(self, out: str | Path, trial: int | None = None, max_latency: str | None = None, force: bool = False) -> Exported:
        """Write a placement as a timm model folder; the best one unless *trial* or *max_latency* says otherwise.

        Raises:
            StudyError: No such trial, or nothing within the limit.
            UsageError: *out* is not empty.
        """
        from nasattn.export import export_placement

        if trial is None:
            trial = self.best(max_latency).trial
        return export_placement(self.record, self.trial(trial), self._figures(trial), Path(out), force=force)

    @property
    def has_proxy_report(self) -> bool:
        """Whether the database holds a report on its proxy; cheaper to ask than for the report."""
        return self._store.report(self.name, PROXY_REPORT) is not None

    def proxy_report(self) -> ProxyReport | None:
        """How far its proxy can be trusted, as last found by :func:`proxy_report`; None where that has not been asked."""
        from nasattn.search.proxy_report import stored_proxy_report

        return stored_proxy_report(self._store, self.name)

    def report(
        self, out: str | Path | None = None, format: str = "html", *, cam: bool = False, notify: Callable[[str], None] = lambda text: None
    ) -> list[Path]:
        """Write what is known of the study into files, which are returned (see :func:`nasattn.report.writing.write_report`).

        Args:
            out: The page's file, by default ``report.html``; of the other formats a folder, by default ``report``.
            format: ``html``: one page that works offline; ``png``, ``svg``: figures for a paper; ``csv``: the data behind them.
            cam: Train the plain host and up to three members again, and show by Grad-CAM where each looks.
            notify: Called with a line whenever something begins that takes a while.

        Raises:
            UsageError: *out* cannot be written, or *cam* without the extra ``cam``.
            StudyError: There is nothing to draw.
        """
        from nasattn.report.writing import write_report

        elsewhere = "" if self._store.url == default_storage() else f" --storage {self._store.shown}"
        return write_report(self._store, self.name, out, format, cam=cam, storage=elsewhere, notify=notify)

    def _figures(self, trial: int) -> FrontMember | None:
        return next((m for m in self.front() if m.trial == trial), None)


def open_study(name: str, storage: str | None = None) -> Study:
    """Open a study of a database. Raises StorageError or StudyError when there is none."""
    return Study(Store(default_storage(storage), create=False), name)


def search(
    space: str | None = None,
    *,
    storage: str | None = None,
    address: str | None = None,
    fresh: bool = False,
    listener: Callable[[Event], None] | None = None,
    **settings: Any,
) -> Study:
    """Search a space, as `nasattn search` does.

    Args:
        space: Name of a shipped space, or a YAML file; or leave it out and give *host*, whose space is made by itself (see
            :func:`nasattn.usual_space.usual_space`).
        storage: URL of the database (see :func:`default_storage`).
        address: A Ray cluster to join.
        fresh: Begin another study if there is one of this name.
        listener: Called with every event.
        **settings: The keys of a study file: host, task (a name, or a folder of class folders), study, trials, time_budget,
            compute_budget, plateau, certify, sampler, halving, max_latency, max_params, max_macs, max_memory, device, runtime,
            deployment, workers, gpus_per_trial, seed, fidelity, recipe.

    Returns:
        The study, which holds the front.

    Raises:
        UsageError: Something in the settings is not allowed.
        NasattnError: The search could not go on.
    """
    from nasattn.search.driver import run_search
    from nasattn.search.study import make_config

    url = default_storage(storage)
    result = run_search(make_config({"space": space, **settings}), url, address=address, fresh=fresh, listener=listener)
    return open_study(result.study, url)


def certify(
    study: str,
    trainings: int = 6,
    *,
    storage: str | None = None,
    workers: int | None = None,
    address: str | None = None,
    listener: Callable[[Event], None] | None = None,
) -> Study:
    """Train likely members of a study's front again, with other seeds, scored on test images too, as `nasattn certify` does.

    Args:
        study: Its name.
        trainings: At most so many; fewer where no membership is in doubt any more.
        storage: URL of the database (see :func:`default_storage`).
        workers: Trainings at once; by default one per CPU or GPU.
        address: A Ray cluster to join.
        listener: Called with every event.

    Raises:
        StudyError: There is no such study, or none of its trials has completed.
        NasattnError: The trainings were interrupted; the same call goes on.
    """
    from nasattn.search.driver import run_search
    from nasattn.search.study import StudyConfig

    opened = open_study(study, storage)
    if not opened.front():
        raise StudyError(f"study {study!r} has no completed trial to certify: continue it with `nasattn search --study {study} ...`")
    config = replace(StudyConfig.from_stored(opened.record), workers=workers)
    result = run_search(config, default_storage(storage), address=address, listener=listener, retrain=trainings)
    if not result.complete:
        raise NasattnError("interrupted: run the same command again to go on")
    return opened


def measure_latency(
    host: str,
    placement: str,
    device: str = "cpu",
    batch: int = 1,
    runtime: str = "eager",
    *,
    storage: str | None = None,
    max_seconds: float = 10.0,
    **deployment: Any,
) -> dict[str, Any]:
    """Measure a placement end to end against its plain host on this machine, with our own training kept off the device.

    Args:
        host: Such as ``nasattn_resnet50``.
        placement: Such as ``none,sge_g32,ela_l,none``.
        device: ``cpu`` or ``cuda``.
        batch: Images at once.
        runtime: ``eager``, ``compile``, ``cudagraph`` (CUDA) or ``onnxruntime`` (CPU, the extra ``onnx``).
        storage: URL of a database to record the measurement in; None records nothing.
        max_seconds: How long to measure for a narrower interval.
        **deployment: The other fields of :class:`nasattn.latency.Deployment`: resolution, dtype, threads, channels_last.

    Returns:
        The fields of :class:`nasattn.store.LatencyRecord`, and host, placement and device key.

    Raises:
        UsageError: Unknown host, device or runtime, or a placement that does not fit.
        RuntimeFailure: The runtime cannot execute one of the two; there is no latency then.
    """
    from dataclasses import asdict

    from nasattn.hosts import get_host
    from nasattn.latency import Deployment
    from nasattn.search.latencies import HostLatencies

    built = get_host(host)
    parsed = built.placement(placement)
    deployed = Deployment(device=device, batch=batch, runtime=runtime, **deployment)
    latencies = HostLatencies(Store(check_storage(storage or "sqlite://")), built, deployed, max_seconds)
    _, record = latencies.measure(parsed)
    return {"host": host, "placement": str(parsed), **asdict(record), "device": latencies.key}


def measure_table(
    space: str,
    *,
    storage: str | None = None,
    held_out: int = 8,
    seed: int = 0,
    listener: Callable[[int, int, str], None] | None = None,
    **deployment: Any,
) -> SpaceLatencies:
    """Measure what every attention of a space costs in every stage of its host, as far as the database lacks it.

    Args:
        space: Name of a shipped space, or a YAML file.
        storage: URL of the database (see :func:`default_storage`).
        held_out: Random placements measured end to end, which tell the table's error.
        seed: Of those placements.
        listener: Called before every measurement with the number of those done, of all, and what is measured.
        **deployment: The fields of :class:`nasattn.latency.Deployment`: device, runtime, batch, resolution, dtype, threads,
            channels_last.

    Raises:
        UsageError: Something in the settings is not allowed.
        NasattnError: The runtime cannot execute the plain host, or the host's stages cannot be run by themselves.
    """
    from nasattn.hosts import get_host
    from nasattn.latency import Deployment
    from nasattn.search.latencies import HostLatencies, measure_space
    from nasattn.space import load_space

    loaded = load_space(space)
    latencies = HostLatencies(Store(default_storage(storage)), get_host(loaded.host), Deployment(**deployment))
    return measure_space(latencies, loaded, held_out, seed, listener or (lambda done, total, what: None))


def proxy_report(
    study: str,
    *,
    storage: str | None = None,
    stored: bool = False,
    listener: Callable[[Event], None] | None = None,
    **options: Any,
) -> ProxyReport:
    """How far a study's proxy can be trusted: some of its placements are trained much longer (see :func:`run_proxy_report`).

    Args:
        study: Name of the study.
        storage: URL of the database (see :func:`default_storage`).
        stored: Give the last report; train nothing.
        listener: Called with every event.
        **options: placements, longer, seeds, workers, address.

    Raises:
        StudyError: No such study, too few completed trials, or no report stored.
        NasattnError: The trainings were interrupted; the same call continues them.
    """
    from nasattn.search.proxy_report import run_proxy_report, stored_proxy_report

    store = Store(default_storage(storage), create=False)
    store.study(study)
    if not stored:
        return run_proxy_report(store, study, listener=listener, **options)
    report = stored_proxy_report(store, study)
    if report is None:
        raise StudyError(f"study {study!r} has no proxy report yet: run `nasattn proxy-report {study}` without --stored")
    return report


def tune_proxy(
    study: str,
    seconds: float,
    out: str | Path,
    *,
    storage: str | None = None,
    listener: Callable[[Event], None] | None = None,
    **options: Any,
) -> Tuned:
    """Find the fidelity that ranks most like a study's long runs within *seconds* a training, and write it as a recipe file.

    Args:
        study: Name of a study with a proxy report.
        seconds: What a training may take.
        out: The recipe file, ``.yaml``.
        storage: URL of the database (see :func:`default_storage`).
        listener: Called with every event.
        **options: candidates, workers, address.

    Raises:
        StudyError: No such study, or it has no proxy report.
        UsageError: *out* is no YAML file in a folder that exists.
        NasattnError: Interrupted, or nothing that was tried is within the time.
    """
    path = Path(out)
    if path.suffix not in (".yaml", ".yml") or not path.parent.is_dir():
        raise UsageError(f"the recipe file {out} must be a .yaml file in a folder that exists")
    from nasattn.search.tune_proxy import tune_proxy as tune

    return tune(Store(default_storage(storage), create=False), study, seconds, path, listener=listener, **options)


def list_spaces() -> list[str]:
    """Names of the shipped search spaces."""
    from nasattn.config import list_yaml

    return list_yaml("search_spaces")


def export(study: str, out: str | Path, storage: str | None = None, **choice: Any) -> Exported:
    """Export from a study of a database; *choice* as in :meth:`Study.export`."""
    return open_study(study, storage).export(out, **choice)


__all__ = [
    "Study", "default_storage", "export", "list_spaces", "measure_latency", "measure_table", "open_study", "proxy_report", "search", "tune_proxy",
]  # fmt: skip
