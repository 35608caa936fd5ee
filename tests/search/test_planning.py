"""What a dry run finds: choices that cannot be run, costs, hours and bytes; and that it leaves everything as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nasattn.errors import UsageError
from nasattn.latency import DeviceKey
from nasattn.report.plan import amount, describe_plan, duration
from nasattn.search import estimates
from nasattn.search.estimates import Range, past_seconds
from nasattn.search.planning import fitted, load_study_task, plan, task_lines
from nasattn.search.study import StudyConfig, make_config
from nasattn.store import EvaluationRecord, LatencyRecord, Store, StudyRecord
from nasattn.store.database import VERSION_TABLE
from tests.image_folders import fill_classes

FIDELITY = {"resolution": 16, "samples": 100, "val_samples": 50, "epochs": 1}


def configure(space: str, **settings: Any) -> StudyConfig:
    return make_config({"space": space, "task": "digits", "study": "s", "trials": 4, "workers": 2, "fidelity": FIDELITY, **settings})


@pytest.fixture(autouse=True)
def one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "ROUNDS", 1)
    monkeypatch.setattr(estimates, "STEPS", 2)


def test_a_plan(space_file: str, tmp_path: Path) -> None:
    seen: list[str] = []
    found = plan(configure(space_file), storage=f"sqlite:///{tmp_path / 'none.db'}", listener=lambda done, total, what: seen.append(what))
    assert found["space"] == {"name": "cheap", "host": "nasattn_resnet18", "placements": 24, "choices": [4, 3, 1, 2]}
    assert {token for placement in seen for token in placement.split(",")} == {"none", "se", "eca", "gc", "sge_g16", "sge_g32", "ela_t"}
    plain = found["params"]["plain"]
    assert plain == found["params"]["least"] == 11_689_512 < found["params"]["most"] < 1.1 * plain
    assert found["macs"]["least"] == found["macs"]["plain"] <= found["macs"]["most"]
    latency = found["latency"]
    assert latency["least"] == 1 <= latency["most"] and latency["plain_ms"] > 0
    assert (latency["choices"], latency["measured"], latency["estimated"]) == (6, 0, 6)
    time = found["time"]
    assert time["training_seconds"] > 0 and "a few steps of the plain proxy" in time["found_by"]
    assert time["hours"] == pytest.approx(4 * time["training_seconds"] / 3600 / 2 + time["measuring_hours"])
    assert found["disk"]["all"] == sum(value for name, value in found["disk"].items() if name != "all")
    assert not list(tmp_path.glob("*.db"))

    said = describe_plan(found)
    assert said["space"].startswith("cheap: 24 placements on nasattn_resnet18, every choice can be built and was run")
    assert "0 of 6 choices as measured before, 6 estimated by a few forward passes in pairs; the search measures" in said["latency"][1]
    assert "4 trainings on 2 workers" in said["time"][0]
    elsewhere = describe_plan({**found, "workers": None, "time": {**time, "hours": None}})
    assert "on all workers together" in elsewhere["time"][0] and elsewhere["workers"] == "as many as the cluster has room for"


def test_what_the_database_knows_comes_first(space_file: str, tmp_path: Path) -> None:
    """Its latencies and the seconds of trainings of the same fidelity; and not a byte of it changes."""
    config, url = configure(space_file), f"sqlite:///{tmp_path / 'studies.db'}"
    store = Store(url)
    key = str(DeviceKey.here(config.deployment.at(224)))
    measured = LatencyRecord(ms=10, baseline_ms=50, ratio=0.25, ratio_low=0.24, ratio_high=0.26, pairs=9, settled=True, exclusive=True)
    for stage in (1, 2, 4):
        store.add_entry(key, "nasattn_resnet18", stage, "none", measured)
    for stage, token in ((1, "se"), (1, "eca"), (1, "gc"), (2, "sge_g16"), (2, "sge_g32"), (4, "ela_t")):
        store.add_entry(key, "nasattn_resnet18", stage, token, replace(measured, ratio=1.4 if token == "gc" else 1.2))
    fidelity = replace(config.fidelity, samples=100, val_samples=50)
    store.add_study(StudyRecord("old", replace(config, name="old", fidelity=fidelity).to_dict(), {}, 0))
    for number, seconds in enumerate((30.0, 50.0)):
        record = EvaluationRecord(number, f"none,none,none,{('none', 'ela_t')[number]}", "COMPLETE", 0, 1, 1, FIDELITY, str(number))
        store.finish_evaluation(store.start_evaluation("old", "nasattn_resnet18", record, None), "COMPLETE", seconds=seconds)
    store.engine.dispose()
    before = (tmp_path / "studies.db").read_bytes()

    found = plan(config, storage=url)
    assert found["latency"]["most"] == pytest.approx(1 + 0.25 * (0.4 + 0.2 + 0.2)) and found["latency"]["plain_ms"] == 50
    assert (found["latency"]["measured"], found["latency"]["estimated_by"]) == (6, None)
    assert found["time"]["training_seconds"] == 40 and found["time"]["found_by"] == "2 trainings of this fidelity in the database"
    assert (tmp_path / "studies.db").read_bytes() == before
    assert past_seconds(configure(space_file, seed=1), store) == [30, 50]
    assert past_seconds(configure(space_file, fidelity={**FIDELITY, "epochs": 2}), store) == []


def test_a_database_of_an_earlier_schema_is_not_migrated(space_file: str, tmp_path: Path) -> None:
    import sqlite3

    file = tmp_path / "old.db"
    Store(f"sqlite:///{file}").engine.dispose()
    with sqlite3.connect(file) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '0001'")
    connection.close()
    before = file.read_bytes()
    assert plan(configure(space_file), storage=f"sqlite:///{file}")["latency"]["measured"] == 0
    assert file.read_bytes() == before


def test_a_choice_that_cannot_be_run_is_named(broken_attention: str, tmp_path: Path) -> None:
    """On the meta device it is built without a complaint."""
    file = tmp_path / "cheap.yaml"
    file.write_text("host: nasattn_resnet18\nstages:\n  all: {none: , eca: }\n  3: {none: , broken: }\n")
    with pytest.raises(
        UsageError, match=r"stages: broken in stage 3 cannot be built or run on nasattn_resnet18: no kernel for this$"
    ) as caught:
        plan(configure(str(file)))
    assert "\n" not in str(caught.value)


def test_few_images_are_trained_on_more_often(space_file: str, tmp_path: Path) -> None:
    """As often as the fidelity meant in all, ten times its epochs at most, and only where nobody said how often."""
    folder = str(fill_classes(tmp_path / "photos", cat=100, dog=100))
    asked = {"resolution": 16, "samples": 300}
    config = configure(space_file, task=folder, fidelity=asked, trials=1)
    task = load_study_task(config)
    images = len(task.train)
    found = fitted(config, task)
    assert (found.fidelity.samples, found.fidelity.epochs) == (images, round(3 * 300 / images))
    lines = task_lines(config.fidelity, found, task)
    assert lines[0].startswith("images of photos: 2 classes, ") and "15 % of each class validate" in lines[0]
    assert (
        lines[1]
        == f"fewer images than the 300 that the fidelity asks for: all are trained on, in {found.fidelity.epochs} epochs instead of 3"
    )
    assert fitted(found, task) == found
    many = configure(space_file, task=folder, fidelity={**asked, "samples": 100_000})
    assert fitted(many, task).fidelity.epochs == 30
    said = configure(space_file, task=folder, fidelity={**asked, "epochs": 2})
    assert fitted(said, task).fidelity.epochs == 2
    some = configure(space_file, task=folder, fidelity={**asked, "samples": 50})
    taken = load_study_task(some)
    assert task_lines(some.fidelity, fitted(some, taken), taken)[1] == "of these the fidelity takes 50 to train on"


def test_test_images_are_read_before_a_search_that_will_need_them(space_file: str, tmp_path: Path) -> None:
    folder = fill_classes(tmp_path / "photos", cat=20, dog=20)
    for file in folder.rglob("*.png"):
        (tmp_path / "photos/test" / file.parent.name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos/train" / file.parent.name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos/test" / file.parent.name / file.name).write_bytes(b"" if file.stem < "2" else file.read_bytes())
        file.rename(tmp_path / "photos/train" / file.parent.name / file.name)
    few = configure(space_file, task=str(tmp_path / "photos"), trials=4)
    assert not load_study_task(few).skipped
    with pytest.raises(UsageError, match="photos/test/.* cannot be decoded"):
        load_study_task(configure(space_file, task=str(tmp_path / "photos"), trials=20))


def test_figures_in_words() -> None:
    assert [amount(v) for v in (25_557_032, 4.09e9, 392_000, 12)] == ["25.6M", "4.09G", "392k", "12"]
    assert [duration(h) for h in (0.01, 0.15, 3.21, 50)] == ["36 s", "9 min", "3.2 h", "2.1 days"]
    assert Range.of(10, [[0, 1, 5], [2, 3]]) == Range(10, 12, 18)
