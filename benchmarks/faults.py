"""What is lost when things break: a search is killed, starved and cut off again and again, and its database is audited.

    python benchmarks/faults.py                              # all parts, some thirty minutes
    python benchmarks/faults.py --parts driver worker        # also: postgres, node, outage, lock, disk, faulty, memory
    python benchmarks/faults.py --parts driver --rounds 3    # fewer rounds of kill -9

Trainings are scripted, so that they last as long as a part needs and fail when they should; Ray, the workers' processes, the
databases (SQLite, PostgreSQL) and the driver are real. The last line printed is one JSON object: by part, what was broken and
what was lost. All of `lost`, `running`, `trained_twice` must be 0.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the PostgreSQL server of the tests, also in the workers
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")])

from nasattn.search.cluster import quiet_libraries, ray_cluster  # noqa: E402

quiet_libraries()

import optuna  # noqa: E402

from nasattn.front import front  # noqa: E402
from nasattn.proxy import CheckpointedTraining, Checkpoints, ProxyJob, TrainingReport  # noqa: E402
from nasattn.report.faults import faults  # noqa: E402
from nasattn.search.driver import SearchResult, run_search  # noqa: E402
from nasattn.search.events import Event, SearchNoted, TrialFinished  # noqa: E402
from nasattn.search.study import StudyConfig, make_config  # noqa: E402
from nasattn.store import EvaluationRecord, State, Store  # noqa: E402

SPACE = """
host: nasattn_resnet18
stages:
  all: {none: , se: , eca: , ela_t: , sge: {groups: [8, 16, 32]}}
