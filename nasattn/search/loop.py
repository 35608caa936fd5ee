"""The driver's loop over Ray actors: each trains a trial to its next report and is told to go on, or what to train next.

Ray Tune's own loop keeps a record, a folder and a checkpoint for each trial, and writes its state again and again: half a
second a trial, growing with their number. Here a trial costs one message a report; what became of it is in the database.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray.exceptions import RayError

from nasattn.search.worker import Assignment, ProxyWorker, Start

RETRIES = 1  # of a trial whose worker died; it goes on from its checkpoint
POLL = 1.0  # seconds after which an interruption is noticed at the latest


class Search(Protocol):
    """What the loop asks and tells; PlacementSearch is one."""

    def next_trial(self) -> tuple[str, Assignment] | None:
        """What to train now, under which id; None when there is nothing, or nothing until another trial has come further."""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> bool:
        """A report that is not the last. Whether the worker goes on with the trial."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any]) -> None:
        """The last report."""

    def lose(self, trial_id: str, reason: str) -> None:
        """The trial's worker died, also when tried again."""


@dataclass
class _AtWork:
    """A worker with the trial that it trains."""

    worker: Any
    trial_id: str
    assignment: Assignment
    deaths: int = 0


class Workers:
    """Up to *size* actors, begun when they are needed and kept; a dead one is replaced.

    Args:
        size: How many at once.
        resources: Ray's options of an actor, such as ``{"num_cpus": 1}``.
        start: What a worker does with a trial.
    """

    def __init__(self, size: int, resources: dict[str, float], start: Start) -> None:
        self.size, self.start = size, start
        self._actor = ray.remote(**resources)(ProxyWorker)
        self._idle: list[Any] = []
        self._at_work: dict[Any, _AtWork] = {}  # by the reference of the report to come

    @property
    def room(self) -> bool:
        """Whether another trial can begin."""
        return len(self._at_work) < self.size

    @property
    def busy(self) -> bool:
        """Whether any trial trains."""
        return bool(self._at_work)

    def begin(self, trial_id: str, assignment: Assignment, deaths: int = 0) -> None:
        """Give a trial to a worker that has nothing to do."""
        worker = self._idle.pop() if self._idle else self._actor.remote(self.start)
        self._at_work[worker.step.remote(assignment)] = _AtWork(worker, trial_id, assignment, deaths)

    def go_on(self, work: _AtWork) -> None:
        """Train the same trial to its next report."""
        self._at_work[work.worker.step.remote()] = work

    def release(self, work: _AtWork) -> None:
        """Its worker may take another trial."""
        self._idle.append(work.worker)

    def reports(self) -> Iterator[tuple[_AtWork, dict[str, Any] | RayError]]:
        """What has come in within a moment; the workers wait to be told. A worker that died gives Ray's error."""
        ready, _ = ray.wait(list(self._at_work), num_returns=1, timeout=POLL)
        for reference in ready:
            work = self._at_work.pop(reference)
            try:
                yield work, ray.get(reference)
            except RayError as error:
                yield work, error

    def end(self) -> None:
        """End all workers, whatever they do."""
        for worker in (*self._idle, *(w.worker for w in self._at_work.values())):
            ray.kill(worker)


def train_all(search: Search, workers: Workers) -> bool:
    """Train what *search* gives until it has nothing more. False when interrupted (Ctrl-C): what trained then is left to the caller."""
    with _interruption() as interrupted:
        try:
            while not interrupted.is_set():
                while workers.room and (trial := search.next_trial()) is not None and not interrupted.is_set():
                    workers.begin(*trial)
                if not workers.busy:
                    return not interrupted.is_set()
                for work, report in workers.reports():
                    _take(search, workers, work, report)
        finally:
            workers.end()
    return False


def _take(search: Search, workers: Workers, work: _AtWork, report: dict[str, Any] | RayError) -> None:
    if isinstance(report, RayError):
        if work.deaths < RETRIES:
            workers.begin(work.trial_id, work.assignment, work.deaths + 1)
        else:
            search.lose(work.trial_id, f"the worker died: {_cause(report)}")
    elif report["done"]:
        workers.release(work)
        search.on_trial_complete(work.trial_id, report)
    elif search.on_trial_result(work.trial_id, report):
        workers.go_on(work)
    else:
        workers.release(work)


def _cause(error: RayError) -> str:
    """One line of what Ray says of a dead worker."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = next((found for line in lines if (found := re.search(r"Worker exit detail: (.*)", line))), None)
    return f"{type(error).__name__}: {detail[1] if detail else (lines or ['no message'])[0]}"


@contextmanager
def _interruption() -> Iterator[threading.Event]:
    """Set by the first Ctrl-C, so that nothing is left half written; the second one breaks off."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = signal.getsignal(signal.SIGINT)

    def interrupt(number: int, frame: Any) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
