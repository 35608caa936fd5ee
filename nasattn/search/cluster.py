"""Ray and Optuna in this process: their settings, and a cluster joined or started."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nasattn import log
from nasattn.errors import NasattnError, UsageError

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no machine calls out unasked
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run`, Ray would start every worker through uv
    "RAY_worker_niceness": "0",  # Ray's 15 starves the workers on a machine that does anything else
    # glibc gives freed memory back to the system and faults it in anew at every step: without, a validation takes half the time
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296",
}
# what a user says about folders and memory, which workers on other machines would not inherit
USER_ENVIRONMENT = ("NASATTN_CACHE", "NASATTN_CHECKPOINTS", "NASATTN_DATA", "NASATTN_TASK_MEMORY")
OBJECT_STORE_BYTES = 200 * 1024 * 1024
RAY_MARKS = (":job_id:", ":actor_name:", ":task_name:")  # how lines begin that Ray itself writes into a worker's output
NODE_SECONDS = 60.0  # in which a node must answer whether it can import nasattn


def quiet_libraries() -> None:
    """Settings that Ray and Optuna read when they are imported, and their own chatter off, or in the log where there is one."""
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # in a notebook, of widgets that nothing here shows
    logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message="IProgress not found")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its warnings tell users what nasattn deals with
    log.take_over("optuna", logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def is_joined() -> bool:
    """Whether this process is connected to Ray already."""
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


@contextmanager
def ray_cluster(address: str | None, workers: int | None) -> Iterator[dict[str, Any]]:
    """Ray, joined or started; what was started here is stopped here.

    Args:
        address: ``auto``, HOST:PORT or ray://HOST:PORT; None starts Ray on this machine, unless it is connected already.
        workers: How many CPUs Ray offers if it is started here.

    Yields:
        The options that actors need there besides their resources: workers inherit the environment of the Ray that was
        started here, but not over a cluster.

    Raises:
        UsageError: The address is none.
        NasattnError: Ray cannot be reached or is another version, or a node cannot import this nasattn.
    """
    import ray

    owned = not ray.is_initialized()
    if owned and address is not None:
        check_reachable(address)
    if owned:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if address is not None:
                ray.init(address, **quiet)
            else:
                with _on_loopback() as options:
                    # without "local" Ray would join what RAY_ADDRESS says, or what else runs on this machine
                    ray.init(
                        "local", num_cpus=workers or 1, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **options, **quiet
                    )
        except Exception as error:  # Ray raises bare Exceptions, too, as when a node takes too long to start
            raise NasattnError(_not_joined(address, str(error))) from None
    log.take_over("ray", logging.ERROR)
    # Ray prints a dead worker's obituary to stdout, where results go; the trial's reason says the same
    shown, ray._private.worker._worker_logs_enabled = ray._private.worker._worker_logs_enabled, False
    try:
        if owned and address is not None:
            check_nodes(actor_environment())
        yield {} if owned and address is None else {"runtime_env": {"env_vars": actor_environment()}}
    finally:
        ray._private.worker._worker_logs_enabled = shown
        if owned:
            try:
                if address is None and log.current():
                    _keep_worker_output()
            finally:
                ray.shutdown()


def _keep_worker_output() -> None:
    """What the workers of the Ray that was started here printed goes to the log."""
    import ray

    node = ray._private.worker._global_node
    for file in sorted(Path(node.get_logs_dir_path()).glob("worker-*.[eo][ru][rt]")) if node else ():
        log.keep_file(file, f"a worker's {'stderr' if file.suffix == '.err' else 'stdout'}, {file.name}:", RAY_MARKS)


@contextmanager
def _on_loopback() -> Iterator[dict[str, Any]]:
    """Options for `ray.init` under which a Ray of this machine alone listens on its loopback interface alone.

    Ray offers none: it replaces 127.0.0.1 by the machine's address, and then listens on all interfaces.
    """
    from ray._private import services

    replace = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield {"_node_ip_address": "127.0.0.1"}
    finally:
        services.resolve_ip_for_localhost = replace


def actor_environment() -> dict[str, str]:
    """The variables that workers on other machines need, as they are here."""
    return {name: os.environ[name] for name in (*RAY_ENVIRONMENT, *USER_ENVIRONMENT) if name in os.environ}


def check_reachable(address: str) -> None:
    """Ray itself tries a dead address for minutes.

    Raises:
        UsageError: The address is neither ``auto`` nor HOST:PORT nor ray://HOST:PORT.
        NasattnError: Nothing listens at HOST:PORT.
    """
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise UsageError(
            f"--address {address!r} is no address: allowed are auto, HOST:PORT (port 6379 unless chosen otherwise) and "
            "ray://HOST:PORT (port 10001); leave it out to start Ray on this machine"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise NasattnError(
            f"Ray cannot be reached at {address}: {error}; give the HOST:PORT of a running cluster, or leave --address out"
        ) from None


def _not_joined(address: str | None, message: str) -> str:
    """One line of what Ray says when it cannot be joined or started."""
    where = address or "this machine"
    if "ersion mismatch" in message:
        said = " ".join(message.split())
        return f"Ray at {where} and this process differ: {said}; install the cluster's versions of Python and Ray here, or run on its head node"
    return f"Ray cannot be reached at {where}: {message.splitlines()[0] if message else 'it does not say why'}"


def own_code() -> tuple[str, str]:
    """nasattn's version, and a digest of its code: two checkouts of one version may differ."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py"), key=lambda f: f.relative_to(package).as_posix()):
        digest.update(f"{file.relative_to(package).as_posix()}\0".encode() + file.read_bytes())
    return version("nasattn"), digest.hexdigest()[:12]


