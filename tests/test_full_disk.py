"""A disk that is full: said in one line, waited for in the middle of a search, and nothing told is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nasattn.search.driver import run_search
from nasattn.search.events import Event, SearchNoted, TrialFinished
from nasattn.store import Store
from tests.disks import fill, small_disk
from tests.made_study import make_study
from tests.search.conftest import ray_session, space_file
from tests.search.test_driver import configure
from tests.search.workers import start_truthful

__all__ = ["ray_session", "space_file"]  # fixtures


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path) as mounted:
        if mounted is None:
            pytest.skip("nobody may mount a disk here")
        yield mounted


def nasattn(*words: str, logs: Path) -> tuple[int, str]:
    """Exit code of a command, and all that it said."""
    done = subprocess.run(
        [sys.executable, "-m", "nasattn", *words],
        env={**os.environ, "NASATTN_LOGS": str(logs), "COLUMNS": "300"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    "words", [("front", "made"), ("search", "--space", "resnet18_stages", "--trials", "2", "--quiet")], ids=lambda w: w[0]
)
def test_a_database_on_a_full_disk(disk: Path, words: tuple[str, ...]) -> None:
    url = f"sqlite:///{disk}/studies.db"
    store = make_study(url)
    for engine in (store.engine, store.optuna.engine):  # as after a search: no journal is open
        engine.dispose()
    fill(disk)
    code, said = nasattn(*words, "--storage", url, logs=disk / "logs")
    *notes, last = said.splitlines()
    assert (
        code == 2
        and last.startswith(f"nasattn: database {url} cannot be used: ")
        and last.endswith("its disk is full: free some space on it")
    )
    assert all(note.startswith("note: ") for note in notes)


@pytest.mark.parametrize("words", [("export", "made", "--best"), ("report", "made")], ids=lambda w: w[0])
def test_what_is_written_to_a_full_disk(disk: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    make_study(url)
    fill(disk)
    code, said = nasattn(*words, "--storage", url, "--out", str(disk / "out"), logs=tmp_path)
    assert code == 1 and len(said.splitlines()) == 1 and "No space left on device" in said, said
    assert [f.name for f in disk.iterdir()] == ["filler"]


@pytest.mark.slow
def test_a_disk_that_is_full_for_a_while(disk: Path, space_file: str, ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Database, journal and checkpoints lie on it."""
    monkeypatch.setenv("NASATTN_CHECKPOINTS", str(disk / "checkpoints"))
    url, lines, told = f"sqlite:///{disk}/studies.db", list[str](), list[TrialFinished]()

    def full() -> None:
        filler = fill(disk)
        time.sleep(8)
        filler.unlink()

    def listen(event: Event) -> None:
        if isinstance(event, SearchNoted):
            lines.append(event.text)
        if isinstance(event, TrialFinished):
            told.append(event)
            if len(told) == 5:
                threading.Thread(target=full).start()

    result = run_search(configure(space_file, trials=16, certify=0), url, start=start_truthful, listener=listen)
    assert result.complete and len(result.evaluations) == len(told) == 16
    stored = {e.trial: e for e in Store(url).evaluations("s")}
    assert all(e.state == "COMPLETE" for e in stored.values())
    assert all(stored[event.record.trial].accuracy == event.record.accuracy for event in told)
    outages = [line.partition(" (")[0].partition(" after")[0] for line in lines if line.startswith("the database")]
    assert outages[:2] == ["the database is away", "the database is back"]
