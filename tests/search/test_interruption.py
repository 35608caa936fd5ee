"""A driver that is killed leaves a database from which the study goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from nasattn.search.driver import run_search
from nasattn.store import Store
from tests.search.test_driver import configure
from tests.search.workers import start_slow

DRIVER = """
import sys
from nasattn.search.driver import run_search
from tests.search.test_driver import configure
from tests.search.workers import start_slow
run_search(configure(sys.argv[1], trials=6), sys.argv[2], start=start_slow)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_driver_leaves_nothing_running(tmp_path: Path, space_file: str, how: signal.Signals) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    root = Path(__file__).parents[2]
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, space_file, url], cwd=root, start_new_session=True)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and (not (tmp_path / "studies.db").exists() or len(Store(url).evaluations("s")) < 3):
        time.sleep(0.5)
    told = [e for e in Store(url).evaluations("s") if e.state == "COMPLETE"]
    os.kill(driver.pid, how)
    driver.wait(60)
    if how is signal.SIGKILL:
        subprocess.run(["pkill", "-9", "-s", str(driver.pid)], check=False)
    result = run_search(configure(space_file, trials=6), url, start=start_slow)
    after = {e.trial: e for e in result.evaluations}
    # all but the latency, which is measured again where something else used the device meanwhile
    assert told and [replace(after[e.trial], latency=None) for e in told] == [replace(e, latency=None) for e in told]
    assert sum(e.state in ("COMPLETE", "FAIL") and e.reused_from is None for e in result.evaluations) == 6
    assert not any(e.state == "RUNNING" for e in result.evaluations)
    trials = optuna.load_study(study_name="s", storage=url).get_trials()
    assert not any(t.state is TrialState.RUNNING for t in trials)
    completed = [e.placement for e in result.evaluations if e.state == "COMPLETE"]
    assert len(completed) == len(set(completed))