"""
STUDY = "faults"
REPORTS = 4  # of a training
Figures = dict[str, Any]


class Scripted:
    """A training of REPORTS reports that lasts *seconds* and may fail by its placement's own luck; checkpointed as real ones are.

    Args:
        job: Whose placement decides.
        seconds: In all.
        shares: Of the placements that fail, by what they do: ``raise``, ``nan``, ``hang``, ``die``.
        log: A file to which the end of each training is written.
    """

    def __init__(self, job: ProxyJob, identity: str, seconds: float, shares: dict[str, float], log: str) -> None:
        self.job, self.train, self.val, self.scale = job, (), (), ()  # what a checkpoint is compared by
        self.identity, self.seconds, self.log, self.number = identity, seconds, log, 0
        self.luck = int(hashlib.sha256(job.placement.encode()).hexdigest(), 16) % 10_000 / 10_000
        self.fate, limit = "", 0.0
        plain = set(job.placement.split(",")) == {"none"}
        for fate, share in shares.items():
            if limit <= self.luck < limit + share and not plain:
                self.fate = fate
            limit += share

    @property
    def done(self) -> bool:
        return self.number >= REPORTS

    def state(self) -> dict[str, Any]:
        return {"number": self.number}

    def resume(self, state: dict[str, Any]) -> None:
        self.number = state["number"]

    def step(self) -> TrainingReport:
        time.sleep(self.seconds / REPORTS)
        self.number += 1
        if self.fate == "raise":
            raise RuntimeError(f"placement of luck {self.luck} fell over")
        if self.fate == "hang":
            time.sleep(3600)
        if self.fate == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.done and self.log:
            with open(self.log, "a") as file:
                file.write(self.identity + "\n")
        return TrainingReport(
            self.number, 1.0, math.nan if self.fate == "nan" else 0.3 + self.luck / 2, self.seconds * self.number / REPORTS
        )


def start(
    job: ProxyJob, task: str, identity: str, seconds: float = 0.0, shares: dict[str, float] | None = None, log: str = ""
) -> CheckpointedTraining:
    training: Any = Scripted(job, identity, seconds, shares or {}, log)
    return CheckpointedTraining(training, identity, Checkpoints())


def configure(folder: Path, trials: int, **settings: Any) -> StudyConfig:
    file = folder / "space.yaml"
    file.write_text(SPACE)
    fidelity = {"samples": 64, "val_samples": 32, "resolution": 24, "epochs": REPORTS, "rungs": 1}
    given = {"space": str(file), "study": STUDY, "sampler": "random", "trials": trials, "certify": 0, "workers": 2, "fidelity": fidelity}
    return make_config(given | {"deployment": {"resolution": 32}, "latency_seconds": 0.05} | settings)


def audit(url: str, told: dict[int, Any], log: Path) -> Figures:
    """What became of the study in the database.

    Args:
        url: Of the database.
        told: Values that were complete at some moment, by trial.
        log: Of trainings that ended.
    """
    store = Store(url)
    trials = store.evaluations(STUDY)
    now = {e.trial: e.accuracy for e in trials if e.state == "COMPLETE"}
    states = Counter(t.state.name for t in optuna.load_study(study_name=STUDY, storage=store.optuna).get_trials())
    own = Counter(e.identity for e in trials if e.state == "COMPLETE" and e.reused_from is None)
    ends = Counter(log.read_text().split()) if log.exists() else Counter()
    return {
        "trials": sum(e.is_own_trial for e in trials),
        "told": len(told),
        "lost": sum(now.get(trial) != value for trial, value in told.items()),
        "running": sum(e.state == "RUNNING" for e in trials) + states["RUNNING"],
        "trained_twice": sum(n > 1 for n in own.values()),
        "ended_twice_on_workers": sum(n > 1 for n in ends.values()),  # killed between a training's end and its checkpoint
    }


def evaluations(url: str, state: State | None = None) -> list[EvaluationRecord]:
    """What another process reads now; none before the study is begun."""
    store = Store(url)
    found = store.evaluations(STUDY, state) if any(s.name == STUDY for s in store.studies()) else []
    store.engine.dispose()
    return found


def complete(url: str) -> dict[int, Any]:
    """The values that are told now."""
    return {e.trial: e.accuracy for e in evaluations(url, "COMPLETE")}


def drive(folder: Path, url: str, trials: int, seconds: float) -> subprocess.Popen[bytes]:
    """The search in a process of its own."""
    command = [sys.executable, __file__, "--drive", url, str(folder), str(trials), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)


def kill_rounds(folder: Path, url: str, rounds: int, trials: int = 40) -> Figures:
    """kill -9 of the driver at random moments, the last time left to end; each run lives until some trials more are told."""
    told: dict[int, Any] = {}
    rng = random.Random(0)
    early = 0
    for _ in range(rounds):
        driver = drive(folder, url, trials, 1.0)
        if rng.random() < 0.2:  # while it starts
            time.sleep(rng.uniform(0, 10))
        else:
            wait_for_told(url, driver, len(told) + rng.randint(0, 3))
            time.sleep(rng.uniform(0, 1.5))
        early += driver.poll() is not None
        driver.kill()
        driver.wait()
        told |= complete(url)
    failed = drive(folder, url, trials, 1.0).wait()
    return {"rounds": rounds, "ended_before_the_kill": early, "last_exit": failed} | audit(url, told, folder / "ends.log")


def wait_for_told(url: str, driver: subprocess.Popen[bytes], number: int) -> None:
    """Until so many trials are told, and one more is under way."""
    deadline = time.monotonic() + 120
    while driver.poll() is None and time.monotonic() < deadline:
        if len(complete(url)) >= number and evaluations(url, "RUNNING"):
            return
        time.sleep(0.1)


def part_driver(folder: Path, rounds: int) -> Figures:
    return kill_rounds(folder, f"sqlite:///{folder}/studies.db", rounds)


def part_postgres(folder: Path, rounds: int) -> Figures:
    from tests.store.postgres import running_server

    with running_server() as server:
        return kill_rounds(folder, server.create("faults"), rounds)


def run(folder: Path, url: str, config: StudyConfig, listener: Callable[[Event], None] | None = None, **script: Any) -> SearchResult:
    """The search in this process."""
    begin = functools.partial(start, log=str(folder / "ends.log"), **script)
    with ray_cluster(None, config.workers or 2):
        return run_search(config, url, start=begin, listener=listener)


def workers_here() -> list[int]:
    """The workers of the Ray that this process has started, and of no other."""
    pids = subprocess.run(["pgrep", "-f", "ray::ProxyWorker"], capture_output=True, text=True, check=False).stdout.split()
    return [int(pid) for pid in pids if os.getpid() in ancestors(int(pid))]


def ancestors(pid: int) -> list[int]:
    """The parent of a process, its parent, and so on; none if it has ended."""
    found: list[int] = []
    with suppress(OSError):
        while pid > 1:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            found.append(pid)
    return found


def part_worker(folder: Path, rounds: int) -> Figures:
    """kill -9 of a worker, again and again in one search; each trial may lose one."""
    url, killed, over = f"sqlite:///{folder}/studies.db", 0, threading.Event()

    def kill() -> None:
        nonlocal killed
        while not over.wait(3.0) and killed < rounds:
            if pids := workers_here():
                os.kill(random.choice(pids), signal.SIGKILL)
                killed += 1

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        result = run(folder, url, configure(folder, 40), seconds=1.0)
    finally:
        over.set()
        thread.join()
    failed = sum(e.state == "FAIL" for e in result.evaluations)
    return {"killed": killed, "failed": failed} | audit(url, complete(url), folder / "ends.log")


def part_node(folder: Path, rounds: int) -> Figures:
    """One of two nodes is removed in the middle of a search, in each of five rounds."""
    from ray.cluster_utils import Cluster

    sums: Counter[str] = Counter()
    for number in range(min(5, rounds)):
        place = folder / str(number)
        place.mkdir()
        url = f"sqlite:///{place}/studies.db"
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        second = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        removed = threading.Event()

        def listen(event: Event, cluster: Any = cluster, second: Any = second, removed: threading.Event = removed) -> None:
            if isinstance(event, TrialFinished) and event.record.trial >= 6 and not removed.is_set():
                removed.set()
                threading.Thread(target=cluster.remove_node, args=(second,)).start()

        begin = functools.partial(start, seconds=0.5, log=str(place / "ends.log"))
        try:
            result = run_search(configure(place, 20), url, address=cluster.address, start=begin, listener=listen)
            sums += Counter({"failed": sum(e.state == "FAIL" for e in result.evaluations), "rounds": 1, "removed": removed.is_set()})
            sums += Counter(audit(url, complete(url), place / "ends.log"))
        finally:
            cluster.shutdown()
    return {key: sums[key] for key in ("rounds", "removed", "failed", "trials", "told", "lost", "running", "trained_twice")}


class Notes:
    """Remembers what the user is told, and calls *at* once when so many trials have ended."""

    def __init__(self, at: int, call: Callable[[], None]) -> None:
        self.at, self.call, self.ended, self.lines = at, call, 0, list[str]()

    def __call__(self, event: Event) -> None:
        if isinstance(event, SearchNoted):
            self.lines.append(event.text)
        if isinstance(event, TrialFinished):
            self.ended += 1
            if self.ended == self.at:
                threading.Thread(target=self.call).start()


def part_outage(folder: Path, rounds: int) -> Figures:
    """PostgreSQL is stopped for 30 s in the middle of a search."""
    from tests.store.postgres import running_server

    with running_server() as server:
        url = server.create("faults")

        def away() -> None:
            server.stop("immediate")
            time.sleep(30)
            server.start()

        notes = Notes(10, away)
        result = run(folder, url, configure(folder, 40), notes, seconds=0.5)
        return {"complete": result.complete, "said": notes.lines} | audit(url, complete(url), folder / "ends.log")


@contextmanager
def polling(url: str) -> Iterator[None]:
    """What a dashboard does: it reads all trials again and again."""
    over = threading.Event()

    def poll() -> None:
        storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
        while not over.wait(0.5):
            for study in storage.get_all_studies():
                storage.get_all_trials(study._study_id)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def part_lock(folder: Path, rounds: int) -> Figures:
    """Another writer holds the SQLite file for 20 s, while a dashboard polls."""
    url = f"sqlite:///{folder}/studies.db"
    Store(url).optuna.get_all_studies()

    def lock() -> None:
        other = sqlite3.connect(folder / "studies.db", isolation_level=None, timeout=60)
        other.execute("BEGIN IMMEDIATE")
        time.sleep(20)
        other.execute("COMMIT")
        other.close()

    notes = Notes(10, lock)
    with polling(url):
        result = run(folder, url, configure(folder, 40), notes, seconds=0.5)
    return {"complete": result.complete, "said": notes.lines} | audit(url, complete(url), folder / "ends.log")


def part_disk(folder: Path, rounds: int) -> Figures:
    """The disk with the database, its journal and the checkpoints is full for 20 s."""
    from tests.disks import fill, small_disk

    with small_disk(folder) as disk:
        if disk is None:
            return {"skipped": "nobody may mount a disk here"}
        url = f"sqlite:///{disk}/studies.db"
        os.environ["NASATTN_CHECKPOINTS"] = f"{disk}/checkpoints"

        def full() -> None:
            filler = fill(disk)
            time.sleep(20)
            filler.unlink()

        notes = Notes(10, full)
        result = run(folder, url, configure(folder, 40), notes, seconds=0.5)
        return {"complete": result.complete, "said": notes.lines} | audit(url, complete(url), folder / "ends.log")


def part_faulty(folder: Path, rounds: int) -> Figures:
    """500 trials, of which 5 % raise, 5 % give NaN, 2 % hang and 2 % die."""
    url = f"sqlite:///{folder}/studies.db"
    shares = {"raise": 0.05, "nan": 0.05, "hang": 0.02, "die": 0.02}
    began = time.monotonic()
    result = run(folder, url, configure(folder, 500, progress_timeout="3s"), seconds=0.0, shares=shares)
    good = [e for e in result.evaluations if e.state == "COMPLETE"]
    named = {cause: len(trials) for cause, trials in faults(result.evaluations).items()}
    unnamed = sum(e.state == "FAIL" and not e.error for e in result.evaluations)
    same = front(good) == result.front
    return (
        {"complete": result.complete, "minutes": round((time.monotonic() - began) / 60, 2), "faults": named, "unnamed": unnamed}
        | {"front_as_of_good_trials": same}
        | audit(url, complete(url), folder / "ends.log")
    )


def part_memory(folder: Path, rounds: int) -> Figures:
    """The driver's memory at 200 and at 2,000 trials that train nothing."""
    url, seen = f"sqlite:///{folder}/studies.db", dict[int, float]()
    ended = 0

    def listen(event: Event) -> None:
        nonlocal ended
        if isinstance(event, TrialFinished):
            ended += 1
            if ended in (200, 1000, 2000):
                status = Path("/proc/self/status").read_text()
                seen[ended] = round(int(status.partition("VmRSS:")[2].split()[0]) / 1024, 1)

    run(folder, url, configure(folder, 2000), listen)
    return {"megabytes": seen, "grown_by": round(seen[2000] - seen[200], 1)} | audit(url, complete(url), folder / "ends.log")


PARTS: dict[str, Callable[[Path, int], Figures]] = {
    "driver": part_driver,
    "postgres": part_postgres,
    "worker": part_worker,
    "node": part_node,
    "outage": part_outage,
    "lock": part_lock,
    "disk": part_disk,
    "faulty": part_faulty,
    "memory": part_memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=20, help="of kill -9")
    parser.add_argument("--drive", nargs=4, metavar=("URL", "FOLDER", "TRIALS", "SECONDS"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.drive:
        url, folder, trials, seconds = chosen.drive
        run(Path(folder), url, configure(Path(folder), int(trials)), seconds=float(seconds))
        return
    figures: Figures = {}
    for part in chosen.parts:
        with tempfile.TemporaryDirectory(prefix=f"faults-{part}-") as folder:
            os.environ["NASATTN_CHECKPOINTS"] = f"{folder}/checkpoints"
            figures[part] = PARTS[part](Path(folder), chosen.rounds)
        print(part, json.dumps(figures[part]), flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
