"""The Python API: search, open a study, look at its front, export from it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from nasattn.errors import NasattnError, StudyError, UsageError, did_you_mean
from nasattn.storage_url import DEFAULT_STORAGE, check_storage, default_storage
from nasattn.store import Store
from nasattn.study import Front, Study

if TYPE_CHECKING:
    from nasattn.export import Exported
    from nasattn.search.events import Event
    from nasattn.search.latencies import SpaceLatencies
    from nasattn.search.proxy_report import ProxyReport
    from nasattn.search.tune_proxy import Tuned


def open_study(name: str, storage: str | None = None) -> Study:
    """Open a study of a database. Raises StorageError or StudyError when there is none."""
    return Study(Store(default_storage(storage), create=False), name)


class SearchSettings(TypedDict, total=False):
    """The keys of a study file but for the space, as keywords of :func:`search`. None, or none given: the default.

    Attributes:
        host: Instead of a space: a host, whose space is made by itself.
        task: Name of a task, or a folder of images.
        study: Name of the study; by default made from space, task and seed.
        description: For the reader; nothing depends on it.
        trials: Trainings in the study, all in all; 24 by default.
        time_budget: Time such as ``30m`` after which no trial begins.
        compute_budget: Time of training, over all workers and all runs, after which no trial begins.
        plateau: Trials without a gain of the front after which the search ends.
        certify: Share of the trials that train likely members again, 0 to 0.5; 0.2 by default.
        max_failures: Share of the trials that may fail, 0 to 1; 0.5 by default.
        progress_timeout: Time without a report after which a trial counts as hanging.
        sampler: Who chooses placements; ``nasattn search --help`` names them.
        first: Placements to train to the end before any that the sampler chooses.
        halving: Stop trainings at a rung where others of about the same latency are better; by default with the samplers that learn.
        max_latency: ``1.3x`` or ``12ms``: placements above it are not trained.
        max_params: ``1.1x`` or ``30M``.
        max_macs: ``1.1x`` or ``5G``.
        max_memory: ``1.1x`` or ``200MB``.
        device: Where proxies train: ``cpu`` or ``cuda``.
        deployment: The fields of :class:`nasattn.latency.Deployment`: how the host is run when it is timed.
        runtime: ``eager``, ``compile``, ``cudagraph`` or ``onnxruntime``.
        batch: Images at once when it is timed.
        latency_seconds: The longest that one measurement takes; 5 by default.
        workers: Proxies trained at once; by default one per CPU or GPU.
        gpus_per_trial: Share of a GPU each takes.
        seed: Of sampler, initialisation, data order and generated data.
        fidelity: The fields of :class:`nasattn.proxy.Fidelity`: how far proxies are reduced.
        recipe: The fields of :class:`nasattn.proxy.Recipe`, or a recipe file: how they are trained.
    """

    host: str | None
    task: str | None
    study: str | None
    description: str | None
    trials: int | None
    time_budget: str | None
    compute_budget: str | None
    plateau: int | None
    certify: float | None
    max_failures: float | None
    progress_timeout: str | None
    sampler: str | None
    first: list[str] | None
    halving: bool | None
    max_latency: str | None
    max_params: str | None
    max_macs: str | None
    max_memory: str | None
    device: str | None
    deployment: dict[str, Any] | None
    runtime: str | None
    batch: int | None
    latency_seconds: float | None
    workers: int | None
    gpus_per_trial: float | None
    seed: int | None
    fidelity: dict[str, Any] | None
    recipe: dict[str, Any] | str | None


def search(
    space: str | Path | None = None,
    *,
    storage: str | None = None,
    address: str | None = None,
    fresh: bool = False,
    progress: bool | None = None,
    listener: Callable[[Event], None] | None = None,
    **settings: Unpack[SearchSettings],
) -> Study:
    """Search a space, as `nasattn search` does. The same call again continues a study, or returns at once where it is complete.

    Args:
        space: Name of a shipped space, or a YAML file; or leave it out and give *host*, whose space is made by itself (see
            :func:`nasattn.usual_space.usual_space`).
        storage: URL of the database (see :func:`default_storage`).
        address: A Ray cluster to join.
        fresh: Begin another study if there is one of this name.
        progress: Print a line a trial in a notebook, show a live view in a terminal. None: in those two, and nothing elsewhere, nor
            where a *listener* is given.
        listener: Called with every event.
        **settings: The keys of a study file (see :class:`SearchSettings`).

    Returns:
        The study, which holds the front, also after an interruption: then the same call goes on.

    Raises:
        UsageError: Something in the settings is not allowed.
        NasattnError: The search could not go on.

    Example:
        >>> study = nasattn.search("resnet50_stages", task="cued_digits", trials=24, max_latency="1.3x")
        >>> study.front()
    """
    from nasattn.search.cluster import quiet_libraries

    quiet_libraries()
    from nasattn.search.driver import run_search
    from nasattn.search.study import STUDY_KEYS, make_config

    for key in settings:
        if key not in STUDY_KEYS:
            raise UsageError(f"unknown setting {key!r}: {did_you_mean(key, STUDY_KEYS)}allowed: {', '.join(STUDY_KEYS)}")
    url = default_storage(storage)
    config = make_config({"space": None if space is None else str(space), **settings})
    with ExitStack() as stack:
        listeners = [each for each in (listener, _progress(stack, progress, listener)) if each is not None]

        def tell(event: Event) -> None:
            for each in listeners:
                each(event)

        result = run_search(config, url, address=address, fresh=fresh, listener=tell)
    if len(listeners) > (listener is not None):
        from nasattn.report.progress import spent

        print(f"Ended: {result.ended}; {spent(result)}")
    return open_study(result.study, url)


def _progress(stack: ExitStack, wanted: bool | None, listener: Callable[[Event], None] | None) -> Callable[[Event], None] | None:
    """Who shows a search that is under way: lines in a notebook, a live view in a terminal; None: nobody."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    in_notebook = getattr(shell, "kernel", None) is not None
    if not (listener is None and (in_notebook or sys.stdout.isatty()) if wanted is None else wanted):
        return None
    from rich.console import Console

    from nasattn.report.progress import SearchView

    plain = {"force_jupyter": False, "force_terminal": False, "color_system": None, "width": 140} if in_notebook else {}
    return stack.enter_context(SearchView(Console(markup=False, **plain)))  # type: ignore[arg-type]


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
    "DEFAULT_STORAGE", "Front", "SearchSettings", "Study", "certify", "default_storage", "export", "list_spaces", "measure_latency", "measure_table", "open_study", "proxy_report", "search", "tune_proxy",
]  # fmt: skip
