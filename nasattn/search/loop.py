"""The driver's loop over Ray actors: each trains a trial to its next report and is told to go on, or what to train next.

Ray Tune's own loop keeps a record, a folder and a checkpoint for each trial, and writes its state again and again: half a
second a trial, growing with their number. Here a trial costs one message a report; what became of it is in the database.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray.exceptions import RayError

from nasattn.errors import NasattnError
from nasattn.search.worker import Assignment, ProxyWorker, Start

RETRIES = 1  # of a trial whose worker died or hung; it goes on from its checkpoint
POLL = 1.0  # seconds after which an interruption is noticed at the latest
PATIENCE = 600.0  # seconds in which not one worker starts, as when all nodes are lost, before the search ends


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


class Watchdog:
    """When a trial that reports nothing is taken to hang.

    Without a limit of the user's that is ten times as long as any report has taken so far, and a minute; before the first report,
    which may come after much loading, an hour; and up to an hour where a plain network may have to be trained first. Time in which
    the driver does not look, because it measures a latency and the workers give way to it, does not count, nor does the start of
    a worker.

    Args:
        limit: Seconds; None for the rule above.
    """

    FIRST, FACTOR, LEAST = 3600.0, 10.0, 60.0

    def __init__(self, limit: float | None = None) -> None:
        self.limit, self.longest = limit, 0.0

    def saw(self, waited: float) -> None:
        """A report has come after so many seconds."""
        self.longest = max(self.longest, waited)

    def patience(self, plain_epochs: int = 0) -> float:
        """Seconds that a trial may be silent, which may train a plain network for so many epochs before it reports."""
        if self.limit is not None:
            return self.limit
        if not self.longest:
            return self.FIRST
        usual = self.FACTOR * self.longest + self.LEAST
        return min(usual + self.FACTOR * self.longest * plain_epochs, max(usual, self.FIRST))


class Hang(Exception):
    """A worker has not reported for too long; its process is ended."""


@dataclass
class _Work:
    """A trial with the worker that trains it, None as long as it waits for one."""

    trial_id: str
    assignment: Assignment
    deaths: int = 0
    worker: Any = None
    waited: float = 0.0  # seconds, for the report to come


class Workers:
    """Up to *size* actors, begun when they are needed and kept; a dead one is replaced.

    A trial belongs to a worker only once that worker is up: where a node was lost its replacement may find no room, and then
    the trial goes to whichever worker is free first.

    Args:
        size: How many at once.
        options: Ray's options of an actor, such as ``{"num_cpus": 1}``.
        start: What a worker does with a trial.
        progress_timeout: See :class:`Watchdog`.
    """

    def __init__(self, size: int, options: dict[str, Any], start: Start, progress_timeout: float | None = None) -> None:
        self.size, self.start = size, start
        self.watchdog = Watchdog(progress_timeout)
        self._actor = ray.remote(**options)(ProxyWorker)
        self._idle: list[Any] = []
        self._waiting: deque[_Work] = deque()
        self._at_work: dict[Any, _Work] = {}  # by the reference of the report to come
        # by the reference of a sign of life: workers that start, and idle ones that may have been lost with another
        self._starting: dict[Any, Any] = {}
        self._doubtful: dict[Any, Any] = {}
        self._quiet_since: float | None = None

    @property
    def room(self) -> bool:
        """Whether another trial can begin."""
        return len(self._at_work) + len(self._waiting) < self.size

    @property
    def busy(self) -> bool:
        """Whether any trial trains or waits for a worker."""
        return bool(self._at_work or self._waiting)

    def begin(self, trial_id: str, assignment: Assignment, deaths: int = 0) -> None:
        """Give a trial to a worker that has nothing to do, or to the next that is up or free."""
        self._waiting.append(_Work(trial_id, assignment, deaths))
        self._give_out()

    def _give_out(self) -> None:
        """Waiting trials go to idle workers; for those that are left workers start, unless enough are on their way."""
        while self._waiting and self._idle:
            work = self._waiting.popleft()
            work.worker = self._idle.pop()
            self._at_work[work.worker.step.remote(work.assignment)] = work
        for _ in range(len(self._waiting) - len(self._starting) - len(self._doubtful)):
            worker = self._actor.remote(self.start)
            self._starting[worker.ready.remote()] = worker

    def go_on(self, work: _Work) -> None:
        """Train the same trial to its next report."""
        work.waited = 0.0
        self._at_work[work.worker.step.remote()] = work

    def release(self, work: _Work) -> None:
        """Its worker may take another trial."""
        self._idle.append(work.worker)
        self._give_out()

    def reports(self) -> Iterator[tuple[_Work, dict[str, Any] | RayError | Hang]]:
        """What has come in within a moment; the workers wait to be told. A worker that died gives Ray's error, one that hangs a Hang.

        Raises:
            NasattnError: Trials wait, and for long not one worker was there to take them.
        """
        begun = time.monotonic()
        ready, _ = ray.wait([*self._at_work, *self._starting, *self._doubtful], num_returns=1, timeout=POLL)
        for at_work in self._at_work.values():
            at_work.waited += time.monotonic() - begun
        self._check_patience(quiet=not ready and not self._at_work)
        for reference in ready:
            if (work := self._at_work.pop(reference, None)) is not None:
                try:
                    report = ray.get(reference)
                except RayError as error:
                    ray.kill(work.worker)  # it may only be out of reach
                    self._doubt_idle()
                    yield work, error
                else:
                    self.watchdog.saw(work.waited)
                    yield work, report
            elif (died := self._greet(reference)) is not None and self._waiting:
                yield self._waiting.popleft(), died

        for reference, work in list(self._at_work.items()):
            if work.waited > (patience := self.watchdog.patience(work.assignment["job"].recipe.plain_epochs)):
                del self._at_work[reference]
                ray.kill(work.worker)
                yield work, Hang(f"no progress for {patience:.0f} s")

    def _greet(self, reference: Any) -> RayError | None:
        """A worker gave its sign of life, or could not: Ray's error if it died while it started."""
        starts = reference in self._starting
        worker = self._starting.pop(reference) if starts else self._doubtful.pop(reference)
        try:
            ray.get(reference)
            self._idle.append(worker)
        except RayError as error:
            if starts:
                return error
        self._give_out()
        return None

    def _doubt_idle(self) -> None:
        """A worker died, perhaps with its node: those that are idle say that they live before they take a trial."""
        while self._idle:
            worker = self._idle.pop()
            self._doubtful[worker.ready.remote()] = worker

    def _check_patience(self, quiet: bool) -> None:
        if not quiet:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = time.monotonic()
        elif time.monotonic() - self._quiet_since > PATIENCE:
            raise NasattnError(
                f"no worker could start for {PATIENCE / 60:.0f} minutes: the nodes of the Ray cluster are lost or taken (`ray status` shows "
                "them); the same command continues the study"
            )

    def end(self) -> None:
        """End all workers, whatever they do."""
        at_work = (work.worker for work in self._at_work.values())
        for worker in (*self._idle, *at_work, *self._starting.values(), *self._doubtful.values()):
            ray.kill(worker)


def train_all(search: Search, workers: Workers) -> bool:
    """Train what *search* gives until it has nothing more. False when interrupted (Ctrl-C, SIGTERM): what trained then is left to the caller."""
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


def _take(search: Search, workers: Workers, work: _Work, report: dict[str, Any] | RayError | Hang) -> None:
    if isinstance(report, (RayError, Hang)):
        if work.deaths < RETRIES:
            workers.begin(work.trial_id, work.assignment, work.deaths + 1)
        else:
            search.lose(work.trial_id, f"the worker hung: {report}" if isinstance(report, Hang) else f"the worker died: {_cause(report)}")
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
    common = " Some common causes"  # a paragraph
    said = detail[1].replace(common, " It was killed, for want of memory for instance, or it crashed." + common) if detail else ""
    return f"{type(error).__name__}: {said.partition(common)[0] or (lines or ['no message'])[0]}"


@contextmanager
def _interruption() -> Iterator[threading.Event]:
    """Set by the first Ctrl-C or SIGTERM, so that nothing is left half written; the second one breaks off."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def interrupt(number: int, frame: Any) -> None:
        interrupted.set()
        restore()

    for number in before:
        signal.signal(number, interrupt)
    try:
        yield interrupted
    finally:
        restore()