def check_nodes(environment: dict[str, str]) -> None:
    """Have every node that can train import nasattn, as the workers will. Raises NasattnError: one cannot, or has other code."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def look() -> tuple[str, str]:
        """Pickled by value, since it is local: the node may lack nasattn."""
        try:
            from nasattn.search.cluster import own_code

            return own_code()
        except Exception as error:  # whatever a broken installation raises
            return "", f"{type(error).__name__}: {error}"

    task = ray.remote(num_cpus=0, max_retries=0, runtime_env={"env_vars": environment})(look)
    asked = {}
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("CPU", 0) >= 1:
            reference = task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
            asked[reference] = node["NodeManagerAddress"]
    if not asked:
        return
    _, silent = ray.wait(list(asked), num_returns=len(asked), timeout=NODE_SECONDS)
    if silent:
        raise NasattnError(f"the node {asked[silent[0]]} of the Ray cluster gave no answer for {NODE_SECONDS:.0f} s: see `ray status`")
    own = own_code()
    for reference, address in asked.items():
        try:
            found = ray.get(reference)
        except ray.exceptions.RayError as error:
            found = ("", " ".join(str(error).split()))
        if wrong := _difference(found, own):
            raise NasattnError(f"the node {address} of the Ray cluster {wrong}")


def _difference(found: tuple[str, str], own: tuple[str, str]) -> str:
    """What is wrong with a node whose version and digest are *found*; empty if nothing is. Without a version the digest is an error."""
    remedy = "install this nasattn there, or bring a checkout along by `ray job submit --working-dir .`, see docs/cluster.md"
    if not found[0]:
        return f"cannot import nasattn ({found[1]}): {remedy}"
    if found[1] != own[1]:
        return f"has nasattn {found[0]} (code {found[1]}), the driver {own[0]} (code {own[1]}): {remedy}"
    return ""


def places(node: dict[str, float], needed: dict[str, float]) -> int:
    """How many workers a node with the resources *node* has room for, if each needs *needed*; a share of a GPU is of one GPU."""
    found = []
    for name, amount in needed.items():
        there = node.get(name, 0.0)
        found.append(int(there) * int(1 / amount + 1e-9) if name == "GPU" and amount < 1 else int(there / amount + 1e-9))
    return min(found)


def workers_with_room(asked: int | None, needed: dict[str, float]) -> tuple[int, str]:
    """How many workers to use in the Ray that is joined, and a line about it where it is not what was asked.

    Room counts what the nodes have, whether or not others use it now: then workers wait.

    Args:
        asked: None for as many as there is room for.
        needed: What each takes, such as ``{"CPU": 1, "GPU": 0.5}``.

    Raises:
        NasattnError: No node has room for a single one.
    """
    import ray

    return share_out(asked, needed, [node["Resources"] for node in ray.nodes() if node["Alive"]])


def share_out(asked: int | None, needed: dict[str, float], nodes: Sequence[dict[str, float]]) -> tuple[int, str]:
    """:func:`workers_with_room` of a Ray whose nodes have the resources *nodes*."""
    used = [room for node in nodes if (room := places(node, needed))]
    room, of = sum(used), f"{len(used)} node{'s' * (len(used) > 1)}"
    if not room:
        offered = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in needed}
        raise NasattnError(
            f"no node of the Ray cluster has room for a worker, which needs {_amounts(needed)}; its {len(nodes)} node{'s' * (len(nodes) != 1)} "
            f"offer{'s' * (len(nodes) == 1)} at most {_amounts(offered)}; nodes that still start do not count (`ray status`): wait for them, "
            "add larger ones, or change --device or --gpus-per-trial"
        )
    if asked is None:
        return room, f"the Ray cluster has room for {room} worker{'s' * (room > 1)} on {of}"
    if asked > room:
        return room, f"the Ray cluster has room for {room} of {asked} workers, on {of}: {room} {'are' if room > 1 else 'is'} used"
    return asked, ""


def _amounts(resources: dict[str, float]) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in resources.items())
