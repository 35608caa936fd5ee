"""A database that goes away for a while in the middle of a search: waited for, and nothing told is lost."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from nasattn.errors import StorageError
from nasattn.store import EvaluationRecord, Store, StudyRecord, database
from tests.store.postgres import PASSWORD, Server

RECORD = EvaluationRecord(0, "none,none,none,none", "RUNNING", 0, 1, 2, {"epochs": 1}, "identity")


class Search(threading.Thread):
    """Asks and tells as a search does, in both its ways to the database, until it is ended."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store, self.told, self.ended = store, 0, threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._search(self.store)
        except Exception as error:
            self.error = error

    def _search(self, store: Store) -> None:
        study = optuna.create_study(storage=store.optuna, study_name="s", directions=["maximize", "minimize"])
        store.add_study(StudyRecord("s", {}, {}, 0))
        while not self.ended.is_set():
            trial = study.ask()
            trial.suggest_categorical("attention", ["none", "se"])
            trial.set_user_attr("placement", "none,none,none,none")
            evaluation = store.start_evaluation("s", "host", replace(RECORD, trial=self.told, identity=str(self.told)), None)
            store.note_curve(evaluation, [{"epoch": 1.0}], 1.0)
            store.finish_evaluation(evaluation, "COMPLETE", accuracy=self.told / 1000)
            study.tell(trial, [self.told / 1000, 1.0])
            self.told += 1

    def wait_for(self, more: int) -> None:
        """Until so many more trials are told."""
        deadline, enough = time.monotonic() + 60, self.told + more
        while self.told < enough:
            assert self.is_alive() and time.monotonic() < deadline, (self.told, self.error)
            time.sleep(0.05)


@pytest.mark.parametrize("mode", [pytest.param("fast", marks=pytest.mark.slow), "immediate"])
def test_a_server_that_is_stopped_and_started_again(postgres: Server, open_store: Callable[..., Store], mode: str) -> None:
    lines: list[str] = []
    store = open_store(postgres.create(f"outage_{mode}"))
    store.wait_for_outages(lines.append)
    search = Search(store)
    search.start()
    for _ in range(3):
        search.wait_for(5)
        postgres.stop(mode)
        time.sleep(5)
        postgres.start()
    search.wait_for(5)
    search.ended.set()
    search.join(60)
    evaluations = store.evaluations("s")
    assert [e.trial for e in evaluations] == list(range(search.told))
    assert all(e.state == "COMPLETE" and e.accuracy == e.trial / 1000 and e.curve for e in evaluations)
    trials = optuna.load_study(study_name="s", storage=store.optuna).get_trials()
    complete = [t for t in trials if t.state is optuna.trial.TrialState.COMPLETE]
    assert [t.values[0] for t in complete] == [i / 1000 for i in range(search.told)]
    kinds = [line.partition(" (")[0].partition(" after")[0] for line in lines]  # an outage that a single call sat out is not told
    assert kinds == ["the database is away", "the database is back"] * (len(kinds) // 2) and 1 <= len(kinds) // 2 <= 3
    assert not any(PASSWORD in line or "\n" in line for line in lines)


def test_sqlite_that_another_writer_has_locked(tmp_path: Path, open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than SQLite itself waits."""
    monkeypatch.setattr(database, "SQLITE_TIMEOUT", 0.1)
    store, lines = open_store(f"sqlite:///{tmp_path}/study.db"), []
    study = optuna.create_study(storage=store.optuna, study_name="s")
    store.wait_for_outages(lines.append)
    other = sqlite3.connect(tmp_path / "study.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(5.0, other.execute, ("COMMIT",)).start()
    store.add_study(StudyRecord("s", {}, {}, 0))
    study.tell(study.ask(), 1.0)
    assert [s.name for s in store.studies()] == ["s"]
    assert [t.value for t in study.get_trials()] == [1.0]
    assert lines[0] == "the database is away (database is locked): waiting for it, up to 10 min"
    assert lines[1].startswith("the database is back after") and len(lines) == 2


def test_many_threads_tell_it_once(postgres: Server, open_store: Callable[..., Store]) -> None:
    store, lines = open_store(postgres.create("threads")), []
    store.wait_for_outages(lines.append)
    store.studies()
    postgres.stop()
    threads = [threading.Thread(target=store.studies) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(5)
    postgres.start()
    for thread in threads:
        thread.join(60)
    assert [line.partition(" (")[0][:20] for line in lines] == ["the database is away", "the database is back"]


def test_an_answer_that_was_lost(store: Store) -> None:
    """What is written before the connection breaks is there already when it is written again."""
    store.add_study(StudyRecord("s", {}, {}, 0))
    first = store.start_evaluation("s", "host", RECORD, None)
    assert store.start_evaluation("s", "host", RECORD, None) == first
    assert len(store.evaluations("s")) == 1


def test_waiting_ends(postgres: Server, open_store: Callable[..., Store]) -> None:
    store = open_store(postgres.create("given_up"))
    store.wait_for_outages(lambda line: None, seconds=1.0)
    postgres.stop()
    try:
        began = time.monotonic()
        with pytest.raises(StorageError, match=r"has been away for \d+ s: .*; when it is back, the same command goes on") as caught:
            store.studies()
        assert PASSWORD not in str(caught.value) and "\n" not in str(caught.value)
        with pytest.raises(StorageError):  # once is enough
            store.studies()
        assert time.monotonic() - began < 30
    finally:
        postgres.start()


def test_what_reads_does_not_wait(postgres: Server, open_store: Callable[..., Store]) -> None:
    store = open_store(postgres.create("reader"))
    postgres.stop()
    try:
        with pytest.raises(StorageError, match="cannot be used"):
            store.studies()
    finally:
        postgres.start()


def test_what_will_not_pass_is_an_error_at_once(store: Store) -> None:
    store.wait_for_outages(lambda line: pytest.fail(line))
    store.add_study(StudyRecord("s", {}, {}, 0))
    with pytest.raises(StorageError, match="failed: "):
        store.add_study(StudyRecord("s", {}, {}, 0))
    study = optuna.create_study(storage=store.optuna)
    trial = study.ask()
    study.tell(trial, 1.0)
    with pytest.raises(ValueError, match="Cannot tell a COMPLETE trial"):
        study.tell(trial, 2.0)


def test_a_trial_that_was_told_before_the_answer_was_lost(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one call that says that it has been made already; no server can be stopped just then, so its answer is dropped here."""
    store.wait_for_outages(lambda line: None)
    study = optuna.create_study(storage=store.optuna)
    trial = study.ask()
    real = optuna.storages.RDBStorage.set_trial_state_values
    lost = []

    def lose_first(self: optuna.storages.RDBStorage, *args: object, **kwargs: object) -> bool:
        result = real(self, *args, **kwargs)  # type: ignore[arg-type]
        if not lost:
            lost.append(True)
            raise StorageErrorLike() from DISCONNECTED
        return result

    monkeypatch.setattr(optuna.storages.RDBStorage, "set_trial_state_values", lose_first)
    study.tell(trial, 0.5)
    assert lost and study.get_trials()[0].value == 0.5


class StorageErrorLike(Exception):
    """As Optuna raises, with the driver's error as its cause."""


DISCONNECTED = database.OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))
