"""A Ray cluster of two nodes on this machine: joined, searched on, and robbed of a node."""

from __future__ import annotations

import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from nasattn.errors import NasattnError, UsageError
from nasattn.search import cluster as nasattn_cluster
from nasattn.search.cluster import actor_environment, check_reachable, places, ray_cluster, share_out, workers_with_room
from nasattn.search.driver import run_search
from nasattn.search.events import Event, SearchNoted, SearchStarted
from nasattn.search.planning import plan, worker_resources
from nasattn.search.study import StudyConfig, make_config
from tests.search.fleet import store
from tests.search.workers import start_logged

__all__ = ["store"]  # a fixture: all latencies are known

NODE = {"num_cpus": 1, "object_store_memory": 100 * 1024 * 1024}
MISMATCH = """Version mismatch: The cluster was started with:
    Ray: 2.59.0
    Python: 3.12.1
This process on node 10.0.0.1 was started with:
    Ray: 2.60.0
    Python: 3.11.4
"""


@pytest.fixture
def two_nodes() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    cluster.add_node(**NODE)
    yield cluster
    cluster.shutdown()


def configure(space_file: str, **settings: Any) -> StudyConfig:
    fidelity = {"samples": 64, "val_samples": 32, "resolution": 24, "epochs": 4, "rungs": 3}
    return make_config(
        {"space": space_file, "study": "s", "sampler": "random", "trials": 8, "certify": 0, "fidelity": fidelity, **settings}
    )


def read_log(log: Path, what: str) -> list[tuple[str, str, str]]:
    """Identity, node and folder of checkpoints of every line that says *what*."""
    lines = log.read_text().splitlines() if log.exists() else []
    found = [line.split(" ", 3) for line in lines if line.startswith(what)]
    return [(identity, node, checkpoints) for _, identity, node, checkpoints in found]


@pytest.mark.parametrize(
    ("node", "needed", "room"),
    [
        ({"CPU": 4.0}, {"CPU": 1.0}, 4),
        ({"CPU": 4.0}, {"CPU": 1.0, "GPU": 1.0}, 0),
        ({"CPU": 4.0, "GPU": 2.0}, {"CPU": 1.0, "GPU": 1.0}, 2),
        ({"CPU": 3.0, "GPU": 2.0}, {"CPU": 1.0, "GPU": 0.5}, 3),
        ({"CPU": 64.0, "GPU": 2.0}, {"CPU": 1.0, "GPU": 0.4}, 4),  # two to a GPU, and no share of 0.2 from each
        ({"CPU": 64.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 0.1}, 10),
        ({"CPU": 64.0, "GPU": 8.0}, {"CPU": 1.0, "GPU": 3.0}, 2),
        ({}, {"CPU": 1.0}, 0),
    ],
)
def test_places_of_a_node(node: dict[str, float], needed: dict[str, float], room: int) -> None:
    assert places(node, needed) == room


