"""What the store keeps, on SQLite and on PostgreSQL: everything that goes in comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from nasattn.errors import StorageError, StudyError
from nasattn.store import EvaluationRecord, LatencyRecord, ReportRecord, Store, StudyRecord

HOST = "nasattn_resnet50"
CONFIG = {
    "space": {"host": HOST, "stages": {"1": {"sge": {"groups": [16, 32]}}}},
    "task": "digits",
    "samples": None,
    "lr": 0.005,
    "café": "é",
}
STUDY = StudyRecord("one", CONFIG, {"torch": "2.15.0"}, seed=7)
LATENCY = LatencyRecord(ms=30.25, baseline_ms=27.5, ratio=1.1, ratio_low=1.0875, ratio_high=1.125, pairs=12, settled=True, exclusive=False)
CURVE = [{"epoch": 1, "loss": 2.0, "accuracy": 0.25, "seconds": 1.5}, {"epoch": 2, "loss": 1.0, "accuracy": 0.5, "seconds": 3.0}]
NOW = timedelta(minutes=5)


def trial(number: int, placement: str = "none,se,none,none", **values: object) -> EvaluationRecord:
    record = EvaluationRecord(
        number,
        placement,
        "RUNNING",
        seed=7,
        params=25_000_000,
        macs=4_100_000_000,
        fidelity={"width": 0.125, "epochs": 2},
        identity="a" * 64,
    )
    return replace(record, **values)  # type: ignore[arg-type]


@pytest.fixture
def begun(store: Store) -> Store:
    store.add_study(STUDY)
    return store


def test_studies(store: Store) -> None:
    assert store.studies() == [] and store.find_study("one") is None
    store.add_study(STUDY)
    store.add_study(replace(STUDY, name="two"))
    study = store.study("one")
    assert replace(study, created_at=None) == STUDY
    assert store.find_study("one") == study
    assert [s.name for s in store.studies()] == ["one", "two"]


def test_times_are_utc_and_say_so(begun: Store) -> None:
    begun.finish_evaluation(begun.start_evaluation("one", HOST, trial(0), None), "FAIL")
    (record,) = begun.evaluations("one")
    for time in (begun.study("one").created_at, record.started_at, record.finished_at):
        assert time is not None and time.utcoffset() == timedelta(0)
        assert abs(datetime.now(UTC) - time) < NOW


def test_a_study_that_is_not_there(store: Store) -> None:
    with pytest.raises(StudyError, match=r"^no study 'one' in .*: there is none yet$"):
        store.study("one")
    store.add_study(STUDY)
    store.add_study(replace(STUDY, name="other"))
    with pytest.raises(StudyError, match=r"^no study 'onne' in .*: Did you mean 'one'\? there are one, other$"):
        store.study("onne")


def test_a_study_is_recorded_once(begun: Store) -> None:
    with pytest.raises(StorageError) as caught:
        begun.add_study(STUDY)
    assert "\n" not in str(caught.value)
    assert len(begun.studies()) == 1


def test_an_evaluation_from_start_to_end(begun: Store) -> None:
    begun.add_architecture(HOST, "none,se,none,none", 25_000_000, 4_100_000_000)
    latency_id = begun.add_latency("a cpu", HOST, "none,se,none,none", LATENCY)
    begun_record = trial(3)
    evaluation = begun.start_evaluation("one", HOST, begun_record, latency_id)
    (running,) = begun.evaluations("one")
    assert running == replace(begun_record, id=evaluation, latency=LATENCY, started_at=running.started_at)
    assert begun.evaluations("one", state="COMPLETE") == []

    values = {"accuracy": 0.5, "val_samples": 2000, "curve": CURVE, "seconds": 3.25, "worker": "host:123"}
    begun.finish_evaluation(evaluation, "COMPLETE", **values)
    (done,) = begun.evaluations("one")
    assert done == replace(running, state="COMPLETE", finished_at=done.finished_at, **values)  # type: ignore[arg-type]
    assert done.started_at is not None and done.finished_at is not None and done.started_at <= done.finished_at
    assert begun.evaluations("one", state="COMPLETE") == [done]


@pytest.mark.parametrize("state", ["PRUNED", "FAIL", "INTERRUPTED"])
def test_other_ends(begun: Store, state: str) -> None:
    error = 'Traceback (most recent call last):\n  File "x.py"\nRuntimeError: größer [0] 100 %'
    begun.finish_evaluation(begun.start_evaluation("one", HOST, trial(0), None), state, error=error)  # type: ignore[arg-type]
    (record,) = begun.evaluations("one", state=state)  # type: ignore[arg-type]
    assert (record.state, record.error, record.accuracy, record.latency, record.curve) == (state, error, None, None, [])


def test_trials_come_in_the_order_of_their_numbers(begun: Store) -> None:
    begun.add_study(replace(STUDY, name="two"))
    for number in (5, 0, 3):
        begun.start_evaluation("one", HOST, trial(number), None)
        begun.start_evaluation("two", HOST, trial(number + 1), None)
    assert [e.trial for e in begun.evaluations("one")] == [0, 3, 5]
    assert [e.trial for e in begun.evaluations("two")] == [1, 4, 6]
    assert begun.evaluations("three") == []


def test_a_trial_is_recorded_once(begun: Store) -> None:
    first = begun.start_evaluation("one", HOST, trial(0), None)
    assert begun.start_evaluation("one", HOST, trial(0), None) == first  # as when the answer to the first call was lost
    with pytest.raises(StorageError, match="failed: "):
        begun.start_evaluation("one", HOST, trial(0, identity="b" * 64), None)  # another training under the same number
    with pytest.raises(StorageError, match="failed: "):
        begun.start_evaluation("one", HOST, trial(1), latency_id=99)  # no such measurement
    assert len(begun.evaluations("one")) == 1


def test_a_known_training_is_found_in_any_study(begun: Store) -> None:
    assert begun.find_evaluation("a" * 64) is None
    first = begun.start_evaluation("one", HOST, trial(0), None)
    assert begun.find_evaluation("a" * 64) is None  # still running
    begun.finish_evaluation(first, "COMPLETE", accuracy=0.5)
    begun.add_study(replace(STUDY, name="two"))
    reuse = begun.start_evaluation("two", HOST, trial(0, reused_from=first), None)
    begun.finish_evaluation(reuse, "COMPLETE", accuracy=0.5)
    found = begun.find_evaluation("a" * 64)
    assert found is not None and (found.id, found.accuracy) == (first, 0.5)
    assert [e.reused_from for e in begun.evaluations("two")] == [first]
    assert begun.find_evaluation("b" * 64) is None
    reuse = begun.start_evaluation("two", HOST, trial(1, identity="b" * 64, reused_from=first), None)
    begun.finish_evaluation(reuse, "COMPLETE", accuracy=0.5)
    assert begun.find_evaluation("b" * 64) is None  # only what was trained is known, not what was reused


def test_a_failed_training_is_not_taken_for_known(begun: Store) -> None:
    begun.finish_evaluation(begun.start_evaluation("one", HOST, trial(0), None), "FAIL", error="x")
    assert begun.find_evaluation("a" * 64) is None


def test_architectures(store: Store) -> None:
    assert store.find_architecture(HOST, "sb,sb,sb,sb") is None
    for _ in range(2):  # counted twice, kept once
        store.add_architecture(HOST, "sb,sb,sb,sb", 25_557_032, 4_111_514_624)
    store.add_architecture("nasattn_resnet18", "sb,sb,sb,sb", 11, 12)
    assert store.find_architecture(HOST, "sb,sb,sb,sb") == (25_557_032, 4_111_514_624)
    assert store.find_architecture("nasattn_resnet18", "sb,sb,sb,sb") == (11, 12)
    assert store.find_architecture(HOST, "none,none,none,none") is None


def test_latencies(store: Store) -> None:
    store.add_architecture(HOST, "none,none,none,none", 1, 2)
    store.add_architecture(HOST, "sb,sb,sb,sb", 1, 2)
    assert store.find_latency("a cpu", HOST, "sb,sb,sb,sb") is None
    first = store.add_latency("a cpu", HOST, "sb,sb,sb,sb", LATENCY)
    assert store.find_latency("a cpu", HOST, "sb,sb,sb,sb") == (first, LATENCY)
    assert store.find_latency("another cpu", HOST, "sb,sb,sb,sb") is None
    assert store.find_latency("a cpu", HOST, "none,none,none,none") is None
    again = replace(LATENCY, ratio=1.2, settled=False, exclusive=True)
    latest = store.add_latency("a cpu", HOST, "sb,sb,sb,sb", again)
    assert latest != first
    assert store.find_latency("a cpu", HOST, "sb,sb,sb,sb") == (latest, again)


def test_fronts(begun: Store) -> None:
    begun.add_study(replace(STUDY, name="two"))
    assert begun.front("one") == []
    begun.save_front("one", [(4, "provisional", 0.75), (1, "certified", 1.0)])
    begun.save_front("two", [(4, "provisional", 0.5)])
    assert begun.front("one") == [(1, "certified", 1.0), (4, "provisional", 0.75)]
    begun.save_front("one", [(4, "certified", 0.25)])
    assert begun.front("one") == [(4, "certified", 0.25)]
    begun.save_front("one", [])
    assert (begun.front("one"), begun.front("two")) == ([], [(4, "provisional", 0.5)])


def test_reports(begun: Store) -> None:
    """The newest of its kind counts; those before it stay, and other kinds and studies are not touched."""
    begun.add_study(replace(STUDY, name="two"))
    assert begun.report("one", "proxy") is None
    begun.save_report("one", "proxy", {"tau": 0.5, "names": ["größer"], "nothing": None})
    begun.save_report("one", "other", {"x": 1})
    begun.save_report("two", "proxy", {})
    first = begun.report("one", "proxy")
    assert first is not None and first.created_at is not None
    assert first == ReportRecord("one", "proxy", {"tau": 0.5, "names": ["größer"], "nothing": None}, first.created_at)
    assert first.created_at.utcoffset() == timedelta(0) and abs(datetime.now(UTC) - first.created_at) < NOW
    begun.save_report("one", "proxy", {"tau": 0.75})
    newest = begun.report("one", "proxy")
    assert newest is not None and newest.content == {"tau": 0.75}
    with begun.session() as session:
        assert session.scalar(sa.text("SELECT count(*) FROM nasattn_report")) == 4
    assert begun.report("one", "another") is None and begun.report("three", "proxy") is None


def test_two_stores_on_one_database(url: str, open_store: Callable[..., Store]) -> None:
    writer, reader = open_store(url), open_store(url, create=False)
    writer.add_study(STUDY)
    assert reader.study("one").config == CONFIG
    evaluation = reader.start_evaluation("one", HOST, trial(0), None)
    writer.finish_evaluation(evaluation, "COMPLETE", accuracy=0.5)
    assert [e.accuracy for e in reader.evaluations("one")] == [0.5]
    assert writer.shown == reader.shown
