"""What this machine has of what a search needs, and how to get what is missing: `nasattn doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

from nasattn.errors import NasattnError

State = Literal["ok", "note", "problem"]
LEAST_DISK = 2e9  # bytes that checkpoints and decoded images should find free
WATCHED = 1.0  # seconds in which other processes are watched
BUSY = 0.25  # share of all cores


@dataclass(frozen=True)
class Finding:
    """What was found of one thing.

    Attributes:
        name: The thing.
        state: ``ok``; ``note``: a search works, but something to know; ``problem``: it does not.
        found: What there is.
        remedy: What to do; empty where nothing is to be done.
    """

    name: str
    state: State
    found: str
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine(storage: str) -> Iterator[Finding]:
    """Look at versions, devices, folders, the database and Ray, one after the other; Ray is started for it.

    Args:
        storage: URL of the database that a search would use. It is opened as any command opens it, and not made.
    """
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (_python, _packages, _cpu, _gpus, _folders, lambda: _database(storage), _ray)
    for check in checks:
        yield from check()


def _python() -> Iterator[Finding]:
    supported = sys.version_info >= (3, 11)
    yield Finding(
        "python",
        "ok" if supported else "problem",
        f"{platform.python_version()} on {platform.platform()}",
        "" if supported else "use Python 3.11 or later",
    )


def _packages() -> Iterator[Finding]:
    """Those that nasattn requires, with the lower bounds that its metadata state; then what its extras would bring."""
    from packaging.requirements import Requirement

    seen: set[str] = set()
    for requirement in map(Requirement, requires("nasattn") or ()):
        extra = str(requirement.marker).partition("extra == ")[2].strip("\"'") if requirement.marker else ""
        if requirement.name in seen:  # an extra of what is required anyway
            continue
        seen.add(requirement.name)
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            if extra:
                yield Finding(requirement.name, "note", "not installed", f"for what it does: pip install 'nasattn[{extra}]'")
            else:
                yield Finding(requirement.name, "problem", "not installed", f"pip install '{requirement.name}{requirement.specifier}'")
            continue
        fits = requirement.specifier.contains(installed, prereleases=True)
        yield Finding(
            requirement.name,
            "ok" if fits else "problem",
            f"{installed}" if fits else f"{installed}, where {requirement.specifier} is needed",
            "" if fits else f"pip install '{requirement.name}{requirement.specifier}'",
        )


def _cpu() -> Iterator[Finding]:
    from nasattn.proxy.precision import usual_precision
    from nasattn.tasks.cache import cpus

    before, began = os.times(), time.monotonic()
    idle_before = _idle_seconds()
    time.sleep(WATCHED)
    found = f"{cpus()} cores for this process, proxies train in {usual_precision('cpu')}"
    if idle_before is None:
        yield Finding("cpu", "ok", found)
        return
    own = sum(os.times()[:2]) - sum(before[:2])
    idle = (_idle_seconds() or 0.0) - idle_before
    others = max(0.0, (os.cpu_count() or 1) * (time.monotonic() - began) - idle - own) / WATCHED
    busy = others > BUSY * (os.cpu_count() or 1)
    yield Finding(
        "cpu",
        "note" if busy else "ok",
        f"{found}; other processes use {others:.1f} of {os.cpu_count()}",
        "end what else runs before a search: latencies measured beside it count as shared, and cannot certify a front" if busy else "",
    )


def _idle_seconds() -> float | None:
    """Of all cores since the machine started; None where the system does not say."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def _gpus() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(number)
            yield Finding(f"gpu {number}", "ok", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, for --device cuda")
    elif shutil.which("nvidia-smi"):
        yield Finding(
            "gpu",
            "note",
            f"there is nvidia-smi, but torch {torch.__version__} finds no CUDA device",
            "install a torch that fits the driver",
        )
    else:
        yield Finding("gpu", "ok", "none: proxies train on the CPU, and latency is measured there")


def _folders() -> Iterator[Finding]:
    from nasattn.proxy import Checkpoints
    from nasattn.tasks.cache import cache_folder

    places = {"decoded images": (cache_folder(), "NASATTN_CACHE")}
    try:
        checkpoints = Checkpoints().folder
        if "://" not in os.environ.get("NASATTN_CHECKPOINTS", ""):
            places["checkpoints"] = (Path(checkpoints), "NASATTN_CHECKPOINTS")
    except NasattnError as error:
        yield Finding("checkpoints", "problem", str(error))
    for name, (folder, variable) in places.items():
        there = next(place for place in (folder, *folder.parents) if place.exists())
        free = shutil.disk_usage(there).free
        if not os.access(there, os.W_OK) or not there.is_dir():
            yield Finding(name, "problem", f"{there} cannot be written", f"set {variable} to a folder that can")
        else:
            few = free < LEAST_DISK
            remedy = f"free some, or set {variable} to a folder on a larger disk" if few else ""
            yield Finding(name, "note" if few else "ok", f"{folder}, {free / 1e9:.1f} GB free", remedy)


def _database(storage: str) -> Iterator[Finding]:
    from nasattn.store import Store

    try:
        store = Store(storage, create=False)
        studies = len(store.studies())
        yield Finding("database", "ok", f"{store.shown}: {studies} stud{'y' if studies == 1 else 'ies'}")
    except NasattnError as error:
        file = Path(storage.removeprefix("sqlite:///"))
        if storage.startswith("sqlite:///") and not file.exists() and os.access(file.resolve().parent, os.W_OK):
            yield Finding("database", "ok", f"{storage}: not there yet, the first search makes it")
        else:
            yield Finding("database", "problem", str(error))


def _ray() -> Iterator[Finding]:
    from nasattn.search.cluster import quiet_libraries, ray_cluster

    quiet_libraries()
    import ray

    began = time.monotonic()
    try:
        with ray_cluster(None, 1):
            pid = ray.get(ray.remote(lambda: os.getpid()).remote(), timeout=60)
        yield Finding("workers", "ok", f"Ray {ray.__version__} starts and runs (process {pid}, {time.monotonic() - began:.0f} s)")
    except (NasattnError, ray.exceptions.RayError, OSError) as error:
        line = " ".join(str(error).split())
        yield Finding("workers", "problem", f"Ray {ray.__version__} does not start: {line}", "see the folder /tmp/ray/session_latest/logs")
