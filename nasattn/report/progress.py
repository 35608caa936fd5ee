"""What a search shows while it runs: one live view in a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from nasattn.search.events import (
    Event,
    SearchNoted,
    SearchStarted,
    TrialFinished,
    TrialPaused,
    TrialReported,
    TrialResumed,
    TrialStarted,
)
from nasattn.store.records import EvaluationRecord

if TYPE_CHECKING:
    from nasattn.search.driver import SearchResult

_log = logging.getLogger("nasattn.search")


class SearchView:
    """Receives a search's events and shows them, and logs them. Use it as a context manager.

    Args:
        console: Where to. A live view if it is a terminal, else a line per trial.
        quiet: Show nothing.
    """

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self.console, self.quiet = console, quiet
        self.running: dict[int, tuple[TrialStarted, TrialReported | None]] = {}
        self.paused: set[int] = set()
        self.best: EvaluationRecord | None = None
        self.failed = 0
        self.trained: set[int] = set()
        self.done = self.total = 0
        self.first_start: float | None = None  # of a trial
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[left]}")
        )
        self.task = self.bar.add_task("trials", total=None, left="")
        self.live = Live(self._render(), console=console, refresh_per_second=4) if console.is_terminal and not quiet else None

    def __enter__(self) -> Self:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live:
            self.live.update(self._render(), refresh=True)
            self.live.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case SearchStarted():
                self._on_start(event)
            case SearchNoted():
                self._print(event.text)
            case TrialStarted():
                self.first_start = time.monotonic() if self.first_start is None else self.first_start
                self.running[event.trial] = (event, None)
            case TrialPaused():
                self.running.pop(event.trial, None)
                self.paused.add(event.trial)
                self.trained.add(event.trial)
                self._advance()
            case TrialResumed():
                self.paused.discard(event.trial)
                self._advance()
                self.running[event.trial] = (TrialStarted(event.trial, event.placement, event.latency_ratio), None)
            case TrialReported():
                if event.trial in self.running:
                    self.running[event.trial] = (self.running[event.trial][0], event)
            case TrialFinished():
                self._on_finish(event.record)
        if self.live:
            self.live.update(self._render())

    def _on_start(self, event: SearchStarted) -> None:
        self.total, self.done = event.trials, event.finished
        self.bar.update(self.task, total=event.trials, completed=event.finished)
        known = f", {event.finished} of them known" if event.finished else ""
        workers = f"{event.workers} workers" if event.workers else "as many workers as the cluster has room for"
        self._print(f"study {event.study} in {event.storage}: {event.trials} trials{known}, {workers}")
        if event.note:
            self._print(event.note)

    def _on_finish(self, record: EvaluationRecord) -> None:
        self.running.pop(record.trial, None)
        self.paused.discard(record.trial)
        self.done += record.is_own_trial
        self.failed += record.state == "FAIL"
        if record.reused_from is None and record.seconds:
            self.trained.add(record.trial)
        if record.accuracy is not None and (self.best is None or self.best.accuracy is None or record.accuracy > self.best.accuracy):
            self.best = record
        self._advance()
        line = describe(record, self.done, self.total)
        if not self.live or record.state == "FAIL":
            left = self._time_left() if record.state == "COMPLETE" else ""
            self._print(f"{line}; {left}" if left else line)
        else:
            _log.info("%s", line)
        if record.error:
            _log.info("trial %d: %s", record.trial, record.error)

    def _print(self, line: str) -> None:
        _log.info("%s", line)
        if not self.quiet:
            self.console.print(Text(line), soft_wrap=True)

    def _advance(self) -> None:
        self.bar.update(self.task, completed=self.done + len(self.paused), left=self._time_left())

    def _time_left(self) -> str:
        """By what trials took that this run trained; one in training counts as half. Trials known from before take no time."""
        half = len(self.running) / 2
        left = self.total - self.done - len(self.paused) - half
        if not self.trained or self.first_start is None or left <= 0:
            return ""
        seconds = (time.monotonic() - self.first_start) / (len(self.trained) + half) * left
        return f"about {math.ceil(seconds / 60)} min left"

    def _render(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("trial", "placement", "latency", "epoch", "accuracy"):
            table.add_column(column)
        for trial, (begun, report) in sorted(self.running.items()):
            epoch, accuracy = (f"{report.epoch:.3g}/{report.epochs}", f"{report.accuracy:.3f}") if report else ("", "")
            table.add_row(str(trial), begun.placement, f"{begun.latency_ratio:.2f}x", epoch, accuracy)
        lines: list[RenderableType] = [self.bar, table]
        if self.best and self.best.latency and self.best.accuracy is not None:
            lines.append(
                Text(f"most accurate  {self.best.placement}  {self.best.accuracy:.3f} at {self.best.latency.ratio:.2f}x", style="bold")
            )
        if self.paused:
            lines.append(Text(f"{len(self.paused)} wait at a rung, where others of their latency were better so far", style="dim"))
        if self.failed:
            lines.append(Text(f"{self.failed} failed", style="red"))
        return Group(*lines)


@contextmanager
def measuring(console: Console, title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar for measurements; gives what is to be called with the number of those done, of all, and what is measured."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[what]}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal, refresh_per_second=1) as progress:
        task = progress.add_task(title, total=None, what="")
        yield lambda done, total, what: progress.update(task, completed=done, total=total, what=what)


def spent(result: SearchResult) -> str:
    """What a search cost: trials, trainings and time, in a phrase."""
    own = sum(e.is_own_trial for e in result.evaluations)
    stopped = sum(e.stopped_at_rung and e.reused_from is None for e in result.evaluations)
    early = f", {stopped} of them stopped at a rung" if stopped else ""
    return f"{own} trials{early}, as much as {result.trainings:.1f} whole trainings, {result.training_seconds / 60:.1f} min of training"


def describe(record: EvaluationRecord, done: int, total: int) -> str:
    """One line for a finished trial."""
    head = f"[{done}/{total}] trial {record.trial} {record.placement}"
    if record.state == "COMPLETE" and record.accuracy is not None and record.latency is not None:
        reused = " (known)" if record.reused_from is not None else f" in {record.seconds:.0f} s" if record.seconds else ""
        return f"{head}: accuracy {record.accuracy:.3f}, latency {record.latency.ratio:.3f}x{reused}"
    first = (record.error or "").strip().splitlines()
    return f"{head}: {record.state} {first[0] if first else ''}"
