"""A process that measures a space and notes when it asked for the device, had it to itself, and gave it back."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Semaphore
from pathlib import Path

import torch

from nasattn.hosts import get_host
from nasattn.latency import Deployment
from nasattn.search.latencies import HostLatencies, measure_space
from nasattn.space import load_space
from nasattn.store import Store


def measure(space_file: str, url: str, log: str, leases: str, at_the_door: Semaphore) -> None:
    """Measure a space and write ``[asked, got, left]`` of every measurement to *log*, in seconds of the machine's clock.

    Args:
        space_file: The space.
        url: The database.
        log: A JSON file.
        leases: Folder in place of the system's for temporary files, so that the lease is not that of other programs.
        at_the_door: Released when it asks for the device for the first time.
    """
    torch.set_num_threads(1)
    tempfile.tempdir = leases
    space = load_space(space_file)
    latencies = HostLatencies(Store(url), get_host(space.host), Deployment(resolution=32), max_seconds=0.1, entry_seconds=0.05)
    alone = latencies.meter.alone
    held: list[tuple[float, float, float]] = []

    @contextmanager
    def noted() -> Iterator[None]:
        asked = time.monotonic()
        if not held:
            at_the_door.release()
        with alone():
            got = time.monotonic()
            yield
            held.append((asked, got, time.monotonic()))

    latencies.meter.alone = noted
    measure_space(latencies, space, 1, 0, lambda done, total, what: None)
    Path(log).write_text(json.dumps(held))
