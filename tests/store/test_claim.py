"""A study belongs to one driver at a time."""

from __future__ import annotations

import threading
import time

import pytest

from nasattn.store import Store, StudyRecord


@pytest.fixture
def study(store: Store) -> str:
    store.add_study(StudyRecord("s", {}, {}, 0))
    return "s"


def test_the_second_driver_is_told_who_has_it(store: Store, study: str) -> None:
    assert store.claim_study(study, "one", 60) is None
    other, left = store.claim_study(study, "two", 60) or ("", 0)
    assert other == "one" and 55 <= left <= 60
    assert store.claim_study(study, "one", 60) is None  # it may say that it lives
    store.release_study(study, "two")  # which never had it
    assert store.claim_study(study, "two", 60) is not None
    store.release_study(study, "one")
    assert store.claim_study(study, "two", 60) is None


def test_a_driver_that_is_silent_loses_it_to_the_next_one_only(store: Store, study: str) -> None:
    assert store.claim_study(study, "one", 1) is None
    time.sleep(2.1)
    assert store.claim_study(study, "one", 1) is None  # nobody took it
    time.sleep(2.1)
    assert store.claim_study(study, "two", 60) is None
    assert store.claim_study(study, "one", 60) is not None


def test_a_driver_that_is_gone_is_not_waited_for(store: Store, study: str) -> None:
    assert store.claim_study(study, "one", 60) is None
    assert store.claim_study(study, "two", 60, is_gone=lambda other: other == "one") is None
    assert (store.claim_study(study, "one", 60) or ("",))[0] == "two"


def test_of_many_at_once_one_gets_it(store: Store, study: str) -> None:
    got: list[str] = []
    names = [f"driver{i}" for i in range(8)]
    threads = [threading.Thread(target=lambda n=n: store.claim_study(study, n, 60) is None and got.append(n)) for n in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def test_another_study_is_free(store: Store, study: str) -> None:
    store.add_study(StudyRecord("t", {}, {}, 0))
    assert store.claim_study(study, "one", 60) is None
    assert store.claim_study("t", "two", 60) is None
