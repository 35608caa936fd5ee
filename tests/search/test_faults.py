"""Trials that hang or fail one after the other, on real Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from nasattn.report.faults import faults
from nasattn.search.driver import run_search
from nasattn.search.loop import Watchdog
from tests.search.test_driver import configure
from tests.search.workers import start_failing, start_hanging, start_scripted


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def test_a_trial_that_hangs_is_ended_and_named(space_file: str, url: str, ray_session: None) -> None:
    result = run_search(configure(space_file, trials=8, progress_timeout="3s"), url, start=start_hanging)
    assert result.complete
    hung = [e for e in result.evaluations if e.placement.startswith("eca")]
    assert hung and all(e.state == "FAIL" and e.error == "the worker hung: no progress for 3 s" for e in hung)
    assert all(e.state == "COMPLETE" for e in result.evaluations if e not in hung)
    assert list(faults(result.evaluations)) == ["the worker hung: no progress for 3 s"]


@pytest.mark.slow
def test_a_search_whose_trials_fail_ends(space_file: str, url: str, ray_session: None) -> None:
    result = run_search(configure(space_file, trials=24), url, start=start_failing)
    failed = [e for e in result.evaluations if e.state == "FAIL"]
    assert not result.complete
    assert result.ended == f"{len(failed)} of {len(failed) + 1} trials failed, a larger share than --max-failures 0.5"
    assert 9 <= len(failed) <= 11  # those that were under way end
    assert [m.placement for m in result.front] == ["none,none,none,none"]
    # with the cause mended the same study goes on
    again = run_search(configure(space_file, trials=14, certify=0), url, start=start_scripted)
    assert sum(e.is_own_trial for e in again.evaluations) >= 14
    more = run_search(configure(space_file, trials=20, certify=0, max_failures=1), url, start=start_failing)
    assert more.complete and sum(e.is_own_trial for e in more.evaluations) == 20


def test_patience_follows_the_reports() -> None:
    watchdog = Watchdog()
    assert watchdog.patience() == 3600  # a first report may come after much loading
    watchdog.saw(2.0)
    watchdog.saw(30.0)
    watchdog.saw(1.0)
    assert watchdog.patience() == 360
    assert watchdog.patience(plain_epochs=4) == 1560 and watchdog.patience(plain_epochs=100) == 3600
    limited = Watchdog(5.0)
    limited.saw(100.0)
    assert limited.patience() == 5
