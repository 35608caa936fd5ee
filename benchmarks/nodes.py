"""Does a second node of a cluster bring what its cores can do? Real proxies on one node, on two, and without a search.

    python benchmarks/nodes.py                   # some ten minutes on two cores that do nothing else

Two raylets on this machine, of one core each, are the nodes. The same placements are trained by a search with one worker, by one
with a worker on each node, and, as what the cores can do, by one and by two processes that only train. Counted from the end of the
first training to the end of the last, since what starts a worker is paid once. Cores of one machine share caches, memory and often
execution units, so that two do less than twice the work of one: the search's speed-up is judged by that of the bare processes.
The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
os.environ["OMP_NUM_THREADS"] = "1"  # as Ray has it for a worker with one core

from nasattn.attention import Placement  # noqa: E402
from nasattn.search.cluster import quiet_libraries  # noqa: E402

quiet_libraries()

from nasattn.search.driver import run_search  # noqa: E402
from nasattn.search.events import Event, TrialFinished  # noqa: E402
from nasattn.search.study import StudyConfig, make_config  # noqa: E402
from nasattn.search.worker import start_proxy  # noqa: E402

PLACEMENTS = [Placement.parse(f"{a},{b},none,none") for a in ("none", "sge_g16", "sge_g32", "ela_t") for b in ("none", "ela_b", "ela_s")]
TARGET = 0.9  # of the speed-up that the cores have without a search


def configure(workers: int) -> StudyConfig:
    brief = {"deployment": {"resolution": 32}, "latency_seconds": 0.05}  # training pauses, by design, while latencies are measured
    return make_config({"space": "resnet50_stages", "study": "nodes", "workers": workers, "certify": 0, **brief})


def search(nodes: int) -> dict[str, Any]:
    """Trainings an hour of a search on a cluster of so many nodes, and how many each worker did."""
    from ray.cluster_utils import Cluster

    ends: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, TrialFinished):
            ends.append(time.monotonic())

    with tempfile.TemporaryDirectory(prefix="nodes-") as folder:
        os.environ["NASATTN_CHECKPOINTS"] = f"{folder}/checkpoints"
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            for _ in range(nodes - 1):
                cluster.add_node(num_cpus=1)
            cluster.wait_for_nodes()
            result = run_search(
                configure(nodes), f"sqlite:///{folder}/nodes.db", address=cluster.address, listener=listen, placements=PLACEMENTS
            )
        finally:
            cluster.shutdown()
    workers = Counter(str(e.worker) for e in result.evaluations)
    accuracy = {e.placement: e.accuracy for e in result.evaluations}
    return {"an_hour": rate(ends), "trainings": sorted(workers.values()), "accuracy": accuracy}


def bare(processes: int) -> float:
    """Trainings an hour of so many processes that do nothing else, all together."""
    with tempfile.TemporaryDirectory(prefix="nodes-") as folder:
        env = {**os.environ, "NASATTN_CHECKPOINTS": f"{folder}/checkpoints"}
        commands = [[sys.executable, __file__, "--bare", str(number), str(processes)] for number in range(processes)]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) for command in commands]
        ends = [float(line) for process in running for line in process.communicate()[0].split()]
    return rate(sorted(ends))


def train_bare(number: int, processes: int) -> None:
    """Every so many-th of the placements, in this process; prints when each ended."""
    config = configure(1)
    for placement in map(str, PLACEMENTS[number::processes]):
        training = start_proxy(config.job(placement), config.task, config.evaluation_identity(placement))
        while not training.done:
            training.step()
        print(time.monotonic(), flush=True)


def rate(ends: list[float]) -> float:
    """Trainings an hour, from the end of the first on."""
    return round(3600 * (len(ends) - 1) / (ends[-1] - ends[0]), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bare", nargs=2, type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.bare:
        train_bare(*chosen.bare)
        return
    one, two = search(1), search(2)
    alone, together = bare(1), bare(2)
    speedup, possible = two["an_hour"] / one["an_hour"], together / alone
    figures = {
        "an_hour": {"one_node": one["an_hour"], "two_nodes": two["an_hour"], "one_process": alone, "two_processes": together},
        "trainings_of_each_worker": {"one_node": one["trainings"], "two_nodes": two["trainings"]},
        "same_accuracies": one["accuracy"] == two["accuracy"],
        "speedup": round(speedup, 3), "of_bare_processes": round(possible, 3), "share_of_it": round(speedup / possible, 3),
        "share_of_cores_added": round(speedup / 2, 3), "target": TARGET, "met": speedup / 2 >= TARGET,
        "met_beside_bare_processes": speedup / possible >= TARGET,
    }  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
