"""Ray and Optuna in this process: their settings, and a cluster joined or started."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nasattn.errors import NasattnError

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no machine calls out unasked
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run`, Ray would start every worker through uv
    "RAY_worker_niceness": "0",  # Ray's 15 starves the workers on a machine that does anything else
    # glibc gives freed memory back to the system and faults it in anew at every step: without, a validation takes half the time
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296",
}
OBJECT_STORE_BYTES = 200 * 1024 * 1024


def quiet_libraries() -> None:
    """Settings that Ray and Optuna read when they are imported, and their own chatter off."""
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its warnings tell users what nasattn deals with
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


@contextmanager
def ray_cluster(address: str | None, workers: int) -> Iterator[None]:
    """Ray, joined or started; what was started here is stopped here."""
    import ray

    owned = not ray.is_initialized()
    if owned and address is not None:
        check_reachable(address)
    if owned:
        local: dict[str, Any] = {"num_cpus": max(workers, 1), "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **(local if address is None else {}))
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise NasattnError(f"Ray cannot be reached at {address or 'this machine'}: {str(error).splitlines()[0]}") from None
    # Ray prints a dead worker's obituary to stdout, where results go; the trial's reason says the same
    ray._private.worker._worker_logs_enabled = False
    try:
        yield
    finally:
        ray._private.worker._worker_logs_enabled = True
        if owned:
            ray.shutdown()


def check_reachable(address: str) -> None:
    """Ray itself tries a dead address for minutes. Raises NasattnError when nothing listens at HOST:PORT or ray://HOST:PORT."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:  # "auto" and "local"
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise NasattnError(
            f"Ray cannot be reached at {address}: {error}; give the HOST:PORT of a running cluster, or leave --address out"
        ) from None
