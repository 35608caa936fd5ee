"""The Python API: search, open a study, look at its front, export from it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasattn.errors import StudyError
from nasattn.front import FrontMember, front
from nasattn.store import EvaluationRecord, Store, StudyRecord

if TYPE_CHECKING:
    from nasattn.export import Exported
    from nasattn.search.events import Event

DEFAULT_STORAGE = "sqlite:///nasattn.db"


def default_storage(storage: str | None = None) -> str:
    """*storage*, else the environment's NASATTN_STORAGE, else ``sqlite:///nasattn.db``."""
    return storage or os.environ.get("NASATTN_STORAGE") or DEFAULT_STORAGE


class Study:
    """A study in a database.

    Args:
        store: The database.
        name: The study's name.

    Raises:
        StudyError: There is no such study.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self.record: StudyRecord = store.study(name)
        self.name = name

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

    def front(self) -> list[FrontMember]:
        """The front, fastest first, from the trials as they are now."""
        return front(self.trials())

    def best(self, max_latency: str | None = None) -> FrontMember:
        """The most accurate member of the front, within *max_latency* (``1.2x`` or ``12ms``) if given.

        Raises:
            StudyError: No trial has completed, or none is within the limit.
        """
        members = self.front()
        if not members:
            raise StudyError(f"study {self.name!r} has no completed trial: continue it with `nasattn search --study {self.name} ...`")
        if max_latency is None:
            return max(members, key=lambda m: m.accuracy)
        from nasattn.search.study import MaxLatency

        limit = MaxLatency.parse(max_latency)
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

    def _figures(self, trial: int) -> FrontMember | None:
        return next((m for m in self.front() if m.trial == trial), None)


def open_study(name: str, storage: str | None = None) -> Study:
    """Open a study of a database. Raises StorageError or StudyError when there is none."""
    return Study(Store(default_storage(storage), create=False), name)


def search(
    space: str,
    *,
    storage: str | None = None,
    address: str | None = None,
    fresh: bool = False,
    listener: Callable[[Event], None] | None = None,
    **settings: Any,
) -> Study:
    """Search a space, as `nasattn search` does.

    Args:
        space: Name of a shipped space, or a YAML file.
        storage: URL of the database (see :func:`default_storage`).
        address: A Ray cluster to join.
        fresh: Begin another study if there is one of this name.
        listener: Called with every event.
        **settings: The keys of a study file: task, study, trials, time_budget, sampler, max_latency, device, workers,
            gpus_per_trial, seed, fidelity, recipe.

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


def measure_latency(host: str, placement: str, device: str = "cpu", batch: int = 1, runtime: str = "eager") -> dict[str, Any]:
    """Measure a placement against its plain host on this machine, with our own training kept off the device.

    Args:
        host: Such as ``nasattn_resnet50``.
        placement: Such as ``none,sge_g32,ela_l,none``.
        device: ``cpu`` or ``cuda``.
        batch: Images at once.
        runtime: ``eager``, ``compile``, ``cudagraph`` (CUDA) or ``onnxruntime`` (CPU, the extra ``onnx``).

    Returns:
        The fields of :class:`nasattn.latency.PairedLatency`, and host, placement and device key.

    Raises:
        UsageError: Unknown host, device or runtime, or a placement that does not fit.
        RuntimeFailure: The runtime cannot execute one of the two; there is no latency then.
    """
    from dataclasses import asdict

    from nasattn.hosts import get_host
    from nasattn.latency import DeviceKey, DeviceLease, HostMeter
    from nasattn.search.study import check_device

    check_device(device)
    built = get_host(host)
    parsed = built.placement(placement)
    meter = HostMeter(built.build, str(built.plain()), device, batch, built.resolution, runtime)
    with DeviceLease(device).alone():
        pair = meter.measure(str(parsed))
    return {
        "host": host,
        "placement": str(parsed),
        **asdict(pair),
        "device": str(DeviceKey.here(device, built.resolution, batch, runtime=runtime)),
    }


def list_spaces() -> list[str]:
    """Names of the shipped search spaces."""
    from nasattn.config import list_yaml

    return list_yaml("search_spaces")


def export(study: str, out: str | Path, storage: str | None = None, **choice: Any) -> Exported:
    """Export from a study of a database; *choice* as in :meth:`Study.export`."""
    return open_study(study, storage).export(out, **choice)


__all__ = ["Study", "default_storage", "export", "list_spaces", "measure_latency", "open_study", "search"]
