"""What a search shows: a line a trial where there is no terminal, one live view where there is, nothing when quiet."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from nasattn.report.progress import SearchView, describe
from nasattn.search.events import Event, SearchStarted, TrialFinished, TrialPaused, TrialReported, TrialResumed, TrialStarted
from tests.report.records import trial

SGE, SB, GC = "none,sge_g32,none,none", "sb,sb,sb,sb", "gc,gc,gc,gc"
STARTED = SearchStarted("one", trials=4, finished=1, workers=2, storage="sqlite:///nasattn.db")
FAILED = trial(3, GC, None, state="FAIL", error="RuntimeError: [batch] is too large\nat line 3")
EVENTS: list[Event] = [
    STARTED,
    TrialStarted(1, SGE, 1.1),
    TrialReported(1, 1, 2, 0.5),
    TrialStarted(3, GC, 1.4),
    TrialFinished(trial(1, SGE)),
    TrialFinished(trial(2, SB, 0.5, reused_from=8)),
    TrialFinished(FAILED),
    TrialFinished(trial(4, "se,se,se,se", None, state="PRUNED", error="above the latency limit 1.3x: 40.0 ms, 1.400x; not trained")),
]
LINES = [
    "study one in sqlite:///nasattn.db: 4 trials, 1 of them known, 2 workers",
    f"[2/4] trial 1 {SGE}: accuracy 0.750, latency 1.100x in 8 s; about 1 min left",
    f"[2/4] trial 2 {SB}: accuracy 0.500, latency 1.100x (known); about 1 min left",
    f"[3/4] trial 3 {GC}: FAIL RuntimeError: [batch] is too large",
    "[3/4] trial 4 se,se,se,se: PRUNED above the latency limit 1.3x: 40.0 ms, 1.400x; not trained",
]


def watch(events: list[Event], quiet: bool = False, terminal: bool = False, width: int = 100) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None, _environ={})
    with SearchView(console, quiet) as view:
        for event in events:
            view(event)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("width", [40, 100])
def test_a_line_a_trial_where_there_is_no_terminal(width: int) -> None:
    """Long lines are not folded: whoever reads a log wants one line a trial."""
    assert watch(EVENTS, width=width).splitlines() == LINES


def test_quiet() -> None:
    assert watch(EVENTS, quiet=True) == ""
    assert watch(EVENTS, quiet=True, terminal=True) == ""


def test_a_new_study_knows_no_trials() -> None:
    assert watch([replace(STARTED, finished=0)]) == "study one in sqlite:///nasattn.db: 4 trials, 2 workers\n"


def test_a_live_view_in_a_terminal() -> None:
    running = watch(EVENTS[:4], terminal=True)
    for part in (SGE, "1.10x", "1/2", "0.500", GC, "1.40x", "1/4"):
        assert part in running
    text = watch(EVENTS, terminal=True)
    last = text[text.rindex("most accurate") :]
    assert f"{SGE}  0.750 at 1.10x" in last and "1 failed" in last
    assert LINES[3] in text  # a failure remains above the view
    assert LINES[1].partition(";")[0] not in text
    assert "3/4" in text


def test_the_time_left_counts_from_the_first_training_and_what_is_in_training_by_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """24 trials by two workers, 30 s each, after 60 s of starting and measuring: 22.5 trials are left, at 20 s each."""
    now = 0.0
    monkeypatch.setattr("nasattn.report.progress.time.monotonic", lambda: now)
    console = Console(file=io.StringIO(), width=100)
    view = SearchView(console)
    view(replace(STARTED, trials=24, finished=0))
    now = 60.0
    view(TrialStarted(1, SGE, 1.1))
    view(TrialStarted(3, GC, 1.4))
    now = 90.0
    view(TrialFinished(trial(1, SGE)))
    assert console.file.getvalue().splitlines()[-1].endswith("; about 8 min left")  # type: ignore[attr-defined]


def test_the_view_ends_with_the_search_when_that_fails() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with pytest.raises(KeyboardInterrupt), SearchView(console) as view:
        view(STARTED)
        raise KeyboardInterrupt
    assert "\x1b[?25h" in console.file.getvalue()  # type: ignore[attr-defined]  # the cursor is back


def test_reports_of_trials_that_never_started_are_ignored() -> None:
    assert watch([STARTED, TrialReported(9, 1, 2, 0.5)]).count("\n") == 1


def test_one_line_whatever_is_missing() -> None:
    assert describe(trial(5, SB, 0.5, seconds=None), 1, 2) == f"[1/2] trial 5 {SB}: accuracy 0.500, latency 1.100x"
    assert describe(trial(5, SB, None, state="INTERRUPTED"), 1, 2).strip() == f"[1/2] trial 5 {SB}: INTERRUPTED"


def test_what_waits_at_a_rung_is_said_and_no_longer_running() -> None:
    paused = [STARTED, TrialStarted(1, SGE, 1.1), TrialReported(1, 1, 4, 0.5), TrialPaused(1)]
    shown = watch(paused, terminal=True)
    assert "1 wait at a rung" in shown and "2/4" in shown
    assert SGE not in shown.split("wait at a rung")[0].splitlines()[-1]
    resumed = watch([*paused, TrialResumed(1, SGE, 1.1)], terminal=True)
    assert SGE in resumed.split("trials")[-1]


def test_a_trial_stopped_at_a_rung_counts_and_says_why() -> None:
    reason = "stopped at rung 1 of 3 with accuracy 0.400: place 7 of 8 there beside those of its latency"
    curve = [{"epoch": 1.0, "accuracy": 0.4, "rung": 1.0}]
    stopped = trial(1, SGE, None, state="PRUNED", error=reason, curve=curve)
    assert watch([STARTED, TrialFinished(stopped)]).splitlines()[-1] == f"[2/4] trial 1 {SGE}: PRUNED {reason}"
