"""Several drivers on one database: their studies do not disturb each other, and no study has two."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from nasattn.store import Store
from tests.store.postgres import running_server

DRIVER = """
import sys
from nasattn.errors import NasattnError
from nasattn.search.driver import run_search
from tests.search.test_driver import configure
from tests.search.workers import start_slow
space, url, study, seed = sys.argv[1:]
try:
    run_search(configure(space, study=study, seed=int(seed), trials=6, workers=1), url, start=start_slow)
except NasattnError as error:
    sys.exit(str(error))
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'studies.db'}"
        return
    with running_server() as server:
        yield server.create("studies")


def drive(space: str, url: str, study: str, seed: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, space, url, study, str(seed)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_studies_at_once_and_a_second_driver_on_one(space_file: str, url: str) -> None:
    first, other = drive(space_file, url, "one", 1), drive(space_file, url, "two", 2)
    store, deadline = Store(url), time.monotonic() + 300
    while time.monotonic() < deadline and not (store.find_study("one") and store.evaluations("one")):
        time.sleep(0.5)
    second = drive(space_file, url, "one", 1)
    _, refusal = second.communicate(timeout=300)
    assert first.poll() is None, "the first driver ended before the second one came"
    assert second.returncode == 1
    assert f"study one is driven by process {first.pid} on " in refusal.splitlines()[-1]
    for driver in (first, other):
        _, errors = driver.communicate(timeout=300)
        assert driver.returncode == 0, errors
    for study in ("one", "two"):
        own = [e for e in store.evaluations(study) if e.is_own_trial]
        assert [e.state for e in own] == ["COMPLETE"] * 6
        trials = optuna.load_study(study_name=study, storage=store.optuna).get_trials()
        assert not [t for t in trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
