"""The Python API on a database of known content."""

from __future__ import annotations

from pathlib import Path

import pytest

import nasattn
from nasattn.api import SearchSettings
from nasattn.errors import StorageError, StudyError, UsageError
from nasattn.search.study import STUDY_KEYS, make_config
from nasattn.store import EvaluationRecord, LatencyRecord, Store, StudyRecord


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Three trials: the plain host, a good slow one, and one that is worse and slower."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    store = Store(url)
    config = make_config({"space": "resnet18_stages"})
    store.add_study(StudyRecord("s", config.to_dict(), {}, 0))
    rows = [("none,none,none,none", 0.5, 1.0), ("none,sge_g32,none,none", 0.9, 1.3), ("none,none,none,sge_g32", 0.48, 1.2)]
    for number, (placement, accuracy, ratio) in enumerate(rows):
        store.add_architecture(config.space.host, placement, 11_000_000 + number, 2_000_000_000)
        latency = store.add_latency("cpu", config.space.host, placement, LatencyRecord(10 * ratio, 10, ratio, ratio, ratio, 8, True, True))
        record = EvaluationRecord(number, placement, "RUNNING", 0, 11_000_000, 2_000_000_000, {}, placement)
        evaluation = store.start_evaluation("s", config.space.host, record, latency)
        store.finish_evaluation(evaluation, "COMPLETE", accuracy=accuracy, val_samples=2000)
    return url


def test_the_front_holds_the_non_dominated(url: str) -> None:
    members = nasattn.open_study("s", url).front()
    assert [(m.placement, m.accuracy) for m in members] == [("none,none,none,none", 0.5), ("none,sge_g32,none,none", 0.9)]


def test_best_within_a_limit(url: str) -> None:
    study = nasattn.open_study("s", url)
    assert study.best().placement == "none,sge_g32,none,none"
    assert study.best(max_latency="1.2x").placement == "none,none,none,none"
    assert study.best(max_latency="13ms").accuracy == 0.9
    with pytest.raises(StudyError, match="the fastest is none,none,none,none with 1.000x"):
        study.best(max_latency="5ms")
    with pytest.raises(UsageError, match="1.3x or a time"):
        study.best(max_latency="5")


def test_what_is_not_there(url: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no study 't'.*there are s"):
        nasattn.open_study("t", url)
    with pytest.raises(StorageError, match="no database"):
        nasattn.open_study("s", f"sqlite:///{tmp_path / 'absent.db'}")
    with pytest.raises(StudyError, match="no trial 9"):
        nasattn.open_study("s", url).trial(9)


def test_the_package_offers_what_it_promises() -> None:
    assert set(nasattn.__all__) <= set(dir(nasattn))
    assert all(getattr(nasattn, name) is not None for name in nasattn.__all__)
    assert callable(nasattn.search) and callable(nasattn.export)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        nasattn.nothing  # noqa: B018


def test_search_remains_a_function_once_its_submodules_are_imported() -> None:
    import nasattn.export
    import nasattn.search.driver

    assert callable(nasattn.search) and callable(nasattn.export)


def test_every_key_of_a_study_file_is_a_keyword() -> None:
    assert set(SearchSettings.__annotations__) == set(STUDY_KEYS) - {"space"}