def test_a_share_of_a_gpu_that_ray_cannot_give_is_refused(space_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    gpus = {"device": "cuda", "deployment": {"device": "cpu"}}
    assert worker_resources(configure(space_file, gpus_per_trial=0.25, **gpus)) == {"CPU": 1.0, "GPU": 0.25}
    assert worker_resources(configure(space_file, gpus_per_trial=2, **gpus)) == {"CPU": 1.0, "GPU": 2.0}
    with pytest.raises(UsageError, match="from 0.0001 to 1, or a whole number of GPUs, got 1.5"):
        worker_resources(configure(space_file, gpus_per_trial=1.5, **gpus))


def test_what_is_used_of_a_cluster_is_said() -> None:
    nodes = [{"memory": 1e9}, {"CPU": 2.0, "GPU": 1.0}, {"CPU": 4.0}]
    assert share_out(None, {"CPU": 1.0}, nodes) == (6, "the Ray cluster has room for 6 workers on 2 nodes")
    assert share_out(5, {"CPU": 1.0}, nodes) == (5, "")
    assert share_out(9, {"CPU": 1.0, "GPU": 1.0}, nodes) == (1, "the Ray cluster has room for 1 of 9 workers, on 1 node: 1 is used")


def test_a_cluster_without_room_is_one_line() -> None:
    expected = r"no node .* has room for a worker, which needs 1 CPU and 1 GPU; its 1 node offers at most 4 CPU and 0 GPU.*--device"
    with pytest.raises(NasattnError, match=expected) as raised:
        share_out(None, {"CPU": 1.0, "GPU": 1.0}, [{"CPU": 4.0}])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("address", ["local", "cluster", "cluster:", ":6379", "http://cluster:8265", "ray://cluster"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="allowed are auto, HOST:PORT .*ray://HOST:PORT"):
        check_reachable(address)


def test_other_versions_of_ray_and_python_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError(MISMATCH)

    monkeypatch.setattr("ray.init", refuse)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(NasattnError, match=r"Ray: 2\.59\.0 Python: 3\.12\.1 .*Ray: 2\.60\.0 Python: 3\.11\.4; install") as raised:
            ray_cluster(address, None).__enter__()
    assert "\n" not in str(raised.value)


def test_a_node_with_other_code_is_told_from_one_without() -> None:
    own = ("0.1.0", "aaaa")
    assert nasattn_cluster._difference(("0.1.0", "aaaa"), own) == ""
    assert re.match(r"has nasattn 0\.0\.9 \(code bbbb\), the driver 0\.1\.0", nasattn_cluster._difference(("0.0.9", "bbbb"), own))
    missing = nasattn_cluster._difference(("", "ModuleNotFoundError: No module named 'nasattn'"), own)
    assert re.match(r"cannot import nasattn \(ModuleNotFoundError: .*install this nasattn there", missing)


def test_workers_are_given_the_users_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASATTN_DATA", "/shared/data")
    monkeypatch.delenv("NASATTN_CACHE", raising=False)
    environment = actor_environment()
    assert environment["NASATTN_DATA"] == "/shared/data" and "GLIBC_TUNABLES" in environment
    assert "NASATTN_CACHE" not in environment


def test_a_plan_leaves_the_number_of_workers_to_the_cluster(space_file: str) -> None:
    assert plan(configure(space_file), "auto")["workers"] is None
    assert plan(configure(space_file, workers=3), "auto")["workers"] == 3


@pytest.mark.slow
def test_a_cluster_is_joined_after_a_look_at_its_nodes(two_nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with ray_cluster(two_nodes.address, None) as options:
        assert options["runtime_env"]["env_vars"]["GLIBC_TUNABLES"]
        assert workers_with_room(None, {"CPU": 1.0})[0] == 2
        assert workers_with_room(3, {"CPU": 1.0})[0] == 2
        with pytest.raises(NasattnError, match="needs 1 CPU and 0.5 GPU"):
            workers_with_room(None, {"CPU": 1.0, "GPU": 0.5})
    monkeypatch.setattr(nasattn_cluster, "own_code", lambda: ("0.1.0", "elsewhere"))
    with pytest.raises(NasattnError, match=r"the node .* has nasattn .*the driver 0\.1\.0 \(code elsewhere\): install"):
        ray_cluster(two_nodes.address, None).__enter__()
    with ray_cluster(None, 1) as options:  # the cluster was left; what is started here needs no environment
        assert options == {}
        assert workers_with_room(1, {"CPU": 1.0}) == (1, "")


@pytest.mark.slow
def test_two_nodes_find_what_one_finds(
    two_nodes: Any, space_file: str, tmp_path: Path, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random suggestions depend on the seed alone, so the trials must be the same, whoever trains them."""
    monkeypatch.setenv("NASATTN_CHECKPOINTS", str(tmp_path / "given"))  # the nodes were started without it
    trials, nodes, events = [], [], list[Event]()
    for workers in (1, None):
        log = tmp_path / f"{workers}.log"
        start = partial(start_logged, log=str(log), pause=0.2)
        url = f"sqlite:///{tmp_path / f'{workers}.db'}"
        result = run_search(configure(space_file, workers=workers), url, address=two_nodes.address, start=start, listener=events.append)
        assert result.complete and all(e.state == "COMPLETE" for e in result.evaluations)
        trials.append([(e.trial, e.placement, e.seed, e.accuracy) for e in result.evaluations if e.reused_from is None])
        nodes.append({node for _, node, _ in read_log(log, "done")})
        assert {checkpoints for *_, checkpoints in read_log(log, "begun")} == {str(tmp_path / "given")}
    assert trials[0] == trials[1] and len(trials[0]) == 8
    assert [len(used) for used in nodes] == [1, 2]
    assert [e.workers for e in events if isinstance(e, SearchStarted)] == [1, None]
    assert "room for 2 workers on 2 nodes" in " ".join(e.text for e in events if isinstance(e, SearchNoted))


@pytest.mark.slow
def test_a_lost_node_loses_no_trial(two_nodes: Any, space_file: str, tmp_path: Path, store: Any) -> None:
    (lost,) = two_nodes.worker_nodes
    log = tmp_path / "log"

    def remove_in_the_middle() -> str:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            begun = [identity for identity, node, _ in read_log(log, "begun") if node == lost.node_id]
            if len(begun) == 2:  # it has trained one to its end, and trains another
                two_nodes.remove_node(lost, allow_graceful=False)
                return begun[-1]
            time.sleep(0.1)
        raise AssertionError("the second node was never used")

    url, start = f"sqlite:///{tmp_path / 'studies.db'}", partial(start_logged, log=str(log), pause=1.5)
    with ThreadPoolExecutor(1) as pool:
        removal = pool.submit(remove_in_the_middle)
        result = run_search(configure(space_file), url, address=two_nodes.address, start=start)
        in_training = removal.result()
    assert result.complete
    assert sum(e.reused_from is None for e in result.evaluations) == 8
    assert {e.state for e in result.evaluations} == {"COMPLETE"}
    assert {t.state for t in optuna.load_study(study_name="s", storage=url).get_trials()} == {TrialState.COMPLETE}
    begun = Counter(identity for identity, *_ in read_log(log, "begun"))
    done = Counter(identity for identity, *_ in read_log(log, "done"))
    assert [identity for identity, times in begun.items() if times > 1] == [in_training]
    assert begun[in_training] == 2 and len(done) == 8 and set(done.values()) == {1}
